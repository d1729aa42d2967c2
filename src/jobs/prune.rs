//! Removal of what has been kept long enough.

use super::driver::{Job, More};
use crate::{
    app::App,
    error::Result,
    storage::{audit, exec_output, exec_slots, execs, idempotency, instances, previews, queue, runs, tickets, usage},
};

pub(super) struct Prune;

impl Job for Prune {
    const NAME: &'static str = "prune";

    async fn run(&mut self, app: &App) -> Result<More> {
        let limit = i64::from(app.config.jobs.prune_batch);
        let removed = prune_batch(app).await?;
        Ok(if removed >= limit.unsigned_abs() { More::Now } else { More::Later })
    }
}

/// Removes a batch each of expired tickets, idempotency keys, previews, places in line and leases, of output of commands that ended long ago, of runs and
/// instances that did with their commands, and of old history. Answers the largest of the counts.
///
/// # Errors
/// When the database fails.
pub async fn prune_batch(app: &App) -> Result<u64> {
    let limit = i64::from(app.config.jobs.prune_batch);
    let mut connection = app.pool.acquire().await?;
    let tickets = tickets::system_prune(&mut connection, limit).await?;
    let keys = idempotency::system_prune(&mut connection, limit).await?;
    let previews = previews::system_prune(&mut connection, limit).await?;
    let places = queue::system_prune(&mut connection, limit).await?;
    let slots = exec_slots::system_prune(&mut connection, limit).await?;
    let age = app.config.exec.output_retention.as_secs_f64();
    let output = exec_output::system_prune(&mut connection, age, limit).await?;
    let runs = runs::system_prune(&mut connection, app.config.runs.retention.as_secs_f64(), limit).await?;
    let age = app.config.jobs.instance_retention.as_secs_f64();
    let execs = execs::system_prune(&mut connection, age, limit).await?;
    let instances = instances::system_prune(&mut connection, age, limit).await?;
    let config = &app.config.audit;
    let events = audit::system_prune(&mut connection, config.retention.as_secs_f64(), limit).await?;
    let usage = usage::system_prune(&mut connection, config.usage_retention.as_secs_f64(), limit).await?;
    Ok([tickets, keys, previews, places, slots, output, runs, execs, instances, events, usage]
        .into_iter()
        .max()
        .unwrap_or_default())
}
