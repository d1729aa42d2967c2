//! What teams use: at this moment, and over time.

use chrono::{DateTime, Utc};
use serde::Serialize;
use sqlx::{PgConnection, types::Json};

use crate::{
    domain::{
        audit::{self, GroupBy, Used, UsedBy},
        page::{Page, PageRequest},
    },
    ids::{InstanceId, TeamId},
};

/// Counts that stand against quotas.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Usage {
    /// Instances that have not ended.
    pub instances: u64,
    /// Commands that run.
    pub execs: u64,
}

/// # Errors
/// When the database fails.
pub async fn of(connection: &mut PgConnection, team: &TeamId) -> sqlx::Result<Usage> {
    let row = sqlx::query!(
        r#"SELECT (SELECT count(*) FROM instances WHERE team_id = $1 AND stopped_at IS NULL) AS "instances!",
                  (SELECT count(*) FROM execs WHERE team_id = $1 AND status = 'running') AS "execs!""#,
        team.as_str(),
    )
    .fetch_one(connection)
    .await?;
    Ok(Usage { instances: row.instances.unsigned_abs(), execs: row.execs.unsigned_abs() })
}

/// Counts to be added to those of this hour.
#[derive(Clone, Debug, Serialize)]
pub struct Addition {
    #[serde(flatten)]
    pub by: UsedBy,
    #[serde(flatten)]
    pub used: Used,
}

/// Adds to the counts of this hour. `additions` has each user once.
///
/// # Errors
/// When the database fails.
pub async fn system_add(connection: &mut PgConnection, additions: &[Addition]) -> sqlx::Result<()> {
    sqlx::query!(
        "INSERT INTO usage_hours AS kept (hour, team_id, tool_id, key_id, execs, exec_ms, bytes)
         SELECT date_trunc('hour', now()), team_id, tool_id, key_id, execs, exec_ms, bytes
         FROM jsonb_to_recordset($1)
              AS a (team_id text, tool_id text, key_id text, execs bigint, exec_ms bigint, bytes bigint)
         -- Two replicas take the rows in one order.
         ORDER BY team_id, tool_id, key_id
         ON CONFLICT (hour, team_id, tool_id, key_id) DO UPDATE
         SET execs = kept.execs + excluded.execs, exec_ms = kept.exec_ms + excluded.exec_ms,
             bytes = kept.bytes + excluded.bytes",
        Json(additions) as _,
    )
    .execute(connection)
    .await?;
    Ok(())
}

/// A span of time. Counts by the hour are taken of every hour that it touches.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Span {
    pub from: DateTime<Utc>,
    pub to: DateTime<Utc>,
}

/// What was used in a span by each team, tool or key of a team; without a team, of everybody's.
///
/// # Errors
/// When the database fails.
pub async fn system_sum(
    connection: &mut PgConnection,
    team: Option<&TeamId>,
    span: Span,
    group: GroupBy,
    page: &PageRequest,
) -> sqlx::Result<Page<audit::Usage>> {
    let rows = sqlx::query!(
        r#"WITH used AS (
               SELECT team_id, tool_id, key_id, (NOT resumed AND started_at >= $2)::integer AS instances,
                      extract(epoch FROM least(coalesce(ended_at, now()), $3) - greatest(started_at, $2))::float8 AS seconds,
                      0::bigint AS execs, 0::bigint AS exec_ms, 0::bigint AS bytes
               FROM usage_runs
               WHERE ($1::text IS NULL OR team_id = $1) AND started_at < least($3, now())
                 AND (ended_at IS NULL OR ended_at > $2)
               UNION ALL
               SELECT team_id, tool_id, key_id, 0, 0, execs, exec_ms, bytes FROM usage_hours
               WHERE ($1::text IS NULL OR team_id = $1) AND hour < $3 AND hour + interval '1 hour' > $2),
           named AS (
               SELECT CASE $4::text WHEN 'team' THEN team_id WHEN 'tool' THEN tool_id ELSE key_id END AS id, used.* FROM used),
           summed AS (
               SELECT id, max(team_id) AS team_id, sum(instances)::bigint AS instances, sum(seconds)::float8 AS seconds,
                      sum(execs)::bigint AS execs, sum(exec_ms)::bigint AS exec_ms, sum(bytes)::bigint AS bytes
               FROM named WHERE $5::text IS NULL OR id < $5 GROUP BY id ORDER BY id DESC LIMIT $6)
           SELECT summed.id AS "id!", summed.team_id AS "team_id!: TeamId",
                  CASE $4::text WHEN 'team' THEN (SELECT name FROM teams t WHERE t.id = summed.id)
                          WHEN 'tool' THEN (SELECT name FROM tools t WHERE t.id = summed.id)
                          ELSE (SELECT name FROM api_keys k WHERE k.id = summed.id) END AS name,
                  instances AS "instances!", seconds AS "seconds!", execs AS "execs!", exec_ms AS "exec_ms!", bytes AS "bytes!"
           FROM summed ORDER BY summed.id DESC"#,
        team.map(TeamId::as_str),
        span.from,
        span.to,
        group.as_str(),
        page.before,
        page.fetch(),
    )
    .fetch_all(connection)
    .await?;
    let used = rows.into_iter().map(|row| audit::Usage {
        id: row.id,
        team_id: row.team_id,
        name: row.name,
        instances: row.instances.unsigned_abs(),
        // Whole seconds, as a clock counts them; it is never negative.
        instance_seconds: std::time::Duration::try_from_secs_f64(row.seconds).unwrap_or_default().as_secs(),
        execs: row.execs.unsigned_abs(),
        exec_seconds: row.exec_ms.unsigned_abs() / 1000,
        bytes: row.bytes.unsigned_abs(),
    });
    Ok(Page::from_fetched(used.collect(), page, |usage: &audit::Usage| usage.id.clone()))
}

/// When an instance of a team's ended whose row is not kept any more.
///
/// # Errors
/// When the database fails.
pub async fn ended_at(
    connection: &mut PgConnection,
    team: &TeamId,
    instance: &InstanceId,
) -> sqlx::Result<Option<DateTime<Utc>>> {
    sqlx::query_scalar!(
        "SELECT max(ended_at) FROM usage_runs WHERE team_id = $1 AND instance_id = $2",
        team.as_str(),
        instance.as_str(),
    )
    .fetch_one(connection)
    .await
}

/// Removes up to `limit` runs and as many hours that are over for longer than `age_seconds`. Answers the larger count.
///
/// # Errors
/// When the database fails.
pub async fn system_prune(connection: &mut PgConnection, age_seconds: f64, limit: i64) -> sqlx::Result<u64> {
    let runs = sqlx::query!(
        "DELETE FROM usage_runs WHERE (instance_id, started_at) IN
             (SELECT instance_id, started_at FROM usage_runs
              WHERE ended_at < now() - make_interval(secs => $1) LIMIT $2 FOR UPDATE SKIP LOCKED)",
        age_seconds,
        limit,
    )
    .execute(&mut *connection)
    .await?;
    let hours = sqlx::query!(
        "DELETE FROM usage_hours WHERE (hour, team_id, tool_id, key_id) IN
             (SELECT hour, team_id, tool_id, key_id FROM usage_hours
              WHERE hour < now() - make_interval(secs => $1) - interval '1 hour' LIMIT $2 FOR UPDATE SKIP LOCKED)",
        age_seconds,
        limit,
    )
    .execute(connection)
    .await?;
    Ok(runs.rows_affected().max(hours.rows_affected()))
}
