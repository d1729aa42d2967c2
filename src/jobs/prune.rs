//! Removal of what has been kept long enough.

use super::driver::{Job, More};
use crate::{
    app::App,
    error::Result,
    storage::{idempotency, tickets},
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

/// Removes a batch of expired tickets and idempotency keys. Answers the larger of both counts.
///
/// # Errors
/// When the database fails.
pub async fn prune_batch(app: &App) -> Result<u64> {
    let limit = i64::from(app.config.jobs.prune_batch);
    let mut connection = app.pool.acquire().await?;
    let tickets = tickets::system_prune(&mut connection, limit).await?;
    let keys = idempotency::system_prune(&mut connection, limit).await?;
    Ok(tickets.max(keys))
}
