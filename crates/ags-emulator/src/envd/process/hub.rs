//! Distribution of one process's events to everyone who follows it.
//!
//! As in envd, the slowest follower sets the pace: an event is handed to all before the next one is taken, so a
//! process blocks once the follower's queue and the pipe are full. Memory stays bounded by the queues.

use std::sync::{Mutex, MutexGuard, PoisonError};

use bytes::Bytes;
use tokio::sync::{Notify, mpsc};
use tokio_util::sync::CancellationToken;

use super::exit::Exit;

/// Events that one follower may lag behind; of output at most 32 KiB each.
const QUEUE: usize = 16;

/// A piece of output.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Output {
    Stdout(Bytes),
    Stderr(Bytes),
    Pty(Bytes),
}

/// What followers see.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Event {
    Output(Output),
    End(Exit),
}

/// The followers of one process.
pub struct Hub {
    followers: Mutex<Vec<mpsc::Sender<Event>>>,
    joined: Notify,
    discard_unheard: bool,
    over: CancellationToken,
}

impl Hub {
    /// Without followers, output is thrown away or waits for one (`Features::discard_unheard_output`).
    #[must_use]
    pub fn new(discard_unheard: bool) -> Self {
        Self { followers: Mutex::default(), joined: Notify::new(), discard_unheard, over: CancellationToken::new() }
    }

    /// Everything published from now on.
    pub fn follow(&self) -> mpsc::Receiver<Event> {
        let (sender, receiver) = mpsc::channel(QUEUE);
        self.lock().push(sender);
        self.joined.notify_waiters();
        receiver
    }

    /// Hands a piece of output to every follower; waits while one of them lags behind.
    pub async fn publish(&self, output: Output) {
        let Some(followers) = self.followers().await else {
            return;
        };
        for follower in &followers {
            // One that has left is removed below.
            let _left = follower.send(Event::Output(output.clone())).await;
        }
        self.lock().retain(|follower| !follower.is_closed());
    }

    /// The process itself has ended: what nobody hears does not have to wait any more.
    pub fn process_ended(&self) {
        self.over.cancel();
    }

    /// Tells everyone the end; the queues close behind it. A slow follower does not hold up another.
    pub async fn finish(&self, exit: Exit) {
        self.over.cancel();
        let followers = std::mem::take(&mut *self.lock());
        let told = followers.iter().map(|follower| follower.send(Event::End(exit.clone())));
        futures_util::future::join_all(told).await;
    }

    /// The followers; waits for one where unheard output is kept. `None`: throw it away.
    async fn followers(&self) -> Option<Vec<mpsc::Sender<Event>>> {
        loop {
            let joined = self.joined.notified();
            let followers = self.lock().clone();
            if !followers.is_empty() {
                return Some(followers);
            }
            if self.discard_unheard {
                return None;
            }
            tokio::select! {
                () = joined => {}
                () = self.over.cancelled() => return None,
            }
        }
    }

    fn lock(&self) -> MutexGuard<'_, Vec<mpsc::Sender<Event>>> {
        self.followers.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use futures_util::FutureExt as _;

    use super::*;

    fn output(text: &'static str) -> Output {
        Output::Stdout(Bytes::from_static(text.as_bytes()))
    }

    #[tokio::test]
    async fn every_follower_gets_everything_from_when_it_joined() {
        let hub = Hub::new(false);
        let mut first = hub.follow();
        hub.publish(output("a")).await;
        let mut second = hub.follow();
        hub.publish(output("b")).await;
        hub.finish(Exit::code(0)).await;
        let mut seen = (Vec::new(), Vec::new());
        while let Some(event) = first.recv().await {
            seen.0.push(event);
        }
        while let Some(event) = second.recv().await {
            seen.1.push(event);
        }
        let end = Event::End(Exit::code(0));
        assert_eq!(seen.0, [Event::Output(output("a")), Event::Output(output("b")), end.clone()]);
        assert_eq!(seen.1, [Event::Output(output("b")), end]);
    }

    #[tokio::test]
    async fn a_slow_follower_blocks_until_it_leaves() {
        let hub = Hub::new(false);
        let slow = hub.follow();
        let mut other = hub.follow();
        for _ in 0..QUEUE {
            hub.publish(output("x")).await;
            other.recv().await;
        }
        let mut blocked = Box::pin(hub.publish(output("y")));
        assert!(blocked.as_mut().now_or_never().is_none());
        drop(slow);
        blocked.await;
        assert_eq!(other.recv().await, Some(Event::Output(output("y"))));
    }

    #[tokio::test]
    async fn unheard_output_is_kept_or_thrown_away_by_version() {
        let discarding = Hub::new(true);
        discarding.publish(output("lost")).await;
        let keeping = Arc::new(Hub::new(false));
        let mut publishing = Box::pin(keeping.publish(output("kept")));
        assert!(publishing.as_mut().now_or_never().is_none());
        let mut follower = keeping.follow();
        publishing.await;
        assert_eq!(follower.recv().await, Some(Event::Output(output("kept"))));
        drop(follower);
        keeping.publish(output("noticed that it left")).await;
        let mut publishing = Box::pin(keeping.publish(output("nobody")));
        assert!(publishing.as_mut().now_or_never().is_none());
        keeping.process_ended();
        publishing.await;
    }
}
