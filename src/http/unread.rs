//! A limit on how long a caller may leave an answer unread: whatever feeds it is let go then.
//!
//! A body is asked for more only while its reader takes it, so that the body itself cannot tell that nobody does. A task
//! beside it looks.

use std::{
    fmt,
    pin::Pin,
    sync::{
        Arc, Mutex, PoisonError,
        atomic::{AtomicU8, Ordering},
    },
    task::{Context, Poll},
    time::Duration,
};

use futures_util::{Stream, StreamExt, stream::BoxStream};
use tokio_util::sync::{CancellationToken, DropGuard};

use crate::lifecycle::Lifecycle;

/// The reader has something that it does not take.
const UNREAD: u8 = 0;
/// The reader waits for the source.
const WAITING: u8 = 1;
/// Something was taken since it was last looked.
const MOVED: u8 = 2;

/// The stream was let go because nobody read it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("the answer was left unread for too long")]
pub struct LeftUnread;

struct Shared<T> {
    source: Mutex<Option<BoxStream<'static, T>>>,
    state: AtomicU8,
}

impl<T> Shared<T> {
    fn source(&self) -> std::sync::MutexGuard<'_, Option<BoxStream<'static, T>>> {
        self.source.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// A stream that ends with [`LeftUnread`] once it was not read for the limit, or up to twice as long.
pub struct Bounded<T> {
    shared: Arc<Shared<T>>,
    _ended: DropGuard,
}

impl<T: Send + 'static> Bounded<T> {
    #[must_use]
    pub fn new(source: BoxStream<'static, T>, limit: Duration, lifecycle: &Lifecycle) -> Self {
        let shared = Arc::new(Shared { source: Mutex::new(Some(source)), state: AtomicU8::new(MOVED) });
        let ended = CancellationToken::new();
        lifecycle.spawn("unread", watch(Arc::clone(&shared), limit, ended.clone()));
        Self { shared, _ended: ended.drop_guard() }
    }
}

async fn watch<T: Send + 'static>(shared: Arc<Shared<T>>, limit: Duration, ended: CancellationToken) {
    while ended.run_until_cancelled(tokio::time::sleep(limit)).await.is_some() {
        let unread = shared.state.compare_exchange(MOVED, UNREAD, Ordering::AcqRel, Ordering::Acquire) == Err(UNREAD);
        if unread {
            tracing::info!("an answer was left unread, its source is let go");
            shared.source().take();
            return;
        }
    }
}

impl<T, E> Stream for Bounded<Result<T, E>>
where
    E: Into<Box<dyn std::error::Error + Send + Sync>>,
{
    type Item = Result<T, Box<dyn std::error::Error + Send + Sync>>;

    fn poll_next(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Self::Item>> {
        let mut source = self.shared.source();
        let Some(stream) = source.as_mut() else {
            return Poll::Ready(Some(Err(LeftUnread.into())));
        };
        let polled = stream.poll_next_unpin(cx);
        let state = if polled.is_ready() { MOVED } else { WAITING };
        self.shared.state.store(state, Ordering::Release);
        polled.map(|item| item.map(|item| item.map_err(Into::into)))
    }
}

impl<T> fmt::Debug for Bounded<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Bounded").finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use futures_util::{FutureExt, stream};
    use std::convert::Infallible;

    const LIMIT: Duration = Duration::from_secs(60);

    fn endless() -> Bounded<Result<u8, Infallible>> {
        Bounded::new(stream::repeat(Ok(1)).boxed(), LIMIT, &Lifecycle::default())
    }

    #[tokio::test(start_paused = true)]
    async fn what_is_left_unread_is_let_go() {
        let mut bounded = endless();
        assert_eq!(bounded.next().await.unwrap().unwrap(), 1);
        tokio::time::sleep(LIMIT * 2 + Duration::from_secs(1)).await;
        assert!(bounded.shared.source().is_none(), "the source is gone although nobody asked");
        assert!(bounded.next().await.unwrap().unwrap_err().is::<LeftUnread>());
    }

    #[tokio::test(start_paused = true)]
    async fn a_slow_reader_is_not_cut() {
        let mut bounded = endless();
        for _ in 0..20 {
            tokio::time::sleep(LIMIT - Duration::from_secs(1)).await;
            assert_eq!(bounded.next().await.unwrap().unwrap(), 1);
        }
    }

    #[tokio::test(start_paused = true)]
    async fn a_source_that_is_silent_is_not_the_readers_fault() {
        let mut bounded: Bounded<Result<u8, Infallible>> =
            Bounded::new(stream::pending().boxed(), LIMIT, &Lifecycle::default());
        assert!(bounded.next().now_or_never().is_none());
        tokio::time::sleep(LIMIT * 5).await;
        assert!(bounded.shared.source().is_some());
    }

    #[tokio::test(start_paused = true)]
    async fn the_watch_ends_with_the_stream() {
        let lifecycle = Lifecycle::default();
        let bounded: Bounded<Result<u8, Infallible>> = Bounded::new(stream::pending().boxed(), LIMIT, &lifecycle);
        drop(bounded);
        lifecycle.drain();
        assert_eq!(lifecycle.ended(Duration::from_secs(1)).await, Ok(()));
    }
}
