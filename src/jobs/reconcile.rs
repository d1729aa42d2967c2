//! When the reconciler runs: by timer, when an outcome is unknown, and first of all to settle what the last run has left.

use std::time::Duration;

use tokio::time::Instant;

use super::driver::{Job, More};
use crate::{
    app::{
        App,
        reconciliation::{self, Leave},
    },
    error::Result,
    storage::instances,
};

/// Until another replica's pass is looked for again at the start.
const BUSY: Duration = Duration::from_millis(200);

#[derive(Default)]
pub(super) struct Reconcile {
    first: Option<Instant>,
}

impl Job for Reconcile {
    const NAME: &'static str = "reconcile";

    async fn run(&mut self, app: &App) -> Result<More> {
        let first = *self.first.get_or_insert_with(Instant::now);
        let taken = reconciliation::take_up(app).await?;
        if app.upkeep.is_reconciled() {
            // By timer it suffices that one replica has looked.
            let rest = if app.upkeep.is_asked() { Duration::ZERO } else { app.config.jobs.reconcile_interval / 2 };
            reconciliation::pass(app, Leave::default(), rest).await?;
            return Ok(More::Later);
        }
        // The first look after the start: it ends when what the last run left behind has been settled.
        let report = reconciliation::pass(app, Leave::default(), Duration::ZERO).await?;
        for start in taken.starts {
            if let Ok(Err(error)) = start.await {
                tracing::warn!(%error, "a start of the last run failed");
            }
        }
        super::reap::reap_batch(app).await?;
        match report {
            None => return Ok(rest(app, BUSY).await),
            Some(report) if !report.complete => return Ok(More::Later),
            Some(_) => {}
        }
        match left_claimed(app, first).await? {
            None => app.upkeep.mark_reconciled(),
            Some(left) => {
                tracing::info!(seconds = left.as_secs_f64(), "waiting for claims of the last run to lapse");
                return Ok(rest(app, left).await);
            }
        }
        Ok(More::Later)
    }
}

async fn rest(app: &App, time: Duration) -> More {
    app.lifecycle.draining().run_until_cancelled(tokio::time::sleep(time)).await;
    More::Now
}

/// How long claims from before the start may last still. Those that outlive their time are live replicas'.
async fn left_claimed(app: &App, first: Instant) -> Result<Option<Duration>> {
    let patience = (first + app.upkeep.claim + Duration::from_secs(1)).saturating_duration_since(Instant::now());
    let mut connection = app.pool.acquire().await?;
    let claimed = instances::system_claimed_for(&mut connection).await?;
    Ok(claimed.map(|seconds| Duration::from_secs_f64(seconds.max(0.01)).min(patience)).filter(|_| !patience.is_zero()))
}
