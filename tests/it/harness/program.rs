//! The gateway as a program of its own.

use std::fs;

use devstack::Child;
use nix::sys::signal::Signal;
use serde::Deserialize;
use tempfile::TempDir;

use super::{Stack, eventually};

/// A program `ags-gateway serve` on the database and the emulator of a test. Dropping it kills it.
pub struct Program {
    pub child: Child,
    pub url: String,
    /// Where HTTPS is configured.
    pub tls_url: Option<String>,
    _directory: TempDir,
}

#[derive(Deserialize)]
struct Ready {
    url: String,
    tls_url: Option<String>,
}

impl Program {
    /// Started, and ready.
    pub async fn start(stack: &Stack) -> Self {
        let directory = TempDir::new().expect("a directory");
        let file = directory.path().join("ready");
        let child = Child::spawn(stack.program(&file), Signal::SIGKILL).await.expect("a program");
        let text = eventually(async || fs::read_to_string(&file).ok()).await;
        let Ready { url, tls_url } = serde_json::from_str(&text).expect("where it listens");
        Self { child, url, tls_url, _directory: directory }
    }

    /// The most memory that it has had so far, in KiB.
    pub fn peak_kib(&self) -> u64 {
        peak_kib(self.child.id().pid)
    }
}

/// The most memory that a process has had so far, in KiB. The kernel notes it when memory is given back only, and counts
/// in steps per thread until then: a later answer can be a little smaller.
pub fn peak_kib(pid: impl std::fmt::Display) -> u64 {
    let status = fs::read_to_string(format!("/proc/{pid}/status")).expect("a process");
    let line = status.lines().find_map(|line| line.strip_prefix("VmHWM:")).expect("a figure");
    line.trim().trim_end_matches(" kB").parse().expect("a number")
}
