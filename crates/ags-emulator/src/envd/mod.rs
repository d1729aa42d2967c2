//! The daemon inside an instance: processes, filesystem, files and health on port 49983, as envd serves them
//! (`PROTOCOLS` section D).

mod daemon;
mod features;
mod files;
mod filesystem;
mod keepalive;
mod main_process;
mod metrics;
mod paths;
mod process;
mod rest;
mod rest_error;
mod server;
mod signature;
mod users;

pub(crate) use daemon::Daemon;
pub(crate) use users::User;

use std::path::PathBuf;

use anyhow::Context as _;

use crate::instance::inside::{self, Plan, Role};

/// The port the daemon listens on.
pub const PORT: u16 = 49983;

/// Arguments of `ags-emulator daemon`; the launcher passes them, nobody types them.
#[derive(Debug, clap::Args)]
pub struct DaemonArgs {
    /// File with the plan of the instance; removed once read.
    #[arg(long)]
    plan: PathBuf,
}

/// Runs the daemon until its instance is stopped. Called before any thread or runtime exists, so
/// that it may enter namespaces first.
///
/// # Errors
/// The daemon could not set itself up.
pub fn run(args: DaemonArgs) -> anyhow::Result<()> {
    let plan = std::fs::read(&args.plan).context("plan of the instance")?;
    std::fs::remove_file(&args.plan).context("plan of the instance")?;
    let plan: Plan = serde_json::from_slice(&plan).context("plan of the instance")?;
    match inside::enter(plan)? {
        Role::Supervisor(code) => std::process::exit(code),
        Role::Daemon(inside) => {
            // Standard error is the instance's daemon log.
            tracing_subscriber::fmt().with_writer(std::io::stderr).with_ansi(false).init();
            server::serve(inside)
        }
    }
}
