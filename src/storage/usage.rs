//! What a team uses at this moment.

use sqlx::PgConnection;

use crate::ids::TeamId;

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
