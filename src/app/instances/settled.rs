//! Waiting for an instance that is changing.

use std::time::Duration;

use tokio::time::{Instant, sleep};

use crate::{
    app::App,
    auth::Caller,
    domain::instance::{Instance, InstanceStatus},
    error::Result,
    ids::InstanceId,
};

const FIRST_LOOK: Duration = Duration::from_millis(50);
const LONGEST_PAUSE: Duration = Duration::from_secs(1);

/// The instance once it is not starting, pausing or resuming any more, or as it is when the time is up.
///
/// # Errors
/// `not_found`.
pub async fn settled(app: &App, caller: &Caller, id: &InstanceId, patience: Duration) -> Result<Instance> {
    let (end, mut pause) = (Instant::now() + patience, FIRST_LOOK);
    loop {
        let instance = super::get(app, caller, id).await?;
        let changing =
            matches!(instance.status, InstanceStatus::Starting | InstanceStatus::Pausing | InstanceStatus::Resuming);
        if !changing || Instant::now() >= end {
            return Ok(instance);
        }
        sleep(pause).await;
        pause = (pause * 2).min(LONGEST_PAUSE);
    }
}
