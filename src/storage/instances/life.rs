//! Steps of an instance's life. Each is conditional on the state it starts from, and tells whether it was taken.

use std::collections::BTreeMap;

use chrono::{DateTime, Utc};
use sqlx::{PgConnection, types::Json};

use super::stored;
use crate::{
    domain::instance::{Idle, InstanceStatus, StopReason},
    ids::{InstanceId, TeamId},
};

/// Where an instance is in its life.
///
/// # Errors
/// When the database fails.
pub async fn system_status(connection: &mut PgConnection, id: &InstanceId) -> sqlx::Result<Option<InstanceStatus>> {
    let status = sqlx::query_scalar!("SELECT status FROM instances WHERE id = $1", id.as_str())
        .fetch_optional(connection)
        .await?;
    Ok(status.map(InstanceStatus::from))
}

/// Notes under which id the cloud knows an instance, and answers its status here.
///
/// # Errors
/// When the database fails.
pub async fn system_identify(
    connection: &mut PgConnection,
    id: &InstanceId,
    upstream_id: &str,
    request_id: Option<&str>,
) -> sqlx::Result<Option<InstanceStatus>> {
    let status = sqlx::query_scalar!(
        "UPDATE instances SET upstream_id = coalesce(upstream_id, $2), upstream_request_id = coalesce($3, upstream_request_id)
         WHERE id = $1 RETURNING status",
        id.as_str(),
        upstream_id,
        request_id,
    )
    .fetch_optional(connection)
    .await?;
    Ok(status.map(InstanceStatus::from))
}

/// Keeps a claim for this much longer; zero ends it, and one that ended stays so.
///
/// # Errors
/// When the database fails.
pub async fn system_renew(connection: &mut PgConnection, id: &InstanceId, seconds: f64) -> sqlx::Result<()> {
    sqlx::query!(
        "UPDATE instances SET claimed_until = now() + make_interval(secs => $2) WHERE id = $1 AND claimed_until IS NOT NULL",
        id.as_str(),
        seconds,
    )
    .execute(connection)
    .await?;
    Ok(())
}

/// A start came to its end: the life of the instance begins now. `false` when it is not STARTING any more.
///
/// # Errors
/// When the database fails.
pub async fn system_started(
    connection: &mut PgConnection,
    id: &InstanceId,
    upstream_expires_at: Option<DateTime<Utc>>,
) -> sqlx::Result<bool> {
    let done = sqlx::query!(
        "UPDATE instances SET status = 'RUNNING', started_at = now(), last_active_at = now(), updated_at = now(),
                              expires_at = now() + make_interval(secs => timeout_seconds), upstream_expires_at = $2,
                              claimed_until = NULL, attempts = 0, last_error = NULL
         WHERE id = $1 AND status = 'STARTING'",
        id.as_str(),
        upstream_expires_at,
    )
    .execute(connection)
    .await?;
    Ok(done.rows_affected() == 1)
}

/// How an instance ended.
pub struct Ended<'a> {
    /// STOPPED or FAILED.
    pub status: InstanceStatus,
    /// Used when no reason was recorded when the end began.
    pub reason: StopReason,
    pub detail: Option<&'a str>,
    /// For operators.
    pub error: Option<&'a str>,
    pub request_id: Option<&'a str>,
}

/// Records the end of an instance that was in one of `from` (in any live state when empty). `false` when it was not.
///
/// # Errors
/// When the database fails.
pub async fn system_ended(
    connection: &mut PgConnection,
    id: &InstanceId,
    from: &[InstanceStatus],
    ended: &Ended<'_>,
) -> sqlx::Result<bool> {
    let from: Vec<String> = from.iter().map(ToString::to_string).collect();
    let done = sqlx::query!(
        "UPDATE instances SET status = $3, stop_reason = coalesce(stop_reason, $4), status_reason = coalesce($5, status_reason),
                              last_error = $6, upstream_request_id = coalesce($7, upstream_request_id), updated_at = now(),
                              stopping_at = coalesce(stopping_at, now()), stopped_at = now(), claimed_until = NULL,
                              missing_since = NULL
         WHERE id = $1 AND stopped_at IS NULL AND (cardinality($2::text[]) = 0 OR status = ANY($2))",
        id.as_str(),
        &from,
        ended.status.as_str(),
        ended.reason.as_str(),
        ended.detail,
        ended.error,
        ended.request_id,
    )
    .execute(connection)
    .await?;
    Ok(done.rows_affected() == 1)
}

/// Begins the end of a live instance of a team, and claims it. `false` when it is ending already.
///
/// # Errors
/// When the database fails.
pub async fn begin_stop(
    connection: &mut PgConnection,
    team: &TeamId,
    id: &InstanceId,
    reason: &StopReason,
    claim_seconds: f64,
) -> sqlx::Result<bool> {
    let done = sqlx::query!(
        "UPDATE instances SET status = 'STOPPING', stop_reason = $3, stopping_at = now(), updated_at = now(), attempts = 0,
                              claimed_until = now() + make_interval(secs => $4)
         WHERE team_id = $1 AND id = $2 AND stopped_at IS NULL AND status <> 'STOPPING'",
        team.as_str(),
        id.as_str(),
        reason.as_str(),
        claim_seconds,
    )
    .execute(connection)
    .await?;
    Ok(done.rows_affected() == 1)
}

/// Begins the end of all live instances of a team; the reaper goes on with them. Answers how many there were.
///
/// # Errors
/// When the database fails.
pub async fn begin_stop_all(connection: &mut PgConnection, team: &TeamId, reason: &StopReason) -> sqlx::Result<u64> {
    let done = sqlx::query!(
        "UPDATE instances SET status = 'STOPPING', stop_reason = $2, stopping_at = now(), updated_at = now(), attempts = 0,
                              claimed_until = CASE WHEN status = 'STARTING' THEN claimed_until END
         WHERE team_id = $1 AND stopped_at IS NULL AND status <> 'STOPPING'",
        team.as_str(),
        reason.as_str(),
    )
    .execute(connection)
    .await?;
    Ok(done.rows_affected())
}

/// Claims a STOPPING instance whose stop nobody works on, or that rests after a failure.
///
/// # Errors
/// When the database fails.
pub async fn claim_stop(
    connection: &mut PgConnection,
    team: &TeamId,
    id: &InstanceId,
    claim_seconds: f64,
) -> sqlx::Result<bool> {
    let done = sqlx::query!(
        "UPDATE instances SET claimed_until = now() + make_interval(secs => $3), last_error = NULL
         WHERE team_id = $1 AND id = $2 AND status = 'STOPPING'
           AND (claimed_until IS NULL OR claimed_until <= now() OR last_error IS NOT NULL)",
        team.as_str(),
        id.as_str(),
        claim_seconds,
    )
    .execute(connection)
    .await?;
    Ok(done.rows_affected() == 1)
}

/// Lets an instance rest after a failed attempt at it; each failure doubles the rest, up to `max_seconds`. Answers how
/// many attempts have failed in a row.
///
/// # Errors
/// When the database fails.
pub async fn system_defer(
    connection: &mut PgConnection,
    id: &InstanceId,
    error: &str,
    max_seconds: f64,
) -> sqlx::Result<i32> {
    let attempts = sqlx::query_scalar!(
        "UPDATE instances SET attempts = attempts + 1, last_error = $2, updated_at = now(),
                              claimed_until = now() + make_interval(secs => least(power(2, least(attempts, 16)), $3))
         WHERE id = $1 RETURNING attempts",
        id.as_str(),
        error,
        max_seconds,
    )
    .fetch_optional(connection)
    .await?;
    Ok(attempts.unwrap_or_default())
}

/// Begins a pause of a running instance, and claims it.
///
/// # Errors
/// When the database fails.
pub async fn begin_pause(
    connection: &mut PgConnection,
    team: &TeamId,
    id: &InstanceId,
    claim_seconds: f64,
) -> sqlx::Result<bool> {
    let done = sqlx::query!(
        "UPDATE instances SET status = 'PAUSING', updated_at = now(), claimed_until = now() + make_interval(secs => $3)
         WHERE team_id = $1 AND id = $2 AND status = 'RUNNING'",
        team.as_str(),
        id.as_str(),
        claim_seconds,
    )
    .execute(connection)
    .await?;
    Ok(done.rows_affected() == 1)
}

/// Begins to resume a paused instance that has not expired, and claims it; `timeout` begins its life anew. Answers how many
/// seconds it has left.
///
/// # Errors
/// When the database fails.
pub async fn begin_resume(
    connection: &mut PgConnection,
    team: &TeamId,
    id: &InstanceId,
    timeout: Option<u32>,
    claim_seconds: f64,
) -> sqlx::Result<Option<f64>> {
    sqlx::query_scalar!(
        r#"UPDATE instances SET status = 'RESUMING', updated_at = now(), timeout_seconds = coalesce($3, timeout_seconds),
                                expires_at = coalesce(now() + make_interval(secs => $3), expires_at),
                                claimed_until = now() + make_interval(secs => $4)
           WHERE team_id = $1 AND id = $2 AND status = 'PAUSED' AND expires_at > now()
           RETURNING extract(epoch FROM expires_at - now())::float8 AS "left!""#,
        team.as_str(),
        id.as_str(),
        timeout.map(stored),
        claim_seconds,
    )
    .fetch_optional(connection)
    .await
}

/// A step that the cloud was seen to take.
pub struct Step<'a> {
    pub from: &'a InstanceStatus,
    pub to: &'a InstanceStatus,
    /// The end of the cloud's own countdown, where it is known.
    pub upstream_expires_at: Option<DateTime<Utc>>,
    /// When the cloud was looked at; `None` for the holder of the claim. A row that was changed or claimed since stays.
    pub as_of: Option<DateTime<Utc>>,
}

/// Records a step, and ends the claim.
///
/// # Errors
/// When the database fails.
pub async fn system_step(connection: &mut PgConnection, id: &InstanceId, step: &Step<'_>) -> sqlx::Result<bool> {
    let done = sqlx::query!(
        "UPDATE instances SET status = $3, updated_at = now(), claimed_until = NULL, missing_since = NULL,
                              last_active_at = CASE WHEN $3 = 'RUNNING' THEN now() ELSE last_active_at END,
                              upstream_expires_at = coalesce($4, upstream_expires_at)
         WHERE id = $1 AND status = $2
           AND ($5::timestamptz IS NULL OR (updated_at < $5 AND (claimed_until IS NULL OR claimed_until <= now())))",
        id.as_str(),
        step.from.as_str(),
        step.to.as_str(),
        step.upstream_expires_at,
        step.as_of,
    )
    .execute(connection)
    .await?;
    Ok(done.rows_affected() == 1)
}

/// A change of a live instance. What is `None` stays.
#[derive(Default)]
pub struct InstanceChange<'a> {
    /// A new life from now on, seconds; only for an instance that is RUNNING or PAUSED.
    pub timeout: Option<u32>,
    /// With `timeout`: its very end.
    pub until: Option<DateTime<Utc>>,
    pub upstream_timeout: Option<f64>,
    pub metadata: Option<&'a BTreeMap<String, String>>,
    pub idle: Option<Option<&'a Idle>>,
}

/// Changes a live instance.
///
/// # Errors
/// When the database fails.
pub async fn update(
    connection: &mut PgConnection,
    team: &TeamId,
    id: &InstanceId,
    change: &InstanceChange<'_>,
) -> sqlx::Result<bool> {
    let done = sqlx::query!(
        "UPDATE instances
         SET timeout_seconds = coalesce($3, timeout_seconds),
             expires_at = coalesce($8, now() + make_interval(secs => $3), expires_at),
             upstream_expires_at = coalesce(now() + make_interval(secs => $4), upstream_expires_at),
             metadata = coalesce($5, metadata), idle = CASE WHEN $6 THEN $7 ELSE idle END,
             -- A new rule counts from now on.
             last_active_at = CASE WHEN $6 THEN now() ELSE last_active_at END, updated_at = now()
         WHERE team_id = $1 AND id = $2 AND stopped_at IS NULL AND status <> 'STOPPING'
           AND ($3::integer IS NULL OR (status IN ('RUNNING', 'PAUSED') AND expires_at > now()))",
        team.as_str(),
        id.as_str(),
        change.timeout.map(stored),
        change.upstream_timeout,
        change.metadata.map(Json) as _,
        change.idle.is_some(),
        change.idle.flatten().map(Json) as _,
        change.until,
    )
    .execute(connection)
    .await?;
    Ok(done.rows_affected() == 1)
}
