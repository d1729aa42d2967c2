//! Lending a tool to other teams: they may start instances of it, and nothing else.

use std::collections::BTreeSet;

use super::{get, read_only};
use crate::{
    app::App,
    auth::Caller,
    domain::tool::Tool,
    error::{Error, Result},
    ids::{TeamId, ToolId},
    storage::{shares, teams},
};

/// Teams that one tool may be lent to.
pub const MAX_TEAMS: usize = 100;

/// Lends a tool of the caller's team to these teams, and to no others any more. Their instances go on.
///
/// # Errors
/// `not_found`; `not_granted` for a tool that is not the team's own; `validation_failed` for an unknown team.
pub async fn share(app: &App, caller: &Caller, id: &ToolId, with: &[TeamId]) -> Result<Tool> {
    let tool = get(app, caller, id).await?;
    if !tool.is_of(caller.team_id()) {
        return Err(read_only());
    }
    if with.len() > MAX_TEAMS {
        return Err(Error::field("team_ids", format!("may name {MAX_TEAMS} teams at most")));
    }
    let with: BTreeSet<&TeamId> = with.iter().filter(|team| *team != caller.team_id()).collect();
    let mut tx = app.pool.begin().await?;
    for team in &with {
        let known = teams::system_find(&mut tx, team.as_str()).await?;
        known.ok_or_else(|| Error::field("team_ids", format!("there is no team {team}")))?;
    }
    let names: Vec<String> = with.iter().map(ToString::to_string).collect();
    shares::replace(&mut tx, caller.team_id(), id, &names).await?;
    caller.trail.intend(&mut tx).await?;
    tx.commit().await?;
    get(app, caller, id).await
}

/// The teams that a tool of the caller's team is lent to.
///
/// # Errors
/// When the database fails.
pub async fn shared_with(app: &App, caller: &Caller, tool: &Tool) -> Result<Vec<TeamId>> {
    if !tool.is_of(caller.team_id()) {
        return Ok(Vec::new());
    }
    Ok(shares::list(&mut *app.pool.acquire().await?, &tool.id).await?)
}
