//! Tools that are lent to other teams.

use sqlx::PgConnection;

use crate::ids::{TeamId, ToolId};

/// Lends a team's tool to these teams, and to no others any more.
///
/// # Errors
/// When the database fails.
pub async fn replace(
    connection: &mut PgConnection,
    owner: &TeamId,
    tool: &ToolId,
    teams: &[String],
) -> sqlx::Result<()> {
    sqlx::query!("DELETE FROM tool_shares WHERE tool_id = $1 AND team_id <> ALL($2)", tool.as_str(), teams)
        .execute(&mut *connection)
        .await?;
    sqlx::query!(
        "INSERT INTO tool_shares (tool_id, team_id)
         SELECT t.id, s.team_id FROM tools t, unnest($3::text[]) AS s (team_id) WHERE t.team_id = $1 AND t.id = $2
         ON CONFLICT DO NOTHING",
        owner.as_str(),
        tool.as_str(),
        teams,
    )
    .execute(connection)
    .await?;
    Ok(())
}

/// The teams that a tool is lent to.
///
/// # Errors
/// When the database fails.
pub async fn list(connection: &mut PgConnection, tool: &ToolId) -> sqlx::Result<Vec<TeamId>> {
    sqlx::query_scalar!(
        r#"SELECT team_id AS "team_id: TeamId" FROM tool_shares WHERE tool_id = $1 ORDER BY team_id"#,
        tool.as_str(),
    )
    .fetch_all(connection)
    .await
}
