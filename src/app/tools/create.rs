//! Creating a tool: the intent is committed, the cloud is called, the outcome is recorded.

use std::{collections::BTreeMap, time::Duration};

use ags_client::{AgsError, Outcome, Reply};

use super::{settle, spec};
use crate::{
    app::{App, idempotency::Intent, lease, wait},
    auth::Caller,
    domain::{
        duration::Seconds,
        spec::{Container, LogFiles, Network, StorageMount},
        tool::{Tool, ToolSpec, ToolStatus},
    },
    error::{Code, Error, Result},
    ids::ToolId,
    storage::tools::{self, NewTool, ToolOutcome},
};

/// What a new tool shall be. What is left out comes from the configuration.
#[derive(Clone, Debug)]
pub struct Wanted {
    pub name: String,
    pub kind: String,
    pub upstream: Option<String>,
    pub description: Option<String>,
    pub default_timeout: Option<Seconds>,
    pub network: Option<Network>,
    pub container: Container,
    pub tags: BTreeMap<String, String>,
    pub role_arn: Option<String>,
    pub storage_mounts: Vec<StorageMount>,
    pub mount_envd: Option<bool>,
    pub log: Option<LogFiles>,
    pub persistent: Option<bool>,
}

/// Creates a tool, and waits up to `patience` for it to be ACTIVE. It may be CREATING still in the answer.
///
/// # Errors
/// `validation_failed`, `not_granted`, `name_taken`; what the cloud refuses. After an error nothing is left behind: the
/// name is free, and what the cloud may have made all the same is removed.
pub async fn create(app: &App, caller: &Caller, wanted: &Wanted, patience: Duration, intent: Intent) -> Result<Tool> {
    caller.require_unbound()?;
    let (upstream, spec) = spec::resolve(app, caller, wanted)?;
    let id = write_intent(app, caller, wanted, &upstream, &spec, &intent).await?;
    let made = lease::on_tool(app, &id, make(app, &id)).await?;
    let settled = if made.status == ToolStatus::Creating {
        let following = app.lifecycle.spawn("tool", settle::follow(app.clone(), made.clone()));
        wait::within(following, patience).await?.unwrap_or(made)
    } else {
        made
    };
    if settled.status == ToolStatus::Failed { Err(failed(&settled)) } else { Ok(settled) }
}

async fn write_intent(
    app: &App,
    caller: &Caller,
    wanted: &Wanted,
    upstream: &str,
    spec: &ToolSpec,
    intent: &Intent,
) -> Result<ToolId> {
    let id: ToolId = app.ids.next();
    let token = app.ids.token();
    let new = NewTool {
        id: &id,
        team: caller.team_id(),
        upstream,
        client_token: &token,
        name: &wanted.name,
        kind: &wanted.kind,
        spec,
        created_by: &caller.key_id,
        claim_seconds: app.upkeep.claim_seconds(),
    };
    let mut tx = app.pool.begin().await?;
    if !tools::insert(&mut tx, &new).await? {
        return Err(name_taken(&wanted.name));
    }
    caller.trail.note_tool(&id);
    caller.trail.intend(&mut tx).await?;
    intent.note(&mut tx, id.as_str()).await?;
    tx.commit().await?;
    Ok(id)
}

pub(super) fn name_taken(name: &str) -> Error {
    Error::new(Code::NameTaken, format!("Your team has a tool named {name:?} already."))
}

async fn make(app: &App, id: &ToolId) -> Result<Tool> {
    let tool = settle::reload(app, id).await?;
    let upstream = app.upstreams.get(&tool.upstream)?;
    let reply = match upstream.create_tool(&app.deployment, &tool).await {
        Ok(reply) => reply,
        Err(error) => match recovered(app, &tool, &error).await {
            Some(upstream_id) => Reply { value: upstream_id, request_id: None, attempts: 1 },
            None => return Err(abandon(app, &tool, error).await),
        },
    };
    let outcome = ToolOutcome {
        upstream_id: Some(&reply.value),
        status: &ToolStatus::Creating,
        reason: None,
        request_id: reply.request_id.as_deref(),
        leftover: false,
    };
    let mut connection = app.pool.acquire().await?;
    tools::system_settle(&mut connection, id, &ToolStatus::Creating, &outcome).await?;
    drop(connection);
    settle::refresh(app, settle::reload(app, id).await?).await
}

/// After an error that does not say what happened: the tool is found by its name, which is ours alone. A second call is
/// told that the name exists when the first one's answer was lost.
async fn recovered(app: &App, tool: &Tool, error: &AgsError) -> Option<String> {
    let exists = error.is_code(ags_client::codes::INVALID_SANDBOX_TOOL);
    if error.outcome() == Outcome::Known && !exists {
        return None;
    }
    let upstream = app.upstreams.get(&tool.upstream).ok()?;
    match upstream.find_tool(tool).await {
        Ok(seen) => seen.map(|seen| seen.id),
        Err(error) => {
            tracing::warn!(tool = %tool.id, %error, "a tool without an answer could not be looked up");
            None
        }
    }
}

/// Takes the intent back. Where the cloud may have made something all the same, the row stays as FAILED until that is gone.
async fn abandon(app: &App, tool: &Tool, error: AgsError) -> Error {
    let known = error.outcome() == Outcome::Known;
    let answer = if known { Error::from(error) } else { Error::from(error).retryable(true) };
    let recorded = async {
        let mut connection = app.pool.acquire().await?;
        if known {
            return tools::system_remove(&mut connection, &tool.id).await;
        }
        let outcome = ToolOutcome {
            upstream_id: None,
            status: &ToolStatus::Failed,
            reason: Some(answer.detail()),
            request_id: None,
            leftover: true,
        };
        tools::system_settle(&mut connection, &tool.id, &ToolStatus::Creating, &outcome).await.map(drop)
    };
    if let Err(error) = recorded.await {
        tracing::error!(tool = %tool.id, %error, "a failed creation could not be recorded; the settle job will");
    }
    answer
}

fn failed(tool: &Tool) -> Error {
    let reason = tool.status_reason.as_deref().unwrap_or("no reason was given");
    let detail = format!(
        "The tool's creation failed ({reason}). If its image could not be pulled, check the address, \
         `image_registry_type` and the role's permission."
    );
    Error::new(Code::UpstreamError, detail)
}
