//! `migrate`.

use super::ConfigFile;
use crate::{bootstrap, config::Environment, storage};

pub(super) async fn run(file: &ConfigFile, environment: &Environment) -> anyhow::Result<()> {
    let config = file.load(environment)?;
    let pool = bootstrap::connect(&config.database).await?;
    let before = storage::applied_migrations(&pool).await.unwrap_or_default();
    storage::migrate(&pool).await?;
    let after = storage::applied_migrations(&pool).await?;
    println!("{} migrations applied, {after} in all", after.saturating_sub(before));
    pool.close().await;
    Ok(())
}
