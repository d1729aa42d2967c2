//! Postgres. The only room with SQL: compile-time checked queries over a connection, so that callers compose transactions.
//!
//! A function takes the [`TeamId`](crate::ids::TeamId) whose rows it may touch; those named `system_*` and the look-up of
//! credentials see every team's.

pub mod audit;
pub mod budgets;
pub mod daily;
pub mod exec_output;
pub mod exec_slots;
pub mod execs;
pub mod holders;
pub mod idempotency;
pub mod instances;
pub mod keys;
pub mod passes;
pub mod previews;
pub mod queue;
pub mod reconciliation;
pub mod replicas;
pub mod runs;
pub mod shares;
pub mod signing;
mod stored;
pub mod teams;
pub mod tickets;
pub mod tools;
pub mod usage;

use sqlx::{
    PgPool,
    migrate::{MigrateError, Migrator},
};

/// The migrations, compiled in.
pub static MIGRATIONS: Migrator = sqlx::migrate!("./migrations");

/// Brings the schema up to date. Safe to run from several replicas at once (it takes an advisory lock). A schema of a later
/// version is left as it is: during a rollout both versions work with it.
///
/// # Errors
/// When the database cannot be reached, or holds migrations that are neither this version's nor later.
pub async fn migrate(pool: &PgPool) -> Result<(), MigrateError> {
    if !is_later(pool).await? {
        return MIGRATIONS.run(pool).await;
    }
    tracing::info!("the schema is a later version's");
    Migrator::with_migrations(MIGRATIONS.iter().cloned().collect()).set_ignore_missing(true).run(pool).await
}

/// Whether the database has seen migrations beyond this version's, and no other strange ones.
async fn is_later(pool: &PgPool) -> sqlx::Result<bool> {
    let table: Option<String> =
        sqlx::query_scalar("SELECT to_regclass('_sqlx_migrations')::text").fetch_one(pool).await?;
    if table.is_none() {
        return Ok(false);
    }
    let known = known_versions();
    let newest = known.iter().copied().max();
    let oldest_strange = "SELECT min(version) > $2 FROM _sqlx_migrations WHERE version <> ALL($1)";
    let later: Option<bool> = sqlx::query_scalar(oldest_strange).bind(known).bind(newest).fetch_one(pool).await?;
    Ok(later == Some(true))
}

fn known_versions() -> Vec<i64> {
    MIGRATIONS.iter().map(|migration| migration.version).collect()
}

/// The identity that this deployment stamps on what it makes in the cloud.
///
/// # Errors
/// When the database fails.
pub async fn deployment_id(connection: &mut sqlx::PgConnection) -> sqlx::Result<String> {
    sqlx::query_scalar!("SELECT id FROM deployment").fetch_one(connection).await
}

/// How many of this version's migrations the database has seen.
///
/// # Errors
/// When the database fails.
pub async fn applied_migrations(pool: &PgPool) -> sqlx::Result<usize> {
    let count = "SELECT count(*) FROM _sqlx_migrations WHERE success AND version = ANY($1)";
    let count: i64 = sqlx::query_scalar(count).bind(known_versions()).fetch_one(pool).await?;
    Ok(usize::try_from(count).unwrap_or_default())
}
