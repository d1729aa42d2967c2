//! What the jobs look for, in every team.

use std::collections::HashMap;

use chrono::{DateTime, Utc};
use sqlx::PgConnection;

use super::Row;
use crate::domain::instance::{Instance, InstanceStatus};

/// Takes up to `limit` instances that are to be stopped: those whose time is up, which are STOPPING from now on, and those
/// that are STOPPING and that nobody works on. Other replicas take others at the same time.
///
/// # Errors
/// When the database fails.
pub async fn system_take_due(
    connection: &mut PgConnection,
    limit: i64,
    claim_seconds: f64,
) -> sqlx::Result<Vec<Instance>> {
    let rows = sqlx::query_as!(
        Row,
        r#"WITH due AS (
               SELECT id FROM instances
               WHERE stopped_at IS NULL
                 AND ((status <> 'STOPPING' AND expires_at <= now())
                      OR (status = 'STOPPING' AND (claimed_until IS NULL OR claimed_until <= now())))
               ORDER BY expires_at LIMIT $1 FOR UPDATE SKIP LOCKED)
           UPDATE instances
           SET stop_reason = coalesce(stop_reason, 'timeout'), stopping_at = coalesce(stopping_at, now()),
               status = 'STOPPING', updated_at = now(), claimed_until = now() + make_interval(secs => $2)
           WHERE id IN (SELECT id FROM due)
           RETURNING id AS "id: _", team_id AS "team_id: _", tool_id AS "tool_id: _", tool_name, tool_type, upstream,
                     upstream_id, client_token, status, status_reason, metadata AS "metadata: _", env AS "env: _",
                     auth_mode, timeout_seconds, idle AS "idle: _", created_by AS "created_by: _", created_at, updated_at,
                     started_at, expires_at, upstream_expires_at, last_active_at, stopping_at, stopped_at, stop_reason"#,
        limit,
        claim_seconds,
    )
    .fetch_all(connection)
    .await?;
    Ok(rows.into_iter().map(Instance::from).collect())
}

/// Takes instances whose start, pause or resumption nobody works on any more.
///
/// # Errors
/// When the database fails.
pub async fn system_take_abandoned(
    connection: &mut PgConnection,
    limit: i64,
    claim_seconds: f64,
) -> sqlx::Result<Vec<Instance>> {
    let rows = sqlx::query_as!(
        Row,
        r#"UPDATE instances SET claimed_until = now() + make_interval(secs => $2)
           WHERE id IN (SELECT id FROM instances
                        WHERE stopped_at IS NULL AND status IN ('STARTING', 'PAUSING', 'RESUMING') AND expires_at > now()
                          AND (claimed_until IS NULL OR claimed_until <= now())
                        ORDER BY created_at LIMIT $1 FOR UPDATE SKIP LOCKED)
           RETURNING id AS "id: _", team_id AS "team_id: _", tool_id AS "tool_id: _", tool_name, tool_type, upstream,
                     upstream_id, client_token, status, status_reason, metadata AS "metadata: _", env AS "env: _",
                     auth_mode, timeout_seconds, idle AS "idle: _", created_by AS "created_by: _", created_at, updated_at,
                     started_at, expires_at, upstream_expires_at, last_active_at, stopping_at, stopped_at, stop_reason"#,
        limit,
        claim_seconds,
    )
    .fetch_all(connection)
    .await?;
    Ok(rows.into_iter().map(Instance::from).collect())
}

/// Seconds until the last claim on an instance that is starting, pausing, resuming or stopping ends; `None` when there is none.
/// Those that rest after a failed stop do not count.
///
/// # Errors
/// When the database fails.
pub async fn system_claimed_for(connection: &mut PgConnection) -> sqlx::Result<Option<f64>> {
    sqlx::query_scalar!(
        "SELECT extract(epoch FROM max(claimed_until) - now())::float8 FROM instances
         WHERE stopped_at IS NULL AND last_error IS NULL AND claimed_until > now()
           AND status IN ('STARTING', 'PAUSING', 'RESUMING', 'STOPPING')",
    )
    .fetch_one(connection)
    .await
}

/// The database's time.
///
/// # Errors
/// When the database fails.
pub async fn system_now(connection: &mut PgConnection) -> sqlx::Result<DateTime<Utc>> {
    sqlx::query_scalar!(r#"SELECT clock_timestamp() AS "now!""#).fetch_one(connection).await
}

/// These instances, whoever's they are.
///
/// # Errors
/// When the database fails.
pub async fn system_by_ids(connection: &mut PgConnection, ids: &[String]) -> sqlx::Result<Vec<Instance>> {
    let rows = sqlx::query_as!(
        Row,
        r#"SELECT id AS "id: _", team_id AS "team_id: _", tool_id AS "tool_id: _", tool_name, tool_type, upstream,
                     upstream_id, client_token, status, status_reason, metadata AS "metadata: _", env AS "env: _",
                     auth_mode, timeout_seconds, idle AS "idle: _", created_by AS "created_by: _", created_at, updated_at,
                     started_at, expires_at, upstream_expires_at, last_active_at, stopping_at, stopped_at, stop_reason
           FROM instances WHERE id = ANY($1)"#,
        ids,
    )
    .fetch_all(connection)
    .await?;
    Ok(rows.into_iter().map(Instance::from).collect())
}

/// The live instances of an upstream that the cloud should show: they have an id there and are not STOPPING.
///
/// # Errors
/// When the database fails.
pub async fn system_expected(connection: &mut PgConnection, upstream: &str) -> sqlx::Result<Vec<Instance>> {
    let rows = sqlx::query_as!(
        Row,
        r#"SELECT id AS "id: _", team_id AS "team_id: _", tool_id AS "tool_id: _", tool_name, tool_type, upstream,
                     upstream_id, client_token, status, status_reason, metadata AS "metadata: _", env AS "env: _",
                     auth_mode, timeout_seconds, idle AS "idle: _", created_by AS "created_by: _", created_at, updated_at,
                     started_at, expires_at, upstream_expires_at, last_active_at, stopping_at, stopped_at, stop_reason
           FROM instances
           WHERE upstream = $1 AND stopped_at IS NULL AND upstream_id IS NOT NULL AND status NOT IN ('STARTING', 'STOPPING')"#,
        upstream,
    )
    .fetch_all(connection)
    .await?;
    Ok(rows.into_iter().map(Instance::from).collect())
}

/// Notes that the cloud does not show these instances.
///
/// # Errors
/// When the database fails.
pub async fn system_note_missing(connection: &mut PgConnection, ids: &[String]) -> sqlx::Result<()> {
    sqlx::query!(
        "UPDATE instances SET missing_since = now() WHERE id = ANY($1) AND missing_since IS NULL AND stopped_at IS NULL",
        ids,
    )
    .execute(connection)
    .await?;
    Ok(())
}

/// Since when the cloud has not shown instances of an upstream, by their ids.
///
/// # Errors
/// When the database fails.
pub async fn system_missing(
    connection: &mut PgConnection,
    upstream: &str,
) -> sqlx::Result<HashMap<String, DateTime<Utc>>> {
    let rows = sqlx::query!(
        r#"SELECT id, missing_since AS "since!" FROM instances
           WHERE upstream = $1 AND stopped_at IS NULL AND missing_since IS NOT NULL"#,
        upstream,
    )
    .fetch_all(connection)
    .await?;
    Ok(rows.into_iter().map(|row| (row.id, row.since)).collect())
}

/// Notes that the cloud shows these instances.
///
/// # Errors
/// When the database fails.
pub async fn system_present(connection: &mut PgConnection, ids: &[String]) -> sqlx::Result<()> {
    sqlx::query!(
        "UPDATE instances SET missing_since = NULL WHERE id = ANY($1) AND missing_since IS NOT NULL AND stopped_at IS NULL",
        ids,
    )
    .execute(connection)
    .await?;
    Ok(())
}

/// What the reaper has before it.
pub struct Backlog {
    pub count: i64,
    /// How long ago the oldest should have ended, or began to; `None` when there is none.
    pub age_seconds: Option<f64>,
}

/// # Errors
/// When the database fails.
pub async fn system_backlog(connection: &mut PgConnection) -> sqlx::Result<Backlog> {
    sqlx::query_as!(
        Backlog,
        r#"SELECT count(*) AS "count!",
                  extract(epoch FROM now() - min(least(expires_at, coalesce(stopping_at, expires_at))))::float8 AS age_seconds
           FROM instances WHERE stopped_at IS NULL AND (status = 'STOPPING' OR expires_at <= now())"#,
    )
    .fetch_one(connection)
    .await
}

/// Live instances by status.
///
/// # Errors
/// When the database fails.
pub async fn system_count_live(connection: &mut PgConnection) -> sqlx::Result<Vec<(InstanceStatus, u64)>> {
    let rows =
        sqlx::query!(r#"SELECT status, count(*) AS "count!" FROM instances WHERE stopped_at IS NULL GROUP BY status"#,)
            .fetch_all(connection)
            .await?;
    Ok(rows.into_iter().map(|row| (row.status.into(), row.count.unsigned_abs())).collect())
}

/// Removes up to `limit` instances that ended more than `age_seconds` ago and have no commands any more.
///
/// # Errors
/// When the database fails.
pub async fn system_prune(connection: &mut PgConnection, age_seconds: f64, limit: i64) -> sqlx::Result<u64> {
    let done = sqlx::query!(
        "DELETE FROM instances WHERE id IN
             (SELECT id FROM instances i
              WHERE stopped_at < now() - make_interval(secs => $1) AND NOT EXISTS (SELECT FROM execs WHERE instance_id = i.id)
              LIMIT $2 FOR UPDATE SKIP LOCKED)",
        age_seconds,
        limit,
    )
    .execute(connection)
    .await?;
    Ok(done.rows_affected())
}
