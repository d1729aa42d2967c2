//! Deleting a tool.

use super::{read_only, settle};
use crate::{
    app::{App, lease},
    auth::Caller,
    domain::tool::{Tool, ToolStatus},
    error::{Code, Error, Result},
    ids::ToolId,
    storage::tools::{self, ToolOutcome},
};

/// Deletes a tool without live instances; one that is deleted stays so.
///
/// # Errors
/// `not_found`, `not_granted` for a shared one, `tool_in_use`; what the cloud says.
pub async fn delete(app: &App, caller: &Caller, id: &ToolId) -> Result<()> {
    caller.require_unbound()?;
    let mut tx = app.pool.begin().await?;
    let tool = tools::find(&mut tx, caller.team_id(), id).await?.ok_or_else(|| Error::not_found("tool"))?;
    if !tool.is_of(caller.team_id()) {
        return Err(read_only());
    }
    if tool.deleted_at.is_some() {
        return Ok(());
    }
    let live = tools::begin_delete(&mut tx, caller.team_id(), id, app.upkeep.claim_seconds()).await?;
    caller.trail.intend(&mut tx).await?;
    tx.commit().await?;
    if live > 0 {
        let living = if live == 1 {
            "1 instance of this tool has".to_owned()
        } else {
            format!("{live} instances of this tool have")
        };
        let detail = format!("{living} not ended. Stop what `GET /v1/instances?tool={id}` lists first.");
        return Err(Error::new(Code::ToolInUse, detail));
    }
    lease::on_tool(app, id, remove(app, &tool)).await
}

async fn remove(app: &App, tool: &Tool) -> Result<()> {
    let upstream = app.upstreams.get(&tool.upstream)?;
    // Read anew: a creation that was under way may have told the id meanwhile.
    let tool = settle::reload(app, &tool.id).await?;
    match upstream.remove_tool(&tool).await {
        Ok(()) => {}
        Err(error) if error.is_code(ags_client::codes::RESOURCE_IN_USE) => {
            reactivate(app, &tool).await?;
            return Err(Error::from(error).retryable(true));
        }
        // It stays DELETING, and is tried again.
        Err(error) => return Err(Error::from(error)),
    }
    let mut connection = app.pool.acquire().await?;
    Ok(tools::system_deleted(&mut connection, &tool.id).await?)
}

async fn reactivate(app: &App, tool: &Tool) -> Result<()> {
    let active =
        ToolOutcome { upstream_id: None, status: &ToolStatus::Active, reason: None, request_id: None, leftover: false };
    let mut connection = app.pool.acquire().await?;
    tools::system_settle(&mut connection, &tool.id, &ToolStatus::Deleting, &active).await?;
    Ok(())
}
