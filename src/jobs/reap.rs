//! The reaper: stops what has expired, and what is STOPPING still.

use std::time::Duration;

use futures_util::{StreamExt, stream::FuturesUnordered};
use tokio::{sync::Semaphore, time::Instant};

use super::driver::{Job, More};
use crate::{
    app::{
        App,
        audit::{Deed, of_gateway},
        instances::attempt,
        lease,
    },
    domain::{
        audit::AuditEvent,
        instance::{Instance, StopReason},
    },
    error::Result,
    storage::{audit, instances},
    upstream::seen::Seen,
};

/// How long before its end an instance is warned of it.
const NOTICE: Duration = Duration::from_secs(60);

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
        warn_batch(app).await?;
        let reaped = reap_batch(app).await?;
        let full = reaped.taken >= app.config.jobs.reap_batch as usize;
        Ok(if full { More::Now } else { More::Later })
    }
}

/// Warns of the ends of a batch of lives that come soon; each warning is an event of the instance.
///
/// # Errors
/// When the database fails.
pub async fn warn_batch(app: &App) -> Result<u64> {
    let mut connection = app.pool.acquire().await?;
    Ok(instances::system_warn(&mut connection, NOTICE.as_secs_f64(), app.config.jobs.reap_batch.into()).await?)
}

/// Takes a batch of instances that are to be stopped, and stops them. Others may do the same at the same time.
///
/// # Errors
/// When the database fails; what the cloud says is recorded with each instance.
pub async fn reap_batch(app: &App) -> Result<Reaped> {
    let config = &app.config.jobs;
    let due = take_due(app).await?;
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

/// Those whose end begins now stand in the history from the same moment.
async fn take_due(app: &App) -> Result<Vec<Instance>> {
    let mut tx = app.pool.begin().await?;
    let batch = app.config.jobs.reap_batch.into();
    let due = instances::system_take_due(&mut tx, batch, app.upkeep.claim_seconds()).await?;
    let begun = due.iter().filter(|instance| instance.stopping_at == Some(instance.updated_at));
    let events: Vec<_> = begun.map(|instance| expired(app, instance)).collect();
    if !events.is_empty() {
        audit::system_record(&mut tx, &events).await?;
    }
    tx.commit().await?;
    Ok(due)
}

fn expired(app: &App, instance: &Instance) -> AuditEvent {
    of_gateway(
        app,
        &Deed {
            action: "expire_instance",
            by: "reaper",
            team: &instance.team_id,
            instance: Some(&instance.id),
            tool: Some(&instance.tool_id),
            target: None,
            reason: StopReason::Timeout.as_str(),
        },
    )
}

async fn reap(app: &App, instance: &Instance, slots: &Semaphore) -> Result<bool> {
    let taken = Instant::now();
    let work = async {
        let _slot = slots.acquire().await;
        Seen::default().noting(attempt(app, instance)).await
    };
    let stopped = lease::on_instance(app, &instance.id, work).await?;
    if stopped && instance.stop_reason == Some(StopReason::Timeout) {
        // The database's clock says when it was taken; from there on only time that passed counts.
        let lag = (instance.updated_at - instance.expires_at).to_std().unwrap_or_default() + taken.elapsed();
        metrics::counter!("ags_gateway_reaped_total").increment(1);
        metrics::histogram!("ags_gateway_reap_lag_seconds").record(lag.as_secs_f64());
        tracing::info!(instance = %instance.id, lag_ms = lag.as_millis(), "an expired instance was stopped");
    }
    Ok(stopped)
}
