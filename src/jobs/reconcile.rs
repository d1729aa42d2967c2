//! The reconciler: what a crash or a lost answer has left between the database and the cloud is brought together.
//!
//! Starts, pauses and resumptions that nobody works on are taken up; instances that carry our stamp and that no live row
//! stands for are stopped; rows whose instance has ended in the cloud end. What does not carry our stamp is not touched,
//! and nothing is concluded from a listing that failed.

use std::{collections::HashMap, time::Duration};

use chrono::{DateTime, Utc};
use tokio::{task::JoinHandle, time::Instant};

use super::driver::{Job, More};
use crate::{
    app::{
        App,
        instances::{self as lives, Adopted},
        lease,
    },
    domain::instance::{Instance, InstanceStatus, StopReason},
    error::Result,
    storage::instances,
    upstream::{SeenInstance, Upstream},
};

/// What a pass found and did.
#[derive(Debug, Default)]
pub struct Pass {
    /// Every upstream could be listed.
    pub complete: bool,
    /// Instances that nothing stands for, stopped.
    pub orphans: usize,
    /// Rows whose instance is gone, ended.
    pub missing: usize,
    /// Rows that were brought to what the cloud shows.
    pub adopted: usize,
    /// Starts that were taken up; they go on after the pass.
    pub resumed: Vec<JoinHandle<Result<Instance>>>,
}

#[derive(Default)]
pub(super) struct Reconcile {
    first: Option<Instant>,
}

impl Job for Reconcile {
    const NAME: &'static str = "reconcile";

    async fn run(&mut self, app: &App) -> Result<More> {
        let first = *self.first.get_or_insert_with(Instant::now);
        let pass = pass(app).await?;
        if app.upkeep.is_reconciled() {
            return Ok(More::Later);
        }
        // The first look after the start: it ends when what the last run left behind has been settled.
        for start in pass.resumed {
            if let Ok(Err(error)) = start.await {
                tracing::warn!(%error, "a start of the last run failed");
            }
        }
        super::reap::reap_batch(app).await?;
        if !pass.complete {
            return Ok(More::Later);
        }
        match left_claimed(app, first).await? {
            None => app.upkeep.mark_reconciled(),
            Some(left) => {
                tracing::info!(seconds = left.as_secs_f64(), "waiting for claims of the last run to lapse");
                app.lifecycle.draining().run_until_cancelled(tokio::time::sleep(left)).await;
                return Ok(More::Now);
            }
        }
        Ok(More::Later)
    }
}

/// How long claims from before the start may last still. Those that outlive their time are live replicas'.
async fn left_claimed(app: &App, first: Instant) -> Result<Option<Duration>> {
    let patience = (first + app.upkeep.claim + Duration::from_secs(1)).saturating_duration_since(Instant::now());
    let mut connection = app.pool.acquire().await?;
    let claimed = instances::system_claimed_for(&mut connection).await?;
    Ok(claimed.map(|seconds| Duration::from_secs_f64(seconds.max(0.01)).min(patience)).filter(|_| !patience.is_zero()))
}

/// One pass over everything.
///
/// # Errors
/// When the database fails.
pub async fn pass(app: &App) -> Result<Pass> {
    let mut pass = Pass { complete: true, ..Pass::default() };
    take_up(app, &mut pass).await?;
    for upstream in app.upstreams.iter() {
        if let Err(error) = compare(app, upstream, &mut pass).await {
            tracing::warn!(upstream = upstream.name(), %error, "the upstream could not be compared");
            pass.complete = false;
        }
    }
    for (kind, count) in [("orphan", pass.orphans), ("missing", pass.missing), ("state", pass.adopted)] {
        metrics::counter!("ags_gateway_reconcile_drift_total", "kind" => kind).increment(count as u64);
    }
    Ok(pass)
}

/// Goes on with what nobody works on any more.
async fn take_up(app: &App, pass: &mut Pass) -> Result<()> {
    let mut connection = app.pool.acquire().await?;
    let batch = app.config.jobs.reconcile_batch.into();
    let abandoned = instances::system_take_abandoned(&mut connection, batch, app.upkeep.claim_seconds()).await?;
    drop(connection);
    for instance in abandoned {
        tracing::info!(instance = %instance.id, status = %instance.status, "taking up what was left open");
        if instance.status == InstanceStatus::Starting {
            let start = lives::follow_up(app.clone(), instance.id.clone());
            pass.resumed.push(app.lifecycle.spawn("start", start));
        } else {
            let settling = lives::settle_transition(app, &instance, None);
            match lease::on_instance(app, &instance.id, settling).await {
                Ok(Adopted::Nothing) => {}
                Ok(_) => pass.adopted += 1,
                Err(error) => tracing::warn!(instance = %instance.id, %error, "its state could not be read"),
            }
        }
    }
    Ok(())
}

async fn compare(app: &App, upstream: &Upstream, pass: &mut Pass) -> Result<()> {
    let mut connection = app.pool.acquire().await?;
    let as_of = instances::system_now(&mut connection).await?;
    drop(connection);
    let seen = upstream.list_instances(&app.deployment).await?;
    stop_orphans(app, upstream, &seen, pass).await?;
    let mut connection = app.pool.acquire().await?;
    let expected = instances::system_expected(&mut connection, upstream.name()).await?;
    drop(connection);
    follow_rows(app, upstream, &expected, seen, as_of, pass).await
}

/// Stops what carries our stamp and is no live row's instance.
async fn stop_orphans(app: &App, upstream: &Upstream, seen: &[SeenInstance], pass: &mut Pass) -> Result<()> {
    let stamped = |seen: &&SeenInstance| seen.stamp.is_some() && !seen.status.is_ending();
    let live: Vec<&SeenInstance> = seen.iter().filter(stamped).collect();
    let ids: Vec<String> = live.iter().filter_map(|seen| seen.stamp.as_ref().map(ToString::to_string)).collect();
    let mut connection = app.pool.acquire().await?;
    let rows = instances::system_by_ids(&mut connection, &ids).await?;
    drop(connection);
    let rows: HashMap<&str, &Instance> = rows.iter().map(|row| (row.id.as_str(), row)).collect();
    for seen in live {
        let row = seen.stamp.as_ref().and_then(|stamp| rows.get(stamp.as_str()));
        if !is_orphan(row.copied(), seen) {
            continue;
        }
        tracing::warn!(upstream_id = seen.id, stamp = ?seen.stamp, "stopping an instance that no live row stands for");
        match upstream.stop(&seen.id, upstream.config.attempt_timeout).await {
            Ok(()) => pass.orphans += 1,
            Err(error) => {
                tracing::warn!(upstream_id = seen.id, %error, "the orphan could not be stopped; it is tried again")
            }
        }
    }
    Ok(())
}

/// An instance whose start is not recorded yet is not one, nor is one whose stop is under way.
fn is_orphan(row: Option<&Instance>, seen: &SeenInstance) -> bool {
    match row {
        None => true,
        Some(row) if row.status.is_final() => true,
        Some(row) => row.upstream_id.as_ref().is_some_and(|id| *id != seen.id),
    }
}

/// Brings rows to what the cloud shows, and ends those that it does not show.
async fn follow_rows(
    app: &App,
    upstream: &Upstream,
    expected: &[Instance],
    seen: Vec<SeenInstance>,
    as_of: DateTime<Utc>,
    pass: &mut Pass,
) -> Result<()> {
    let mut seen: HashMap<String, SeenInstance> = seen.into_iter().map(|seen| (seen.id.clone(), seen)).collect();
    let id = |row: &Instance| row.upstream_id.clone().unwrap_or_default();
    let absent: Vec<String> = expected.iter().map(id).filter(|id| !seen.contains_key(id)).collect();
    if !absent.is_empty() {
        // A listing may miss one; a direct question does not.
        let found = upstream.describe_instances(&app.deployment, &absent).await?;
        seen.extend(found.into_iter().map(|seen| (seen.id.clone(), seen)));
    }
    let mut present = Vec::new();
    for row in expected {
        match seen.get(&id(row)) {
            Some(seen) => {
                present.push(row.id.to_string());
                if lives::adopt(app, row, seen, Some(as_of)).await? != Adopted::Nothing {
                    tracing::info!(instance = %row.id, from = %row.status, to = %seen.status, "the cloud had changed it");
                    pass.adopted += 1;
                }
            }
            None => pass.missing += usize::from(judge_missing(app, row, as_of).await?),
        }
    }
    let mut connection = app.pool.acquire().await?;
    Ok(instances::system_present(&mut connection, &present).await?)
}

/// Ends a row whose instance the cloud does not show, unless it changed a moment ago: the cloud's lists may lag behind.
async fn judge_missing(app: &App, row: &Instance, as_of: DateTime<Utc>) -> Result<bool> {
    let mut connection = app.pool.acquire().await?;
    let missing = instances::system_missing(&mut connection, &row.id).await?;
    drop(connection);
    let grace = app.config.jobs.missing_grace.as_secs_f64();
    let unchanged = (as_of - row.updated_at).as_seconds_f64();
    if missing < grace && unchanged < grace {
        return Ok(false);
    }
    tracing::warn!(instance = %row.id, "the cloud does not know it any more");
    lives::end(app, row, InstanceStatus::Stopped, StopReason::System).await
}
