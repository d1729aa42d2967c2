//! How the process ends: a signal starts the drain, tasks finish, and a deadline cuts what does not.

use std::{
    collections::BTreeMap,
    future::Future,
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};

use tokio::{
    runtime::Handle,
    signal::unix::{SignalKind, signal},
    task::JoinHandle,
};
use tokio_util::{sync::CancellationToken, task::TaskTracker};
use tracing::Instrument;

/// For tasks that end after all others.
const LAST_PATIENCE: Duration = Duration::from_secs(10);

/// The tasks of this process and the order to end them. Clones share both.
#[derive(Clone, Debug, Default)]
pub struct Lifecycle {
    drain: CancellationToken,
    tasks: TaskTracker,
    /// All else has ended.
    closing: CancellationToken,
    last: TaskTracker,
    running: Arc<Mutex<BTreeMap<&'static str, usize>>>,
}

/// The deadline passed and these tasks were still running.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("cut at the drain deadline: {}", describe(.0))]
pub struct Cut(pub BTreeMap<&'static str, usize>);

fn describe(running: &BTreeMap<&'static str, usize>) -> String {
    running.iter().map(|(name, count)| format!("{name} ({count})")).collect::<Vec<_>>().join(", ")
}

impl Lifecycle {
    /// Starts a task that the end of the process waits for. The only place that does.
    pub fn spawn<F>(&self, name: &'static str, future: F) -> JoinHandle<F::Output>
    where
        F: Future + Send + 'static,
        F::Output: Send + 'static,
    {
        self.tasks.spawn(self.counted(name, future))
    }

    /// As [`spawn`](Self::spawn), in another runtime.
    pub fn spawn_on<F>(&self, name: &'static str, future: F, runtime: &Handle) -> JoinHandle<F::Output>
    where
        F: Future + Send + 'static,
        F::Output: Send + 'static,
    {
        self.tasks.spawn_on(self.counted(name, future), runtime)
    }

    fn counted<F: Future>(&self, name: &'static str, future: F) -> impl Future<Output = F::Output> + use<F> {
        let counted = Counted::new(Arc::clone(&self.running), name);
        let task = async move {
            let _counted = counted;
            future.await
        };
        task.instrument(tracing::debug_span!("task", task = name))
    }

    /// Starts a task that works for all others and ends after them, soon after [`closing`](Self::closing).
    pub fn spawn_last<F>(&self, name: &'static str, future: F)
    where
        F: Future<Output = ()> + Send + 'static,
    {
        self.last.spawn(future.instrument(tracing::debug_span!("task", task = name)));
    }

    /// Cancelled when all other tasks have ended, or were cut.
    #[must_use]
    pub fn closing(&self) -> CancellationToken {
        self.closing.clone()
    }

    /// Whether the process is about to end: take no new work.
    #[must_use]
    pub fn is_draining(&self) -> bool {
        self.drain.is_cancelled()
    }

    /// Cancelled when the drain begins. Long-lived work ends itself in good order then.
    #[must_use]
    pub fn draining(&self) -> CancellationToken {
        self.drain.clone()
    }

    /// Begins the drain.
    pub fn drain(&self) {
        self.drain.cancel();
    }

    /// Waits until the drain has begun and every task has ended.
    ///
    /// # Errors
    /// [`Cut`] when tasks still run `deadline` after the drain began; the caller exits regardless.
    pub async fn ended(&self, deadline: Duration) -> Result<(), Cut> {
        self.drain.cancelled().await;
        self.tasks.close();
        let ended = tokio::time::timeout(deadline, self.tasks.wait()).await;
        self.closing.cancel();
        self.last.close();
        // Whatever it does then, the process ends.
        drop(tokio::time::timeout(LAST_PATIENCE, self.last.wait()).await);
        match ended {
            Ok(()) => Ok(()),
            Err(_) => Err(Cut(self.running.lock().unwrap_or_else(PoisonError::into_inner).clone())),
        }
    }

    /// Begins the drain at SIGINT or SIGTERM; a second signal ends the process at once.
    ///
    /// # Errors
    /// When the handlers cannot be installed.
    pub fn drain_on_signal(&self) -> std::io::Result<()> {
        let mut signals = Signals::install()?;
        let lifecycle = self.clone();
        // Not on the tracker: it waits for a second signal for as long as the process lives.
        #[expect(clippy::disallowed_methods, reason = "the drain must not wait for the task that starts it")]
        tokio::spawn(async move {
            let name = signals.next().await;
            tracing::info!(signal = name, "draining");
            lifecycle.drain();
            let name = signals.next().await;
            tracing::warn!(signal = name, "second signal: exiting without drain");
            std::process::exit(1);
        });
        Ok(())
    }
}

/// SIGINT and SIGTERM as a stream.
pub struct Signals {
    interrupt: tokio::signal::unix::Signal,
    terminate: tokio::signal::unix::Signal,
}

impl Signals {
    /// # Errors
    /// When the handlers cannot be installed.
    pub fn install() -> std::io::Result<Self> {
        Ok(Self { interrupt: signal(SignalKind::interrupt())?, terminate: signal(SignalKind::terminate())? })
    }

    /// The name of the next signal.
    pub async fn next(&mut self) -> &'static str {
        tokio::select! {
            _ = self.interrupt.recv() => "SIGINT",
            _ = self.terminate.recv() => "SIGTERM",
        }
    }
}

struct Counted {
    running: Arc<Mutex<BTreeMap<&'static str, usize>>>,
    name: &'static str,
}

impl Counted {
    fn new(running: Arc<Mutex<BTreeMap<&'static str, usize>>>, name: &'static str) -> Self {
        *running.lock().unwrap_or_else(PoisonError::into_inner).entry(name).or_default() += 1;
        Self { running, name }
    }
}

impl Drop for Counted {
    fn drop(&mut self) {
        let mut running = self.running.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(count) = running.get_mut(self.name) {
            *count -= 1;
            if *count == 0 {
                running.remove(self.name);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test(start_paused = true)]
    async fn the_end_waits_for_tasks_that_end_themselves() {
        let lifecycle = Lifecycle::default();
        let draining = lifecycle.draining();
        let task = lifecycle.spawn("stream", async move {
            draining.cancelled().await;
            tokio::time::sleep(Duration::from_secs(3)).await;
            "closed"
        });
        assert!(!lifecycle.is_draining());
        lifecycle.drain();
        assert!(lifecycle.is_draining());
        assert_eq!(lifecycle.ended(Duration::from_secs(30)).await, Ok(()));
        assert_eq!(task.await.unwrap(), "closed");
    }

    #[tokio::test(start_paused = true)]
    async fn the_deadline_names_what_it_cuts() {
        let lifecycle = Lifecycle::default();
        lifecycle.spawn("stream", std::future::pending::<()>());
        lifecycle.spawn("stream", std::future::pending::<()>());
        lifecycle.spawn("request", async {});
        lifecycle.drain();
        let cut = lifecycle.ended(Duration::from_secs(30)).await.unwrap_err();
        assert_eq!(cut.to_string(), "cut at the drain deadline: stream (2)");
    }
}
