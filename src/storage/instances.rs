//! Instances: what they are. [`life`] has the steps of their lives, [`sweep`] what the jobs look for, [`idle`] their use, and
//! [`events`] what happened to them.

mod events;
mod idle;
mod life;
mod slice;
mod sweep;

use std::collections::BTreeMap;

use chrono::{DateTime, Utc};
use sqlx::{PgConnection, types::Json};

pub use self::{
    events::*,
    idle::*,
    life::*,
    slice::{slice, system_details},
    sweep::*,
};
use super::stored::Stored;
use crate::{
    domain::{
        instance::{Idle, Instance, InstanceSpec, StopReason},
        page::{Page, PageRequest},
    },
    ids::{InstanceId, KeyId, TeamId, ToolId},
};

/// A row. Its columns are those of [`Instance`].
struct Row {
    pub id: InstanceId,
    pub team_id: TeamId,
    pub tool_id: ToolId,
    pub tool_name: String,
    pub tool_type: String,
    pub upstream: String,
    pub upstream_id: Option<String>,
    pub client_token: String,
    pub status: String,
    pub status_reason: Option<String>,
    pub metadata: Json<BTreeMap<String, String>>,
    pub env: Json<BTreeMap<String, String>>,
    pub auth_mode: String,
    pub timeout_seconds: i32,
    pub idle: Option<Stored<Idle>>,
    pub created_by: KeyId,
    pub created_at: DateTime<Utc>,
    pub updated_at: DateTime<Utc>,
    pub started_at: Option<DateTime<Utc>>,
    pub expires_at: DateTime<Utc>,
    pub upstream_expires_at: Option<DateTime<Utc>>,
    pub last_active_at: Option<DateTime<Utc>>,
    pub stopping_at: Option<DateTime<Utc>>,
    pub stopped_at: Option<DateTime<Utc>>,
    pub stop_reason: Option<String>,
}

impl From<Row> for Instance {
    fn from(row: Row) -> Self {
        Self {
            id: row.id,
            team_id: row.team_id,
            tool_id: row.tool_id,
            tool_name: row.tool_name,
            tool_type: row.tool_type,
            upstream: row.upstream,
            upstream_id: row.upstream_id,
            client_token: row.client_token,
            status: row.status.into(),
            status_reason: row.status_reason,
            metadata: row.metadata.0,
            env: row.env.0,
            auth_mode: row.auth_mode,
            timeout_seconds: row.timeout_seconds.unsigned_abs(),
            idle: row.idle.map(|idle| idle.0),
            created_by: row.created_by,
            created_at: row.created_at,
            updated_at: row.updated_at,
            started_at: row.started_at,
            expires_at: row.expires_at,
            upstream_expires_at: row.upstream_expires_at,
            last_active_at: row.last_active_at,
            stopping_at: row.stopping_at,
            stopped_at: row.stopped_at,
            stop_reason: row.stop_reason.map(StopReason::from),
        }
    }
}

/// An instance of a team, live or ended.
///
/// # Errors
/// When the database fails.
pub async fn find(connection: &mut PgConnection, team: &TeamId, id: &InstanceId) -> sqlx::Result<Option<Instance>> {
    let found = system_find(connection, id).await?;
    Ok(found.filter(|instance| instance.team_id == *team))
}

/// An instance, whoever's it is.
///
/// # Errors
/// When the database fails.
pub async fn system_find(connection: &mut PgConnection, id: &InstanceId) -> sqlx::Result<Option<Instance>> {
    let row = sqlx::query_as!(
        Row,
        r#"SELECT id AS "id: _", team_id AS "team_id: _", tool_id AS "tool_id: _", tool_name, tool_type, upstream,
                  upstream_id, client_token, status, status_reason, metadata AS "metadata: _", env AS "env: _", auth_mode,
                  timeout_seconds, idle AS "idle: _", created_by AS "created_by: _", created_at, updated_at, started_at,
                  expires_at, upstream_expires_at, last_active_at, stopping_at, stopped_at, stop_reason
           FROM instances WHERE id = $1"#,
        id.as_str(),
    )
    .fetch_optional(connection)
    .await?;
    Ok(row.map(Instance::from))
}

/// Which instances; an empty list stands for all.
#[derive(Clone, Debug, Default)]
pub struct InstanceFilter {
    pub ids: Vec<String>,
    pub statuses: Vec<String>,
    /// Ids or names of tools.
    pub tools: Vec<String>,
    /// Each key must have one of its values.
    pub metadata: BTreeMap<String, Vec<String>>,
    pub created_after: Option<DateTime<Utc>>,
    /// Running since then, or created since then if they never ran.
    pub started_from: Option<DateTime<Utc>>,
}

/// A team's instances, newest first, ended ones included.
///
/// # Errors
/// When the database fails.
pub async fn list(
    connection: &mut PgConnection,
    team: &TeamId,
    filter: &InstanceFilter,
    page: &PageRequest,
) -> sqlx::Result<Page<Instance>> {
    let part = Part { before: page.before.as_deref(), offset: 0, limit: page.fetch() };
    let instances = newest(connection, team, filter, &part).await?;
    Ok(Page::from_fetched(instances, page, |instance: &Instance| instance.id.to_string()))
}

/// Where a part of a list begins, and how long it is at most.
#[derive(Debug)]
struct Part<'a> {
    before: Option<&'a str>,
    offset: i64,
    limit: i64,
}

async fn newest(
    connection: &mut PgConnection,
    team: &TeamId,
    filter: &InstanceFilter,
    part: &Part<'_>,
) -> sqlx::Result<Vec<Instance>> {
    let rows = sqlx::query_as!(
        Row,
        r#"SELECT id AS "id: _", team_id AS "team_id: _", tool_id AS "tool_id: _", tool_name, tool_type, upstream,
                  upstream_id, client_token, status, status_reason, metadata AS "metadata: _", env AS "env: _", auth_mode,
                  timeout_seconds, idle AS "idle: _", created_by AS "created_by: _", created_at, updated_at, started_at,
                  expires_at, upstream_expires_at, last_active_at, stopping_at, stopped_at, stop_reason
           FROM instances
           WHERE team_id = $1
             AND (cardinality($2::text[]) = 0 OR id = ANY($2)) AND (cardinality($3::text[]) = 0 OR status = ANY($3))
             AND (cardinality($4::text[]) = 0 OR tool_id = ANY($4) OR tool_name = ANY($4))
             AND NOT EXISTS (SELECT 1 FROM jsonb_each($5) AS wanted (key, choice)
                             WHERE NOT coalesce(choice ? (metadata ->> wanted.key), false))
             AND ($6::timestamptz IS NULL OR created_at > $6)
             AND ($7::text IS NULL OR id < $7)
             AND ($10::timestamptz IS NULL OR coalesce(started_at, created_at) >= $10)
           ORDER BY id DESC OFFSET $8 LIMIT $9"#,
        team.as_str(),
        &filter.ids,
        &filter.statuses,
        &filter.tools,
        Json(&filter.metadata) as _,
        filter.created_after,
        part.before,
        part.offset,
        part.limit,
        filter.started_from,
    )
    .fetch_all(connection)
    .await?;
    Ok(rows.into_iter().map(Instance::from).collect())
}

/// As [`list`], oldest first: `page.before` is the id that the page starts behind.
///
/// # Errors
/// When the database fails.
pub async fn list_oldest(
    connection: &mut PgConnection,
    team: &TeamId,
    filter: &InstanceFilter,
    page: &PageRequest,
) -> sqlx::Result<Page<Instance>> {
    let rows = sqlx::query_as!(
        Row,
        r#"SELECT id AS "id: _", team_id AS "team_id: _", tool_id AS "tool_id: _", tool_name, tool_type, upstream,
                  upstream_id, client_token, status, status_reason, metadata AS "metadata: _", env AS "env: _", auth_mode,
                  timeout_seconds, idle AS "idle: _", created_by AS "created_by: _", created_at, updated_at, started_at,
                  expires_at, upstream_expires_at, last_active_at, stopping_at, stopped_at, stop_reason
           FROM instances
           WHERE team_id = $1
             AND (cardinality($2::text[]) = 0 OR id = ANY($2)) AND (cardinality($3::text[]) = 0 OR status = ANY($3))
             AND (cardinality($4::text[]) = 0 OR tool_id = ANY($4) OR tool_name = ANY($4))
             AND NOT EXISTS (SELECT 1 FROM jsonb_each($5) AS wanted (key, choice)
                             WHERE NOT coalesce(choice ? (metadata ->> wanted.key), false))
             AND ($6::timestamptz IS NULL OR created_at > $6)
             AND ($7::text IS NULL OR id > $7)
             AND ($9::timestamptz IS NULL OR coalesce(started_at, created_at) >= $9)
           ORDER BY id LIMIT $8"#,
        team.as_str(),
        &filter.ids,
        &filter.statuses,
        &filter.tools,
        Json(&filter.metadata) as _,
        filter.created_after,
        page.before,
        page.fetch(),
        filter.started_from,
    )
    .fetch_all(connection)
    .await?;
    let instances = rows.into_iter().map(Instance::from).collect();
    Ok(Page::from_fetched(instances, page, |instance: &Instance| instance.id.to_string()))
}

/// An instance to be started.
pub struct NewInstance<'a> {
    pub id: &'a InstanceId,
    pub team: &'a TeamId,
    pub tool: &'a ToolId,
    pub tool_name: &'a str,
    pub tool_type: &'a str,
    pub upstream: &'a str,
    pub client_token: &'a str,
    pub spec: &'a InstanceSpec,
    pub metadata: &'a BTreeMap<String, String>,
    pub env: &'a BTreeMap<String, String>,
    pub auth_mode: &'a str,
    pub timeout_seconds: u32,
    pub idle: Option<&'a Idle>,
    pub created_by: &'a KeyId,
    /// How long the start may take; added to the life of an instance that does not run yet.
    pub startup_seconds: f64,
    pub claim_seconds: f64,
}

/// Writes the intent: an instance that is STARTING and being worked on.
///
/// # Errors
/// When the database fails.
pub async fn insert(connection: &mut PgConnection, new: &NewInstance<'_>) -> sqlx::Result<()> {
    sqlx::query!(
        "INSERT INTO instances (id, team_id, tool_id, tool_name, tool_type, upstream, client_token, status, spec, metadata,
                                env, auth_mode, timeout_seconds, idle, created_by, expires_at, claimed_until)
         VALUES ($1, $2, $3, $4, $5, $6, $7, 'STARTING', $8, $9, $10, $11, $12, $13, $14,
                 now() + make_interval(secs => $15::float8 + $12::integer), now() + make_interval(secs => $16))",
        new.id.as_str(),
        new.team.as_str(),
        new.tool.as_str(),
        new.tool_name,
        new.tool_type,
        new.upstream,
        new.client_token,
        Json(new.spec) as _,
        Json(new.metadata) as _,
        Json(new.env) as _,
        new.auth_mode,
        stored(new.timeout_seconds),
        new.idle.map(Json) as _,
        new.created_by.as_str(),
        new.startup_seconds,
        new.claim_seconds,
    )
    .execute(connection)
    .await?;
    Ok(())
}

fn stored(seconds: u32) -> i32 {
    i32::try_from(seconds).unwrap_or(i32::MAX)
}

/// What a start needs besides the instance itself.
pub struct Launch {
    pub spec: InstanceSpec,
    pub tool_upstream_id: Option<String>,
    /// Seconds since the intent was written.
    pub age: f64,
}

/// How to start an instance.
///
/// # Errors
/// When the database fails.
pub async fn system_launch(connection: &mut PgConnection, id: &InstanceId) -> sqlx::Result<Option<Launch>> {
    let row = sqlx::query!(
        r#"SELECT i.spec AS "spec: Stored<InstanceSpec>", t.upstream_id,
                  extract(epoch FROM now() - i.created_at)::float8 AS "age!"
           FROM instances i JOIN tools t ON t.id = i.tool_id WHERE i.id = $1"#,
        id.as_str(),
    )
    .fetch_optional(connection)
    .await?;
    Ok(row.map(|row| Launch { spec: row.spec.0, tool_upstream_id: row.upstream_id, age: row.age }))
}
