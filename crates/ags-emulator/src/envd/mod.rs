//! The daemon inside an instance: processes, filesystem, files and health on port 49983.

/// The port the daemon listens on.
pub const PORT: u16 = 49983;

/// Arguments of `ags-emulator daemon`; the launcher passes them, nobody types them.
#[derive(Debug, clap::Args)]
pub struct DaemonArgs {}

/// Runs the daemon until its instance is stopped. Called before any thread or runtime exists, so
/// that it may enter namespaces first.
///
/// # Errors
/// The daemon could not set itself up.
pub fn run(_args: DaemonArgs) -> anyhow::Result<()> {
    anyhow::bail!("the daemon is not part of this build")
}
