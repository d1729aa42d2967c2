//! The use of instances, and those that nobody uses.

use chrono::{DateTime, Utc};
use sqlx::PgConnection;

use super::Row;
use crate::{domain::instance::Instance, ids::InstanceId};

/// Notes that instances were used, so many seconds ago.
///
/// # Errors
/// When the database fails.
pub async fn system_used(connection: &mut PgConnection, ids: &[String], ages: &[f64]) -> sqlx::Result<()> {
    sqlx::query!(
        "UPDATE instances i SET last_active_at = greatest(i.last_active_at, now() - make_interval(secs => used.age))
         FROM unnest($1::text[], $2::float8[]) AS used (id, age)
         WHERE i.id = used.id AND i.stopped_at IS NULL",
        ids,
        ages,
    )
    .execute(connection)
    .await?;
    Ok(())
}

/// Takes running and paused instances that nobody has used for longer than their idle rule says, and for `slack_seconds` more,
/// and in which no command runs that counts as use. Other replicas take others at the same time.
///
/// # Errors
/// When the database fails.
pub async fn system_take_idle(
    connection: &mut PgConnection,
    limit: i64,
    slack_seconds: f64,
    claim_seconds: f64,
) -> sqlx::Result<Vec<Instance>> {
    let rows = sqlx::query_as!(
        Row,
        r#"WITH unused AS (
               SELECT id FROM instances i
               WHERE status IN ('RUNNING', 'PAUSED') AND idle IS NOT NULL AND expires_at > now()
                 AND last_active_at <= now() - make_interval(secs => (idle ->> 'after_seconds')::float8 + $2
                         + CASE status WHEN 'PAUSED' THEN (idle ->> 'stop_after_seconds')::float8 ELSE 0 END)
                 AND (claimed_until IS NULL OR claimed_until <= now())
                 AND NOT EXISTS (SELECT FROM execs e WHERE e.instance_id = i.id AND e.status = 'running'
                                                       AND (e.foreground OR e.keep_alive))
               ORDER BY last_active_at LIMIT $1 FOR UPDATE SKIP LOCKED)
           UPDATE instances SET claimed_until = now() + make_interval(secs => $3)
           WHERE id IN (SELECT id FROM unused)
           RETURNING id AS "id: _", team_id AS "team_id: _", tool_id AS "tool_id: _", tool_name, tool_type, upstream,
                     upstream_id, client_token, status, status_reason, metadata AS "metadata: _", env AS "env: _",
                     auth_mode, timeout_seconds, idle AS "idle: _", created_by AS "created_by: _", created_at, updated_at,
                     started_at, expires_at, upstream_expires_at, last_active_at, stopping_at, stopped_at, stop_reason"#,
        limit,
        slack_seconds,
        claim_seconds,
    )
    .fetch_all(connection)
    .await?;
    Ok(rows.into_iter().map(Instance::from).collect())
}

/// What an idle instance becomes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum IdleStep {
    Pause,
    Stop,
}

/// Begins to pause or stop a claimed instance, unless it was used since `last_active_at`. `false` when it was.
///
/// # Errors
/// When the database fails.
pub async fn system_begin_idle(
    connection: &mut PgConnection,
    id: &InstanceId,
    last_active_at: Option<DateTime<Utc>>,
    step: IdleStep,
    claim_seconds: f64,
) -> sqlx::Result<bool> {
    let stop = step == IdleStep::Stop;
    let done = sqlx::query!(
        "UPDATE instances i
         SET status = CASE WHEN $3 THEN 'STOPPING' ELSE 'PAUSING' END,
             stop_reason = CASE WHEN $3 THEN 'idle' END, stopping_at = CASE WHEN $3 THEN now() END,
             attempts = 0, updated_at = now(), claimed_until = now() + make_interval(secs => $4)
         WHERE id = $1 AND (status = 'RUNNING' OR ($3 AND status = 'PAUSED')) AND idle IS NOT NULL AND last_active_at IS NOT DISTINCT FROM $2
           AND NOT EXISTS (SELECT FROM execs e WHERE e.instance_id = i.id AND e.status = 'running'
                                                 AND (e.foreground OR e.keep_alive))",
        id.as_str(),
        last_active_at,
        stop,
        claim_seconds,
    )
    .execute(connection)
    .await?;
    Ok(done.rows_affected() == 1)
}

/// Leaves a claimed instance as it is, used as of now if it `is_used`; it is looked at again in `rest_seconds` at the soonest.
///
/// # Errors
/// When the database fails.
pub async fn system_leave_idle(
    connection: &mut PgConnection,
    id: &InstanceId,
    is_used: bool,
    rest_seconds: f64,
) -> sqlx::Result<()> {
    sqlx::query!(
        "UPDATE instances SET claimed_until = now() + make_interval(secs => $3),
                              last_active_at = CASE WHEN $2 THEN now() ELSE last_active_at END
         WHERE id = $1 AND status IN ('RUNNING', 'PAUSED')",
        id.as_str(),
        is_used,
        rest_seconds,
    )
    .execute(connection)
    .await?;
    Ok(())
}

/// Whether an instance's tool lets it be paused; `None` for one that is not there.
///
/// # Errors
/// When the database fails.
pub async fn system_can_pause(connection: &mut PgConnection, id: &InstanceId) -> sqlx::Result<Option<bool>> {
    sqlx::query_scalar!(
        r#"SELECT coalesce((t.spec ->> 'persistent')::boolean, false) AS "can_pause!"
           FROM instances i JOIN tools t ON t.id = i.tool_id WHERE i.id = $1"#,
        id.as_str(),
    )
    .fetch_optional(connection)
    .await
}
