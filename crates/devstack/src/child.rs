//! A child process that does not outlive this one.

use std::{
    io,
    os::unix::process::{CommandExt, ExitStatusExt},
    process::{Command, ExitStatus},
    thread,
    time::Duration,
};

use nix::{
    sys::signal::{Signal, kill, killpg},
    unistd::{Pid, getppid},
};
use tokio::sync::{oneshot, watch};

use crate::ProcessId;

/// A running child in a process group of its own. Dropping it kills the group.
#[derive(Debug)]
pub struct Child {
    id: ProcessId,
    exit: watch::Receiver<Option<ExitStatus>>,
}

impl Child {
    /// Starts the command. When this process ends, however it ends, the kernel sends `farewell` to the child.
    ///
    /// # Errors
    /// When the program cannot be executed.
    pub async fn spawn(mut command: Command, farewell: Signal) -> io::Result<Self> {
        let (report, started) = oneshot::channel();
        let (exited, exit) = watch::channel(None);
        tie_to_parent(command.process_group(0), farewell);
        // The kernel ties the child to the thread that made it, so this thread lives exactly as long as the child.
        thread::Builder::new().name("child".to_owned()).spawn(move || {
            let spawned = command.spawn();
            // What the command holds open, a log or a directory, is the child's now.
            drop(command);
            let mut child = match spawned {
                Ok(child) => child,
                Err(error) => return drop(report.send(Err(error))),
            };
            let id = ProcessId::of_child(child.id().cast_signed());
            drop(report.send(id.ok_or_else(|| io::Error::other("/proc does not show the new process"))));
            let status = child.wait().unwrap_or_else(|_| ExitStatus::from_raw(0));
            exited.send_replace(Some(status));
        })?;
        let id = started.await.map_err(io::Error::other)??;
        Ok(Self { id, exit })
    }

    #[must_use]
    pub fn id(&self) -> &ProcessId {
        &self.id
    }

    /// How the child ended, if it has.
    #[must_use]
    pub fn exit_status(&self) -> Option<ExitStatus> {
        *self.exit.borrow()
    }

    /// Waits for the child's end.
    pub async fn exited(&self) -> ExitStatus {
        let mut exit = self.exit.clone();
        match exit.wait_for(Option::is_some).await {
            Ok(status) => status.unwrap_or_default(),
            Err(_) => ExitStatus::default(),
        }
    }

    /// Sends `signal`, waits, and kills the group when the child is not gone after `grace`.
    pub async fn stop(&self, signal: Signal, grace: Duration) -> ExitStatus {
        if self.exit_status().is_none() {
            // The child may be gone in this instant; then there is nobody to tell.
            let _ = kill(Pid::from_raw(self.id.pid), signal);
        }
        if let Ok(status) = tokio::time::timeout(grace, self.exited()).await {
            return status;
        }
        self.kill();
        self.exited().await
    }

    fn kill(&self) {
        if self.exit_status().is_none() {
            let _ = killpg(Pid::from_raw(self.id.pid), Signal::SIGKILL);
        }
    }
}

impl Drop for Child {
    fn drop(&mut self) {
        self.kill();
    }
}

fn tie_to_parent(command: &mut Command, farewell: Signal) {
    let parent = Pid::this();
    let tie = move || {
        nix::sys::prctl::set_pdeathsig(farewell)?;
        // The parent may have ended before the line above; then nobody would send the farewell.
        if getppid() == parent { Ok(()) } else { Err(io::Error::from_raw_os_error(nix::libc::ESRCH)) }
    };
    #[expect(unsafe_code, reason = "the closure makes two system calls and allocates nothing, as fork requires")]
    unsafe {
        command.pre_exec(tie);
    }
}

#[cfg(test)]
mod tests {
    use std::{
        io::Read,
        os::{fd::OwnedFd, unix::net::UnixStream},
    };

    use super::*;

    fn shell(script: &str) -> Command {
        let mut command = Command::new("sh");
        command.args(["-c", script]);
        command
    }

    #[tokio::test]
    async fn the_exit_is_seen_by_every_waiter() {
        let child = Child::spawn(shell("exit 7"), Signal::SIGKILL).await.unwrap();
        let (first, second) = tokio::join!(child.exited(), child.exited());
        assert_eq!((first.code(), second.code()), (Some(7), Some(7)));
        assert_eq!(child.exit_status().and_then(|status| status.code()), Some(7));
    }

    #[tokio::test]
    async fn a_missing_program_is_an_error() {
        let error = Child::spawn(Command::new("/nonexistent/program"), Signal::SIGKILL).await.unwrap_err();
        assert_eq!(error.kind(), io::ErrorKind::NotFound);
    }

    #[tokio::test]
    async fn stopping_kills_the_whole_group_of_what_does_not_listen() {
        let (mut listener, stdout) = UnixStream::pair().unwrap();
        let mut command = shell("trap '' TERM; sleep 300 & echo ready; wait");
        command.stdout(OwnedFd::from(stdout));
        let child = Child::spawn(command, Signal::SIGKILL).await.unwrap();
        listener.read_exact(&mut [0; 6]).unwrap();
        let status = child.stop(Signal::SIGTERM, Duration::from_millis(200)).await;
        assert_eq!(status.signal(), Some(9));
        assert!(!child.id().is_alive());
        // The sleeper holds the other end as long as it lives.
        assert_eq!(listener.read(&mut [0]).unwrap(), 0);
    }

    #[tokio::test]
    async fn a_dropped_child_is_killed() {
        let child = Child::spawn(shell("exec sleep 300"), Signal::SIGKILL).await.unwrap();
        let mut exit = child.exit.clone();
        drop(child);
        let status = exit.wait_for(Option::is_some).await.unwrap().unwrap();
        assert_eq!(status.signal(), Some(9));
    }
}
