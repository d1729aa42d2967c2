//! Claims on rows: whoever works on a row keeps its claim alive, so that others (jobs, replicas) leave it alone, and know
//! soon when the worker died.

use std::time::Duration;

use super::App;
use crate::{
    ids::{InstanceId, ToolId},
    storage::{instances, tools},
};

/// A claim is renewed this many times before it would lapse.
const BEATS: u32 = 3;

/// Does `work` on an instance that was claimed.
pub async fn on_instance<F: Future>(app: &App, id: &InstanceId, work: F) -> F::Output {
    beating(app.upkeep.claim, work, || renew_instance(app, id)).await
}

async fn renew_instance(app: &App, id: &InstanceId) -> sqlx::Result<()> {
    instances::system_renew(&mut *app.pool.acquire().await?, id, app.upkeep.claim_seconds()).await
}

/// Does `work` on a tool that was claimed.
pub async fn on_tool<F: Future>(app: &App, id: &ToolId, work: F) -> F::Output {
    beating(app.upkeep.claim, work, || renew_tool(app, id)).await
}

async fn renew_tool(app: &App, id: &ToolId) -> sqlx::Result<()> {
    tools::system_renew(&mut *app.pool.acquire().await?, id, app.upkeep.claim_seconds()).await
}

/// Does `work` and calls `renew` all along.
pub(super) async fn beating<F: Future, R>(claim: Duration, work: F, renew: impl Fn() -> R) -> F::Output
where
    R: Future<Output = sqlx::Result<()>>,
{
    let heart = async {
        loop {
            tokio::time::sleep(claim / BEATS).await;
            if let Err(error) = renew().await {
                tracing::warn!(%error, "a claim could not be renewed");
            }
        }
    };
    tokio::select! {
        outcome = work => outcome,
        () = heart => unreachable!("the heart never ends"),
    }
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicU32, Ordering};

    use super::*;

    #[tokio::test(start_paused = true)]
    async fn a_claim_is_renewed_for_as_long_as_the_work_takes() {
        let beats = AtomicU32::new(0);
        let renew = async || {
            beats.fetch_add(1, Ordering::Relaxed);
            Ok(())
        };
        let work = tokio::time::sleep(Duration::from_secs(31));
        beating(Duration::from_secs(15), work, renew).await;
        assert_eq!(beats.load(Ordering::Relaxed), 6);
    }
}
