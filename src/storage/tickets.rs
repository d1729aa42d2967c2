//! WebSocket tickets.

use chrono::{DateTime, Utc};
use sqlx::PgConnection;

use crate::{
    domain::{credential::Digest, scope::Scopes},
    ids::{ExecId, InstanceId, KeyId, TeamId},
};

/// A ticket to be stored.
pub struct NewTicket<'a> {
    pub digest: &'a Digest,
    pub team: &'a TeamId,
    pub key: &'a KeyId,
    pub instance: &'a InstanceId,
    pub exec: Option<&'a ExecId>,
    pub scopes: &'a Scopes,
    pub ttl_seconds: f64,
}

/// A ticket taken out of the table.
pub struct Taken {
    pub team_id: TeamId,
    pub key_id: KeyId,
    pub instance_id: InstanceId,
    pub exec_id: Option<ExecId>,
    pub scopes: Scopes,
}

/// Stores a ticket and answers when it expires.
///
/// # Errors
/// When the database fails.
pub async fn insert(connection: &mut PgConnection, ticket: &NewTicket<'_>) -> sqlx::Result<DateTime<Utc>> {
    sqlx::query_scalar!(
        "INSERT INTO tickets (digest, team_id, key_id, instance_id, exec_id, scopes, expires_at)
         VALUES ($1, $2, $3, $4, $5, $6, now() + make_interval(secs => $7)) RETURNING expires_at",
        ticket.digest.as_slice(),
        ticket.team.as_str(),
        ticket.key.as_str(),
        ticket.instance.as_str(),
        ticket.exec.map(ExecId::as_str),
        &ticket.scopes.to_names(),
        ticket.ttl_seconds,
    )
    .fetch_one(connection)
    .await
}

/// Takes the live ticket of one of these digests out, so that nobody can use it again.
///
/// # Errors
/// When the database fails.
pub async fn take(connection: &mut PgConnection, digests: &[Digest]) -> sqlx::Result<Option<Taken>> {
    let digests: Vec<Vec<u8>> = digests.iter().map(|digest| digest.to_vec()).collect();
    let row = sqlx::query!(
        r#"DELETE FROM tickets WHERE digest = ANY($1)
           RETURNING team_id AS "team_id: TeamId", key_id AS "key_id: KeyId", instance_id AS "instance_id: InstanceId",
                     exec_id AS "exec_id: ExecId", scopes, expires_at > now() AS "live!""#,
        &digests,
    )
    .fetch_optional(connection)
    .await?;
    Ok(row.filter(|row| row.live).map(|row| Taken {
        team_id: row.team_id,
        key_id: row.key_id,
        instance_id: row.instance_id,
        exec_id: row.exec_id,
        scopes: Scopes::from_names(&row.scopes),
    }))
}

/// Removes up to `limit` tickets that expired unused.
///
/// # Errors
/// When the database fails.
pub async fn system_prune(connection: &mut PgConnection, limit: i64) -> sqlx::Result<u64> {
    let done = sqlx::query!(
        "DELETE FROM tickets WHERE digest IN (SELECT digest FROM tickets WHERE expires_at < now() LIMIT $1)",
        limit,
    )
    .execute(connection)
    .await?;
    Ok(done.rows_affected())
}
