//! Bringing a row to what the cloud shows.

use chrono::{DateTime, Utc};

use crate::{
    app::{
        App,
        audit::{Deed, of_gateway},
    },
    domain::{
        audit::{AuditEvent, OK},
        instance::{Instance, InstanceStatus, StopReason},
    },
    error::Result,
    storage::{
        audit,
        instances::{self, Ended, Step},
    },
    upstream::SeenInstance,
};

/// What changed of a row.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Adopted {
    Nothing,
    /// It lives, in another state.
    State,
    /// It is over.
    Ended,
}

/// Records what the cloud was seen to have made of a live instance that is neither STARTING nor STOPPING. `as_of` is when
/// that was, by the database's clock; `None` for the holder of the row's claim.
///
/// # Errors
/// When the database fails.
pub async fn adopt(
    app: &App,
    instance: &Instance,
    seen: &SeenInstance,
    as_of: Option<DateTime<Utc>>,
) -> Result<Adopted> {
    if seen.status.is_final() {
        let ended = end(app, instance, seen.status.clone(), reason(seen)).await?;
        return Ok(if ended { Adopted::Ended } else { Adopted::Nothing });
    }
    // A stop of somebody else's is under way: its end is recorded when it has come.
    if seen.status == instance.status || seen.status == InstanceStatus::Stopping {
        return Ok(Adopted::Nothing);
    }
    let upstream_expires_at = seen.expires_at.filter(|_| seen.status == InstanceStatus::Running);
    let step = Step { from: &instance.status, to: &seen.status, upstream_expires_at, as_of };
    let mut connection = app.pool.acquire().await?;
    let taken = instances::system_step(&mut connection, &instance.id, &step).await?;
    Ok(if taken { Adopted::State } else { Adopted::Nothing })
}

fn reason(seen: &SeenInstance) -> StopReason {
    match (&seen.status, &seen.stop_reason) {
        (_, Some(reason)) => reason.clone(),
        (InstanceStatus::Failed, None) => StopReason::Error,
        _ => StopReason::System,
    }
}

/// Records an end that was not asked for here.
///
/// # Errors
/// When the database fails.
pub async fn end(app: &App, instance: &Instance, status: InstanceStatus, reason: StopReason) -> Result<bool> {
    let event = of_gateway(
        app,
        &Deed {
            action: "end_instance",
            by: "reconciler",
            team: &instance.team_id,
            instance: Some(&instance.id),
            tool: Some(&instance.tool_id),
            target: None,
            reason: reason.as_str(),
        },
    );
    let ended = Ended { status, reason, detail: None, error: None, request_id: None };
    let from = [instance.status.clone()];
    let mut tx = app.pool.begin().await?;
    let done = instances::system_ended(&mut tx, &instance.id, &from, &ended).await?;
    if done {
        audit::system_record(&mut tx, &[AuditEvent { outcome: Some(OK.to_owned()), ..event }]).await?;
    }
    tx.commit().await?;
    if let Some(id) = instance.upstream_id.as_deref().filter(|_| done) {
        app.access.forget(&instance.upstream, id).await;
    }
    Ok(done)
}

/// Finds out what became of a pause or a resumption whose driver died, or of an instance that the cloud refuses to change.
///
/// # Errors
/// When the cloud or the database fails.
pub async fn settle_transition(app: &App, instance: &Instance, as_of: Option<DateTime<Utc>>) -> Result<Adopted> {
    let Some(id) = instance.upstream_id.as_deref() else { return Ok(Adopted::Nothing) };
    let upstream = app.upstreams.get(&instance.upstream)?;
    match upstream.describe_instance(&app.deployment, id).await? {
        Some(seen) => adopt(app, instance, &seen, as_of).await,
        // Absence is for the reconciler to judge.
        None => Ok(Adopted::Nothing),
    }
}
