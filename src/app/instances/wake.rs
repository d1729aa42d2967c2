//! Waking a paused instance because somebody calls it.

use std::time::Duration;

use tokio::time::{Instant, sleep};

use super::{pause::resume, reload};
use crate::{
    app::App,
    auth::Caller,
    domain::instance::{Instance, InstanceStatus},
    error::{Code, Error, Result},
    ids::InstanceId,
};

const FIRST_LOOK: Duration = Duration::from_millis(50);
const LONGEST_PAUSE: Duration = Duration::from_secs(1);

/// Has the instance running, if the caller asked for that: a paused one is resumed, and one that is being paused or resumed
/// is waited for. Its deadline stays.
///
/// # Errors
/// As [`wake`].
pub async fn wake_if_asked(app: &App, caller: &Caller, id: &InstanceId) -> Result<()> {
    match caller.wake {
        // Boxed: what is rare does not make what is moved for each request larger.
        Some(patience) => Box::pin(wake(app, caller, id, patience)).await,
        None => Ok(()),
    }
}

/// Has the instance running within `patience`; its deadline stays. One in a state that leads to no life is left to the call
/// that follows, which says so.
///
/// # Errors
/// `not_found`; `invalid_state`, to be repeated, when it takes longer; what the cloud says to the resumption.
pub async fn wake(app: &App, caller: &Caller, id: &InstanceId, patience: Duration) -> Result<()> {
    let end = Instant::now() + patience;
    let mut pause = FIRST_LOOK;
    let mut instance = super::get(app, caller, id).await?;
    loop {
        match instance.status {
            InstanceStatus::Paused => match rouse(app, caller, id, end).await {
                Ok(roused) => instance = roused,
                // Somebody else has woken it at the same time, or its time is up.
                Err(error) if error.code() == Code::InvalidState => {
                    instance = reload(app, id).await?;
                    if instance.status == InstanceStatus::Paused {
                        return Err(error);
                    }
                }
                Err(error) => return Err(error),
            },
            InstanceStatus::Pausing | InstanceStatus::Resuming => {}
            _ => return Ok(()),
        }
        if instance.status == InstanceStatus::Running {
            app.ports.forget(caller.team_id(), id).await;
            return Ok(());
        }
        if Instant::now() + pause >= end {
            let detail = format!("The instance is {} still. Try again, or wait longer.", instance.status);
            return Err(Error::new(Code::InvalidState, detail).retryable(true).with_sandbox(instance.reference()));
        }
        sleep(pause).await;
        pause = (pause * 2).min(LONGEST_PAUSE);
        instance = reload(app, id).await?;
    }
}

async fn rouse(app: &App, caller: &Caller, id: &InstanceId, end: Instant) -> Result<Instance> {
    resume(app, caller, id, None, end.saturating_duration_since(Instant::now())).await
}
