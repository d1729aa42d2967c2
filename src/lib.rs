//! The gateway.

pub mod config;
pub mod lifecycle;
pub mod telemetry;
