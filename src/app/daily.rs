//! The instance-seconds that a team may use in a day.

use std::time::Duration;

use sqlx::PgConnection;

use super::App;
use crate::{
    domain::team::Team,
    error::{Code, Error, Result},
    ids::TeamId,
    storage::daily,
};

const NAME: &str = "instance_seconds_per_day";

/// Checks that a team may have something run today.
///
/// # Errors
/// `quota_exceeded`, until midnight UTC.
pub async fn check(connection: &mut PgConnection, team: &Team) -> Result<()> {
    let Some(limit) = team.quotas.instance_seconds_per_day else { return Ok(()) };
    let today = daily::today(connection, &team.id).await?;
    let used = whole(today.used);
    if used < limit {
        return Ok(());
    }
    let left = Duration::try_from_secs_f64(today.left.ceil()).unwrap_or_default();
    let detail = "Your team's instance-seconds of today are used up. They begin anew at midnight UTC.";
    Err(Error::new(Code::QuotaExceeded, detail).with_limit(NAME, limit, used).with_retry_after(left))
}

/// Instance-seconds that a team has used today.
///
/// # Errors
/// When the database fails.
pub async fn used(connection: &mut PgConnection, team: &TeamId) -> Result<u64> {
    Ok(whole(daily::today(connection, team).await?.used))
}

/// Whole seconds, as a clock counts them.
fn whole(seconds: f64) -> u64 {
    Duration::try_from_secs_f64(seconds).unwrap_or_default().as_secs()
}

/// Begins to stop what runs of teams that have used up their day. Answers how many instances.
///
/// # Errors
/// When the database fails.
pub async fn enforce(app: &App) -> Result<usize> {
    let mut connection = app.pool.acquire().await?;
    let stopping = daily::system_enforce(&mut connection).await?;
    drop(connection);
    for id in &stopping {
        tracing::info!(instance = %id, "stopping an instance whose team has used up its day");
    }
    if !stopping.is_empty() {
        app.holders.look();
        app.upkeep.reap.notify_one();
    }
    Ok(stopping.len())
}
