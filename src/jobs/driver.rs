//! Runs a job by timer and when woken, one run at a time, whatever becomes of a run.

use std::{panic::AssertUnwindSafe, sync::Arc, time::Duration};

use futures_util::FutureExt;
use tokio::{
    sync::Notify,
    time::{Instant, MissedTickBehavior, interval},
};

use crate::{
    app::App,
    error::{Error, Result},
    upstream::lane::in_background,
};

/// Whether a run has left work that can be done at once.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum More {
    Now,
    Later,
}

/// A job.
pub trait Job: Send + 'static {
    const NAME: &'static str;

    /// One run. It is dropped at no point but the process's end.
    fn run(&mut self, app: &App) -> impl Future<Output = Result<More>> + Send;
}

/// Runs `job` now, then every `period` and whenever `wake` is notified, until the process drains.
pub(super) fn spawn<J: Job>(app: &App, job: J, period: Duration, wake: Arc<Notify>) {
    app.lifecycle.spawn(J::NAME, drive(app.clone(), job, period, wake));
}

async fn drive<J: Job>(app: App, mut job: J, period: Duration, wake: Arc<Notify>) {
    let draining = app.lifecycle.draining();
    let mut timer = interval(period);
    timer.set_missed_tick_behavior(MissedTickBehavior::Delay);
    let mut failures = 0_u32;
    loop {
        tokio::select! {
            () = draining.cancelled() => return,
            _ = timer.tick() => {}
            () = wake.notified() => {}
        }
        while run_once(&app, &mut job, &mut failures).await == More::Now && !app.lifecycle.is_draining() {}
    }
}

async fn run_once<J: Job>(app: &App, job: &mut J, failures: &mut u32) -> More {
    let started = Instant::now();
    let outcome = AssertUnwindSafe(in_background(job.run(app))).catch_unwind().await;
    let outcome = outcome.unwrap_or_else(|_| Err(Error::internal("the job panicked")));
    let result = if outcome.is_ok() { "ok" } else { "error" };
    metrics::counter!("ags_gateway_job_runs_total", "job" => J::NAME, "result" => result).increment(1);
    metrics::histogram!("ags_gateway_job_seconds", "job" => J::NAME).record(started.elapsed().as_secs_f64());
    match outcome {
        Ok(more) => {
            if *failures > 0 {
                tracing::info!(job = J::NAME, failures, "the job works again");
            }
            *failures = 0;
            more
        }
        Err(error) => {
            *failures += 1;
            let source = std::error::Error::source(&error).map(ToString::to_string);
            tracing::error!(job = J::NAME, failures, %error, source, "the job failed; it runs again");
            More::Later
        }
    }
}
