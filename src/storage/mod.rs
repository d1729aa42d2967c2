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
pub mod teams;
pub mod tickets;
pub mod tools;
pub mod usage;

use sqlx::{PgPool, migrate::Migrator};

/// The migrations, compiled in.
pub static MIGRATIONS: Migrator = sqlx::migrate!("./migrations");

/// Brings the schema up to date. Safe to run from several replicas at once (it takes an advisory lock).
///
/// # Errors
/// When the database cannot be reached, or holds migrations this version does not know.
pub async fn migrate(pool: &PgPool) -> Result<(), sqlx::migrate::MigrateError> {
    MIGRATIONS.run(pool).await
}

/// The identity that this deployment stamps on what it makes in the cloud.
///
/// # Errors
/// When the database fails.
pub async fn deployment_id(connection: &mut sqlx::PgConnection) -> sqlx::Result<String> {
    sqlx::query_scalar!("SELECT id FROM deployment").fetch_one(connection).await
}

/// How many migrations the database has seen.
///
/// # Errors
/// When the database fails.
pub async fn applied_migrations(pool: &PgPool) -> sqlx::Result<usize> {
    let count: i64 = sqlx::query_scalar("SELECT count(*) FROM _sqlx_migrations WHERE success").fetch_one(pool).await?;
    Ok(usize::try_from(count).unwrap_or_default())
}
