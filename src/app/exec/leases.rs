//! Who follows which command: each replica says so again and again, and what nobody follows is lost.

use std::time::Duration;

use crate::{app::App, error::Result, storage::execs};

const RENEW: Duration = Duration::from_secs(10);
/// Three renewals may fail before a command counts as followed by nobody.
pub(super) const LEASE_SECONDS: f64 = 40.0;

/// Renews the leases of this replica, and declares lost what has none, until the process drains.
pub async fn keep(app: App) {
    let draining = app.lifecycle.draining();
    let mut timer = tokio::time::interval(RENEW);
    timer.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
    while draining.run_until_cancelled(timer.tick()).await.is_some() {
        if let Err(error) = renew(&app).await {
            tracing::warn!(%error, "the leases of running commands could not be renewed");
        }
    }
}

async fn renew(app: &App) -> Result<()> {
    let mut connection = app.pool.acquire().await?;
    let ids = app.execs.live_ids();
    if !ids.is_empty() {
        execs::system_renew(&mut connection, app.execs.replica(), &ids, LEASE_SECONDS).await?;
    }
    let lost = execs::system_lose_expired(&mut connection, "The gateway that followed it went away.").await?;
    if lost > 0 {
        tracing::warn!(lost, "commands are followed by nobody");
    }
    Ok(())
}
