//! Runs a command with a fresh, private PostgreSQL of which nothing is left afterwards.
//!
//! `with-postgres [--migrate DIR] [--] COMMAND…` sets `DATABASE_URL` for the command and ends with its exit code.

use std::{
    os::unix::process::ExitStatusExt,
    path::{Path, PathBuf},
    process::{Command, ExitCode},
    time::Duration,
};

use anyhow::Context;
use clap::Parser;
use devstack::{Child, postgres::Temporary};
use nix::sys::signal::Signal;
use sqlx::{Connection, PgConnection, migrate::Migrator};
use tokio::signal::unix::{SignalKind, signal};

const DATABASE: &str = "ags_gateway";
const GRACE: Duration = Duration::from_secs(10);

/// Run a command with a fresh, private PostgreSQL in DATABASE_URL.
#[derive(Parser)]
struct Arguments {
    /// Apply the migrations of this directory first.
    #[arg(long)]
    migrate: Option<PathBuf>,
    #[arg(required = true, trailing_var_arg = true)]
    command: Vec<String>,
}

#[tokio::main(flavor = "current_thread")]
async fn main() -> ExitCode {
    match run(Arguments::parse()).await {
        Ok(code) => code,
        Err(error) => {
            eprintln!("with-postgres: {error:#}");
            ExitCode::FAILURE
        }
    }
}

async fn run(arguments: Arguments) -> anyhow::Result<ExitCode> {
    let mut interrupt = signal(SignalKind::interrupt())?;
    let mut terminate = signal(SignalKind::terminate())?;
    let server = Temporary::start().await?;
    let url = prepare(&server, arguments.migrate.as_deref()).await?;
    let mut command = Command::new(&arguments.command[0]);
    command.args(&arguments.command[1..]).env("DATABASE_URL", url);
    let child = Child::spawn(command, Signal::SIGTERM).await.context(arguments.command[0].clone())?;
    let status = tokio::select! {
        status = child.exited() => status,
        _ = interrupt.recv() => child.stop(Signal::SIGINT, GRACE).await,
        _ = terminate.recv() => child.stop(Signal::SIGTERM, GRACE).await,
    };
    server.stop().await?;
    let code = status.code().or_else(|| status.signal().map(|number| 128 + number)).unwrap_or(1);
    Ok(ExitCode::from(u8::try_from(code).unwrap_or(1)))
}

async fn prepare(server: &Temporary, migrations: Option<&Path>) -> anyhow::Result<String> {
    server.postgres().create_database(DATABASE).await?;
    let url = server.postgres().url(DATABASE);
    if let Some(directory) = migrations {
        let mut connection = PgConnection::connect(&url).await?;
        Migrator::new(directory).await?.run(&mut connection).await?;
        connection.close().await?;
    }
    Ok(url)
}
