//! A part of a list by offset, for callers that page so.

use sqlx::{PgConnection, types::Json};

use super::{InstanceFilter, Part, newest};
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
    let part = Part { before: None, offset, limit };
    Ok((newest(connection, team, filter, &part).await?, total))
}
