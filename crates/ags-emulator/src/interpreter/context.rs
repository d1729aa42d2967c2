//! A context: a kernel with its state, in which one cell runs at a time.

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::sync::{Arc, Mutex as StdMutex, PoisonError};
use std::time::Duration;

use bytes::Bytes;
use serde::Serialize;
use tokio::sync::{Mutex, MutexGuard, mpsc};
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

use super::kernel::{Cell, Kernel, Step};
use super::wire::Event;
use crate::envd::{Daemon, User};

/// Between one interrupt and the next: the first may come before the kernel has begun with the cell.
const INTERRUPT_AGAIN: Duration = Duration::from_millis(500);
/// A kernel that goes on for this long is killed; its state is lost.
const INTERRUPT_LIMIT: Duration = Duration::from_secs(10);

/// What a context is shown as.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Description {
    pub id: String,
    pub language: String,
    pub cwd: String,
}

/// What is to be run, and for whom. Not `Debug`: the environment may hold secrets.
pub struct Run {
    pub code: String,
    pub env_vars: BTreeMap<String, String>,
    /// The variables of the sandbox that the caller's token opens.
    pub envs: BTreeMap<String, String>,
}

/// A context.
pub struct Context {
    pub description: Description,
    cwd: PathBuf,
    user: User,
    daemon: Arc<Daemon>,
    slot: Mutex<Slot>,
    /// Cancelled when the kernel is taken away from the cell that runs; replaced when there is a new one.
    away: StdMutex<CancellationToken>,
}

#[derive(Default)]
struct Slot {
    kernel: Option<Kernel>,
    executions: u64,
    /// What variables have outside of a cell. `None` until the first.
    globals: Option<BTreeMap<String, String>>,
}

impl Context {
    /// Without a kernel yet.
    pub fn new(daemon: Arc<Daemon>, description: Description, user: User, cwd: PathBuf) -> Self {
        let away = StdMutex::new(CancellationToken::new());
        Self { description, cwd, user, daemon, slot: Mutex::default(), away }
    }

    /// Starts its kernel, unless it has one.
    ///
    /// # Errors
    /// Why there is none, for the caller to read.
    pub async fn prepare(&self) -> Result<(), String> {
        match self.slot.try_lock() {
            Ok(mut slot) => self.fill(&mut slot).await,
            // A cell runs.
            Err(_) => Ok(()),
        }
    }

    /// A fresh kernel in place of the present one; what runs there is broken off.
    ///
    /// # Errors
    /// Why there is none, for the caller to read.
    pub async fn restart(&self) -> Result<(), String> {
        self.away().cancel();
        let mut slot = self.slot.lock().await;
        *slot = Slot::default();
        *self.away.lock().unwrap_or_else(PoisonError::into_inner) = CancellationToken::new();
        self.fill(&mut slot).await
    }

    /// Breaks off what runs and ends the kernel.
    pub async fn end(&self) {
        self.away().cancel();
        *self.slot.lock().await = Slot::default();
    }

    fn away(&self) -> CancellationToken {
        self.away.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    async fn fill(&self, slot: &mut Slot) -> Result<(), String> {
        if slot.kernel.is_none() {
            let kernel = Kernel::start(&self.daemon, &self.description.language, &self.user, &self.cwd).await?;
            *slot = Slot { kernel: Some(kernel), ..Slot::default() };
        }
        Ok(())
    }

    /// Runs a cell once the ones before it have ended. When nobody takes the lines any more, it is interrupted.
    pub async fn execute(&self, run: Run, lines: mpsc::Sender<Bytes>) {
        let slot = tokio::select! {
            slot = self.slot.lock() => slot,
            () = lines.closed() => return,
        };
        let out = Out(lines);
        if let Err(trouble) = self.execute_in(slot, run, &out).await {
            out.send(trouble).await;
        }
        out.send(Event::EndOfExecution).await;
    }

    /// The error is what broke it off.
    async fn execute_in(&self, mut slot: MutexGuard<'_, Slot>, run: Run, out: &Out) -> Result<(), Event> {
        let dead = |text: &str| Event::trouble("UnexpectedEndOfExecution", text);
        self.fill(&mut slot).await.map_err(|error| dead(&error))?;
        let cell = slot.cell(&run, self.daemon.base_environment(&self.user));
        slot.executions += 1;
        let executions = slot.executions;
        let kernel = slot.kernel.as_mut().ok_or_else(|| dead("there is no kernel"))?;
        let away = self.away();
        let steps = follow(kernel, &cell, executions, out);
        let alive = tokio::select! {
            biased;
            () = away.cancelled() => {
                slot.kernel = None;
                return Err(Event::trouble("ContextRestarting", "Context was restarted"));
            }
            alive = steps => alive,
        };
        if alive {
            return Ok(());
        }
        slot.kernel = None;
        Err(dead("The kernel ended while it ran the code. Its state is lost."))
    }
}

impl Slot {
    /// The sandbox's variables are set with the first cell, and stay.
    fn cell<'a>(&mut self, run: &'a Run, base: BTreeMap<String, String>) -> Cell<'a> {
        let first = self.globals.is_none();
        let globals = self.globals.get_or_insert_with(|| base.into_iter().chain(run.envs.clone()).collect());
        let mut env = if first { run.envs.clone() } else { BTreeMap::new() };
        env.extend(run.env_vars.clone());
        let restore = run.env_vars.keys().map(|name| (name.clone(), globals.get(name).cloned())).collect();
        Cell { code: &run.code, env, restore }
    }
}

/// Tells what a cell does until it has ended; false: the kernel has.
async fn follow(kernel: &mut Kernel, cell: &Cell<'_>, executions: u64, out: &Out) -> bool {
    kernel.begin(cell).await;
    out.send(Event::NumberOfExecutions(executions)).await;
    loop {
        let step = tokio::select! {
            biased;
            () = out.0.closed() => return interrupt(kernel).await,
            step = kernel.next() => step,
        };
        match step {
            Step::Event(event) => out.send(event).await,
            Step::Done => return true,
            Step::Dead => return false,
        }
    }
}

/// Interrupts until the cell has ended; false: the kernel has, or has to.
async fn interrupt(kernel: &mut Kernel) -> bool {
    let limit = Instant::now() + INTERRUPT_LIMIT;
    while Instant::now() < limit {
        kernel.interrupt();
        let ended = async {
            loop {
                match kernel.next().await {
                    Step::Event(_) => {}
                    Step::Done => return true,
                    Step::Dead => return false,
                }
            }
        };
        if let Ok(alive) = tokio::time::timeout(INTERRUPT_AGAIN, ended).await {
            return alive;
        }
    }
    tracing::warn!("a kernel did not heed its interrupts");
    false
}

/// Where the lines go.
struct Out(mpsc::Sender<Bytes>);

impl Out {
    async fn send(&self, event: Event) {
        // One that has left is noticed where it is waited for.
        let _left = self.0.send(event.line()).await;
    }
}
