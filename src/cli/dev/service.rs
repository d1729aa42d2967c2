//! A child that says in a file when it is ready.

use std::{
    fs,
    path::Path,
    process::Command,
    time::{Duration, Instant},
};

use anyhow::{Context, bail};
use devstack::Child;
use nix::sys::signal::Signal;
use serde::Deserialize;

const PATIENCE: Duration = Duration::from_secs(60);
const STOP_PATIENCE: Duration = Duration::from_secs(10);
const POLL: Duration = Duration::from_millis(5);

/// What a service writes when it takes requests.
#[derive(Clone, Debug, Deserialize)]
pub(super) struct Ready {
    pub url: String,
    /// The emulator's second port.
    pub admin_url: Option<String>,
}

/// A running service.
pub(super) struct Service {
    name: &'static str,
    child: Child,
}

impl Service {
    pub(super) async fn spawn(name: &'static str, command: Command) -> anyhow::Result<Self> {
        let child = Child::spawn(command, Signal::SIGTERM).await;
        Ok(Self { name, child: child.with_context(|| format!("the {name} cannot be started"))? })
    }

    pub(super) fn name(&self) -> &'static str {
        self.name
    }

    pub(super) fn child(&self) -> &Child {
        &self.child
    }

    /// Waits for the ready file. Says in one sentence why there is none.
    pub(super) async fn ready(&self, file: &Path, log: &Path) -> anyhow::Result<Ready> {
        let name = self.name;
        let deadline = Instant::now() + PATIENCE;
        loop {
            if let Ok(text) = fs::read_to_string(file) {
                return serde_json::from_str(&text).with_context(|| format!("{} is malformed", file.display()));
            }
            if let Some(status) = self.child.exit_status() {
                bail!("the {name} did not start ({status}): {}", last_line(log));
            }
            if Instant::now() >= deadline {
                bail!("the {name} is not ready after {} s: see {}", PATIENCE.as_secs(), log.display());
            }
            tokio::time::sleep(POLL).await;
        }
    }

    pub(super) async fn stop(&self) {
        self.child.stop(Signal::SIGTERM, STOP_PATIENCE).await;
    }
}

fn last_line(log: &Path) -> String {
    let text = fs::read(log).unwrap_or_default();
    let text = String::from_utf8_lossy(&text);
    let line = text.lines().rev().find(|line| !line.trim().is_empty());
    line.map_or_else(|| format!("see {}", log.display()), |line| line.trim().to_owned())
}
