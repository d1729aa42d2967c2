//! `reconcile`: one pass of the reconciler, for whoever holds the credentials of the database and of the cloud.

use std::{sync::Arc, time::Duration};

use anyhow::ensure;
use clap::Args;

use super::ConfigFile;
use crate::{
    app::reconciliation::{self, Leave},
    bootstrap,
    config::Environment,
    lifecycle::Lifecycle,
    telemetry::metrics::Metrics,
};

/// For a pass of a serving replica to end.
const PATIENCE: Duration = Duration::from_secs(60);

#[derive(Args)]
pub(super) struct Arguments {
    #[command(flatten)]
    config: ConfigFile,
    /// Only tell what a pass would do.
    #[arg(long)]
    dry_run: bool,
    /// Let much end at once: somebody has looked at the report.
    #[arg(long, conflicts_with = "dry_run")]
    force: bool,
}

/// Prints the report as JSON. It fails when something was left as it is: an upstream was not listed, or the brake held.
pub(super) async fn run(arguments: Arguments, environment: &Environment) -> anyhow::Result<()> {
    let config = Arc::new(arguments.config.load(environment)?);
    let pool = bootstrap::connect(&config.database).await?;
    let lifecycle = Lifecycle::default();
    let drain_timeout = config.server.drain_timeout;
    let app = bootstrap::build(config, pool, Metrics::detached(), lifecycle.clone()).await?;
    let report = if arguments.dry_run {
        reconciliation::look(&app).await?
    } else {
        reconciliation::pass_within(&app, Leave { force: arguments.force }, PATIENCE).await?
    };
    println!("{}", serde_json::to_string_pretty(&report)?);
    lifecycle.drain();
    lifecycle.ended(drain_timeout).await?;
    ensure!(report.complete, "not every upstream gave a whole list");
    ensure!(!report.braked, "the brake holds: see `brakes` of the report");
    Ok(())
}
