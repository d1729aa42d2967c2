//! A launched instance, from the emulator's side.

use std::io::{self, Read as _, Write as _};
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use futures_util::FutureExt as _;
use futures_util::future::BoxFuture;
use tokio::process::Child;
use tokio::sync::{Mutex as AsyncMutex, OnceCell, watch};
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use super::inside::{DAEMON_LOG, FREEZE, Isolation, THAW};
use super::link::Link;
use super::network::{Helper, Stack};
use super::{BoxIo, Instance, LaunchError, Probe, probe};

/// How long the supervisor may take to kill everything before it is killed itself.
const STOP_LIMIT: Duration = Duration::from_secs(5);

/// What the launcher hands over.
pub struct Parts {
    pub child: Child,
    pub link: Link,
    /// Its timeouts limit how long a command may take.
    pub commands: UnixStream,
    pub isolation: Isolation,
    pub state_dir: PathBuf,
    pub stack: Option<Stack>,
    pub probe: Option<Probe>,
}

/// The only implementation of [`Instance`] with real processes.
pub struct Running {
    pid: u32,
    link: Arc<Link>,
    /// `None` once the supervisor has been told to end.
    commands: Mutex<Option<UnixStream>>,
    isolation: Isolation,
    state_dir: PathBuf,
    stack: Option<Stack>,
    helper: AsyncMutex<Option<Helper>>,
    probe: Option<Probe>,
    report: watch::Receiver<Option<String>>,
    frozen: AtomicBool,
    ready: OnceCell<()>,
    kill: CancellationToken,
    exited: CancellationToken,
    tasks: TaskTracker,
}

impl Running {
    /// Watches over a spawned daemon.
    pub fn start(parts: Parts) -> Arc<Self> {
        let (report_sender, report) = watch::channel(None);
        let running = Arc::new(Self {
            pid: parts.child.id().unwrap_or_default(),
            link: Arc::new(parts.link),
            commands: Mutex::new(Some(parts.commands)),
            isolation: parts.isolation,
            state_dir: parts.state_dir,
            stack: parts.stack,
            helper: AsyncMutex::default(),
            probe: parts.probe,
            report,
            frozen: AtomicBool::new(false),
            ready: OnceCell::new(),
            kill: CancellationToken::new(),
            exited: CancellationToken::new(),
            tasks: TaskTracker::new(),
        });
        let link = Arc::clone(&running.link);
        running.tasks.spawn(async move {
            link.run(|report| drop(report_sender.send(Some(report)))).await;
        });
        let (kill, exited) = (running.kill.clone(), running.exited.clone());
        running.tasks.spawn(watch_child(parts.child, kill, exited));
        running
    }

    /// Waits for the daemon; says what isolation it got.
    pub async fn daemon_ready(&self) -> Result<String, LaunchError> {
        let mut report = self.report.clone();
        let told = async {
            let report = report.wait_for(Option::is_some).await.ok()?;
            report.clone()
        };
        tokio::select! {
            Some(report) = told => Ok(report),
            () = self.exited.cancelled() => Err(self.early_end()),
        }
    }

    fn early_end(&self) -> LaunchError {
        let log = std::fs::read_to_string(self.state_dir.join(DAEMON_LOG)).unwrap_or_default();
        let last = log.lines().rev().find(|line| !line.is_empty());
        LaunchError::Exited(last.unwrap_or("it said nothing").to_owned())
    }

    async fn become_ready(&self) -> Result<(), LaunchError> {
        self.daemon_ready().await?;
        if let Some(stack) = &self.stack {
            match stack.attach(self.pid, self.isolation).await {
                Ok(helper) => *self.helper.lock().await = Some(helper),
                Err(error) => tracing::warn!(%error, program = %stack, "no outbound network"),
            }
        }
        let Some(probe) = &self.probe else {
            return Ok(());
        };
        tokio::select! {
            result = probe::succeed(probe, |port| self.link.dial(port)) => {
                result.map_err(LaunchError::Probe)
            }
            () = self.exited.cancelled() => Err(self.early_end()),
        }
    }

    /// Tells the supervisor and waits until it has done it.
    fn command(&self, command: u8) -> io::Result<()> {
        let commands = self.commands();
        let mut stream = commands.as_ref().ok_or(io::ErrorKind::NotConnected)?;
        stream.write_all(&[command])?;
        stream.read_exact(&mut [0])
    }

    fn commands(&self) -> MutexGuard<'_, Option<UnixStream>> {
        self.commands.lock().unwrap_or_else(PoisonError::into_inner)
    }

    async fn end(&self) {
        // The supervisor takes the closed link for the order to end.
        drop(self.commands().take());
        if tokio::time::timeout(STOP_LIMIT, self.exited.cancelled()).await.is_err() {
            tracing::warn!("an instance did not end when told to; killing it");
            self.kill.cancel();
            self.exited.cancelled().await;
        }
        drop(self.helper.lock().await.take());
        let state_dir = self.state_dir.clone();
        let removed = self.tasks.spawn_blocking(move || remove_state(&state_dir));
        if let Ok(Err(error)) = removed.await {
            tracing::warn!(%error, "the state of an instance could not be removed");
        }
    }
}

impl Instance for Running {
    fn dial(&self, port: u16) -> BoxFuture<'_, io::Result<BoxIo>> {
        async move {
            if self.frozen.load(Ordering::Acquire) {
                return Err(io::Error::new(io::ErrorKind::NotConnected, "the instance is paused"));
            }
            self.link.dial(port).await
        }
        .boxed()
    }

    fn ready(&self) -> BoxFuture<'_, Result<(), LaunchError>> {
        self.ready.get_or_try_init(|| self.become_ready()).map(|result| result.copied()).boxed()
    }

    fn pause(&self) -> io::Result<()> {
        self.frozen.store(true, Ordering::Release);
        let result = self.command(FREEZE);
        if result.is_err() {
            self.frozen.store(false, Ordering::Release);
        }
        result
    }

    fn resume(&self) -> io::Result<()> {
        self.command(THAW)?;
        self.frozen.store(false, Ordering::Release);
        Ok(())
    }

    fn stop(&self) -> BoxFuture<'_, ()> {
        self.end().boxed()
    }

    fn exited(&self) -> CancellationToken {
        self.exited.clone()
    }
}

async fn watch_child(mut child: Child, kill: CancellationToken, exited: CancellationToken) {
    tokio::select! {
        _ = child.wait() => {}
        () = kill.cancelled() => {
            // Process 1 dies with its parent, and the instance with process 1.
            let _already_dead = child.kill().await;
        }
    }
    exited.cancel();
}

/// Removes a state directory, the overlay's unreadable work directory included. Absent: no error.
///
/// # Errors
/// Something in it cannot be removed.
pub fn remove_state(path: &Path) -> io::Result<()> {
    let absent = |error: &io::Error| error.kind() == io::ErrorKind::NotFound;
    match std::fs::remove_dir_all(path) {
        Err(error) if error.kind() == io::ErrorKind::PermissionDenied => {
            open_up(path)?;
            std::fs::remove_dir_all(path)
        }
        Err(error) if absent(&error) => Ok(()),
        result => result,
    }
}

/// Gives the owner back what the instance took from its own directories.
fn open_up(directory: &Path) -> io::Result<()> {
    use std::os::unix::fs::PermissionsExt as _;
    std::fs::set_permissions(directory, std::fs::Permissions::from_mode(0o700))?;
    for entry in std::fs::read_dir(directory)? {
        let entry = entry?;
        if entry.file_type()?.is_dir() {
            open_up(&entry.path())?;
        }
    }
    Ok(())
}
