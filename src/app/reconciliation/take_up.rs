//! What nobody works on any more goes on.

use tokio::task::JoinHandle;

use crate::{
    app::{
        App,
        instances::{self as lives, Adopted},
        lease,
    },
    domain::instance::{Instance, InstanceStatus},
    error::Result,
    storage::instances,
};

/// What was taken up.
#[derive(Debug, Default)]
pub struct TakenUp {
    /// Pauses and resumptions that were brought to what the cloud shows.
    pub adopted: usize,
    /// Starts: they go on by themselves.
    pub starts: Vec<JoinHandle<Result<Instance>>>,
}

/// Goes on with starts, pauses and resumptions whose driver died. Replicas share them out.
///
/// # Errors
/// When the database fails.
pub async fn take_up(app: &App) -> Result<TakenUp> {
    let mut connection = app.pool.acquire().await?;
    let batch = app.config.jobs.reconcile_batch.into();
    let abandoned = instances::system_take_abandoned(&mut connection, batch, app.upkeep.claim_seconds()).await?;
    drop(connection);
    let mut taken = TakenUp::default();
    for instance in abandoned {
        tracing::info!(instance = %instance.id, status = %instance.status, "taking up what was left open");
        if instance.status == InstanceStatus::Starting {
            let start = lives::follow_up(app.clone(), instance.id.clone());
            taken.starts.push(app.lifecycle.spawn("start", start));
        } else {
            let settling = lives::settle_transition(app, &instance, None);
            match lease::on_instance(app, &instance.id, settling).await {
                Ok(Adopted::Nothing) => {}
                Ok(_) => taken.adopted += 1,
                Err(error) => tracing::warn!(instance = %instance.id, %error, "its state could not be read"),
            }
        }
    }
    Ok(taken)
}
