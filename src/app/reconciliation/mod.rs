//! The reconciler: what a crash or a lost answer has left between the database and the cloud is brought together.
//!
//! Both ways, for instances and tools: what carries our stamp and no live row stands for is stopped, rows whose thing has
//! ended in the cloud end. What does not carry our stamp is not touched, nothing is concluded from a listing that failed or
//! contradicts itself, and what would end too much ends nothing. One replica at a time makes a pass.

mod act;
mod look;
mod take_up;

use std::time::Duration;

pub use self::take_up::{TakenUp, take_up};
use super::{App, lease};
use crate::{
    domain::reconciliation::Report,
    error::{Code, Error, Result},
    storage::{instances, reconciliation},
    upstream::Upstream,
};

/// Between two looks at whether another pass has ended.
const LOOK: Duration = Duration::from_millis(50);

/// What a pass may do.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Leave {
    /// Much may end at once: somebody has looked.
    pub force: bool,
}

/// What a pass would do now. Nothing is changed.
///
/// # Errors
/// When the database fails.
pub async fn look(app: &App) -> Result<Report> {
    let mut report = begin(app, true).await?;
    for upstream in app.upstreams.iter() {
        match look::at(app, upstream, look::Notes::Read).await {
            Ok(difference) => difference.tell(&mut report, Leave::default()),
            Err(error) => unreachable(&mut report, upstream, &error),
        }
    }
    Ok(report)
}

/// Makes a pass, when no other is under way; waits for that up to `patience`.
///
/// # Errors
/// `invalid_state` when the other pass takes longer; when the database fails.
pub async fn pass_within(app: &App, leave: Leave, patience: Duration) -> Result<Report> {
    let made = async {
        loop {
            if let Some(report) = pass(app, leave, Duration::ZERO).await? {
                return Ok(report);
            }
            tokio::time::sleep(LOOK).await;
        }
    };
    tokio::time::timeout(patience, made).await.unwrap_or_else(|_| {
        Err(Error::new(Code::InvalidState, "Another pass is under way. Try again shortly.").retryable(true))
    })
}

/// Makes a pass; `None` when another is under way, or one began less than `rest` ago, whichever replica made it.
///
/// # Errors
/// When the database fails.
pub async fn pass(app: &App, leave: Leave, rest: Duration) -> Result<Option<Report>> {
    let (holder, claim) = (app.ids.token(), app.upkeep.claim_seconds());
    let mut connection = app.pool.acquire().await?;
    if !reconciliation::system_take(&mut connection, &holder, claim, rest.as_secs_f64()).await? {
        return Ok(None);
    }
    drop(connection);
    let renew = async || reconciliation::system_renew(&mut *app.pool.acquire().await?, &holder, claim).await;
    let report = lease::beating(app.upkeep.claim, held(app, leave), renew).await;
    let mut connection = app.pool.acquire().await?;
    reconciliation::system_release(&mut connection, &holder, report.as_ref().ok()).await?;
    report.map(Some)
}

async fn held(app: &App, leave: Leave) -> Result<Report> {
    let mut report = begin(app, false).await?;
    for upstream in app.upstreams.iter() {
        let done = async {
            let difference = look::at(app, upstream, look::Notes::Write).await?;
            difference.tell(&mut report, leave);
            act::on(app, &difference, leave, &mut report).await
        };
        if let Err(error) = done.await {
            unreachable(&mut report, upstream, &error);
        }
    }
    for (kind, count) in
        [("orphan", report.stopped.len()), ("missing", report.ended.len()), ("state", report.adopted.len())]
    {
        metrics::counter!("ags_gateway_reconcile_drift_total", "kind" => kind).increment(count as u64);
    }
    Ok(report)
}

async fn begin(app: &App, dry_run: bool) -> Result<Report> {
    let mut connection = app.pool.acquire().await?;
    Ok(Report::begin(instances::system_now(&mut connection).await?, dry_run))
}

fn unreachable(report: &mut Report, upstream: &Upstream, error: &Error) {
    tracing::warn!(upstream = upstream.name(), %error, "the upstream could not be compared");
    report.complete = false;
    report.unreachable.push(upstream.name().to_owned());
}
