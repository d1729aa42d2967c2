//! Waiting for what was started, as long as the caller likes, without ending it when the caller hangs up.

use std::time::Duration;

use tokio::task::JoinHandle;

use super::App;
use crate::{
    domain::duration::Seconds,
    error::{Error, Result},
    upstream::seen,
};

/// How long a call waits: what the caller asked for, else the default.
///
/// # Errors
/// `validation_failed` for more than the configuration allows.
pub fn patience(asked: Option<Seconds>, default: Duration, max: Duration) -> Result<Duration> {
    match asked.map(Seconds::to_std) {
        None => Ok(default.min(max)),
        Some(asked) if asked <= max => Ok(asked),
        Some(_) => Err(Error::field("wait", format!("may be {} s at most", max.as_secs()))),
    }
}

/// Runs `work` to its end whoever hangs up, and waits for it.
///
/// # Errors
/// What `work` fails with; an internal error when it panicked.
pub async fn detached<T: Send + 'static>(
    app: &App,
    name: &'static str,
    work: impl Future<Output = Result<T>> + Send + 'static,
) -> Result<T> {
    joined(app.lifecycle.spawn(name, seen::carried(work))).await
}

/// The outcome of work that was started, if it comes within `patience`; the work goes on regardless.
///
/// # Errors
/// What the work fails with.
pub async fn within<T>(work: JoinHandle<Result<T>>, patience: Duration) -> Result<Option<T>> {
    match tokio::time::timeout(patience, joined(work)).await {
        Ok(outcome) => outcome.map(Some),
        Err(_) => Ok(None),
    }
}

async fn joined<T>(work: JoinHandle<Result<T>>) -> Result<T> {
    work.await.unwrap_or_else(|lost| Err(Error::internal(lost)))
}
