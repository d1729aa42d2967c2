//! Sealed secrets of signing keys.

use sqlx::PgConnection;

use crate::ids::{KeyId, TeamId};

/// A pair that may sign now, as far as its own life says.
pub struct SigningRow {
    pub key_id: KeyId,
    pub team_id: TeamId,
    pub sealed: Vec<u8>,
}

/// Gives a key one more valid pair.
///
/// # Errors
/// When the database fails.
pub async fn add(connection: &mut PgConnection, key: &KeyId, secret_id: &str, sealed: &[u8]) -> sqlx::Result<()> {
    sqlx::query!(
        "INSERT INTO signing_secrets (secret_id, key_id, sealed) VALUES ($1, $2, $3)",
        secret_id,
        key.as_str(),
        sealed,
    )
    .execute(connection)
    .await?;
    Ok(())
}

/// Ends the pairs that a key has now after `grace_seconds`, and drops those that ended before.
///
/// # Errors
/// When the database fails.
pub async fn retire(connection: &mut PgConnection, key: &KeyId, grace_seconds: u32) -> sqlx::Result<()> {
    sqlx::query!("DELETE FROM signing_secrets WHERE key_id = $1 AND expires_at <= now()", key.as_str())
        .execute(&mut *connection)
        .await?;
    sqlx::query!(
        "UPDATE signing_secrets SET expires_at = least(expires_at, now() + make_interval(secs => $2)) WHERE key_id = $1",
        key.as_str(),
        f64::from(grace_seconds),
    )
    .execute(connection)
    .await?;
    Ok(())
}

/// The pair of an id, whoever's it is, if it has not ended. Whether its key is live is another question.
///
/// # Errors
/// When the database fails.
pub async fn system_find(connection: &mut PgConnection, secret_id: &str) -> sqlx::Result<Option<SigningRow>> {
    sqlx::query_as!(
        SigningRow,
        r#"SELECT s.key_id AS "key_id: KeyId", k.team_id AS "team_id: TeamId", s.sealed
           FROM signing_secrets s JOIN api_keys k ON k.id = s.key_id
           WHERE s.secret_id = $1 AND (s.expires_at IS NULL OR s.expires_at > now())"#,
        secret_id,
    )
    .fetch_optional(connection)
    .await
}

/// Replaces what a pair is kept as, unless somebody else has done so.
///
/// # Errors
/// When the database fails.
pub async fn system_reseal(connection: &mut PgConnection, secret_id: &str, old: &[u8], new: &[u8]) -> sqlx::Result<()> {
    sqlx::query!("UPDATE signing_secrets SET sealed = $3 WHERE secret_id = $1 AND sealed = $2", secret_id, old, new)
        .execute(connection)
        .await?;
    Ok(())
}
