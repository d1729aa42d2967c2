//! A server for one test run: nothing is kept, not even when the run is killed.

use std::{
    os::unix::process::CommandExt,
    path::Path,
    process::{Child, Command, ExitStatus, Stdio},
};

use tempfile::TempDir;

use super::{Error, Options, Postgres, Result};

/// A server whose data goes with it. It may stand in a static, which is never dropped: the caretaker cleans up then.
#[derive(Debug)]
pub struct Temporary {
    postgres: Postgres,
    directory: TempDir,
    caretaker: Child,
}

/// Reads until this process closes the pipe by ending, waits for the server's end, and removes what is left.
const CARETAKER: &str = r#"
cat >/dev/null
tries=200
while kill -0 "$1" 2>/dev/null && [ $tries -gt 0 ]; do sleep 0.05; tries=$((tries - 1)); done
rm -rf -- "$2" "$3"
"#;

impl Temporary {
    /// Starts an empty server in a temporary directory.
    ///
    /// # Errors
    /// As [`Postgres::start`].
    pub async fn start() -> Result<Self> {
        let directory = tempfile::Builder::new()
            .prefix("ags-gateway-test-")
            .tempdir()
            .map_err(|error| Error(format!("no temporary directory: {error}")))?;
        let (data, log) = (directory.path().join("postgres"), directory.path().join("postgres.log"));
        let postgres = Postgres::start(&Options { data, log, durable: false }).await?;
        let caretaker = caretaker(&postgres, directory.path())
            .map_err(|error| Error(format!("sh, which cleans up afterwards, cannot be started: {error}")))?;
        Ok(Self { postgres, directory, caretaker })
    }

    #[must_use]
    pub fn postgres(&self) -> &Postgres {
        &self.postgres
    }

    /// Ends the server and removes its data.
    ///
    /// # Errors
    /// When the data cannot be removed.
    pub async fn stop(mut self) -> Result<ExitStatus> {
        let status = self.postgres.stop().await;
        let failed = |error| Error(format!("temporary data stays: {error}"));
        self.directory.close().map_err(failed)?;
        // Waiting closes its input, and it has nothing left to do.
        self.caretaker.wait().map_err(failed)?;
        Ok(status)
    }
}

fn caretaker(postgres: &Postgres, directory: &Path) -> std::io::Result<Child> {
    let pid = postgres.child().id().pid.to_string();
    let mut command = Command::new("sh");
    command.args(["-c", CARETAKER, "caretaker", &pid]).arg(directory).arg(postgres.socket.path());
    // A group of its own: an interrupt from the terminal must not end it with the rest.
    command.process_group(0).stdin(Stdio::piped()).stdout(Stdio::null()).stderr(Stdio::null()).spawn()
}
