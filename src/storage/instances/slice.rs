//! A part of a list by offset, for callers that page so.

use sqlx::{PgConnection, types::Json};

use super::{InstanceFilter, Row};
use crate::{domain::instance::Instance, ids::TeamId};

/// A part of a team's instances, newest first, and how many there are in all. Of the filter ids, statuses, tools and
/// metadata count.
///
/// # Errors
/// When the database fails.
pub async fn slice(
    connection: &mut PgConnection,
    team: &TeamId,
    filter: &InstanceFilter,
    offset: i64,
    limit: i64,
) -> sqlx::Result<(Vec<Instance>, i64)> {
    let total = sqlx::query_scalar!(
        r#"SELECT count(*) AS "count!" FROM instances
           WHERE team_id = $1
             AND (cardinality($2::text[]) = 0 OR id = ANY($2)) AND (cardinality($3::text[]) = 0 OR status = ANY($3))
             AND (cardinality($4::text[]) = 0 OR tool_id = ANY($4) OR tool_name = ANY($4))
             AND NOT EXISTS (SELECT 1 FROM jsonb_each($5) AS wanted (key, choice)
                             WHERE NOT coalesce(choice ? (metadata ->> wanted.key), false))"#,
        team.as_str(),
        &filter.ids,
        &filter.statuses,
        &filter.tools,
        Json(&filter.metadata) as _,
    )
    .fetch_one(&mut *connection)
    .await?;
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
           ORDER BY id DESC OFFSET $6 LIMIT $7"#,
        team.as_str(),
        &filter.ids,
        &filter.statuses,
        &filter.tools,
        Json(&filter.metadata) as _,
        offset,
        limit,
    )
    .fetch_all(connection)
    .await?;
    Ok((rows.into_iter().map(Instance::from).collect(), total))
}
