//! The process that outlives everything in an instance: it reaps orphans, freezes and thaws on
//! command, and ends the instance when the daemon ends or the emulator lets go of the link.

use std::collections::HashMap;
use std::fs::File;
use std::io::{Read as _, Write as _};
use std::os::fd::{AsFd as _, OwnedFd};

use anyhow::Context as _;
use nix::errno::Errno;
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use nix::sys::signal::{SigSet, SigmaskHow, Signal, kill, sigprocmask};
use nix::sys::signalfd::{SfdFlags, SignalFd};
use nix::sys::wait::{WaitPidFlag, WaitStatus, waitpid};
use nix::unistd::Pid;

/// Command: freeze everything. Acknowledged with the same byte, as is [`THAW`].
pub const FREEZE: u8 = b'f';
/// Command: thaw everything.
pub const THAW: u8 = b't';

/// What belongs to the instance.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Realm {
    /// Every process of this PID namespace, whose process 1 this is.
    PidNamespace,
    /// Every descendant of this process.
    Descendants,
}

pub struct Supervisor {
    realm: Realm,
    commands: File,
    signals: SignalFd,
}

impl Supervisor {
    /// Blocks `SIGCHLD`, so that none is lost between the fork and [`run`](Self::run).
    pub fn new(realm: Realm, commands: OwnedFd) -> anyhow::Result<Self> {
        let mask = SigSet::from(Signal::SIGCHLD);
        sigprocmask(SigmaskHow::SIG_BLOCK, Some(&mask), None).context("signal mask")?;
        let flags = SfdFlags::SFD_CLOEXEC | SfdFlags::SFD_NONBLOCK;
        Ok(Self {
            realm,
            commands: File::from(commands),
            signals: SignalFd::with_flags(&mask, flags).context("signalfd")?,
        })
    }

    /// Undoes [`new`](Self::new) in the forked daemon.
    pub fn leave_to_child(self) -> anyhow::Result<()> {
        let mask = SigSet::from(Signal::SIGCHLD);
        sigprocmask(SigmaskHow::SIG_UNBLOCK, Some(&mask), None).context("signal mask")
    }

    /// Runs until the daemon or the emulator is gone, and leaves nothing behind. Returns the exit code.
    pub fn run(mut self, daemon: Pid) -> i32 {
        let code = loop {
            if let Some(code) = self.step(daemon) {
                break code;
            }
        };
        if self.realm == Realm::Descendants {
            kill_descendants();
        }
        code
    }

    fn step(&mut self, daemon: Pid) -> Option<i32> {
        let (child, command) = self.wait();
        if child {
            let _drained = self.signals.read_signal();
            if let Some(code) = reap(daemon) {
                return Some(code);
            }
        }
        if command { self.obey() } else { None }
    }

    /// Waits; says whether a child ended and whether the emulator said something or hung up.
    fn wait(&self) -> (bool, bool) {
        let mut fds = [
            PollFd::new(self.signals.as_fd(), PollFlags::POLLIN),
            PollFd::new(self.commands.as_fd(), PollFlags::POLLIN),
        ];
        match poll(&mut fds, PollTimeout::NONE) {
            Ok(_) | Err(Errno::EINTR) => {}
            Err(_) => return (true, true),
        }
        let [child, command] = fds.map(|fd| fd.any().unwrap_or(false));
        (child, command)
    }

    fn obey(&mut self) -> Option<i32> {
        let mut command = [0];
        match self.commands.read(&mut command) {
            Ok(1) => {}
            Err(error) if error.kind() == std::io::ErrorKind::Interrupted => return None,
            Err(error) if error.kind() == std::io::ErrorKind::WouldBlock => return None,
            _ => return Some(0),
        }
        match command {
            [FREEZE] => self.signal_all(Signal::SIGSTOP),
            [THAW] => self.signal_all(Signal::SIGCONT),
            _ => {}
        }
        match self.commands.write_all(&command) {
            Ok(()) => None,
            Err(_) => Some(0),
        }
    }

    fn signal_all(&self, signal: Signal) {
        match self.realm {
            // Everything in the namespace but process 1, which this is; none left is no error.
            Realm::PidNamespace => drop(kill(Pid::from_raw(-1), signal)),
            Realm::Descendants => signal_descendants(signal),
        }
    }
}

/// Reaps what has ended; the exit code of the daemon if it is among them.
fn reap(daemon: Pid) -> Option<i32> {
    let mut result = None;
    loop {
        match waitpid(None, Some(WaitPidFlag::WNOHANG)) {
            Ok(WaitStatus::Exited(pid, code)) if pid == daemon => result = Some(code),
            Ok(WaitStatus::Signaled(pid, ..)) if pid == daemon => result = Some(1),
            Ok(WaitStatus::StillAlive) | Err(_) => return result,
            Ok(_) => {}
        }
    }
}

/// Repeats until a pass finds no process that an earlier one did not, as they may fork meanwhile.
fn signal_descendants(signal: Signal) {
    let mut seen = std::collections::HashSet::new();
    loop {
        let fresh: Vec<Pid> = descendants().into_iter().filter(|pid| seen.insert(*pid)).collect();
        if fresh.is_empty() {
            return;
        }
        for pid in fresh {
            let _may_have_ended = kill(pid, signal);
        }
    }
}

fn kill_descendants() {
    loop {
        for pid in descendants() {
            let _may_have_ended = kill(pid, Signal::SIGKILL);
        }
        if waitpid(None, None) == Err(Errno::ECHILD) {
            return;
        }
    }
}

fn descendants() -> Vec<Pid> {
    let mut children: HashMap<i32, Vec<i32>> = HashMap::new();
    for (pid, parent) in processes() {
        children.entry(parent).or_default().push(pid);
    }
    let mut found = Vec::new();
    let mut next = vec![nix::unistd::getpid().as_raw()];
    while let Some(pid) = next.pop() {
        for child in children.remove(&pid).unwrap_or_default() {
            found.push(Pid::from_raw(child));
            next.push(child);
        }
    }
    found
}

/// Every process of the machine with its parent.
fn processes() -> Vec<(i32, i32)> {
    let Ok(entries) = std::fs::read_dir("/proc") else {
        return Vec::new();
    };
    entries
        .flatten()
        .filter_map(|entry| {
            let pid = entry.file_name().to_str()?.parse().ok()?;
            let stat = std::fs::read_to_string(entry.path().join("stat")).ok()?;
            Some((pid, parent_in(&stat)?))
        })
        .collect()
}

/// The parent in `/proc/PID/stat`: second field after the name, which may hold anything up to the
/// last parenthesis.
fn parent_in(stat: &str) -> Option<i32> {
    let (_, rest) = stat.rsplit_once(')')?;
    rest.split_ascii_whitespace().nth(1)?.parse().ok()
}

#[cfg(test)]
mod tests {
    use super::parent_in;

    #[test]
    fn parent_is_found_behind_a_hostile_name() {
        assert_eq!(parent_in("12 (a) R 99) S 7 12 12 0"), Some(7));
        assert_eq!(parent_in("12 (sh"), None);
    }
}
