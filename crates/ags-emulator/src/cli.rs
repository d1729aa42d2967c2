//! The command line: `serve` for people and scripts, `daemon` for the launcher.

use clap::{Parser, Subcommand};

use crate::envd::{self, DaemonArgs};
use crate::serve::{self, ServeArgs};

/// A local stand-in for Tencent Cloud Agent Sandbox and its in-sandbox daemon.
#[derive(Debug, Parser)]
#[command(name = "ags-emulator", version)]
pub struct Cli {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Serve the control plane, the E2B endpoint and the data plane until SIGINT or SIGTERM.
    Serve(Box<ServeArgs>),
    /// Run inside an instance; started by `serve`.
    #[command(hide = true)]
    Daemon(DaemonArgs),
}

impl Cli {
    /// Runs the chosen command to its end.
    ///
    /// # Errors
    /// What went wrong, in one sentence for the terminal.
    pub fn run(self) -> anyhow::Result<()> {
        match self.command {
            Command::Serve(args) => serve::run(*args),
            Command::Daemon(args) => envd::run(args),
        }
    }
}
