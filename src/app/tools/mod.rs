//! Tools: templates of instances.

mod create;
mod delete;
mod import;
mod settle;
mod share;
mod shared;
mod spec;
mod update;

pub use self::{
    create::{Wanted, create},
    delete::delete,
    import::{Import, import},
    settle::{refresh, settle},
    share::{share, shared_with},
    shared::sync as sync_shared,
    update::{Change, update},
};
use super::App;
use crate::{
    auth::Caller,
    domain::{
        page::{Page, PageRequest},
        tool::{Tool, ToolStatus},
    },
    error::{Code, Error, Result},
    ids::ToolId,
    storage::tools::{self, ToolFilter},
};

/// A tool that the caller may use.
///
/// # Errors
/// `not_found`.
pub async fn get(app: &App, caller: &Caller, id: &ToolId) -> Result<Tool> {
    caller.require_unbound()?;
    let mut connection = app.pool.acquire().await?;
    let found = tools::find(&mut connection, caller.team_id(), id).await?;
    found.filter(|tool| tool.deleted_at.is_none()).ok_or_else(|| Error::not_found("tool"))
}

/// The tools that the caller may use, newest first.
///
/// # Errors
/// `scope_missing` for a credential that is bound to one instance.
pub async fn list(app: &App, caller: &Caller, filter: &ToolFilter, page: &PageRequest) -> Result<Page<Tool>> {
    caller.require_unbound()?;
    let mut connection = app.pool.acquire().await?;
    Ok(tools::list(&mut connection, caller.team_id(), filter, page).await?)
}

/// The tool of an id or a name, for an instance: the team's own, else a shared one.
///
/// # Errors
/// `validation_failed` that names `tool` when there is none of that name; `not_found` for an unknown id; `invalid_state`
/// when it is not ACTIVE.
pub async fn usable(app: &App, caller: &Caller, id_or_name: &str) -> Result<Tool> {
    let tool = match look_up(app, caller, id_or_name).await? {
        None if app.config.tools.shared.iter().any(|name| name == id_or_name) => {
            shared::sync(app).await?;
            look_up(app, caller, id_or_name).await?
        }
        found => found,
    };
    let tool = tool.filter(|tool| tool.deleted_at.is_none()).ok_or_else(|| Error::not_found("tool"))?;
    if !tool.is_of(caller.team_id()) {
        spec::check_use(app, caller, &tool)?;
    }
    let tool = if tool.status == ToolStatus::Creating { settle::refresh(app, tool).await? } else { tool };
    match &tool.status {
        ToolStatus::Active => Ok(tool),
        ToolStatus::Creating => {
            Err(Error::new(Code::InvalidState, "The tool is CREATING. Wait until it is ACTIVE.").retryable(true))
        }
        ToolStatus::Failed => {
            let detail = "The tool's creation FAILED; see its `status_reason`. Create it anew.";
            Err(Error::new(Code::InvalidState, detail))
        }
        other => Err(Error::new(Code::InvalidState, format!("The tool is {other}. It must be ACTIVE."))),
    }
}

async fn look_up(app: &App, caller: &Caller, id_or_name: &str) -> Result<Option<Tool>> {
    let mut connection = app.pool.acquire().await?;
    Ok(match id_or_name.parse::<ToolId>() {
        Ok(id) => tools::find(&mut connection, caller.team_id(), &id).await?,
        Err(_) => {
            tools::find_named(&mut connection, caller.team_id(), id_or_name, app.upstreams.default_name()).await?
        }
    })
}

fn read_only() -> Error {
    Error::new(Code::NotGranted, "This tool is shared with your team, and not its own: it cannot be changed.")
}
