//! Instances: their life, and the way into them.

mod adopt;
mod create;
mod pause;
mod start;
mod stop;
mod target;
mod update;
mod url;

pub use self::{
    adopt::{Adopted, adopt, end, settle_transition},
    create::{Wanted, create},
    pause::{pause, resume},
    start::{drive, follow_up},
    stop::{attempt, stop},
    target::{Target, running},
    update::{Change, Life, update},
    url::{Address, Tokens, token, url},
};
use super::App;
use crate::{
    auth::Caller,
    domain::{
        instance::{Instance, InstanceStatus},
        page::{Page, PageRequest},
    },
    error::{Code, Error, Result},
    ids::InstanceId,
    storage::instances::{self, InstanceFilter},
};

/// An instance of the caller's team, live or ended.
///
/// # Errors
/// `not_found`.
pub async fn get(app: &App, caller: &Caller, id: &InstanceId) -> Result<Instance> {
    caller.require_instance(id)?;
    let mut connection = app.pool.acquire().await?;
    let found = instances::find(&mut connection, caller.team_id(), id).await?;
    found.ok_or_else(|| Error::not_found("instance"))
}

/// The team's instances, newest first; a credential that is bound to one instance sees that one.
///
/// # Errors
/// When the database fails.
pub async fn list(
    app: &App,
    caller: &Caller,
    mut filter: InstanceFilter,
    page: &PageRequest,
) -> Result<Page<Instance>> {
    if let Some(only) = &caller.only_instance {
        if !filter.ids.is_empty() && !filter.ids.iter().any(|id| id == only.as_str()) {
            return Ok(Page { items: Vec::new(), next: None });
        }
        filter.ids = vec![only.to_string()];
    }
    let mut connection = app.pool.acquire().await?;
    Ok(instances::list(&mut connection, caller.team_id(), &filter, page).await?)
}

async fn reload(app: &App, id: &InstanceId) -> Result<Instance> {
    let mut connection = app.pool.acquire().await?;
    instances::system_find(&mut connection, id).await?.ok_or_else(|| Error::not_found("instance"))
}

/// The refusal of an operation that the instance's state does not allow.
fn wrong_state(instance: &Instance, wanted: &str) -> Error {
    let advice = match &instance.status {
        InstanceStatus::Starting | InstanceStatus::Resuming | InstanceStatus::Pausing => {
            "It is changing just now: try again when it has settled."
        }
        status if status.is_ending() => "Start a new one.",
        _ => wanted,
    };
    let detail = format!("The instance is {}. {advice}", instance.status);
    let settling = !instance.status.is_ending()
        && matches!(instance.status, InstanceStatus::Starting | InstanceStatus::Resuming | InstanceStatus::Pausing);
    Error::new(Code::InvalidState, detail).retryable(settling).with_sandbox(instance.reference())
}
