//! Processes as /proc shows them: an identity that survives the reuse of pids, and how to end one that is not our child.

use std::{
    fs,
    time::{Duration, Instant},
};

use nix::{
    sys::signal::{Signal, kill, killpg},
    unistd::Pid,
};
use serde::{Deserialize, Serialize};

const POLL: Duration = Duration::from_millis(20);

/// A process: its pid means nothing without the time it started at.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ProcessId {
    pub pid: i32,
    /// Clock ticks since boot.
    started: u64,
    /// Which boot.
    boot: String,
}

impl ProcessId {
    /// The process that has this pid now; `None` when there is none or it is a zombie.
    #[must_use]
    pub fn of(pid: i32) -> Option<Self> {
        let (state, started) = stat(pid)?;
        (!matches!(state, 'Z' | 'X')).then(|| Self { pid, started, boot: boot() })
    }

    /// A child that was not waited for, so that the pid is its own even if it has ended.
    pub(crate) fn of_child(pid: i32) -> Option<Self> {
        stat(pid).map(|(_, started)| Self { pid, started, boot: boot() })
    }

    /// Whether this very process still runs.
    #[must_use]
    pub fn is_alive(&self) -> bool {
        Self::of(self.pid).is_some_and(|now| now == *self)
    }

    /// Ends the process: `signal` first, SIGKILL to its group when it is alive after `grace`.
    pub fn end(&self, signal: Signal, grace: Duration) {
        if !self.is_alive() {
            return;
        }
        // A process that vanished in between needs no signal.
        let _ = kill(Pid::from_raw(self.pid), signal);
        if !self.wait(grace) {
            let _ = killpg(Pid::from_raw(self.pid), Signal::SIGKILL);
            let _ = kill(Pid::from_raw(self.pid), Signal::SIGKILL);
            self.wait(grace);
        }
    }

    fn wait(&self, patience: Duration) -> bool {
        let deadline = Instant::now() + patience;
        while self.is_alive() {
            if Instant::now() >= deadline {
                return false;
            }
            std::thread::sleep(POLL);
        }
        true
    }
}

fn stat(pid: i32) -> Option<(char, u64)> {
    parse_stat(&fs::read_to_string(format!("/proc/{pid}/stat")).ok()?)
}

fn boot() -> String {
    let id = fs::read_to_string("/proc/sys/kernel/random/boot_id").unwrap_or_default();
    id.trim().to_owned()
}

/// State and start time of `pid (command) state ppid …`: fields 3 and 22. The command may hold spaces and parentheses.
fn parse_stat(stat: &str) -> Option<(char, u64)> {
    let mut fields = stat.get(stat.rfind(')')? + 1..)?.split_whitespace();
    let state = fields.next()?.chars().next()?;
    Some((state, fields.nth(18)?.parse().ok()?))
}

#[cfg(test)]
mod tests {
    use std::process::Command;

    use super::*;

    #[test]
    fn a_stat_line_is_read_behind_any_command_name() {
        let stat = "42 (odd) name (x)) S 1 42 42 0 -1 4194560 1 2 3 4 5 6 7 8 20 0 1 0 98765 1000 200";
        assert_eq!(parse_stat(stat), Some(('S', 98765)));
        assert_eq!(parse_stat(""), None);
        assert_eq!(parse_stat("42 (x) S 1"), None);
    }

    #[test]
    fn a_reused_pid_is_another_process() {
        let own = ProcessId::of(std::process::id().cast_signed()).unwrap();
        assert!(own.is_alive());
        assert!(!ProcessId { started: own.started + 1, ..own.clone() }.is_alive());
    }

    #[test]
    fn ending_kills_what_ignores_the_signal() {
        let mut child = Command::new("sh")
            .args(["-c", "trap '' TERM; echo ready; while :; do sleep 1; done"])
            .stdout(std::process::Stdio::piped())
            .spawn()
            .unwrap();
        let mut line = String::new();
        let stdout = child.stdout.take().unwrap();
        std::io::BufRead::read_line(&mut std::io::BufReader::new(stdout), &mut line).unwrap();
        let id = ProcessId::of(child.id().cast_signed()).unwrap();
        id.end(Signal::SIGTERM, Duration::from_millis(100));
        assert!(!id.is_alive());
        assert_eq!(std::os::unix::process::ExitStatusExt::signal(&child.wait().unwrap()), Some(9));
    }
}
