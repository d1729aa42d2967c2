//! What becomes of tools: CREATING ones are followed to their end, DELETING ones are removed, leftovers are cleaned up.

use std::time::Duration;

use ags_client::Outcome;
use chrono::TimeDelta;

use crate::{
    app::{App, lease},
    domain::tool::{Tool, ToolStatus},
    error::{Error, Result},
    ids::ToolId,
    storage::tools::{self, ToolOutcome},
    upstream::SeenTool,
};

const FIRST_LOOK: Duration = Duration::from_millis(250);
const LONGEST_PAUSE: Duration = Duration::from_secs(5);
/// The rest of a tool that could not be settled.
const REST_SECONDS: f64 = 10.0;
const BATCH: i64 = 20;
/// How long a tool may stay CREATING without the cloud showing it.
const PATIENCE: TimeDelta = TimeDelta::minutes(10);

pub(super) async fn reload(app: &App, id: &ToolId) -> Result<Tool> {
    let mut connection = app.pool.acquire().await?;
    tools::system_find(&mut connection, id).await?.ok_or_else(|| Error::not_found("tool"))
}

/// Asks the cloud how a CREATING tool is getting on, and records it.
///
/// # Errors
/// When the cloud or the database fails.
pub async fn refresh(app: &App, tool: Tool) -> Result<Tool> {
    if tool.status != ToolStatus::Creating || tool.upstream_id.is_none() {
        return Ok(tool);
    }
    match app.upstreams.get(&tool.upstream)?.find_tool(&tool).await? {
        Some(seen) => record(app, &tool, &seen).await,
        // A list may lag behind.
        None => Ok(tool),
    }
}

async fn record(app: &App, tool: &Tool, seen: &SeenTool) -> Result<Tool> {
    let outcome = ToolOutcome {
        upstream_id: Some(&seen.id),
        status: &seen.status,
        reason: seen.status_reason.as_deref(),
        request_id: None,
        leftover: seen.status == ToolStatus::Failed,
    };
    let mut connection = app.pool.acquire().await?;
    tools::system_settle(&mut connection, &tool.id, &tool.status, &outcome).await?;
    drop(connection);
    reload(app, &tool.id).await
}

/// Follows a CREATING tool until it has settled, or the process drains.
///
/// # Errors
/// When the database fails.
pub(super) async fn follow(app: App, tool: Tool) -> Result<Tool> {
    let draining = app.lifecycle.draining();
    let followed = lease::on_tool(&app, &tool.id, async {
        let mut pause = FIRST_LOOK;
        let mut tool = tool.clone();
        while tool.status == ToolStatus::Creating {
            if draining.run_until_cancelled(tokio::time::sleep(pause)).await.is_none() {
                break;
            }
            pause = (pause * 2).min(LONGEST_PAUSE);
            match refresh(&app, tool.clone()).await {
                Ok(seen) => tool = seen,
                Err(error) => tracing::warn!(tool = %tool.id, %error, "the tool's state could not be read"),
            }
        }
        tool
    })
    .await;
    Ok(followed)
}

/// Takes care of tools that nobody works on. Answers how many were looked into.
///
/// # Errors
/// When the database fails.
pub async fn settle(app: &App) -> Result<usize> {
    let mut connection = app.pool.acquire().await?;
    let claimed = tools::system_claim_unsettled(&mut connection, BATCH, app.upkeep.claim_seconds()).await?;
    drop(connection);
    let count = claimed.len();
    for tool in claimed {
        if let Err(error) = lease::on_tool(app, &tool.id, settle_one(app, &tool)).await {
            tracing::warn!(tool = %tool.id, %error, "the tool could not be settled");
            let mut connection = app.pool.acquire().await?;
            tools::system_defer(&mut connection, &tool.id, REST_SECONDS, &error.to_string()).await?;
        }
    }
    Ok(count)
}

async fn settle_one(app: &App, tool: &Tool) -> Result<()> {
    let upstream = app.upstreams.get(&tool.upstream)?;
    match &tool.status {
        ToolStatus::Creating => settle_creating(app, tool).await,
        status => {
            upstream.remove_tool(tool).await?;
            let mut connection = app.pool.acquire().await?;
            match status {
                ToolStatus::Deleting => tools::system_deleted(&mut connection, &tool.id).await?,
                _ => tools::system_cleaned(&mut connection, &tool.id).await?,
            }
            Ok(())
        }
    }
}

/// A creation that was cut off: what the cloud made is adopted, and what it did not make is made now. The name is ours
/// alone and unique in the account, so that there is never a second one.
async fn settle_creating(app: &App, tool: &Tool) -> Result<()> {
    let upstream = app.upstreams.get(&tool.upstream)?;
    let mut seen = upstream.find_tool(tool).await?;
    if seen.is_none() {
        match upstream.create_tool(&app.deployment, tool).await {
            Ok(_) => seen = upstream.find_tool(tool).await?,
            Err(error) if error.outcome() == Outcome::Known && !error.retryable() => {
                return give_up(app, tool, Error::from(error).detail()).await;
            }
            Err(error) => return Err(error.into()),
        }
    }
    let Some(seen) = seen else {
        if app.clock.now() - tool.created_at > PATIENCE {
            return give_up(app, tool, "The cloud has taken it and does not show it.").await;
        }
        return Err(Error::internal("the new tool is not listed yet"));
    };
    let settled = record(app, tool, &seen).await?;
    if settled.status == ToolStatus::Creating {
        let mut connection = app.pool.acquire().await?;
        tools::system_renew(&mut connection, &tool.id, 1.0).await?;
    }
    Ok(())
}

async fn give_up(app: &App, tool: &Tool, reason: &str) -> Result<()> {
    let outcome = ToolOutcome {
        upstream_id: None,
        status: &ToolStatus::Failed,
        reason: Some(reason),
        request_id: None,
        leftover: true,
    };
    let mut connection = app.pool.acquire().await?;
    tools::system_settle(&mut connection, &tool.id, &tool.status, &outcome).await?;
    Ok(())
}
