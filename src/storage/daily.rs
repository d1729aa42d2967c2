//! Instance-seconds of the present day, which begins at midnight UTC.

use sqlx::PgConnection;

use crate::{
    domain::instance::StopReason,
    ids::{InstanceId, TeamId},
};

/// What a team has used of a day.
#[derive(Clone, Copy, Debug)]
pub struct Today {
    /// Instance-seconds: the time that instances were RUNNING.
    pub used: f64,
    /// Seconds until the next day.
    pub left: f64,
}

/// What a team has used today.
///
/// # Errors
/// When the database fails.
pub async fn today(connection: &mut PgConnection, team: &TeamId) -> sqlx::Result<Today> {
    sqlx::query_as!(
        Today,
        r#"WITH day AS (SELECT date_trunc('day', clock_timestamp() AT TIME ZONE 'UTC') AT TIME ZONE 'UTC' AS start)
           SELECT (SELECT coalesce(sum(greatest(0, extract(epoch FROM coalesce(ended_at, clock_timestamp())
                                                                      - greatest(started_at, start)))), 0)::float8
                   FROM usage_runs WHERE team_id = $1 AND (ended_at IS NULL OR ended_at > start)) AS "used!",
                  extract(epoch FROM start + interval '1 day' - clock_timestamp())::float8 AS "left!"
           FROM day"#,
        team.as_str(),
    )
    .fetch_one(connection)
    .await
}

/// Begins to stop what runs of teams that have used up their day; the reaper goes on with it. What is paused uses nothing.
///
/// # Errors
/// When the database fails.
pub async fn system_enforce(connection: &mut PgConnection) -> sqlx::Result<Vec<InstanceId>> {
    sqlx::query_scalar!(
        r#"WITH day AS (SELECT date_trunc('day', clock_timestamp() AT TIME ZONE 'UTC') AT TIME ZONE 'UTC' AS start),
           used AS (
               SELECT t.id FROM teams t, day
               WHERE instance_seconds_per_day IS NOT NULL AND instance_seconds_per_day <= (
                   SELECT coalesce(sum(greatest(0, extract(epoch FROM coalesce(ended_at, clock_timestamp())
                                                                      - greatest(started_at, start)))), 0)
                   FROM usage_runs WHERE team_id = t.id AND (ended_at IS NULL OR ended_at > start)))
           UPDATE instances SET status = 'STOPPING', stop_reason = $1, stopping_at = now(), updated_at = now(), attempts = 0,
                                claimed_until = CASE WHEN status = 'STARTING' THEN claimed_until END
           WHERE team_id IN (SELECT id FROM used) AND stopped_at IS NULL AND status NOT IN ('STOPPING', 'PAUSED')
           RETURNING id AS "id: _""#,
        StopReason::Quota.as_str(),
    )
    .fetch_all(connection)
    .await
}
