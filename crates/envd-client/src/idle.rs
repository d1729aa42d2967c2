//! Patience: a limit on standing still, never on the whole.

use std::future::Future;
use std::pin::Pin;
use std::sync::{Arc, Mutex, PoisonError};
use std::task::{Context, Poll};
use std::time::Duration;

use http_body::{Frame, SizeHint};
use tokio::time::Instant;

use crate::error::{EnvdError, EnvdErrorKind};
use crate::transport::Body;

fn silent(limit: Duration) -> EnvdError {
    EnvdError::local(EnvdErrorKind::Unavailable, format!("nothing heard for {} s", limit.as_secs_f32()))
        .with_unknown_outcome()
}

/// Waits for `step`, at most `limit`. The clock runs only while somebody waits, so a reader that
/// takes its time is not mistaken for a silent server.
pub(crate) async fn within<T>(limit: Option<Duration>, step: impl Future<Output = T>) -> Result<T, EnvdError> {
    let Some(limit) = limit else {
        return Ok(step.await);
    };
    tokio::time::timeout(limit, step).await.map_err(|_| silent(limit))
}

/// When something was last sent.
#[derive(Clone)]
pub(crate) struct Progress(Arc<Mutex<Instant>>);

impl Progress {
    pub(crate) fn new() -> Self {
        Self(Arc::new(Mutex::new(Instant::now())))
    }

    fn last(&self) -> Instant {
        *self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn note(&self) {
        *self.0.lock().unwrap_or_else(PoisonError::into_inner) = Instant::now();
    }

    /// Waits for `answer` as long as the body wrapped by [`watch`](Self::watch) moves.
    pub(crate) async fn within<T>(
        &self,
        limit: Option<Duration>,
        answer: impl Future<Output = T>,
    ) -> Result<T, EnvdError> {
        let Some(limit) = limit else {
            return Ok(answer.await);
        };
        let mut answer = std::pin::pin!(answer);
        loop {
            let until = self.last() + limit;
            match tokio::time::timeout_at(until, answer.as_mut()).await {
                Ok(answer) => return Ok(answer),
                Err(_) if self.last() + limit > until => {}
                Err(_) => return Err(silent(limit)),
            }
        }
    }

    pub(crate) fn watch(&self, body: Body) -> Watched {
        Watched { body, progress: self.clone() }
    }
}

/// A request body that notes each frame it hands out.
pub(crate) struct Watched {
    body: Body,
    progress: Progress,
}

impl http_body::Body for Watched {
    type Data = bytes::Bytes;
    type Error = crate::transport::BoxError;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Self::Data>, Self::Error>>> {
        let polled = Pin::new(&mut self.body).poll_frame(cx);
        if polled.is_ready() {
            self.progress.note();
        }
        polled
    }

    fn is_end_stream(&self) -> bool {
        self.body.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.body.size_hint()
    }
}
