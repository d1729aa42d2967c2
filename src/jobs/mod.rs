//! What goes on without a request: expired instances are stopped, what a crash left open is settled, old rows are removed.
//!
//! Every job is a reconciler: it takes no input, may run on every replica at once, and finds the same work again after a
//! crash. Rows are shared out with `FOR UPDATE SKIP LOCKED` and claims that lapse.

mod daily;
mod driver;
mod idle;
mod measure;
pub mod prune;
pub mod reap;
pub mod reconcile;
mod runs;
mod settle;

use std::sync::Arc;

use tokio::sync::Notify;

use crate::app::App;

/// Starts the jobs of this process, as far as the configuration wants them here.
pub fn start(app: &App) {
    let jobs = &app.config.jobs;
    if !jobs.enabled {
        app.upkeep.mark_reconciled();
        return;
    }
    let unwoken = || Arc::new(Notify::new());
    driver::spawn(app, reap::Reap, jobs.reap_interval, Arc::clone(&app.upkeep.reap));
    driver::spawn(app, reconcile::Reconcile::default(), jobs.reconcile_interval, Arc::clone(&app.upkeep.reconcile));
    driver::spawn(app, idle::Idle, jobs.idle_interval, unwoken());
    driver::spawn(app, settle::Settle::default(), jobs.settle_interval, unwoken());
    driver::spawn(app, measure::Measure, jobs.settle_interval, unwoken());
    driver::spawn(app, daily::Enforce, jobs.settle_interval, unwoken());
    driver::spawn(app, runs::Adopt, jobs.reap_interval, unwoken());
    driver::spawn(app, prune::Prune, jobs.prune_interval, unwoken());
}
