//! Passes of the reconciler: who makes one, what the last one found, and since when orphans have been seen.

use std::collections::HashMap;

use chrono::{DateTime, Utc};
use sqlx::PgConnection;

use crate::domain::reconciliation::{Kind, Report};

/// Takes the lease of a pass, unless another pass is under way or one began less than `rest_seconds` ago.
///
/// # Errors
/// When the database fails.
pub async fn system_take(
    connection: &mut PgConnection,
    holder: &str,
    claim_seconds: f64,
    rest_seconds: f64,
) -> sqlx::Result<bool> {
    let done = sqlx::query!(
        "UPDATE reconciliation SET holder = $1, held_until = now() + make_interval(secs => $2), checked_at = now()
         WHERE (held_until IS NULL OR held_until <= now())
           AND (checked_at IS NULL OR checked_at <= now() - make_interval(secs => $3))",
        holder,
        claim_seconds,
        rest_seconds,
    )
    .execute(connection)
    .await?;
    Ok(done.rows_affected() == 1)
}

/// Keeps the lease for this much longer.
///
/// # Errors
/// When the database fails.
pub async fn system_renew(connection: &mut PgConnection, holder: &str, claim_seconds: f64) -> sqlx::Result<()> {
    sqlx::query!(
        "UPDATE reconciliation SET held_until = now() + make_interval(secs => $2) WHERE holder = $1",
        holder,
        claim_seconds,
    )
    .execute(connection)
    .await?;
    Ok(())
}

/// Ends the lease, with what the pass has found.
///
/// # Errors
/// When the database fails.
pub async fn system_release(connection: &mut PgConnection, holder: &str, report: Option<&Report>) -> sqlx::Result<()> {
    let count = |count: usize| i64::try_from(count).unwrap_or(i64::MAX);
    sqlx::query!(
        "UPDATE reconciliation SET holder = NULL, held_until = NULL, orphans = coalesce($2, orphans),
             missing = coalesce($3, missing), unowned = coalesce($4, unowned), braked = coalesce($5, braked),
             complete_at = CASE WHEN $6 THEN checked_at ELSE complete_at END
         WHERE holder = $1",
        holder,
        report.map(|report| count(report.orphans.len())),
        report.map(|report| count(report.missing.len())),
        report.map(|report| i64::try_from(report.foreign).unwrap_or(i64::MAX)),
        report.map(|report| report.braked),
        report.is_some_and(|report| report.complete),
    )
    .execute(connection)
    .await?;
    Ok(())
}

/// What the last pass has found.
pub struct LastPass {
    pub orphans: i64,
    pub missing: i64,
    pub foreign: i64,
    pub braked: bool,
    /// Since the last complete pass; `None` when there was none.
    pub age_seconds: Option<f64>,
}

/// # Errors
/// When the database fails.
pub async fn system_last(connection: &mut PgConnection) -> sqlx::Result<LastPass> {
    sqlx::query_as!(
        LastPass,
        r#"SELECT orphans, missing, unowned AS "foreign", braked,
                  extract(epoch FROM now() - complete_at)::float8 AS age_seconds
           FROM reconciliation"#,
    )
    .fetch_one(connection)
    .await
}

/// Notes which orphans an upstream has, and forgets those that it has no longer.
///
/// # Errors
/// When the database fails.
pub async fn system_note_orphans(
    connection: &mut PgConnection,
    upstream: &str,
    kind: Kind,
    ids: &[String],
) -> sqlx::Result<()> {
    sqlx::query!(
        "WITH gone AS (DELETE FROM orphans WHERE upstream = $1 AND kind = $2 AND upstream_id <> ALL($3))
         INSERT INTO orphans (upstream, kind, upstream_id) SELECT $1, $2, unnest($3) ON CONFLICT DO NOTHING",
        upstream,
        kind.as_str(),
        ids,
    )
    .execute(connection)
    .await?;
    Ok(())
}

/// Since when orphans have been seen, by their ids in the cloud.
///
/// # Errors
/// When the database fails.
pub async fn system_orphans(
    connection: &mut PgConnection,
    upstream: &str,
    kind: Kind,
) -> sqlx::Result<HashMap<String, DateTime<Utc>>> {
    let rows = sqlx::query!(
        "SELECT upstream_id, since FROM orphans WHERE upstream = $1 AND kind = $2",
        upstream,
        kind.as_str()
    )
    .fetch_all(connection)
    .await?;
    Ok(rows.into_iter().map(|row| (row.upstream_id, row.since)).collect())
}
