//! A server for one test run: nothing is kept.

use std::process::ExitStatus;

use tempfile::TempDir;

use super::{Error, Options, Postgres, Result};

/// A server whose data goes with it.
#[derive(Debug)]
pub struct Temporary {
    postgres: Postgres,
    directory: TempDir,
}

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
        Ok(Self { postgres, directory })
    }

    #[must_use]
    pub fn postgres(&self) -> &Postgres {
        &self.postgres
    }

    /// Ends the server and removes its data.
    ///
    /// # Errors
    /// When the data cannot be removed.
    pub async fn stop(self) -> Result<ExitStatus> {
        let status = self.postgres.stop().await;
        self.directory.close().map_err(|error| Error(format!("temporary data stays: {error}")))?;
        Ok(status)
    }
}
