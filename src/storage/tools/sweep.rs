//! What the reconciler looks for, in every team's tools.

use std::collections::HashMap;

use chrono::{DateTime, Utc};
use sqlx::PgConnection;

use super::Row;
use crate::{domain::tool::Tool, ids::ToolId};

/// Which of these tools there are, and whether they were deleted.
///
/// # Errors
/// When the database fails.
pub async fn system_known(connection: &mut PgConnection, ids: &[String]) -> sqlx::Result<HashMap<String, bool>> {
    let rows = sqlx::query!(r#"SELECT id, deleted_at IS NOT NULL AS "deleted!" FROM tools WHERE id = ANY($1)"#, ids)
        .fetch_all(connection)
        .await?;
    Ok(rows.into_iter().map(|row| (row.id, row.deleted)).collect())
}

/// The teams' tools that an upstream should show: they are usable.
///
/// # Errors
/// When the database fails.
pub async fn system_expected(connection: &mut PgConnection, upstream: &str) -> sqlx::Result<Vec<Tool>> {
    let rows = sqlx::query_as!(
        Row,
        r#"SELECT id AS "id: _", team_id AS "team_id: _", upstream, upstream_id, client_token, name, type AS kind,
                  spec AS "spec: _", status, status_reason, created_by AS "created_by: _", created_at, updated_at,
                  deleted_at
           FROM tools
           WHERE upstream = $1 AND team_id IS NOT NULL AND deleted_at IS NULL AND upstream_id IS NOT NULL
             AND status = 'ACTIVE'"#,
        upstream,
    )
    .fetch_all(connection)
    .await?;
    Ok(rows.into_iter().map(Tool::from).collect())
}

/// Notes which tools of an upstream the cloud does not show; all others of it are shown.
///
/// # Errors
/// When the database fails.
pub async fn system_note_missing(connection: &mut PgConnection, upstream: &str, ids: &[String]) -> sqlx::Result<()> {
    sqlx::query!(
        "UPDATE tools SET missing_since = CASE WHEN id = ANY($2) THEN now() END
         WHERE upstream = $1 AND deleted_at IS NULL AND (missing_since IS NULL) = (id = ANY($2))",
        upstream,
        ids,
    )
    .execute(connection)
    .await?;
    Ok(())
}

/// Since when the cloud has not shown tools of an upstream, by their ids.
///
/// # Errors
/// When the database fails.
pub async fn system_missing(
    connection: &mut PgConnection,
    upstream: &str,
) -> sqlx::Result<HashMap<String, DateTime<Utc>>> {
    let rows = sqlx::query!(
        r#"SELECT id, missing_since AS "since!" FROM tools
           WHERE upstream = $1 AND deleted_at IS NULL AND missing_since IS NOT NULL"#,
        upstream,
    )
    .fetch_all(connection)
    .await?;
    Ok(rows.into_iter().map(|row| (row.id, row.since)).collect())
}

/// Records that a usable tool is FAILED, and why. `false` when it was not usable any more.
///
/// # Errors
/// When the database fails.
pub async fn system_lost(connection: &mut PgConnection, id: &ToolId, reason: &str) -> sqlx::Result<bool> {
    let done = sqlx::query!(
        "UPDATE tools SET status = 'FAILED', status_reason = $2, missing_since = NULL, updated_at = now()
         WHERE id = $1 AND status = 'ACTIVE' AND deleted_at IS NULL",
        id.as_str(),
        reason,
    )
    .execute(connection)
    .await?;
    Ok(done.rows_affected() == 1)
}
