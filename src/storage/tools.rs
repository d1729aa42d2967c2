//! Tools. [`sweep`] has what the reconciler looks for.

mod sweep;

use std::collections::BTreeMap;

use chrono::{DateTime, Utc};
use sqlx::{PgConnection, types::Json};

pub use self::sweep::*;
use super::stored::Stored;
use crate::{
    domain::{
        page::{Page, PageRequest},
        tool::{Tool, ToolSpec, ToolStatus},
    },
    ids::{KeyId, TeamId, ToolId},
};

struct Row {
    id: ToolId,
    team_id: Option<TeamId>,
    upstream: String,
    upstream_id: Option<String>,
    client_token: String,
    name: String,
    kind: String,
    spec: Stored<ToolSpec>,
    status: String,
    status_reason: Option<String>,
    created_by: Option<KeyId>,
    created_at: DateTime<Utc>,
    updated_at: DateTime<Utc>,
    deleted_at: Option<DateTime<Utc>>,
}

impl From<Row> for Tool {
    fn from(row: Row) -> Self {
        Self {
            id: row.id,
            team_id: row.team_id,
            upstream: row.upstream,
            upstream_id: row.upstream_id,
            client_token: row.client_token,
            name: row.name,
            kind: row.kind,
            spec: row.spec.0,
            status: row.status.into(),
            status_reason: row.status_reason,
            created_by: row.created_by,
            created_at: row.created_at,
            updated_at: row.updated_at,
            deleted_at: row.deleted_at,
        }
    }
}

/// A tool to be made.
pub struct NewTool<'a> {
    pub id: &'a ToolId,
    pub team: &'a TeamId,
    pub upstream: &'a str,
    pub client_token: &'a str,
    pub name: &'a str,
    pub kind: &'a str,
    pub spec: &'a ToolSpec,
    pub created_by: &'a KeyId,
    pub claim_seconds: f64,
}

/// Writes the intent: a tool that is CREATING and being worked on. `false` when the team has a tool of that name.
///
/// # Errors
/// When the database fails.
pub async fn insert(connection: &mut PgConnection, tool: &NewTool<'_>) -> sqlx::Result<bool> {
    let done = sqlx::query!(
        "INSERT INTO tools (id, team_id, upstream, client_token, name, type, spec, status, created_by, claimed_until)
         VALUES ($1, $2, $3, $4, $5, $6, $7, 'CREATING', $8, now() + make_interval(secs => $9))
         ON CONFLICT (team_id, name) WHERE deleted_at IS NULL AND status <> 'FAILED' DO NOTHING",
        tool.id.as_str(),
        tool.team.as_str(),
        tool.upstream,
        tool.client_token,
        tool.name,
        tool.kind,
        Json(tool.spec) as _,
        tool.created_by.as_str(),
        tool.claim_seconds,
    )
    .execute(connection)
    .await?;
    Ok(done.rows_affected() == 1)
}

/// What came of the adoption of a tool.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Adoption {
    Done,
    NameTaken,
    /// The tool of the cloud's has a row already.
    Known,
}

/// Writes down a tool that is ACTIVE in the cloud as one of a team's.
///
/// # Errors
/// When the database fails.
pub async fn adopt(connection: &mut PgConnection, tool: &NewTool<'_>, upstream_id: &str) -> sqlx::Result<Adoption> {
    let done = sqlx::query!(
        "INSERT INTO tools (id, team_id, upstream, upstream_id, client_token, name, type, spec, status, created_by)
         VALUES ($1, $2, $3, $4, $5, $6, $7, $8, 'ACTIVE', $9)
         ON CONFLICT (team_id, name) WHERE deleted_at IS NULL AND status <> 'FAILED' DO NOTHING",
        tool.id.as_str(),
        tool.team.as_str(),
        tool.upstream,
        upstream_id,
        tool.client_token,
        tool.name,
        tool.kind,
        Json(tool.spec) as _,
        tool.created_by.as_str(),
    )
    .execute(connection)
    .await;
    match done {
        Ok(done) if done.rows_affected() == 1 => Ok(Adoption::Done),
        Ok(_) => Ok(Adoption::NameTaken),
        Err(sqlx::Error::Database(error)) if error.is_unique_violation() => Ok(Adoption::Known),
        Err(error) => Err(error),
    }
}

/// Takes an adoption back. Without effect once the tool has instances.
///
/// # Errors
/// When the database fails.
pub async fn system_disown(connection: &mut PgConnection, id: &ToolId) -> sqlx::Result<()> {
    sqlx::query!(
        "DELETE FROM tools WHERE id = $1 AND NOT EXISTS (SELECT FROM instances WHERE tool_id = $1)",
        id.as_str(),
    )
    .execute(connection)
    .await?;
    Ok(())
}

/// A tool that a team may use: its own, deleted ones included, one that another team lends it, or a shared one.
///
/// # Errors
/// When the database fails.
pub async fn find(connection: &mut PgConnection, team: &TeamId, id: &ToolId) -> sqlx::Result<Option<Tool>> {
    let Some(tool) = system_find(&mut *connection, id).await? else { return Ok(None) };
    let usable = match &tool.team_id {
        Some(owner) if owner == team => true,
        Some(_) if tool.deleted_at.is_none() => super::shares::list(connection, id).await?.contains(team),
        Some(_) => false,
        None => tool.deleted_at.is_none(),
    };
    Ok(Some(tool).filter(|_| usable))
}

/// A tool, whoever's it is.
///
/// # Errors
/// When the database fails.
pub async fn system_find(connection: &mut PgConnection, id: &ToolId) -> sqlx::Result<Option<Tool>> {
    let row = sqlx::query_as!(
        Row,
        r#"SELECT id AS "id: _", team_id AS "team_id: _", upstream, upstream_id, client_token, name, type AS kind,
                  spec AS "spec: _", status, status_reason, created_by AS "created_by: _", created_at, updated_at, deleted_at
           FROM tools WHERE id = $1"#,
        id.as_str(),
    )
    .fetch_optional(connection)
    .await?;
    Ok(row.map(Tool::from))
}

/// The live tool of this name: the team's own before one that is lent to it, that before a shared one, and of those the one in `upstream` first. A FAILED one
/// has given its name back and is found only when no other has it.
///
/// # Errors
/// When the database fails.
pub async fn find_named(
    connection: &mut PgConnection,
    team: &TeamId,
    name: &str,
    upstream: &str,
) -> sqlx::Result<Option<Tool>> {
    let row = sqlx::query_as!(
        Row,
        r#"SELECT id AS "id: _", team_id AS "team_id: _", upstream, upstream_id, client_token, name, type AS kind,
                  spec AS "spec: _", status, status_reason, created_by AS "created_by: _", created_at, updated_at, deleted_at
           FROM tools
           WHERE name = $2 AND deleted_at IS NULL
             AND (team_id = $1 OR team_id IS NULL
                  OR EXISTS (SELECT FROM tool_shares s WHERE s.tool_id = tools.id AND s.team_id = $1))
           ORDER BY (team_id = $1) IS NOT TRUE, team_id IS NULL, status = 'FAILED', upstream = $3 DESC, id DESC LIMIT 1"#,
        team.as_str(),
        name,
        upstream,
    )
    .fetch_optional(connection)
    .await?;
    Ok(row.map(Tool::from))
}

/// Which tools; an empty list stands for all.
#[derive(Clone, Debug, Default)]
pub struct ToolFilter {
    pub ids: Vec<String>,
    pub names: Vec<String>,
    pub statuses: Vec<String>,
    pub kinds: Vec<String>,
    /// Each key must have one of its values.
    pub tags: BTreeMap<String, Vec<String>>,
}

/// The tools that a team may use, newest first.
///
/// # Errors
/// When the database fails.
pub async fn list(
    connection: &mut PgConnection,
    team: &TeamId,
    filter: &ToolFilter,
    page: &PageRequest,
) -> sqlx::Result<Page<Tool>> {
    let rows = sqlx::query_as!(
        Row,
        r#"SELECT id AS "id: _", team_id AS "team_id: _", upstream, upstream_id, client_token, name, type AS kind,
                  spec AS "spec: _", status, status_reason, created_by AS "created_by: _", created_at, updated_at, deleted_at
           FROM tools
           WHERE (team_id = $1 OR team_id IS NULL
                  OR EXISTS (SELECT FROM tool_shares s WHERE s.tool_id = tools.id AND s.team_id = $1))
             AND deleted_at IS NULL
             AND (cardinality($2::text[]) = 0 OR id = ANY($2)) AND (cardinality($3::text[]) = 0 OR name = ANY($3))
             AND (cardinality($4::text[]) = 0 OR status = ANY($4)) AND (cardinality($5::text[]) = 0 OR type = ANY($5))
             AND NOT EXISTS (SELECT 1 FROM jsonb_each($6) AS wanted (key, choice)
                             WHERE NOT coalesce(choice ? (spec -> 'tags' ->> wanted.key), false))
             AND ($7::text IS NULL OR id < $7)
           ORDER BY id DESC LIMIT $8"#,
        team.as_str(),
        &filter.ids,
        &filter.names,
        &filter.statuses,
        &filter.kinds,
        Json(&filter.tags) as _,
        page.before,
        page.fetch(),
    )
    .fetch_all(connection)
    .await?;
    Ok(Page::from_fetched(rows.into_iter().map(Tool::from).collect(), page, |tool: &Tool| tool.id.to_string()))
}

/// Locks a tool against deletion until the transaction ends, and tells its status.
///
/// # Errors
/// When the database fails.
pub async fn hold(connection: &mut PgConnection, id: &ToolId) -> sqlx::Result<Option<ToolStatus>> {
    let status =
        sqlx::query_scalar!("SELECT status FROM tools WHERE id = $1 AND deleted_at IS NULL FOR SHARE", id.as_str())
            .fetch_optional(connection)
            .await?;
    Ok(status.map(ToolStatus::from))
}

/// What became of a tool.
#[derive(Clone, Debug)]
pub struct ToolOutcome<'a> {
    pub upstream_id: Option<&'a str>,
    pub status: &'a ToolStatus,
    pub reason: Option<&'a str>,
    pub request_id: Option<&'a str>,
    /// Something that nobody wants may be left in the cloud.
    pub leftover: bool,
}

/// Records what became of a tool that was in `from`, and ends the claim on it unless it is CREATING still.
///
/// # Errors
/// When the database fails.
pub async fn system_settle(
    connection: &mut PgConnection,
    id: &ToolId,
    from: &ToolStatus,
    outcome: &ToolOutcome<'_>,
) -> sqlx::Result<bool> {
    let done = sqlx::query!(
        "UPDATE tools SET upstream_id = coalesce($3, upstream_id), status = $4, status_reason = $5,
                          upstream_request_id = coalesce($6, upstream_request_id), updated_at = now(), attempts = 0,
                          leftover = $7, claimed_until = CASE WHEN $4 = 'CREATING' THEN claimed_until END
         WHERE id = $1 AND status = $2 AND deleted_at IS NULL",
        id.as_str(),
        from.as_str(),
        outcome.upstream_id,
        outcome.status.as_str(),
        outcome.reason,
        outcome.request_id,
        outcome.leftover,
    )
    .execute(connection)
    .await?;
    Ok(done.rows_affected() == 1)
}

/// Takes back an intent that came to nothing.
///
/// # Errors
/// When the database fails.
pub async fn system_remove(connection: &mut PgConnection, id: &ToolId) -> sqlx::Result<()> {
    sqlx::query!("DELETE FROM tools WHERE id = $1 AND status = 'CREATING' AND upstream_id IS NULL", id.as_str())
        .execute(connection)
        .await?;
    Ok(())
}

/// What may be changed of a tool.
pub struct ToolChange<'a> {
    pub name: &'a str,
    pub spec: &'a ToolSpec,
}

/// Stores a change that the cloud has taken; `false` when the tool is not ACTIVE any more.
///
/// # Errors
/// When the database fails.
pub async fn update(
    connection: &mut PgConnection,
    team: &TeamId,
    id: &ToolId,
    change: &ToolChange<'_>,
) -> sqlx::Result<bool> {
    let done = sqlx::query!(
        "UPDATE tools SET name = $3, spec = $4, updated_at = now(), claimed_until = NULL
         WHERE team_id = $1 AND id = $2 AND status = 'ACTIVE' AND deleted_at IS NULL",
        team.as_str(),
        id.as_str(),
        change.name,
        Json(change.spec) as _,
    )
    .execute(connection)
    .await?;
    Ok(done.rows_affected() == 1)
}

/// Whether another live tool of the team has this name.
///
/// # Errors
/// When the database fails.
pub async fn name_taken(
    connection: &mut PgConnection,
    team: &TeamId,
    name: &str,
    besides: &ToolId,
) -> sqlx::Result<bool> {
    sqlx::query_scalar!(
        r#"SELECT EXISTS (SELECT 1 FROM tools WHERE team_id = $1 AND name = $2 AND id <> $3 AND deleted_at IS NULL
                                                AND status <> 'FAILED') AS "taken!""#,
        team.as_str(),
        name,
        besides.as_str(),
    )
    .fetch_one(connection)
    .await
}

/// Claims a tool for a change; `false` while somebody else works on it or it is not in `status`.
///
/// # Errors
/// When the database fails.
pub async fn claim(
    connection: &mut PgConnection,
    team: &TeamId,
    id: &ToolId,
    status: &ToolStatus,
    seconds: f64,
) -> sqlx::Result<bool> {
    let done = sqlx::query!(
        "UPDATE tools SET claimed_until = now() + make_interval(secs => $4)
         WHERE team_id = $1 AND id = $2 AND status = $3 AND deleted_at IS NULL
           AND (claimed_until IS NULL OR claimed_until <= now())",
        team.as_str(),
        id.as_str(),
        status.as_str(),
        seconds,
    )
    .execute(connection)
    .await?;
    Ok(done.rows_affected() == 1)
}

/// Keeps a claim for this much longer; zero ends it, and one that ended stays so.
///
/// # Errors
/// When the database fails.
pub async fn system_renew(connection: &mut PgConnection, id: &ToolId, seconds: f64) -> sqlx::Result<()> {
    sqlx::query!(
        "UPDATE tools SET claimed_until = now() + make_interval(secs => $2) WHERE id = $1 AND claimed_until IS NOT NULL",
        id.as_str(),
        seconds,
    )
    .execute(connection)
    .await?;
    Ok(())
}

/// Marks a tool DELETING and claims it, if it has no live instance. Answers how many it has.
///
/// # Errors
/// When the database fails.
pub async fn begin_delete(
    connection: &mut PgConnection,
    team: &TeamId,
    id: &ToolId,
    seconds: f64,
) -> sqlx::Result<u64> {
    sqlx::query!("SELECT id FROM tools WHERE team_id = $1 AND id = $2 FOR UPDATE", team.as_str(), id.as_str())
        .fetch_optional(&mut *connection)
        .await?;
    let live = sqlx::query_scalar!(
        r#"SELECT count(*) AS "count!" FROM instances WHERE tool_id = $1 AND stopped_at IS NULL"#,
        id.as_str(),
    )
    .fetch_one(&mut *connection)
    .await?;
    if live == 0 {
        sqlx::query!(
            "UPDATE tools SET status = 'DELETING', updated_at = now(), claimed_until = now() + make_interval(secs => $3)
             WHERE team_id = $1 AND id = $2 AND deleted_at IS NULL",
            team.as_str(),
            id.as_str(),
            seconds,
        )
        .execute(connection)
        .await?;
    }
    Ok(live.unsigned_abs())
}

/// Marks a DELETING tool as gone.
///
/// # Errors
/// When the database fails.
pub async fn system_deleted(connection: &mut PgConnection, id: &ToolId) -> sqlx::Result<()> {
    sqlx::query!(
        "UPDATE tools SET deleted_at = now(), updated_at = now(), claimed_until = NULL
         WHERE id = $1 AND deleted_at IS NULL",
        id.as_str(),
    )
    .execute(connection)
    .await?;
    Ok(())
}

/// Notes that nothing of a FAILED tool is left in the cloud.
///
/// # Errors
/// When the database fails.
pub async fn system_cleaned(connection: &mut PgConnection, id: &ToolId) -> sqlx::Result<()> {
    sqlx::query!("UPDATE tools SET leftover = false, claimed_until = NULL WHERE id = $1", id.as_str())
        .execute(connection)
        .await?;
    Ok(())
}

/// Claims tools that have no final state, or have left something in the cloud, and that nobody works on.
///
/// # Errors
/// When the database fails.
pub async fn system_claim_unsettled(
    connection: &mut PgConnection,
    limit: i64,
    seconds: f64,
) -> sqlx::Result<Vec<Tool>> {
    let rows = sqlx::query_as!(
        Row,
        r#"UPDATE tools SET claimed_until = now() + make_interval(secs => $2), attempts = attempts + 1
           WHERE id IN (SELECT id FROM tools
                        WHERE deleted_at IS NULL AND (status IN ('CREATING', 'DELETING') OR leftover)
                          AND team_id IS NOT NULL
                          AND (claimed_until IS NULL OR claimed_until <= now())
                        ORDER BY claimed_until NULLS FIRST LIMIT $1 FOR UPDATE SKIP LOCKED)
           RETURNING id AS "id: _", team_id AS "team_id: _", upstream, upstream_id, client_token, name, type AS kind,
                     spec AS "spec: _", status, status_reason, created_by AS "created_by: _", created_at, updated_at,
                     deleted_at"#,
        limit,
        seconds,
    )
    .fetch_all(connection)
    .await?;
    Ok(rows.into_iter().map(Tool::from).collect())
}

/// Lets an unsettled tool rest after a failure.
///
/// # Errors
/// When the database fails.
pub async fn system_defer(connection: &mut PgConnection, id: &ToolId, seconds: f64, error: &str) -> sqlx::Result<()> {
    sqlx::query!(
        "UPDATE tools SET claimed_until = now() + make_interval(secs => $2), last_error = $3 WHERE id = $1",
        id.as_str(),
        seconds,
        error,
    )
    .execute(connection)
    .await?;
    Ok(())
}

/// A tool of the cloud's own, shared with all teams.
pub struct SharedTool<'a> {
    pub id: &'a ToolId,
    pub upstream: &'a str,
    pub upstream_id: &'a str,
    pub name: &'a str,
    pub kind: &'a str,
    pub spec: &'a ToolSpec,
    pub status: &'a ToolStatus,
}

/// Writes down what the cloud says of a shared tool.
///
/// # Errors
/// When the database fails.
pub async fn system_share(connection: &mut PgConnection, tool: &SharedTool<'_>) -> sqlx::Result<()> {
    sqlx::query!(
        "INSERT INTO tools (id, upstream, upstream_id, client_token, name, type, spec, status)
         VALUES ($1, $2, $3, '', $4, $5, $6, $7)
         ON CONFLICT (upstream, name) WHERE team_id IS NULL AND deleted_at IS NULL
         DO UPDATE SET upstream_id = $3, type = $5, spec = $6, status = $7, updated_at = now()
         WHERE (tools.upstream_id, tools.type, tools.spec, tools.status) IS DISTINCT FROM ($3, $5, $6::jsonb, $7)",
        tool.id.as_str(),
        tool.upstream,
        tool.upstream_id,
        tool.name,
        tool.kind,
        Json(tool.spec) as _,
        tool.status.as_str(),
    )
    .execute(connection)
    .await?;
    Ok(())
}

/// Withdraws the shared tools of an upstream that are not among `names`.
///
/// # Errors
/// When the database fails.
pub async fn system_withdraw(connection: &mut PgConnection, upstream: &str, names: &[String]) -> sqlx::Result<()> {
    sqlx::query!(
        "UPDATE tools SET deleted_at = now(), updated_at = now()
         WHERE team_id IS NULL AND upstream = $1 AND deleted_at IS NULL AND name <> ALL($2)",
        upstream,
        names,
    )
    .execute(connection)
    .await?;
    Ok(())
}
