//! The processes that were started through the daemon and live.

use std::collections::BTreeMap;
use std::io;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use bytes::Bytes;
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use pty_process::OwnedWritePty;
use tokio::io::AsyncWriteExt as _;
use tokio::process::{Child, ChildStdin};
use tokio::sync::Mutex as AsyncMutex;
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use super::exit::Exit;
use super::hub::{Hub, Output};
use super::pump::{PIPE_CHUNK, PTY_CHUNK, pump};
use super::spawn::{Ends, Size, Spawned};

/// How long the end of a process is remembered where the version does that.
const LATE: Duration = Duration::from_secs(30);

/// What a process was started with, as `List` shows it.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Config {
    pub command: String,
    pub args: Vec<String>,
    pub envs: BTreeMap<String, String>,
    pub cwd: Option<String>,
}

/// Names a process.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Selector {
    Pid(u32),
    Tag(String),
}

/// A request that does not fit the process.
#[derive(Debug, thiserror::Error)]
pub enum InputError {
    #[error("stdin not enabled or closed")]
    NoStdin,
    #[error("the process has a terminal: write to that")]
    IsTerminal,
    #[error("the process has no terminal")]
    NoTerminal,
    #[error("{0}")]
    Io(#[from] io::Error),
}

enum Input {
    Pipe(Option<ChildStdin>),
    Terminal(OwnedWritePty),
}

/// A process that lives, or whose output is still held open by somebody.
pub struct Process {
    pub pid: u32,
    pub tag: Option<String>,
    pub config: Config,
    pub hub: Hub,
    input: AsyncMutex<Input>,
    /// A signal was sent through the daemon: its end does not wait for the pipes.
    signalled: CancellationToken,
}

impl Process {
    /// Sends a signal to the process itself, not to its children.
    ///
    /// # Errors
    /// It is gone.
    pub fn signal(&self, signal: Signal) -> nix::Result<()> {
        kill(Pid::from_raw(self.pid.cast_signed()), signal)?;
        self.signalled.cancel();
        Ok(())
    }

    /// Writes to the standard input; waits while the process does not read.
    ///
    /// # Errors
    /// It has none, or has closed it.
    pub async fn write_stdin(&self, data: &Bytes) -> Result<(), InputError> {
        match &mut *self.input.lock().await {
            Input::Pipe(Some(stdin)) => Ok(stdin.write_all(data).await?),
            Input::Pipe(None) => Err(InputError::NoStdin),
            Input::Terminal(_) => Err(InputError::IsTerminal),
        }
    }

    /// Writes to the terminal.
    ///
    /// # Errors
    /// It has none.
    pub async fn write_terminal(&self, data: &Bytes) -> Result<(), InputError> {
        match &mut *self.input.lock().await {
            Input::Terminal(terminal) => Ok(terminal.write_all(data).await?),
            Input::Pipe(_) => Err(InputError::NoTerminal),
        }
    }

    /// End of file on the standard input; once closed, closing again does nothing.
    ///
    /// # Errors
    /// It has a terminal, which takes Ctrl+D instead.
    pub async fn close_stdin(&self) -> Result<(), InputError> {
        match &mut *self.input.lock().await {
            Input::Pipe(stdin) => {
                stdin.take();
                Ok(())
            }
            Input::Terminal(_) => Err(InputError::IsTerminal),
        }
    }

    /// Resizes the terminal.
    ///
    /// # Errors
    /// It has none.
    pub async fn resize(&self, size: Size) -> Result<(), InputError> {
        match &*self.input.lock().await {
            Input::Terminal(terminal) => {
                let size = pty_process::Size::new(size.rows, size.cols);
                Ok(terminal.resize(size).map_err(io::Error::other)?)
            }
            Input::Pipe(_) => Err(InputError::NoTerminal),
        }
    }
}

/// A process that ended a short while ago.
#[derive(Clone)]
struct Late {
    tag: Option<String>,
    exit: Exit,
    until: Instant,
}

/// The table of processes.
pub struct Table {
    living: Mutex<BTreeMap<u32, Arc<Process>>>,
    late: Option<Mutex<BTreeMap<u32, Late>>>,
    discard_unheard: bool,
    tasks: TaskTracker,
}

impl Table {
    /// `remember_ends`: keep them for half a minute.
    pub fn new(discard_unheard: bool, remember_ends: bool, tasks: TaskTracker) -> Arc<Self> {
        Arc::new(Self { living: Mutex::default(), late: remember_ends.then(Mutex::default), discard_unheard, tasks })
    }

    /// Every process, by pid.
    pub fn list(&self) -> Vec<Arc<Process>> {
        lock(&self.living).values().cloned().collect()
    }

    /// The process of a selector, if it lives.
    pub fn find(&self, selector: &Selector) -> Option<Arc<Process>> {
        let living = lock(&self.living);
        match selector {
            Selector::Pid(pid) => living.get(pid).cloned(),
            Selector::Tag(tag) => living.values().find(|process| process.tag.as_ref() == Some(tag)).cloned(),
        }
    }

    /// How a process of this selector ended lately, with its pid.
    pub fn find_late(&self, selector: &Selector) -> Option<(u32, Exit)> {
        let mut late = lock(self.late.as_ref()?);
        let now = Instant::now();
        late.retain(|_, late| late.until > now);
        let (pid, late) = late.iter().find(|(pid, late)| match selector {
            Selector::Pid(wanted) => wanted == *pid,
            Selector::Tag(wanted) => late.tag.as_ref() == Some(wanted),
        })?;
        Some((*pid, late.exit.clone()))
    }

    /// Takes a started process in and watches over it until its end. Follow its hub before output can be lost:
    /// nothing is published until `follow` has returned.
    pub fn adopt<F, T>(
        self: &Arc<Self>,
        spawned: Spawned,
        config: Config,
        tag: Option<String>,
        deadline: Option<Instant>,
        follow: F,
    ) -> T
    where
        F: FnOnce(&Process) -> T,
    {
        let Spawned { child, pid, ends } = spawned;
        let (input, outputs) = split(ends);
        let process = Arc::new(Process {
            pid,
            tag,
            config,
            hub: Hub::new(self.discard_unheard),
            input: AsyncMutex::new(input),
            signalled: CancellationToken::new(),
        });
        let followed = follow(&process);
        lock(&self.living).insert(pid, Arc::clone(&process));
        let table = Arc::clone(self);
        self.tasks.spawn(async move { table.watch(process, child, outputs, deadline).await });
        followed
    }

    async fn watch(&self, process: Arc<Process>, child: Child, outputs: Outputs, deadline: Option<Instant>) {
        let stop = CancellationToken::new();
        let pumping = TaskTracker::new();
        outputs.pump(&process, &stop, &pumping);
        pumping.close();
        let exit = wait(child, &process, deadline).await;
        process.hub.process_ended();
        tokio::select! {
            () = pumping.wait() => {}
            () = until(deadline) => {}
            () = process.signalled.cancelled() => {}
        }
        stop.cancel();
        pumping.wait().await;
        lock(&self.living).remove(&process.pid);
        if let Some(late) = &self.late {
            let entry = Late { tag: process.tag.clone(), exit: exit.clone(), until: Instant::now() + LATE };
            lock(late).insert(process.pid, entry);
        }
        process.hub.finish(exit).await;
    }
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

enum Outputs {
    Pipes(tokio::process::ChildStdout, tokio::process::ChildStderr),
    Terminal(pty_process::OwnedReadPty),
}

impl Outputs {
    fn pump(self, process: &Arc<Process>, stop: &CancellationToken, tasks: &TaskTracker) {
        match self {
            Self::Pipes(stdout, stderr) => {
                let (of, stopped) = (Arc::clone(process), stop.clone());
                tasks.spawn(async move { pump(stdout, PIPE_CHUNK, Output::Stdout, &of.hub, &stopped).await });
                let (of, stopped) = (Arc::clone(process), stop.clone());
                tasks.spawn(async move { pump(stderr, PIPE_CHUNK, Output::Stderr, &of.hub, &stopped).await });
            }
            Self::Terminal(output) => {
                let (of, stopped) = (Arc::clone(process), stop.clone());
                tasks.spawn(async move { pump(output, PTY_CHUNK, Output::Pty, &of.hub, &stopped).await });
            }
        }
    }
}

fn split(ends: Ends) -> (Input, Outputs) {
    match ends {
        Ends::Pipes { stdin, stdout, stderr } => (Input::Pipe(stdin), Outputs::Pipes(stdout, stderr)),
        Ends::Terminal { output, input } => (Input::Terminal(input), Outputs::Terminal(output)),
    }
}

/// Waits for the end of the process itself, which comes at the deadline at the latest.
async fn wait(mut child: Child, process: &Process, deadline: Option<Instant>) -> Exit {
    let status = tokio::select! {
        status = child.wait() => status,
        () = until(deadline) => {
            let _already_dead = process.signal(Signal::SIGKILL);
            child.wait().await
        }
    };
    status.map_or_else(|error| Exit::unknown(&error), Exit::from)
}

/// Never, without a deadline.
pub async fn until(deadline: Option<Instant>) {
    match deadline {
        Some(deadline) => tokio::time::sleep_until(deadline).await,
        None => std::future::pending().await,
    }
}
