//! Logs, metrics, and what never appears in them.

mod json;
pub mod logs;
pub mod metrics;
pub mod redact;
