//! The command of a custom tool: what the container would have started.

use std::collections::BTreeMap;
use std::io;
use std::process::Stdio;
use std::sync::Arc;

use tokio::process::{Child, Command};

use super::daemon::Daemon;
use crate::sys;

/// Starts the command as root, with its output in a log, and watches it to its end. The instance lives on without it.
///
/// # Errors
/// It cannot be executed.
pub fn start(daemon: &Arc<Daemon>, command: &[String], log: &std::fs::File) -> io::Result<()> {
    let Some((program, args)) = command.split_first() else {
        return Ok(());
    };
    let root = daemon.user(Some("root")).ok_or(io::ErrorKind::NotFound)?;
    let mut command = Command::new(program);
    command
        .args(args)
        .env_clear()
        .envs(daemon.environment(&root, &BTreeMap::new()))
        .current_dir(&root.home)
        .stdin(Stdio::null())
        .stdout(log.try_clone()?)
        .stderr(log.try_clone()?);
    sys::isolate_child(&mut command, root.identity(), false);
    let child = command.spawn()?;
    daemon.tasks.spawn(watch(child));
    Ok(())
}

async fn watch(mut child: Child) {
    match child.wait().await {
        Ok(status) => tracing::info!(%status, "the tool's command has ended"),
        Err(error) => tracing::warn!(%error, "the tool's command cannot be watched"),
    }
}
