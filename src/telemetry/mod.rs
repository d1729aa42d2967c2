//! Logs, metrics, and what never appears in them.

mod human;
mod json;
pub mod logs;
pub mod metrics;
pub mod redact;
pub mod request;
mod sink;
