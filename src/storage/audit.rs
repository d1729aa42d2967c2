//! The history. It refers to no other rows, and outlives them.

use chrono::{DateTime, Utc};
use sqlx::{PgConnection, types::Json};

use crate::{
    domain::{
        audit::{AuditEvent, GATEWAY, RunEnd},
        page::{Page, PageRequest},
    },
    ids::{InstanceId, TeamId},
};

/// Writes events down. One that was written without an outcome gets it.
///
/// # Errors
/// When the database fails.
pub async fn system_record(connection: &mut PgConnection, events: &[AuditEvent]) -> sqlx::Result<()> {
    sqlx::query!(
        "INSERT INTO audit_events SELECT * FROM jsonb_populate_recordset(NULL::audit_events, $1)
         ON CONFLICT (id) DO UPDATE
         SET instance_id = excluded.instance_id, tool_id = excluded.tool_id, exec_id = excluded.exec_id,
             target_id = excluded.target_id, outcome = coalesce(excluded.outcome, audit_events.outcome),
             status = coalesce(excluded.status, audit_events.status),
             upstream_request_id = coalesce(excluded.upstream_request_id, audit_events.upstream_request_id),
             duration_ms = coalesce(excluded.duration_ms, audit_events.duration_ms)",
        Json(events) as _,
    )
    .execute(connection)
    .await?;
    Ok(())
}

/// Notes how what events started has ended.
///
/// # Errors
/// When the database fails.
pub async fn system_ended(connection: &mut PgConnection, ends: &[RunEnd]) -> sqlx::Result<()> {
    sqlx::query!(
        "UPDATE audit_events e SET reason = r.reason, exit_code = r.exit_code, duration_ms = r.duration_ms
         FROM jsonb_to_recordset($1) AS r (id text, exec_id text, reason text, exit_code integer, duration_ms bigint)
         WHERE e.runs AND (e.id = r.id OR (r.id IS NULL AND e.exec_id = r.exec_id))",
        Json(ends) as _,
    )
    .execute(connection)
    .await?;
    Ok(())
}

/// Tells how what the gateway did to an instance of its own accord went, where that is not known yet.
///
/// # Errors
/// When the database fails.
pub async fn system_settle(
    connection: &mut PgConnection,
    instance: &InstanceId,
    outcome: &str,
    upstream_request_id: Option<&str>,
) -> sqlx::Result<()> {
    sqlx::query!(
        "UPDATE audit_events
         SET outcome = $2, upstream_request_id = $3,
             duration_ms = greatest(0, extract(epoch FROM clock_timestamp() - at) * 1000)::bigint
         WHERE instance_id = $1 AND key_prefix = $4 AND outcome IS NULL",
        instance.as_str(),
        outcome,
        upstream_request_id,
        GATEWAY,
    )
    .execute(connection)
    .await?;
    Ok(())
}

/// Which events; an empty list stands for all.
#[derive(Clone, Debug, Default)]
pub struct AuditFilter {
    /// Ids or prefixes of keys, or end users.
    pub actors: Vec<String>,
    pub actions: Vec<String>,
    pub instances: Vec<String>,
    pub outcomes: Vec<String>,
    pub from: Option<DateTime<Utc>>,
    pub to: Option<DateTime<Utc>>,
}

/// Events about a team's things, newest first; without a team, about everybody's.
///
/// # Errors
/// When the database fails.
pub async fn system_list(
    connection: &mut PgConnection,
    team: Option<&TeamId>,
    filter: &AuditFilter,
    page: &PageRequest,
) -> sqlx::Result<Page<AuditEvent>> {
    let events = sqlx::query_as!(
        AuditEvent,
        r#"SELECT id AS "id: _", at AS "at!", team_id AS "team_id: _", key_id AS "key_id: _", key_prefix, on_behalf_of,
                  client, request_id AS "request_id!", action AS "action!", instance_id AS "instance_id: _",
                  tool_id AS "tool_id: _", exec_id AS "exec_id: _", target_id, runs AS "runs!", command, outcome, status,
                  reason, exit_code, upstream_request_id, duration_ms
           FROM audit_events
           WHERE ($1::text IS NULL OR team_id = $1)
             AND (cardinality($2::text[]) = 0 OR key_id = ANY($2) OR key_prefix = ANY($2) OR on_behalf_of = ANY($2))
             AND (cardinality($3::text[]) = 0 OR action = ANY($3))
             AND (cardinality($4::text[]) = 0 OR instance_id = ANY($4))
             AND (cardinality($5::text[]) = 0 OR outcome = ANY($5))
             AND ($6::timestamptz IS NULL OR at >= $6) AND ($7::timestamptz IS NULL OR at < $7)
             AND ($8::text IS NULL OR id < $8)
           ORDER BY id DESC LIMIT $9"#,
        team.map(TeamId::as_str),
        &filter.actors,
        &filter.actions,
        &filter.instances,
        &filter.outcomes,
        filter.from,
        filter.to,
        page.before,
        page.fetch(),
    )
    .fetch_all(connection)
    .await?;
    Ok(Page::from_fetched(events, page, |event: &AuditEvent| event.id.to_string()))
}

/// Removes up to `limit` events that are older than `age_seconds`.
///
/// # Errors
/// When the database fails.
pub async fn system_prune(connection: &mut PgConnection, age_seconds: f64, limit: i64) -> sqlx::Result<u64> {
    let done = sqlx::query!(
        "DELETE FROM audit_events WHERE id IN
             (SELECT id FROM audit_events WHERE at < now() - make_interval(secs => $1) LIMIT $2 FOR UPDATE SKIP LOCKED)",
        age_seconds,
        limit,
    )
    .execute(connection)
    .await?;
    Ok(done.rows_affected())
}
