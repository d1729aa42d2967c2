//! Counts for the metrics. They are the whole deployment's: every replica tells the same.

use super::driver::{Job, More};
use crate::{
    app::App,
    domain::instance::InstanceStatus,
    error::Result,
    storage::{
        instances,
        reconciliation::{self, LastPass},
    },
};

const ALWAYS_SHOWN: [InstanceStatus; 6] = [
    InstanceStatus::Starting,
    InstanceStatus::Running,
    InstanceStatus::Pausing,
    InstanceStatus::Paused,
    InstanceStatus::Resuming,
    InstanceStatus::Stopping,
];

pub(super) struct Measure;

impl Job for Measure {
    const NAME: &'static str = "measure";

    async fn run(&mut self, app: &App) -> Result<More> {
        let mut connection = app.pool.acquire().await?;
        let counts = instances::system_count_live(&mut connection).await?;
        let last = reconciliation::system_last(&mut connection).await?;
        let backlog = instances::system_backlog(&mut connection).await?;
        drop(connection);
        show(&last);
        #[expect(clippy::cast_precision_loss, reason = "a count of instances")]
        metrics::gauge!("ags_gateway_reap_backlog").set(backlog.count as f64);
        metrics::gauge!("ags_gateway_reap_backlog_age_seconds").set(backlog.age_seconds.unwrap_or_default());
        let absent = ALWAYS_SHOWN.iter().filter(|status| counts.iter().all(|(counted, _)| counted != *status));
        let shown = absent.map(|status| (status.clone(), 0)).chain(counts.iter().cloned());
        for (status, count) in shown.collect::<Vec<_>>() {
            #[expect(clippy::cast_precision_loss, reason = "a count of instances")]
            metrics::gauge!("ags_gateway_instances", "status" => status.to_string()).set(count as f64);
        }
        Ok(More::Later)
    }
}

#[expect(clippy::cast_precision_loss, reason = "counts")]
fn show(last: &LastPass) {
    let kinds = [("orphans", last.orphans), ("missing", last.missing), ("foreign", last.foreign)];
    for (kind, count) in kinds {
        metrics::gauge!("ags_gateway_reconcile_drift", "kind" => kind).set(count as f64);
    }
    metrics::gauge!("ags_gateway_reconcile_braked").set(f64::from(u8::from(last.braked)));
    if let Some(age) = last.age_seconds {
        metrics::gauge!("ags_gateway_reconcile_age_seconds").set(age);
    }
}
