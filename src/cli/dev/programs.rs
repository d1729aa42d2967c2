//! The binaries of the stack: this one, and the emulator next to it.

use std::{
    path::{Path, PathBuf},
    process::{Command, Stdio},
};

use anyhow::{Context, ensure};
use devstack::files;

/// Variables that a child may see of ours; the rest of the environment (other databases, real credentials) stays out.
const PASSED_ON: [&str; 6] = ["PATH", "HOME", "LANG", "TMPDIR", "RUST_BACKTRACE", "RUST_LOG"];

pub(super) struct Programs {
    pub gateway: PathBuf,
    pub emulator: PathBuf,
}

impl Programs {
    pub(super) fn find() -> anyhow::Result<Self> {
        let gateway = std::env::current_exe().context("the path of this program is unknown")?;
        let emulator = gateway.with_file_name("ags-emulator");
        ensure!(
            emulator.is_file(),
            "{} is missing: build it with `cargo build --locked --workspace`, or start with ./scripts/dev",
            emulator.display()
        );
        Ok(Self { gateway, emulator })
    }
}

/// A command with a clean environment that writes to a log.
pub(super) fn command(program: &Path, log: &Path) -> anyhow::Result<Command> {
    let output = files::append(log).with_context(|| format!("{} cannot be written", log.display()))?;
    let mut command = Command::new(program);
    command.env_clear().envs(std::env::vars_os().filter(|(name, _)| PASSED_ON.iter().any(|passed| name == passed)));
    command.stdin(Stdio::null()).stdout(output.try_clone()?).stderr(output);
    Ok(command)
}
