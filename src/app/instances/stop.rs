//! Stopping: the end is recorded first, then the cloud is called until it is true.

use std::time::Duration;

use ags_client::AgsError;
use tokio::time::{Instant, sleep};

use super::reload;
use crate::{
    app::{App, lease},
    auth::{Caller, Trail},
    domain::{
        audit::OK,
        instance::{Instance, InstanceStatus, StopReason},
    },
    error::{Error, Result},
    ids::{InstanceId, TeamId},
    storage::{
        audit,
        instances::{self, Ended},
        teams,
    },
    upstream::seen,
};

const FIRST_LOOK: Duration = Duration::from_millis(50);
const LONGEST_PAUSE: Duration = Duration::from_secs(1);

/// Stops an instance of the caller's team and waits for the attempt. One that has ended stays so; when the cloud fails it
/// stays STOPPING, and the reaper goes on.
///
/// # Errors
/// `not_found`; when the database fails.
pub async fn stop(app: &App, caller: &Caller, id: &InstanceId) -> Result<Instance> {
    let instance = super::get(app, caller, id).await?;
    stop_of(app, instance, &caller.trail).await
}

/// As [`stop`], for an instance at hand.
///
/// # Errors
/// When the database fails.
pub async fn stop_of(app: &App, instance: Instance, trail: &Trail) -> Result<Instance> {
    if instance.status.is_final() {
        return Ok(instance);
    }
    let claim = app.upkeep.claim_seconds();
    let starting = instance.status == InstanceStatus::Starting;
    let Instance { id, team_id: team, .. } = &instance;
    let mut tx = app.pool.begin().await?;
    let begun = instances::begin_stop(&mut tx, team, id, &StopReason::Manual, claim).await?;
    let ours = begun || instances::claim_stop(&mut tx, team, id, claim).await?;
    trail.intend(&mut tx).await?;
    tx.commit().await?;
    app.ports.forget(team, id).await;
    let instance = reload(app, id).await?;
    if !ours || (starting && instance.upstream_id.is_none()) {
        // Whoever works on it (a start that is under way, the reaper) sees that it is to be stopped.
        return until_final(app, instance).await;
    }
    lease::on_instance(app, id, attempt(app, &instance)).await?;
    reload(app, id).await
}

/// Begins to stop all live instances of a team, and answers how many; the reaper goes on until they have ended.
///
/// # Errors
/// `not_found` for an unknown team; when the database fails.
pub async fn stop_all(app: &App, caller: &Caller, team: &TeamId) -> Result<u64> {
    caller.require_unbound()?;
    let mut tx = app.pool.begin().await?;
    // The lock keeps new ones from being counted in, or out.
    teams::lock(&mut tx, team).await?.ok_or_else(|| Error::not_found("team"))?;
    let stopping = instances::begin_stop_all(&mut tx, team, &StopReason::Manual).await?;
    caller.trail.note_team(team);
    caller.trail.intend(&mut tx).await?;
    tx.commit().await?;
    app.holders.look();
    app.upkeep.reap.notify_one();
    Ok(stopping)
}

/// Waits for an end that somebody else brings about; the instance as it is when the time is up.
async fn until_final(app: &App, mut instance: Instance) -> Result<Instance> {
    let end = Instant::now() + app.config.instances.wait;
    let mut pause = FIRST_LOOK;
    while !instance.status.is_final() && Instant::now() + pause < end {
        sleep(pause).await;
        pause = (pause * 2).min(LONGEST_PAUSE);
        instance = reload(app, &instance.id).await?;
    }
    Ok(instance)
}

/// Stops a STOPPING instance in the cloud and records the end. A failure is recorded too, and is not an error.
///
/// # Errors
/// When the database fails.
pub async fn attempt(app: &App, instance: &Instance) -> Result<bool> {
    match finish(app, instance).await {
        Ok(()) => Ok(true),
        Err(error) => {
            note_failure(app, instance, &error).await?;
            Ok(false)
        }
    }
}

/// Stops a STOPPING instance in the cloud and records the end.
///
/// # Errors
/// What the cloud says.
pub async fn finish(app: &App, instance: &Instance) -> Result<()> {
    let upstream = app.upstreams.get(&instance.upstream)?;
    if let Some(id) = known_id(app, instance).await? {
        upstream.stop(&id, upstream.config.attempt_timeout).await?;
        app.access.forget(upstream.name(), &id).await;
    }
    let ended = Ended {
        status: InstanceStatus::Stopped,
        reason: StopReason::Manual,
        detail: None,
        error: None,
        request_id: None,
    };
    let mut tx = app.pool.begin().await?;
    instances::system_ended(&mut tx, &instance.id, &[InstanceStatus::Stopping], &ended).await?;
    if instance.stop_reason != Some(StopReason::Manual) {
        let request_id = seen::last_request_id();
        audit::system_settle(&mut tx, &instance.id, OK, request_id.as_deref()).await?;
    }
    Ok(tx.commit().await?)
}

/// The instance's id in the cloud. One whose start was cut off is looked for by its stamp.
async fn known_id(app: &App, instance: &Instance) -> Result<Option<String>> {
    if let Some(id) = &instance.upstream_id {
        return Ok(Some(id.clone()));
    }
    let mut connection = app.pool.acquire().await?;
    let launch = instances::system_launch(&mut connection, &instance.id).await?;
    drop(connection);
    let Some(tool) = launch.and_then(|launch| launch.tool_upstream_id) else { return Ok(None) };
    let upstream = app.upstreams.get(&instance.upstream)?;
    let found: Result<_, AgsError> = upstream.find_instance(&app.deployment, &tool, &instance.id).await;
    let Some(seen) = found? else { return Ok(None) };
    let mut connection = app.pool.acquire().await?;
    instances::system_identify(&mut connection, &instance.id, &seen.id, None).await?;
    Ok(Some(seen.id))
}

async fn note_failure(app: &App, instance: &Instance, error: &Error) -> Result<()> {
    metrics::counter!("ags_gateway_stop_failures_total").increment(1);
    let text = std::error::Error::source(error).map_or_else(|| error.to_string(), ToString::to_string);
    let longest = app.config.jobs.stop_backoff.as_secs_f64();
    let mut connection = app.pool.acquire().await?;
    let attempts = instances::system_defer(&mut connection, &instance.id, &text, longest).await?;
    tracing::warn!(instance = %instance.id, attempts, error = text, "the instance could not be stopped; it is tried again");
    Ok(())
}
