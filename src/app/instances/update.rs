//! Changing a live instance.

use std::{collections::BTreeMap, time::Duration};

use chrono::{DateTime, TimeDelta, Utc};

use super::{
    adopt::settle_transition,
    create::{check_idle, check_lifetime},
    reload,
    start::backstop,
    wrong_state,
};
use crate::{
    app::App,
    auth::Caller,
    domain::{
        checks::Checks,
        duration::Seconds,
        instance::{Idle, Instance, InstanceStatus, check_metadata},
        tool::{TIMEOUT_RANGE, check_timeout},
    },
    error::{Error, Result},
    ids::InstanceId,
    storage::instances::{self, InstanceChange},
    upstream::instance_metadata,
};

/// A new end of an instance's life.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Life {
    /// Counted from now.
    Timeout(Seconds),
    /// As [`Timeout`](Self::Timeout), of a second and more: the cloud's own countdown stays as long as it must be.
    Briefly(Seconds),
    Until(DateTime<Utc>),
}

/// What shall be other. What is `None` stays.
#[derive(Clone, Debug, Default)]
pub struct Change {
    pub life: Option<Life>,
    /// Replaces the whole.
    pub metadata: Option<BTreeMap<String, String>>,
    /// `Some(None)` takes it away.
    pub idle: Option<Option<Idle>>,
}

/// Changes a live instance.
///
/// # Errors
/// `not_found`, `validation_failed`, `invalid_state` with the instance's state; what the cloud says.
pub async fn update(app: &App, caller: &Caller, id: &InstanceId, change: &Change) -> Result<Instance> {
    // The database's clock decides, whatever this replica's says.
    let now = instances::system_now(&mut *app.pool.acquire().await?).await?;
    let timeout = checked(caller, change, now)?;
    let instance = super::get(app, caller, id).await?;
    let settled = matches!(instance.status, InstanceStatus::Running | InstanceStatus::Paused);
    if instance.status.is_ending() || (timeout.is_some() && !settled) {
        return Err(wrong_state(&instance, "It must be RUNNING or PAUSED."));
    }
    let moved = timeout.and_then(|seconds| moved_backstop(app, &instance, seconds, now));
    if instance.status == InstanceStatus::Running && (moved.is_some() || change.metadata.is_some()) {
        push(app, &instance, moved, change.metadata.as_ref()).await?;
    }
    let change = InstanceChange {
        timeout,
        until: if let Some(Life::Until(end)) = change.life { Some(end) } else { None },
        upstream_timeout: moved.map(|moved| moved.as_secs_f64()),
        metadata: change.metadata.as_ref(),
        idle: change.idle.as_ref().map(Option::as_ref),
    };
    let mut connection = app.pool.acquire().await?;
    let changed = instances::update(&mut connection, caller.team_id(), id, &change).await?;
    drop(connection);
    let instance = reload(app, id).await?;
    if changed { Ok(instance) } else { Err(wrong_state(&instance, "Its time was up: it is being stopped.")) }
}

/// The new timeout in seconds, if one is wanted.
fn checked(caller: &Caller, change: &Change, now: DateTime<Utc>) -> Result<Option<u32>> {
    let mut checks = Checks::default();
    if let Some(metadata) = &change.metadata {
        check_metadata(&mut checks, metadata);
    }
    check_idle(&mut checks, change.idle.as_ref().and_then(Option::as_ref));
    let timeout = match change.life {
        None => None,
        Some(Life::Timeout(Seconds(seconds))) => {
            check_timeout(&mut checks, "timeout", seconds);
            Some(seconds)
        }
        Some(Life::Briefly(Seconds(seconds))) => {
            checks.that((1..=*TIMEOUT_RANGE.end()).contains(&seconds), "timeout", "must lie between 1s and 24h");
            Some(seconds)
        }
        Some(Life::Until(end)) => {
            // Rounded up: it counts what is left of it, and the end itself is kept.
            let seconds = (end - now + TimeDelta::milliseconds(999)).num_seconds();
            let seconds = u32::try_from(seconds).unwrap_or_default();
            check_timeout(&mut checks, "expires_at", seconds);
            Some(seconds)
        }
    };
    checks.finish()?;
    timeout.map(|seconds| check_lifetime(caller, seconds).map(|()| seconds)).transpose()
}

/// The cloud's new countdown, when its present end is too early for a life of `seconds` from now. An end that is later than
/// needed does no harm: the gateway's own decides. A paused instance has no countdown; resuming gives it one.
fn moved_backstop(app: &App, instance: &Instance, seconds: u32, now: DateTime<Utc>) -> Option<Duration> {
    let wanted = backstop(Duration::from_secs(seconds.into()), app.config.instances.backstop_margin);
    let needed = now + TimeDelta::from_std(wanted).unwrap_or(TimeDelta::MAX);
    let early = instance.upstream_expires_at.is_none_or(|end| end < needed);
    (early && instance.status == InstanceStatus::Running).then_some(wanted)
}

async fn push(
    app: &App,
    instance: &Instance,
    timeout: Option<Duration>,
    metadata: Option<&BTreeMap<String, String>>,
) -> Result<()> {
    let id = instance.upstream_id.as_deref().ok_or_else(|| Error::internal("a running instance without an id"))?;
    let stamped = metadata.map(|own| instance_metadata(&app.deployment, &instance.id, &instance.team_id, own));
    let upstream = app.upstreams.get(&instance.upstream)?;
    let Err(error) = upstream.update(id, timeout, stamped).await else { return Ok(()) };
    if !error.not_found() && !error.is_code(ags_client::codes::UNSUPPORTED_OPERATION) {
        return Err(Error::from(error).with_sandbox(instance.reference()));
    }
    // The cloud knows something of it that the row does not.
    let now = instances::system_now(&mut *app.pool.acquire().await?).await?;
    settle_transition(app, instance, Some(now)).await?;
    app.upkeep.ask();
    Err(wrong_state(&reload(app, &instance.id).await?, "The cloud does not let it be changed.").with_source(error))
}
