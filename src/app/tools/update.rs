//! Changing a tool.

use std::collections::BTreeMap;

use super::{create::name_taken, read_only, settle, spec};
use crate::{
    app::{App, lease, teams::check_name},
    auth::Caller,
    domain::{
        checks::Checks,
        duration::Seconds,
        spec::{Container, Network},
        tool::{Tool, ToolStatus},
    },
    error::{Code, Error, Result},
    ids::ToolId,
    storage::tools::{self, ToolChange},
};

/// What shall be other. What is `None` stays; lists and maps are replaced as a whole.
#[derive(Clone, Debug, Default)]
pub struct Change {
    pub name: Option<String>,
    pub description: Option<String>,
    pub default_timeout: Option<Seconds>,
    pub network: Option<Network>,
    pub tags: Option<BTreeMap<String, String>>,
    /// Its parts that are `None` stay; `env` counts only with `replace_env`.
    pub container: Container,
    pub replace_env: bool,
}

impl Change {
    fn apply(&self, tool: &mut Tool) {
        let spec = &mut tool.spec;
        replace(&mut tool.name, &self.name);
        spec.description = self.description.clone().or(spec.description.take());
        spec.default_timeout_seconds = self.default_timeout.map(|seconds| seconds.0).or(spec.default_timeout_seconds);
        replace(&mut spec.network, &self.network);
        replace(&mut spec.tags, &self.tags);
        let (old, new) = (std::mem::take(&mut spec.container), self.container.clone());
        spec.container = Container {
            image: new.image.or(old.image),
            image_registry_type: new.image_registry_type.or(old.image_registry_type),
            command: new.command.or(old.command),
            args: new.args.or(old.args),
            env: if self.replace_env { new.env } else { old.env },
            ports: new.ports.or(old.ports),
            resources: merged(new.resources, old.resources, |new, old| new.over(Some(old))),
            probe: merged(new.probe, old.probe, |new, old| new.over(Some(old))),
            dns: new.dns.or(old.dns),
        };
    }
}

fn replace<T: Clone>(slot: &mut T, value: &Option<T>) {
    if let Some(value) = value {
        slot.clone_from(value);
    }
}

fn merged<T>(new: Option<T>, old: Option<T>, over: impl FnOnce(T, &T) -> T) -> Option<T> {
    match (new, old) {
        (Some(new), Some(old)) => Some(over(new, &old)),
        (new, old) => new.or(old),
    }
}

/// Changes a tool; instances started from now on have it.
///
/// # Errors
/// `not_found`, `not_granted`, `name_taken`, `validation_failed`; `invalid_state` when it is not ACTIVE or another change is
/// under way; what the cloud says.
pub async fn update(app: &App, caller: &Caller, id: &ToolId, change: &Change) -> Result<Tool> {
    let tool = super::get(app, caller, id).await?;
    if !tool.is_of(caller.team_id()) {
        return Err(read_only());
    }
    let wanted = checked(caller, &tool, change)?;
    let mut connection = app.pool.acquire().await?;
    let claim = app.upkeep.claim_seconds();
    if !tools::claim(&mut connection, caller.team_id(), id, &ToolStatus::Active, claim).await? {
        let detail = format!("The tool is {}, or another change of it is under way. Try again.", tool.status);
        return Err(Error::new(Code::InvalidState, detail).retryable(tool.status == ToolStatus::Active));
    }
    drop(connection);
    let outcome = lease::on_tool(app, id, push(app, caller, &wanted)).await;
    if outcome.is_err() {
        let mut connection = app.pool.acquire().await?;
        tools::system_renew(&mut connection, id, 0.0).await?;
    }
    outcome
}

/// The tool as it shall be.
fn checked(caller: &Caller, tool: &Tool, change: &Change) -> Result<Tool> {
    let mut wanted = tool.clone();
    change.apply(&mut wanted);
    check_name("name", &wanted.name)?;
    let mut checks = Checks::default();
    wanted.spec.check(&mut checks);
    checks.finish()?;
    if change.network.is_some() {
        spec::check_network(&caller.team.grants, &wanted.spec.network)?;
    }
    Ok(wanted)
}

async fn push(app: &App, caller: &Caller, wanted: &Tool) -> Result<Tool> {
    let mut connection = app.pool.acquire().await?;
    if tools::name_taken(&mut connection, caller.team_id(), &wanted.name, &wanted.id).await? {
        return Err(name_taken(&wanted.name));
    }
    drop(connection);
    let upstream_id = wanted.upstream_id.as_deref().ok_or_else(|| Error::internal("an ACTIVE tool without an id"))?;
    app.upstreams.get(&wanted.upstream)?.update_tool(&app.deployment, upstream_id, wanted).await?;
    let mut connection = app.pool.acquire().await?;
    let change = ToolChange { name: &wanted.name, spec: &wanted.spec };
    match tools::update(&mut connection, caller.team_id(), &wanted.id, &change).await {
        Ok(true) => {}
        Ok(false) => return Err(Error::new(Code::InvalidState, "The tool is being deleted.")),
        Err(sqlx::Error::Database(error)) if error.is_unique_violation() => return Err(name_taken(&wanted.name)),
        Err(error) => return Err(error.into()),
    }
    drop(connection);
    settle::reload(app, &wanted.id).await
}
