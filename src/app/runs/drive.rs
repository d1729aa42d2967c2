//! Driving a run from step to step.

use std::{sync::Arc, time::Duration};

use tokio::{
    task::JoinHandle,
    time::{Instant, sleep},
};

use super::{
    live::Live,
    steps::{Moved, Steps},
};
use crate::{
    app::{App, holds},
    domain::{
        instance::Instance,
        run::{Failure, Run, RunStatus},
    },
    error::{Code, Error, Result},
    storage::{
        holders::Holder,
        runs::{self, Lease, Step},
    },
};

/// Taken over at once.
pub const BATCH: i64 = 20;
/// A lease is renewed this many times before it would lapse.
const BEATS: u32 = 3;
/// How long a step is tried again that fails with what may pass.
const PATIENCE: Duration = Duration::from_secs(60);
const FIRST_PAUSE: Duration = Duration::from_millis(100);
const LONGEST_PAUSE: Duration = Duration::from_secs(2);
/// Before a step is tried to be noted again.
const NOTE_RETRY: Duration = Duration::from_millis(500);

/// Another replica drives the run now.
struct Lost;

/// Drives a run on this replica. `starting`: the start of its instance, where that is under way here.
pub(super) fn spawn(app: &App, run: Run, starting: Option<JoinHandle<Result<Instance>>>) {
    let memory = usize::try_from(app.config.exec.max_output_limit).unwrap_or(usize::MAX);
    // At once: whoever looks on from its beginning finds it.
    let live = app.runs.enter(&run, memory);
    app.lifecycle.spawn("run", drive(app.clone(), run, live, starting));
}

/// Takes over runs whose gateway is gone. Answers how many.
///
/// # Errors
/// When the database fails.
pub async fn adopt(app: &App) -> Result<usize> {
    let mut connection = app.pool.acquire().await?;
    let taken = runs::system_adopt(&mut connection, app.execs.replica(), app.upkeep.claim_seconds(), BATCH).await?;
    drop(connection);
    for run in &taken {
        tracing::info!(run = %run.id, status = run.status.as_str(), epoch = run.epoch, "driving a run that was left");
        spawn(app, run.clone(), None);
    }
    Ok(taken.len())
}

async fn drive(app: App, run: Run, live: Arc<Live>, starting: Option<JoinHandle<Result<Instance>>>) {
    if run.cancelled_at.is_some() {
        live.cancel();
    }
    let driver = Driver { app: &app, run: &run, live: &live };
    let mut steps = Steps::new(&app, &run, &live, starting);
    tokio::select! {
        biased;
        ended = driver.work(&mut steps) => match ended {
            Ok(status) => driver.report(status),
            Err(Lost) => tracing::warn!(run = %run.id, "another replica drives the run"),
        },
        () = driver.hold() => tracing::warn!(run = %run.id, "another replica drives the run"),
        () = driver.leaving() => driver.release().await,
    }
    app.runs.leave(&run.id, &live);
}

struct Driver<'a> {
    app: &'a App,
    run: &'a Run,
    live: &'a Live,
}

impl Driver<'_> {
    fn lease(&self) -> Lease<'_> {
        Lease { id: &self.run.id, owner: self.app.execs.replica(), epoch: self.run.epoch }
    }

    async fn work(&self, steps: &mut Steps<'_>) -> Result<RunStatus, Lost> {
        let mut status = self.run.status;
        while !status.is_final() {
            let moved = self.step(steps, status).await;
            self.note(&moved).await?;
            status = moved.status;
            self.live.moved(status);
        }
        Ok(status)
    }

    /// Takes a step, or the one to the end because this one failed.
    async fn step(&self, steps: &mut Steps<'_>, status: RunStatus) -> Moved {
        if status == RunStatus::Stopping {
            // Nothing keeps it from its end; what could not be stopped is left to the reaper.
            if let Err(error) = self.tried(steps, status).await {
                tracing::warn!(run = %self.run.id, %error, "the instance of a run is left to be stopped");
            }
            return steps.end();
        }
        let failed = tokio::select! {
            biased;
            () = self.live.cancelled().cancelled() => Failure::cancelled(),
            () = self.key_ended() => Failure::from(&holds::ended()),
            moved = self.tried(steps, status) => match moved {
                Ok(moved) => return moved,
                Err(error) => {
                    let source = std::error::Error::source(&error).map(ToString::to_string);
                    tracing::info!(run = %self.run.id, status = status.as_str(), %error, source, "a run failed");
                    Failure::from(&error)
                }
            },
        };
        steps.failed(failed)
    }

    /// Takes a step, again and again while it fails with what may pass.
    async fn tried(&self, steps: &mut Steps<'_>, status: RunStatus) -> Result<Moved> {
        let (began, mut pause) = (Instant::now(), FIRST_PAUSE);
        loop {
            let error = match steps.take(status).await {
                Ok(moved) => return Ok(moved),
                Err(error) => error,
            };
            if !passes(status, &error, began.elapsed()) {
                return Err(error);
            }
            tracing::info!(run = %self.run.id, status = status.as_str(), %error, "a step of a run is tried again");
            sleep(pause).await;
            pause = (pause * 2).min(LONGEST_PAUSE);
        }
    }

    async fn note(&self, moved: &Moved) -> Result<(), Lost> {
        let step = Step { status: moved.status, outcome: &moved.outcome, failure: moved.failure.as_ref() };
        loop {
            let noted = async {
                let mut connection = self.app.pool.acquire().await?;
                runs::system_step(&mut connection, &self.lease(), &step).await
            };
            match noted.await {
                Ok(true) => return Ok(()),
                Ok(false) => return Err(Lost),
                Err(error) => tracing::warn!(run = %self.run.id, %error, "a step of a run could not be noted"),
            }
            sleep(NOTE_RETRY).await;
        }
    }

    /// Renews the lease; ends when another replica has it.
    async fn hold(&self) {
        let claim = self.app.upkeep.claim;
        loop {
            sleep(claim / BEATS).await;
            let renewed = async {
                let mut connection = self.app.pool.acquire().await?;
                runs::system_renew(&mut connection, &self.lease(), claim.as_secs_f64()).await
            };
            match renewed.await {
                Ok(Some(true)) => self.live.cancel(),
                Ok(Some(false)) => {}
                Ok(None) => return,
                Err(error) => tracing::warn!(run = %self.run.id, %error, "the lease of a run could not be renewed"),
            }
        }
    }

    /// Ends when the process drains: another replica goes on at once. Code, which it could not go on with, is seen through.
    async fn leaving(&self) {
        self.app.lifecycle.draining().cancelled().await;
        let mut status = self.live.status();
        let code = self.run.code;
        if status.wait_for(|status| !code || *status != RunStatus::Executing).await.is_err() {
            std::future::pending().await
        }
    }

    async fn key_ended(&self) {
        let hold = self.app.holders.hold(&Holder::of_key(self.run.created_by.clone()));
        hold.ended().cancelled().await;
    }

    async fn release(&self) {
        let released = async {
            let mut connection = self.app.pool.acquire().await?;
            runs::system_release(&mut connection, &self.lease()).await
        };
        if let Err(error) = released.await {
            tracing::warn!(run = %self.run.id, %error, "the lease of a run is left to lapse");
        }
    }

    fn report(&self, status: RunStatus) {
        metrics::counter!("ags_gateway_runs_ended_total", "status" => status.as_str()).increment(1);
        let lasted = self.app.clock.now() - self.run.created_at;
        tracing::info!(
            run = %self.run.id,
            instance = %self.run.instance_id,
            team = %self.run.team_id,
            status = status.as_str(),
            duration_ms = lasted.num_milliseconds(),
            "run ended"
        );
    }
}

/// Whether a step that failed may succeed when it is tried again, and may be: what starts something is done again only after
/// errors that come before anything was started.
fn passes(status: RunStatus, error: &Error, since: Duration) -> bool {
    let code = error.code();
    let again = match status {
        RunStatus::Starting => code == Code::Internal,
        RunStatus::Executing => matches!(code, Code::QuotaExceeded | Code::RateLimited),
        _ => code == Code::Internal || error.inner().retryable,
    };
    code == Code::Unavailable || (again && since < PATIENCE)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_was_perhaps_started_is_not_started_again() {
        let passes = |status, code, seconds| passes(status, &Error::new(code, ""), Duration::from_secs(seconds));
        assert!(passes(RunStatus::Uploading, Code::UpstreamUnavailable, 1));
        assert!(!passes(RunStatus::Uploading, Code::UpstreamUnavailable, 61));
        assert!(!passes(RunStatus::Uploading, Code::IsADirectory, 1));
        assert!(!passes(RunStatus::Executing, Code::UpstreamUnavailable, 1));
        assert!(passes(RunStatus::Executing, Code::QuotaExceeded, 1));
        // The database is away: the lease decides how long.
        assert!(passes(RunStatus::Executing, Code::Unavailable, 3600));
    }
}
