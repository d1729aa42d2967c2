//! For callers that page by offset, and want to know what instances were started with.

use std::collections::HashMap;

use sqlx::{PgConnection, types::Json};

use super::{InstanceFilter, Part, newest};
use crate::{
    domain::instance::{Details, Instance, InstanceSpec},
    ids::{InstanceId, TeamId},
    storage::stored::Stored,
};

struct DetailsRow {
    id: InstanceId,
    spec: Stored<InstanceSpec>,
    persistent: bool,
    network_mode: Option<String>,
}

/// What instances were started with, besides what is said of each, by id.
///
/// # Errors
/// When the database fails.
pub async fn system_details(
    connection: &mut PgConnection,
    ids: &[String],
) -> sqlx::Result<HashMap<InstanceId, Details>> {
    let rows = sqlx::query_as!(
        DetailsRow,
        r#"SELECT i.id AS "id: _", i.spec AS "spec: _",
                  coalesce((t.spec ->> 'persistent')::boolean, false) AS "persistent!",
                  t.spec -> 'network' ->> 'mode' AS network_mode
           FROM instances i JOIN tools t ON t.id = i.tool_id WHERE i.id = ANY($1)"#,
        ids,
    )
    .fetch_all(connection)
    .await?;
    let details = |row: DetailsRow| {
        let details = Details { spec: row.spec.0, persistent: row.persistent, network_mode: row.network_mode };
        (row.id, details)
    };
    Ok(rows.into_iter().map(details).collect())
}

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
