//! The reaper: stops what has expired, and what is STOPPING still.

use futures_util::{StreamExt, stream::FuturesUnordered};
use tokio::sync::Semaphore;

use super::driver::{Job, More};
use crate::{
    app::{App, instances::attempt, lease},
    domain::instance::{Instance, StopReason},
    error::Result,
    storage::instances,
};

/// What a batch came to.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Reaped {
    pub taken: usize,
    pub stopped: usize,
    /// They stay STOPPING and are tried again.
    pub failed: usize,
}

pub(super) struct Reap;

impl Job for Reap {
    const NAME: &'static str = "reap";

    async fn run(&mut self, app: &App) -> Result<More> {
        let reaped = reap_batch(app).await?;
        let full = reaped.taken >= app.config.jobs.reap_batch as usize;
        Ok(if full { More::Now } else { More::Later })
    }
}

/// Takes a batch of instances that are to be stopped, and stops them. Others may do the same at the same time.
///
/// # Errors
/// When the database fails; what the cloud says is recorded with each instance.
pub async fn reap_batch(app: &App) -> Result<Reaped> {
    let config = &app.config.jobs;
    let mut connection = app.pool.acquire().await?;
    let due = instances::system_take_due(&mut connection, config.reap_batch.into(), app.upkeep.claim_seconds()).await?;
    drop(connection);
    let mut reaped = Reaped { taken: due.len(), ..Reaped::default() };
    let slots = Semaphore::new(config.reap_parallel as usize);
    let mut work: FuturesUnordered<_> = due.iter().map(|instance| reap(app, instance, &slots)).collect();
    while let Some(stopped) = work.next().await {
        if stopped? {
            reaped.stopped += 1;
        } else {
            reaped.failed += 1;
        }
    }
    Ok(reaped)
}

async fn reap(app: &App, instance: &Instance, slots: &Semaphore) -> Result<bool> {
    let work = async {
        let _slot = slots.acquire().await;
        attempt(app, instance).await
    };
    let stopped = lease::on_instance(app, &instance.id, work).await?;
    if stopped && instance.stop_reason == Some(StopReason::Timeout) {
        let lag = (app.clock.now() - instance.expires_at).to_std().unwrap_or_default();
        metrics::counter!("ags_gateway_reaped_total").increment(1);
        metrics::histogram!("ags_gateway_reap_lag_seconds").record(lag.as_secs_f64());
        tracing::info!(instance = %instance.id, lag_ms = lag.as_millis(), "an expired instance was stopped");
    }
    Ok(stopped)
}
