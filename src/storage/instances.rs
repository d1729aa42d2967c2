//! Instances.

use std::collections::BTreeMap;

use chrono::{DateTime, Utc};
use sqlx::{PgConnection, types::Json};

use crate::{
    domain::instance::{Idle, Instance, StopReason},
    ids::{InstanceId, KeyId, TeamId, ToolId},
};

/// A row. Its columns are those of [`Instance`].
pub(super) struct Row {
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
    pub idle: Option<Json<Idle>>,
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
    let row = sqlx::query_as!(
        Row,
        r#"SELECT id AS "id: _", team_id AS "team_id: _", tool_id AS "tool_id: _", tool_name, tool_type, upstream,
                  upstream_id, client_token, status, status_reason, metadata AS "metadata: _", env AS "env: _", auth_mode,
                  timeout_seconds, idle AS "idle: _", created_by AS "created_by: _", created_at, updated_at, started_at,
                  expires_at, upstream_expires_at, last_active_at, stopping_at, stopped_at, stop_reason
           FROM instances WHERE team_id = $1 AND id = $2"#,
        team.as_str(),
        id.as_str(),
    )
    .fetch_optional(connection)
    .await?;
    Ok(row.map(Instance::from))
}
