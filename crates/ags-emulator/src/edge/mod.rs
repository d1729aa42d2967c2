//! The data plane's front door: from a host name to a port inside an instance, without buffering.

pub mod access;
pub mod dial;
mod expect;
pub mod proxy;
pub mod route;
