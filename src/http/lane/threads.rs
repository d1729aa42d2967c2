//! Threads for connections that poll: each with a runtime of its own, that nobody else is woken for. What is asked for and
//! answered there meets no other thread on its way (docs/PERFORMANCE.md).

use std::{
    io,
    sync::{
        OnceLock,
        atomic::{AtomicUsize, Ordering},
    },
    thread,
};

use tokio::runtime::{Builder, Handle};
use tokio_util::task::TaskTracker;

use crate::lifecycle::Lifecycle;

/// As many as there are processors, started when the first is asked for. They end after the drain, with what they were given.
pub struct Threads {
    lifecycle: Lifecycle,
    started: OnceLock<Vec<Handle>>,
    next: AtomicUsize,
    /// What they were given.
    given: TaskTracker,
}

impl Threads {
    #[must_use]
    pub fn new(lifecycle: &Lifecycle) -> Self {
        Self {
            lifecycle: lifecycle.clone(),
            started: OnceLock::new(),
            next: AtomicUsize::default(),
            given: TaskTracker::new(),
        }
    }

    /// One of them; each gets its turn. `None` when there are none.
    pub fn next(&self) -> Option<&Handle> {
        let threads = self.started.get_or_init(|| self.start());
        threads.get(self.next.fetch_add(1, Ordering::Relaxed) % threads.len().max(1))
    }

    /// Has `work` done on one of them; `None` when it broke off.
    pub async fn run<F>(&self, thread: &Handle, name: &'static str, work: F) -> Option<F::Output>
    where
        F: Future + Send + 'static,
        F::Output: Send + 'static,
    {
        // A panic was told of where it happened.
        self.lifecycle.spawn_on(name, self.given.track_future(work), thread).await.ok()
    }

    fn start(&self) -> Vec<Handle> {
        let count = thread::available_parallelism().map_or(1, usize::from);
        let started: io::Result<Vec<Handle>> = (0..count).map(|number| self.start_one(number)).collect();
        started.unwrap_or_else(|error| {
            tracing::error!(%error, "no threads could be started for connections that poll");
            Vec::new()
        })
    }

    fn start_one(&self, number: usize) -> io::Result<Handle> {
        let runtime = Builder::new_current_thread().enable_all().build()?;
        let handle = runtime.handle().clone();
        let (draining, given) = (self.lifecycle.draining(), self.given.clone());
        let ended = async move {
            draining.cancelled().await;
            given.close();
            given.wait().await;
        };
        thread::Builder::new().name(format!("lane-{number}")).spawn(move || runtime.block_on(ended))?;
        Ok(handle)
    }
}
