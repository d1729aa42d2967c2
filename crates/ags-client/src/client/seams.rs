//! What a client takes from outside: the time and chance. Tests pass their own.

use std::sync::Arc;

use chrono::{DateTime, Utc};

/// Tells the time that requests are signed with.
pub type Clock = Arc<dyn Fn() -> DateTime<Utc> + Send + Sync>;

/// Draws evenly from `[0, 1)`, for the jitter of waits.
pub type Jitter = Arc<dyn Fn() -> f64 + Send + Sync>;

/// The system's clock, the default. The only place of this crate that reads it.
#[expect(clippy::disallowed_methods, reason = "the default of a clock that is passed in")]
pub fn system_clock() -> Clock {
    Arc::new(Utc::now)
}

/// The system's randomness, the default.
pub fn system_jitter() -> Jitter {
    Arc::new(rand::random::<f64>)
}
