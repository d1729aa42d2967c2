//! `process.Process`: processes with their output, input and terminals (`PROTOCOLS` D.5).

pub mod exit;
pub mod hub;
mod messages;
mod pump;
mod service;
pub mod spawn;
pub mod table;

pub use service::ProcessService;
