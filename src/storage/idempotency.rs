//! First answers of creating calls.

use serde_json::Value;
use sqlx::PgConnection;

use crate::ids::TeamId;

/// A kept call.
pub struct Kept {
    pub fingerprint: Vec<u8>,
    /// `None` while it runs.
    pub status: Option<i32>,
    pub body: Option<Value>,
}

/// Reserves a key for a call. `false` when it is taken by one that is kept still.
///
/// # Errors
/// When the database fails.
pub async fn reserve(
    connection: &mut PgConnection,
    team: &TeamId,
    key: &str,
    fingerprint: &[u8],
    lock_seconds: f64,
    keep_seconds: f64,
) -> sqlx::Result<bool> {
    let done = sqlx::query!(
        "INSERT INTO idempotency_keys AS kept (team_id, key, fingerprint, locked_until, expires_at)
         VALUES ($1, $2, $3, now() + make_interval(secs => $4), now() + make_interval(secs => $5))
         ON CONFLICT (team_id, key) DO UPDATE
         SET fingerprint = excluded.fingerprint, resource = NULL, status = NULL, body = NULL, created_at = now(),
             locked_until = excluded.locked_until, expires_at = excluded.expires_at
         WHERE kept.expires_at <= now()",
        team.as_str(),
        key,
        fingerprint,
        lock_seconds,
        keep_seconds,
    )
    .execute(connection)
    .await?;
    Ok(done.rows_affected() == 1)
}

/// The call that holds a key.
///
/// # Errors
/// When the database fails.
pub async fn find(connection: &mut PgConnection, team: &TeamId, key: &str) -> sqlx::Result<Option<Kept>> {
    sqlx::query_as!(
        Kept,
        "SELECT fingerprint, status, body FROM idempotency_keys WHERE team_id = $1 AND key = $2",
        team.as_str(),
        key,
    )
    .fetch_optional(connection)
    .await
}

/// Takes over the key of a call that died: what it had made, if anything. `None` while it is alive.
///
/// # Errors
/// When the database fails.
pub async fn take_over(
    connection: &mut PgConnection,
    team: &TeamId,
    key: &str,
    lock_seconds: f64,
) -> sqlx::Result<Option<Option<String>>> {
    sqlx::query_scalar!(
        "UPDATE idempotency_keys SET locked_until = now() + make_interval(secs => $3)
         WHERE team_id = $1 AND key = $2 AND status IS NULL AND locked_until <= now() RETURNING resource",
        team.as_str(),
        key,
        lock_seconds,
    )
    .fetch_optional(connection)
    .await
}

/// Keeps a running call's key for this much longer.
///
/// # Errors
/// When the database fails.
pub async fn renew(connection: &mut PgConnection, team: &TeamId, key: &str, lock_seconds: f64) -> sqlx::Result<()> {
    sqlx::query!(
        "UPDATE idempotency_keys SET locked_until = now() + make_interval(secs => $3)
         WHERE team_id = $1 AND key = $2 AND status IS NULL",
        team.as_str(),
        key,
        lock_seconds,
    )
    .execute(connection)
    .await?;
    Ok(())
}

/// Notes what a running call makes.
///
/// # Errors
/// When the database fails.
pub async fn note(connection: &mut PgConnection, team: &TeamId, key: &str, resource: &str) -> sqlx::Result<()> {
    sqlx::query!(
        "UPDATE idempotency_keys SET resource = $3 WHERE team_id = $1 AND key = $2",
        team.as_str(),
        key,
        resource,
    )
    .execute(connection)
    .await?;
    Ok(())
}

/// Keeps a call's answer.
///
/// # Errors
/// When the database fails.
pub async fn keep(
    connection: &mut PgConnection,
    team: &TeamId,
    key: &str,
    status: u16,
    body: &Value,
) -> sqlx::Result<()> {
    sqlx::query!(
        "UPDATE idempotency_keys SET status = $3, body = $4 WHERE team_id = $1 AND key = $2",
        team.as_str(),
        key,
        i32::from(status),
        body,
    )
    .execute(connection)
    .await?;
    Ok(())
}

/// Forgets a call, so that its key may be used again.
///
/// # Errors
/// When the database fails.
pub async fn release(connection: &mut PgConnection, team: &TeamId, key: &str) -> sqlx::Result<()> {
    sqlx::query!("DELETE FROM idempotency_keys WHERE team_id = $1 AND key = $2", team.as_str(), key)
        .execute(connection)
        .await?;
    Ok(())
}

/// Removes up to `limit` calls that were kept long enough.
///
/// # Errors
/// When the database fails.
pub async fn system_prune(connection: &mut PgConnection, limit: i64) -> sqlx::Result<u64> {
    let done = sqlx::query!(
        "DELETE FROM idempotency_keys WHERE (team_id, key) IN
             (SELECT team_id, key FROM idempotency_keys WHERE expires_at <= now() LIMIT $1)",
        limit,
    )
    .execute(connection)
    .await?;
    Ok(done.rows_affected())
}
