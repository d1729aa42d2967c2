//! Logs, metrics, and what never appears in them.

pub mod logs;
pub mod metrics;
pub mod redact;
