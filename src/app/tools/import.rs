//! Adopting a tool that was made in the cloud's console.

use super::{create::name_taken, settle, spec};
use crate::{
    app::{App, idempotency::Intent, teams::check_name},
    auth::Caller,
    domain::{
        checks::Checks,
        tool::{Tool, ToolStatus},
    },
    error::{Code, Error, Result},
    ids::ToolId,
    storage::tools::{self, Adoption, NewTool},
    upstream::{ForeignTool, SeenTool},
};

/// Which tool, and what it shall be called.
#[derive(Clone, Debug)]
pub struct Import {
    pub upstream_id: String,
    /// `None`: as in the cloud.
    pub name: Option<String>,
    pub upstream: Option<String>,
}

/// Makes a tool of the cloud's one of the caller's team. In the cloud it only gets our mark; from now on it is changed and
/// deleted like others.
///
/// # Errors
/// `not_granted` when the team may not import, or was not granted what the tool has; `not_found`; `already_exists` when a
/// gateway has it; `name_taken`; `invalid_state` when it is not ACTIVE; what the cloud says.
pub async fn import(app: &App, caller: &Caller, wanted: &Import, intent: Intent) -> Result<Tool> {
    caller.require_unbound()?;
    if !caller.team.grants.imports {
        let detail = "Your team was not granted to import tools. Ask the gateway's operators for it.";
        return Err(Error::new(Code::NotGranted, detail));
    }
    let upstream_name = wanted.upstream.as_deref().unwrap_or_else(|| app.upstreams.default_name());
    if !app.upstreams.contains(upstream_name) {
        return Err(Error::field("upstream", "there is no upstream of that name"));
    }
    if !caller.team.grants.allows_upstream(upstream_name) {
        return Err(spec::not_granted("upstream", upstream_name));
    }
    let upstream = app.upstreams.get(upstream_name)?;
    let foreign = upstream.foreign_tool(&wanted.upstream_id).await?;
    let seen = adoptable(foreign.ok_or_else(|| Error::not_found("tool"))?)?;
    let name = wanted.name.clone().unwrap_or_else(|| seen.name.clone());
    check_name("name", &name)?;
    spec::check_grants(
        &caller.team.grants,
        upstream_name,
        seen.spec.role_arn.as_deref(),
        &seen.spec,
        &upstream.config,
    )?;
    let id = adopt(app, caller, upstream_name, &name, &seen, &intent).await?;
    let tool = settle::reload(app, &id).await?;
    if let Err(error) = upstream.stamp_tool(&app.deployment, &seen.id, &tool, caller.team_id()).await {
        // Without our mark another gateway would take it for nobody's.
        tools::system_disown(&mut *app.pool.acquire().await?, &id).await?;
        return Err(error.into());
    }
    Ok(tool)
}

fn adoptable(foreign: ForeignTool) -> Result<SeenTool> {
    if foreign.stamped {
        return Err(already());
    }
    let mut checks = Checks::default();
    checks.that(!foreign.unknown_mount, "upstream_id", "the tool has a mount of a kind that the gateway does not know");
    checks.finish()?;
    if foreign.seen.status != ToolStatus::Active {
        let detail = format!("The tool is {} in the cloud. It must be ACTIVE.", foreign.seen.status);
        return Err(Error::new(Code::InvalidState, detail));
    }
    Ok(foreign.seen)
}

fn already() -> Error {
    Error::new(Code::AlreadyExists, "A gateway has this tool already.")
}

async fn adopt(
    app: &App,
    caller: &Caller,
    upstream: &str,
    name: &str,
    seen: &SeenTool,
    intent: &Intent,
) -> Result<ToolId> {
    let id: ToolId = app.ids.next();
    let token = app.ids.token();
    let new = NewTool {
        id: &id,
        team: caller.team_id(),
        upstream,
        client_token: &token,
        name,
        kind: &seen.kind,
        spec: &seen.spec,
        created_by: &caller.key_id,
        claim_seconds: 0.0,
    };
    let mut tx = app.pool.begin().await?;
    match tools::adopt(&mut tx, &new, &seen.id).await? {
        Adoption::Done => {}
        Adoption::NameTaken => return Err(name_taken(name)),
        Adoption::Known => return Err(already()),
    }
    caller.trail.note_tool(&id);
    caller.trail.intend(&mut tx).await?;
    intent.note(&mut tx, id.as_str()).await?;
    tx.commit().await?;
    Ok(id)
}
