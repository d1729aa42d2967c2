//! Instances: their life, and the way into them.

mod admit;
mod adopt;
mod create;
mod idle;
mod measure;
mod pause;
mod settled;
mod start;
mod stop;
mod target;
mod update;
mod url;
mod wake;

pub use self::{
    admit::{Lines, Place, Queueing},
    adopt::{Adopted, adopt, end, settle_transition},
    create::{Prepared, Wanted, accepted, create, create_in_line, launch, prepare},
    idle::{Idled, idle_batch},
    measure::measure,
    pause::{pause, resume},
    settled::settled,
    start::{drive, follow_up},
    stop::{attempt, stop, stop_all, stop_of},
    target::{Target, running, running_of},
    update::{Change, Life, update},
    url::{Address, Tokens, host_url, token, url},
    wake::{wake, wake_if_asked},
};
use std::collections::HashMap;

use chrono::{DateTime, Utc};

use super::App;
use crate::{
    auth::Caller,
    domain::{
        instance::{Details, Instance, InstanceEvent, InstanceStatus},
        page::{Page, PageRequest},
    },
    error::{Code, Error, Result, SandboxRef},
    ids::InstanceId,
    storage::{
        instances::{self, InstanceFilter},
        usage,
    },
};

/// Events that are read at once.
const EVENTS: i64 = 100;

/// An instance of the caller's team, live or ended.
///
/// # Errors
/// `not_found`.
pub async fn get(app: &App, caller: &Caller, id: &InstanceId) -> Result<Instance> {
    caller.require_instance(id)?;
    let mut connection = app.pool.acquire().await?;
    if let Some(instance) = instances::find(&mut connection, caller.team_id(), id).await? {
        return Ok(instance);
    }
    match usage::ended_at(&mut connection, caller.team_id(), id).await? {
        Some(ended) => Err(forgotten(id, ended)),
        None => Err(Error::not_found("instance")),
    }
}

/// What is left to say of an instance that ended longer ago than is kept.
fn forgotten(id: &InstanceId, ended: DateTime<Utc>) -> Error {
    let detail =
        format!("The instance has ended and is not kept any more. GET /v1/audit?instance={id} tells its history.");
    Error::not_found("instance").with_detail(detail).with_sandbox(SandboxRef {
        id: id.to_string(),
        status: InstanceStatus::Stopped.to_string(),
        stop_reason: None,
        stopped_at: Some(ended),
    })
}

/// In which order instances are listed.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Order {
    #[default]
    NewestFirst,
    OldestFirst,
}

/// The team's instances; a credential that is bound to one instance sees that one.
///
/// # Errors
/// When the database fails.
pub async fn list(
    app: &App,
    caller: &Caller,
    filter: InstanceFilter,
    order: Order,
    page: &PageRequest,
) -> Result<Page<Instance>> {
    let Some(filter) = visible(caller, filter) else { return Ok(Page { items: Vec::new(), next: None }) };
    let mut connection = app.pool.acquire().await?;
    let (team, connection) = (caller.team_id(), &mut *connection);
    Ok(match order {
        Order::NewestFirst => instances::list(connection, team, &filter, page).await?,
        Order::OldestFirst => instances::list_oldest(connection, team, &filter, page).await?,
    })
}

/// A part of the team's instances by offset, newest first, and how many there are in all.
///
/// # Errors
/// When the database fails.
pub async fn slice(
    app: &App,
    caller: &Caller,
    filter: InstanceFilter,
    offset: i64,
    limit: i64,
) -> Result<(Vec<Instance>, i64)> {
    let Some(filter) = visible(caller, filter) else { return Ok((Vec::new(), 0)) };
    let mut connection = app.pool.acquire().await?;
    Ok(instances::slice(&mut connection, caller.team_id(), &filter, offset, limit).await?)
}

/// What instances were started with, by id.
///
/// # Errors
/// When the database fails.
pub async fn details(app: &App, of: &[Instance]) -> Result<HashMap<InstanceId, Details>> {
    let ids: Vec<String> = of.iter().map(|instance| instance.id.to_string()).collect();
    let mut connection = app.pool.acquire().await?;
    Ok(instances::system_details(&mut connection, &ids).await?)
}

/// What a caller may see of what it asks for; `None`: nothing.
fn visible(caller: &Caller, mut filter: InstanceFilter) -> Option<InstanceFilter> {
    if let Some(only) = &caller.only_instance {
        if !filter.ids.is_empty() && !filter.ids.iter().any(|id| id == only.as_str()) {
            return None;
        }
        filter.ids = vec![only.to_string()];
    }
    Some(filter)
}

/// What happened to an instance, newest first.
///
/// # Errors
/// `not_found`.
pub async fn events(app: &App, caller: &Caller, id: &InstanceId, page: &PageRequest) -> Result<Page<InstanceEvent>> {
    get(app, caller, id).await?;
    let mut connection = app.pool.acquire().await?;
    Ok(instances::system_events(&mut connection, id, page).await?)
}

/// Some of what happened to an instance after an event, oldest first; the caller has been shown it before.
///
/// # Errors
/// When the database fails.
pub async fn events_after(app: &App, id: &InstanceId, after: i64) -> Result<Vec<InstanceEvent>> {
    let mut connection = app.pool.acquire().await?;
    Ok(instances::system_events_after(&mut connection, id, after, EVENTS).await?)
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
