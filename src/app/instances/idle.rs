//! The idle policy: what nobody uses is paused, or stopped.

use std::time::Duration;

use ags_client::Outcome;
use envd_client::{EnvdError, EnvdErrorKind};

use super::{Target, pause, stop};
use crate::{
    app::{
        App,
        activity::SLACK,
        audit::{Deed, of_gateway},
        lease,
    },
    domain::{
        audit::OK,
        instance::{IdleAction, Instance, InstanceStatus, StopReason},
    },
    error::{Error, Result},
    ids::ExecId,
    storage::{
        audit,
        instances::{self, IdleStep},
    },
    upstream::{
        error::in_instance,
        seen::{Seen, last_request_id},
    },
};

/// How long the sandbox's daemon may take to say what runs.
const ASK: Duration = Duration::from_secs(5);
/// Before an instance is looked at again that could not be judged, or not paused.
const REST: Duration = Duration::from_secs(30);

/// What a look came to.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Idled {
    pub taken: usize,
    pub paused: usize,
    pub stopped: usize,
    /// Something runs in them all the same.
    pub used: usize,
}

/// What becomes of one.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Became {
    Paused,
    Stopped,
    Used,
    Nothing,
}

/// Takes a batch of instances that nobody has used for as long as their rule says, and pauses or stops them, those too that are
/// paused for longer than it says. Others may do the same at the same time.
///
/// # Errors
/// When the database fails; what the cloud says is in the log.
pub async fn idle_batch(app: &App) -> Result<Idled> {
    let (batch, claim) = (app.config.jobs.reap_batch.into(), app.upkeep.claim_seconds());
    let mut connection = app.pool.acquire().await?;
    let taken = instances::system_take_idle(&mut connection, batch, SLACK.as_secs_f64(), claim).await?;
    drop(connection);
    let all = taken.iter().map(|instance| async move {
        let outcome = Seen::default().noting(lease::on_instance(app, &instance.id, judge(app, instance))).await;
        outcome.unwrap_or_else(|error| {
            tracing::warn!(instance = %instance.id, %error, "the idle policy could not be applied");
            Became::Nothing
        })
    });
    let became = futures_util::future::join_all(all).await;
    let count = |wanted| became.iter().filter(|became| **became == wanted).count();
    let idled = Idled {
        taken: taken.len(),
        paused: count(Became::Paused),
        stopped: count(Became::Stopped),
        used: count(Became::Used),
    };
    for (action, count) in [("pause", idled.paused), ("stop", idled.stopped), ("none", idled.used)] {
        metrics::counter!("ags_gateway_idle_total", "action" => action).increment(count as u64);
    }
    Ok(idled)
}

async fn judge(app: &App, instance: &Instance) -> Result<Became> {
    if instance.status == InstanceStatus::Paused {
        return stop_it(app, instance).await;
    }
    let mut connection = app.pool.acquire().await?;
    let can_pause = instances::system_can_pause(&mut connection, &instance.id).await?;
    drop(connection);
    let Some((idle, can_pause)) = instance.idle.as_ref().zip(can_pause) else { return Ok(Became::Nothing) };
    match runs_something(app, instance).await {
        Ok(false) => {}
        Ok(true) => {
            leave(app, instance, true).await?;
            return Ok(Became::Used);
        }
        Err(error) => {
            leave(app, instance, false).await?;
            return Err(error);
        }
    }
    if idle.action == IdleAction::Pause && can_pause {
        return pause_it(app, instance).await;
    }
    stop_it(app, instance).await
}

async fn leave(app: &App, instance: &Instance, is_used: bool) -> Result<()> {
    let mut connection = app.pool.acquire().await?;
    Ok(instances::system_leave_idle(&mut connection, &instance.id, is_used, REST.as_secs_f64()).await?)
}

/// Whether a process runs in it that was not started through this API: of those that were, the table of commands says which
/// count, and has been asked already. Where there is no daemon, it is all that there is to ask.
///
/// # Errors
/// What the cloud says when it gives no token, or why the daemon could not be asked.
async fn runs_something(app: &App, instance: &Instance) -> Result<bool> {
    let client = Target::of(app, instance.clone())?.envd().await?;
    match client.list(ASK).await {
        Ok(processes) => {
            let ours = |tag: Option<&str>| tag.is_some_and(|tag| tag.parse::<ExecId>().is_ok());
            Ok(processes.iter().any(|process| !ours(process.tag.as_deref())))
        }
        Err(error) if has_no_daemon(&error) => {
            tracing::debug!(instance = %instance.id, %error, "no daemon says what runs");
            Ok(false)
        }
        Err(error) => Err(in_instance(instance, error)),
    }
}

/// Whether nothing in the instance speaks envd's protocol. What fails on the way is no such thing.
fn has_no_daemon(error: &EnvdError) -> bool {
    matches!(error.kind(), EnvdErrorKind::Gone | EnvdErrorKind::Unimplemented | EnvdErrorKind::Protocol)
}

fn deed<'a>(action: &'a str, instance: &'a Instance) -> Deed<'a> {
    Deed {
        action,
        by: "idle policy",
        team: &instance.team_id,
        instance: Some(&instance.id),
        tool: Some(&instance.tool_id),
        target: None,
        reason: StopReason::Idle.as_str(),
    }
}

/// Begins a step in one transaction with its event. `false` when the instance was used meanwhile.
async fn begin(app: &App, instance: &Instance, step: IdleStep, action: &str) -> Result<bool> {
    let claim = app.upkeep.claim_seconds();
    let mut tx = app.pool.begin().await?;
    let begun = instances::system_begin_idle(&mut tx, &instance.id, instance.last_active_at, step, claim).await?;
    if begun {
        audit::system_record(&mut tx, &[of_gateway(app, &deed(action, instance))]).await?;
    }
    tx.commit().await?;
    if begun {
        app.ports.forget(&instance.team_id, &instance.id).await;
    } else {
        leave(app, instance, false).await?;
    }
    Ok(begun)
}

async fn stop_it(app: &App, instance: &Instance) -> Result<Became> {
    if !begin(app, instance, IdleStep::Stop, "stop_idle_instance").await? {
        return Ok(Became::Nothing);
    }
    tracing::info!(instance = %instance.id, "an idle instance is stopped");
    let stopping = super::reload(app, &instance.id).await?;
    // What fails now is the reaper's from here on.
    stop::attempt(app, &stopping).await?;
    Ok(Became::Stopped)
}

async fn pause_it(app: &App, instance: &Instance) -> Result<Became> {
    if !begin(app, instance, IdleStep::Pause, "pause_idle_instance").await? {
        return Ok(Became::Nothing);
    }
    let outcome = pause::pause_begun(app, &instance.id).await;
    let code = outcome.as_ref().map_or_else(|error: &Error| error.code().as_str(), |_| OK);
    let mut connection = app.pool.acquire().await?;
    let request_id = last_request_id();
    audit::system_settle(&mut connection, &instance.id, code, request_id.as_deref()).await?;
    drop(connection);
    match outcome {
        Ok(()) => {
            tracing::info!(instance = %instance.id, "an idle instance was paused");
            Ok(Became::Paused)
        }
        Err(error) if pause_is_refused(&error) => {
            tracing::info!(instance = %instance.id, %error, "an idle instance cannot be paused and is stopped");
            let running = super::reload(app, &instance.id).await?;
            stop_it(app, &running).await
        }
        Err(error) => {
            leave(app, instance, false).await?;
            Err(error)
        }
    }
}

/// Whether the cloud will not pause it, however often it is asked.
fn pause_is_refused(error: &Error) -> bool {
    let source = std::error::Error::source(error).and_then(|source| source.downcast_ref::<ags_client::AgsError>());
    source.is_some_and(|error| error.outcome() == Outcome::Known && (error.quota_exceeded() || !error.retryable()))
}
