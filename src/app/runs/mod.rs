//! Runs: create an instance, upload, execute, collect, destroy, as one durable operation.
//!
//! A run's row is written in the transaction of its instance's intent. From then on exactly one replica drives it ([`drive`])
//! under a lease; when that one dies, another goes on at the step that was noted last ([`adopt`]). Every step can be done
//! again: the command has an id that was decided beforehand and so is started once; code, which cannot be found again, is not
//! run twice but fails. Whatever fails, the last steps are those that stop the instance and note the end.

mod create;
mod drive;
mod live;
mod steps;

use std::time::Duration;

use tokio::time::{Instant, sleep};

pub use self::{
    create::{Wanted, create},
    drive::{BATCH, adopt},
    live::{CodeLog, Live, Runs},
};
use super::{App, instances};
use crate::{
    auth::{Caller, Trail},
    domain::{
        page::{Page, PageRequest},
        run::{Outcome, Run, RunStatus},
    },
    error::{Error, Result},
    ids::RunId,
    storage::{instances::system_find, runs},
};

/// Between two looks at a run that another replica drives.
const FIRST_LOOK: Duration = Duration::from_millis(20);
const LONGEST_PAUSE: Duration = Duration::from_millis(500);

/// A run of the caller's team.
///
/// # Errors
/// `not_found`.
pub async fn get(app: &App, caller: &Caller, id: &RunId) -> Result<Run> {
    caller.require_unbound()?;
    let mut connection = app.pool.acquire().await?;
    runs::find(&mut connection, caller.team_id(), id).await?.ok_or_else(|| Error::not_found("run"))
}

/// What a run has come to so far.
///
/// # Errors
/// When the database fails.
pub async fn outcome(app: &App, caller: &Caller, id: &RunId) -> Result<Outcome> {
    let mut connection = app.pool.acquire().await?;
    Ok(runs::outcome(&mut connection, caller.team_id(), id).await?)
}

/// The team's runs, newest first, of the given statuses or of all.
///
/// # Errors
/// `scope_missing` for a credential that is bound to one instance.
pub async fn list(app: &App, caller: &Caller, statuses: &[RunStatus], page: &PageRequest) -> Result<Page<Run>> {
    caller.require_unbound()?;
    let statuses: Vec<String> = statuses.iter().map(|status| status.as_str().to_owned()).collect();
    let mut connection = app.pool.acquire().await?;
    Ok(runs::list(&mut connection, caller.team_id(), &statuses, page).await?)
}

/// Waits until a run has come as far as `enough` says; as it is when the patience is at its end.
///
/// # Errors
/// `not_found`.
pub async fn wait(
    app: &App,
    caller: &Caller,
    id: &RunId,
    patience: Option<Duration>,
    enough: impl Fn(RunStatus) -> bool + Send,
) -> Result<Run> {
    let end = patience.map(|patience| Instant::now() + patience);
    let mut pause = FIRST_LOOK;
    loop {
        let run = get(app, caller, id).await?;
        if enough(run.status) || run.status.is_final() || end.is_some_and(|end| Instant::now() >= end) {
            return Ok(run);
        }
        let rest = end.map_or(LONGEST_PAUSE, |end| end.saturating_duration_since(Instant::now()).min(LONGEST_PAUSE));
        match app.runs.get(id) {
            Some(live) => live.changed_from(run.status, rest).await,
            None => sleep(pause.min(rest)).await,
        }
        pause = (pause * 2).min(LONGEST_PAUSE);
    }
}

/// Waits for the end of a run.
///
/// # Errors
/// `not_found`.
pub async fn ended(app: &App, caller: &Caller, id: &RunId, patience: Option<Duration>) -> Result<Run> {
    wait(app, caller, id, patience, RunStatus::is_final).await
}

/// Ends a run early, wherever it is driven, and waits for its end for a while. One that has ended already stays as it is.
///
/// # Errors
/// `not_found`; when the database fails.
pub async fn cancel(app: &App, caller: &Caller, id: &RunId) -> Result<Run> {
    let run = get(app, caller, id).await?;
    let mut tx = app.pool.begin().await?;
    let wanted = runs::cancel(&mut tx, caller.team_id(), id).await?;
    caller.trail.note_instance(&run.instance_id);
    caller.trail.intend(&mut tx).await?;
    tx.commit().await?;
    if wanted {
        match app.runs.get(id) {
            Some(live) => live.cancel(),
            // Whoever drives it sees its instance end.
            None => stop_instance(app, &run).await?,
        }
    }
    ended(app, caller, id, Some(app.config.instances.wait)).await
}

/// Stops a run's instance, and waits for the attempt. When the cloud fails, the reaper goes on.
async fn stop_instance(app: &App, run: &Run) -> Result<()> {
    let mut connection = app.pool.acquire().await?;
    let instance = system_find(&mut connection, &run.instance_id).await?;
    drop(connection);
    if let Some(instance) = instance {
        instances::stop_of(app, instance, &Trail::default()).await?;
    }
    Ok(())
}
