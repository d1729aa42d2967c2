//! Pausing and resuming.

use std::time::Duration;

use ags_client::{AgsError, Outcome};
use tokio::time::{Instant, sleep};

use super::{adopt::adopt, create::check_lifetime, reload, start::backstop, wrong_state};
use crate::{
    app::{App, daily, lease, wait},
    auth::Caller,
    domain::{
        checks::Checks,
        duration::Seconds,
        instance::{Instance, InstanceStatus},
        tool::check_timeout,
    },
    error::{Code, Error, Result},
    ids::InstanceId,
    storage::instances::{self, Step},
    upstream::SeenInstance,
};

/// For the streams of its commands to be closed.
const STREAM_PATIENCE: Duration = Duration::from_secs(3);
const FIRST_LOOK: Duration = Duration::from_millis(50);
const LONGEST_PAUSE: Duration = Duration::from_secs(2);
/// How often the state before the call may be seen after the cloud has accepted it: its lists may lag behind.
const STALE_LOOKS: u32 = 5;

/// A change of state that the cloud takes a while for.
#[derive(Clone, Copy, Debug)]
enum Transition {
    Pause { memory: Option<bool> },
    Resume { timeout: Duration },
}

impl Transition {
    fn from(self) -> InstanceStatus {
        match self {
            Self::Pause { .. } => InstanceStatus::Running,
            Self::Resume { .. } => InstanceStatus::Paused,
        }
    }

    fn through(self) -> InstanceStatus {
        match self {
            Self::Pause { .. } => InstanceStatus::Pausing,
            Self::Resume { .. } => InstanceStatus::Resuming,
        }
    }

    fn to(self) -> InstanceStatus {
        match self {
            Self::Pause { .. } => InstanceStatus::Paused,
            Self::Resume { .. } => InstanceStatus::Running,
        }
    }
}

/// Pauses a running instance and waits up to `patience`; it may be PAUSING still in the answer. `memory`: whether processes
/// are kept, not only the disk; the cloud's default when `None`. A paused one keeps its `expires_at`.
///
/// # Errors
/// `not_found`, `invalid_state`; what the cloud says.
pub async fn pause(
    app: &App,
    caller: &Caller,
    id: &InstanceId,
    memory: Option<bool>,
    patience: Duration,
) -> Result<Instance> {
    let instance = super::get(app, caller, id).await?;
    if instance.status == InstanceStatus::Paused {
        return Ok(instance);
    }
    let mut connection = app.pool.acquire().await?;
    let begun = instances::begin_pause(&mut connection, caller.team_id(), id, app.upkeep.claim_seconds()).await?;
    drop(connection);
    app.ports.forget(caller.team_id(), id).await;
    if !begun {
        return Err(wrong_state(&reload(app, id).await?, "It must be RUNNING."));
    }
    suspended(app, id).await;
    carry_out(app, id, Transition::Pause { memory }, patience).await
}

/// Brings a pause to its end that was begun and claimed. It may be under way still when the startup timeout has passed.
///
/// # Errors
/// What the cloud says; the instance runs again then.
pub(super) async fn pause_begun(app: &App, id: &InstanceId) -> Result<()> {
    suspended(app, id).await;
    carry_out(app, id, Transition::Pause { memory: None }, app.config.instances.startup_timeout).await.map(drop)
}

/// What flows from it would be cut in the middle. A stream that does not close is no reason not to pause.
async fn suspended(app: &App, id: &InstanceId) {
    let closed = tokio::time::timeout(STREAM_PATIENCE, app.execs.suspend(id)).await;
    if closed.is_err() {
        tracing::warn!(instance = %id, "pausing with open streams");
    }
}

/// Resumes a paused instance and waits up to `patience`; it may be RESUMING still in the answer. `timeout` counts from now;
/// without it the instance has what it had left.
///
/// # Errors
/// `not_found`, `invalid_state`, `validation_failed`, `quota_exceeded`; what the cloud says.
pub async fn resume(
    app: &App,
    caller: &Caller,
    id: &InstanceId,
    timeout: Option<Seconds>,
    patience: Duration,
) -> Result<Instance> {
    let timeout = timeout.map(|seconds| seconds.0);
    if let Some(seconds) = timeout {
        let mut checks = Checks::default();
        check_timeout(&mut checks, "timeout", seconds);
        checks.finish()?;
        check_lifetime(caller, seconds)?;
    }
    let instance = super::get(app, caller, id).await?;
    if instance.status == InstanceStatus::Running && timeout.is_none() {
        return Ok(instance);
    }
    let claim = app.upkeep.claim_seconds();
    let mut connection = app.pool.acquire().await?;
    daily::check(&mut connection, &caller.team).await?;
    let left = instances::begin_resume(&mut connection, caller.team_id(), id, timeout, claim).await?;
    drop(connection);
    let Some(left) = left else {
        return Err(wrong_state(
            &reload(app, id).await?,
            "It must be PAUSED; change a running one's timeout with PATCH.",
        ));
    };
    let timeout = backstop(Duration::from_secs_f64(left.max(0.0)), app.config.instances.backstop_margin);
    carry_out(app, id, Transition::Resume { timeout }, patience).await
}

async fn carry_out(app: &App, id: &InstanceId, transition: Transition, patience: Duration) -> Result<Instance> {
    let instance = reload(app, id).await?;
    let (task_app, claimed) = (app.clone(), instance.clone());
    let task = app.lifecycle.spawn("transition", async move {
        lease::on_instance(&task_app, &claimed.id, run(&task_app, &claimed, transition)).await
    });
    match wait::within(task, patience).await? {
        Some(settled) => Ok(settled),
        None => reload(app, id).await,
    }
}

async fn run(app: &App, instance: &Instance, transition: Transition) -> Result<Instance> {
    let upstream = app.upstreams.get(&instance.upstream)?;
    let id = instance.upstream_id.as_deref().ok_or_else(|| Error::internal("a running instance without an id"))?;
    let asked = match transition {
        Transition::Pause { memory } => upstream.pause(id, memory).await,
        Transition::Resume { timeout } => upstream.resume(id, timeout).await,
    };
    let refused = match asked {
        Ok(()) => None,
        Err(error) if error.outcome() == Outcome::Unknown => Some(error),
        Err(error) => return Err(refuse(app, instance, transition, error).await),
    };
    let end = Instant::now() + app.config.instances.startup_timeout;
    let seen = until_settled(app, instance, transition, end).await?;
    match seen {
        Some(seen) if seen.status == transition.from() => Err(match refused {
            Some(error) => refuse(app, instance, transition, error).await,
            None => did_not(app, instance, transition, &seen).await,
        }),
        Some(seen) => {
            adopt(app, instance, &seen, None).await?;
            let settled = reload(app, &instance.id).await?;
            if settled.status == transition.to() {
                Ok(settled)
            } else {
                Err(wrong_state(&settled, "It ended meanwhile."))
            }
        }
        // Out of time: the reconciler follows it from here on.
        None => reload(app, &instance.id).await,
    }
}

/// Looks until the instance has left the state in between; `None` when the time is up.
async fn until_settled(
    app: &App,
    instance: &Instance,
    transition: Transition,
    end: Instant,
) -> Result<Option<SeenInstance>> {
    let upstream = app.upstreams.get(&instance.upstream)?;
    let id = instance.upstream_id.as_deref().unwrap_or_default();
    let (mut pause, mut stale) = (FIRST_LOOK, 0);
    while Instant::now() < end && !app.lifecycle.is_draining() {
        match upstream.describe_instance(&app.deployment, id).await {
            Ok(Some(seen)) if seen.status == transition.from() => {
                stale += 1;
                if stale >= STALE_LOOKS {
                    return Ok(Some(seen));
                }
            }
            Ok(Some(seen)) if seen.status != transition.through() => return Ok(Some(seen)),
            Ok(_) => {}
            Err(error) => tracing::warn!(instance = %instance.id, %error, "the instance's state could not be read"),
        }
        sleep(pause).await;
        pause = (pause * 2).min(LONGEST_PAUSE);
    }
    Ok(None)
}

/// The instance is as before.
async fn revert(app: &App, instance: &Instance, transition: Transition) -> Result<Instance> {
    let (from, to) = (transition.through(), transition.from());
    let step = Step { from: &from, to: &to, upstream_expires_at: None, as_of: None };
    let mut connection = app.pool.acquire().await?;
    instances::system_step(&mut connection, &instance.id, &step).await?;
    drop(connection);
    reload(app, &instance.id).await
}

async fn refuse(app: &App, instance: &Instance, transition: Transition, error: AgsError) -> Error {
    let gone = error.not_found() || error.is_code(ags_client::codes::UNSUPPORTED_OPERATION);
    let reverted = match revert(app, instance, transition).await {
        Ok(reverted) => reverted,
        Err(error) => return error,
    };
    if gone {
        // The cloud has other ideas of its state.
        app.upkeep.ask();
    }
    Error::from(error).with_sandbox(reverted.reference())
}

async fn did_not(app: &App, instance: &Instance, transition: Transition, seen: &SeenInstance) -> Error {
    match revert(app, instance, transition).await {
        Ok(reverted) => {
            let detail = format!("The cloud did not do it: the instance is {} again. Try again.", seen.status);
            Error::new(Code::UpstreamError, detail).retryable(true).with_sandbox(reverted.reference())
        }
        Err(error) => error,
    }
}
