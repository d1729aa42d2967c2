//! The command line: one file per command. Exit codes: 0 done, 1 failed, 2 wrong usage or configuration.

mod check_config;
mod dev;
mod health;
mod keys;
mod migrate;
mod openapi;
mod reconcile;
mod serve;
mod teams;

use std::{io, path::PathBuf, process::ExitCode, sync::Arc};

use clap::{Args, Parser, Subcommand};

use crate::{
    auth::{Start, Trail},
    bootstrap,
    clock::{self, SharedClock},
    config::{Config, ConfigError, Environment},
    domain::{credential::Peppers, seal::Seals},
    ids::Ids,
};

const FAILED: u8 = 1;
const MISCONFIGURED: u8 = 2;

/// A gateway to Tencent Cloud Agent Sandbox.
#[derive(Parser)]
#[command(name = "ags-gateway", version)]
struct Cli {
    #[command(subcommand)]
    command: Command,
}

#[derive(Subcommand)]
enum Command {
    /// Serve the API until SIGINT or SIGTERM.
    Serve(serve::Arguments),
    /// Run PostgreSQL, the emulator and the gateway on this machine.
    Dev(dev::Arguments),
    /// Bring the database's schema up to date.
    Migrate(ConfigFile),
    /// Mint, list, rotate and revoke API keys.
    Keys(keys::Arguments),
    /// Create and list teams.
    Teams(teams::Arguments),
    /// Bring the database and the cloud together, or tell how they differ.
    Reconcile(reconcile::Arguments),
    /// Print the OpenAPI document.
    Openapi,
    /// Ask a running gateway whether it is ready.
    Health(health::Arguments),
    /// Check the configuration and print every setting in effect.
    CheckConfig(ConfigFile),
}

/// Where the configuration is.
#[derive(Args)]
struct ConfigFile {
    /// Configuration file; environment variables override it.
    #[arg(long = "config", value_name = "FILE", env = "AGS_GATEWAY_CONFIG")]
    path: Option<PathBuf>,
}

impl ConfigFile {
    fn load(&self, environment: &Environment) -> Result<Config, ConfigError> {
        Config::load(environment, self.path.as_deref())
    }
}

/// Runs the command that the process was started with.
#[must_use]
pub fn run(environment: &Environment) -> ExitCode {
    let cli = Cli::parse();
    let runtime = match tokio::runtime::Builder::new_multi_thread().enable_all().build() {
        Ok(runtime) => runtime,
        Err(error) => return report(&error.into()),
    };
    match runtime.block_on(execute(cli.command, environment)) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => report(&error),
    }
}

async fn execute(command: Command, environment: &Environment) -> anyhow::Result<()> {
    match command {
        Command::Serve(arguments) => serve::run(arguments, environment).await,
        Command::Dev(arguments) => dev::run(arguments).await,
        Command::Migrate(file) => migrate::run(&file, environment).await,
        Command::Keys(arguments) => keys::run(arguments, environment).await,
        Command::Teams(arguments) => teams::run(arguments, environment).await,
        Command::Reconcile(arguments) => reconcile::run(arguments, environment).await,
        Command::Openapi => openapi::run(),
        Command::Health(arguments) => health::run(arguments).await,
        Command::CheckConfig(file) => check_config::run(&file, environment),
    }
}

fn report(error: &anyhow::Error) -> ExitCode {
    // A reader of our output that went away (`| head`) is no failure of ours.
    if error.downcast_ref::<io::Error>().is_some_and(|error| error.kind() == io::ErrorKind::BrokenPipe) {
        return ExitCode::SUCCESS;
    }
    eprintln!("ags-gateway: {error:#}");
    ExitCode::from(if error.is::<ConfigError>() { MISCONFIGURED } else { FAILED })
}

/// What commands that work on the database directly need.
struct Tools {
    pool: sqlx::PgPool,
    ids: Ids,
    clock: SharedClock,
    peppers: Peppers,
    seals: Seals,
}

impl Tools {
    async fn connect(config: &Config) -> anyhow::Result<Self> {
        let clock: SharedClock = Arc::new(clock::System);
        Ok(Self {
            pool: bootstrap::connect(&config.database).await?,
            ids: Ids::new(Arc::clone(&clock)),
            clock,
            peppers: Peppers::derive(&config.auth.secret, config.auth.previous_secret.as_ref()),
            seals: config.auth.seals(),
        })
    }
}

impl Tools {
    /// What a command leaves in the history: done by whoever holds the database's credentials.
    fn trail(&self, action: &str) -> Trail {
        Trail::of_operator(Start {
            id: self.ids.next(),
            at: self.clock.now(),
            action: action.to_owned(),
            request_id: "command line".to_owned(),
            client: None,
            on_behalf_of: None,
        })
    }
}

/// Prints a table with aligned columns.
fn print_table(out: &mut impl io::Write, rows: &[Vec<String>]) -> io::Result<()> {
    let columns = rows.iter().map(Vec::len).max().unwrap_or_default();
    let width = |column: usize| rows.iter().filter_map(|row| row.get(column)).map(|cell| cell.chars().count()).max();
    let widths: Vec<usize> = (0..columns).map(|column| width(column).unwrap_or_default()).collect();
    for row in rows {
        let cells: Vec<String> = row.iter().zip(&widths).map(|(cell, width)| format!("{cell:width$}")).collect();
        writeln!(out, "{}", cells.join("  ").trim_end())?;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use clap::CommandFactory;

    use super::*;

    #[test]
    fn the_command_line_is_consistent() {
        Cli::command().debug_assert();
    }

    #[test]
    fn columns_are_aligned() {
        let mut out = Vec::new();
        let row = |cells: &[&str]| cells.iter().map(|&cell| cell.to_owned()).collect::<Vec<_>>();
        print_table(&mut out, &[row(&["ID", "NAME"]), row(&["team01", "é"]), row(&["t", ""])]).unwrap();
        assert_eq!(String::from_utf8(out).unwrap(), "ID      NAME\nteam01  é\nt\n");
    }
}
