//! The gateways that run on this database.

use std::num::NonZeroU32;

use sqlx::PgConnection;

/// A replica that was not seen for this long does not count any more.
const SEEN_SECONDS: f64 = 15.0;

/// Another gateway.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Replica {
    pub id: String,
    /// Where it answers other replicas; `None` when it is not to be reached.
    pub url: Option<String>,
}

/// Says that a replica runs.
///
/// # Errors
/// When the database fails.
pub async fn system_seen(connection: &mut PgConnection, replica: &Replica, host: &str) -> sqlx::Result<()> {
    sqlx::query!(
        "INSERT INTO replicas (id, host, url) VALUES ($1, $2, $3) ON CONFLICT (id) DO UPDATE SET seen_at = now()",
        replica.id,
        host,
        replica.url,
    )
    .execute(connection)
    .await?;
    Ok(())
}

/// How many replicas run: this one, which asks, at least.
///
/// # Errors
/// When the database fails.
pub async fn system_count(connection: &mut PgConnection) -> sqlx::Result<NonZeroU32> {
    let count = sqlx::query_scalar!(
        r#"SELECT count(*) AS "count!" FROM replicas WHERE seen_at > now() - make_interval(secs => $1)"#,
        SEEN_SECONDS,
    )
    .fetch_one(connection)
    .await?;
    Ok(u32::try_from(count).ok().and_then(NonZeroU32::new).unwrap_or(NonZeroU32::MIN))
}

/// Succeeds whoever was at this replica's place before: there is one process at an address only. What it followed is free
/// to be taken over at once.
///
/// # Errors
/// When the database fails.
pub async fn system_succeed(connection: &mut PgConnection, replica: &Replica, host: &str) -> sqlx::Result<()> {
    sqlx::query!(
        "WITH gone AS (DELETE FROM replicas WHERE host = $2 AND url = $3 AND id <> $1 RETURNING id)
         UPDATE execs SET lease_until = now() WHERE status = 'running' AND owner IN (SELECT id FROM gone)",
        replica.id,
        host,
        replica.url,
    )
    .execute(connection)
    .await?;
    Ok(())
}

/// Removes a replica that ends, and those that have not been heard of for an hour.
///
/// # Errors
/// When the database fails.
pub async fn system_remove(connection: &mut PgConnection, id: &str) -> sqlx::Result<()> {
    sqlx::query!("DELETE FROM replicas WHERE id = $1 OR seen_at < now() - interval '1 hour'", id)
        .execute(connection)
        .await?;
    Ok(())
}
