//! Creating an instance: the intent is committed with its quota checked, then a task starts it.

use std::{collections::BTreeMap, time::Duration};

use sqlx::PgConnection;
use tokio::{task::JoinHandle, time::Instant};

use super::{
    admit::{self, Place, Queueing},
    start,
};
use crate::{
    app::{App, idempotency::Intent, tools, wait},
    auth::Caller,
    domain::{
        checks::Checks,
        duration::Seconds,
        instance::{Idle, IdleAction, Instance, InstanceSpec, check_metadata},
        spec::{Container, Env, Probe},
        tool::{Tool, ToolStatus, check_timeout},
    },
    error::{Code, Error, Result},
    ids::InstanceId,
    storage::{
        instances::{self, NewInstance},
        teams, tools as tool_rows,
    },
    upstream::seen,
};

const AUTH_MODES: [&str; 4] = ["DEFAULT", "TOKEN", "NONE", "PUBLIC"];
const MIN_IDLE_SECONDS: u32 = 10;
/// How often it is looked whether the cloud has taken an instance that was waited for in line.
const ACCEPTANCE_LOOK: Duration = Duration::from_millis(100);

/// What a new instance shall be. What is left out comes from its tool, then from the configuration.
#[derive(Clone, Debug, Default)]
pub struct Wanted {
    /// Id or name.
    pub tool: Option<String>,
    pub timeout: Option<Seconds>,
    pub metadata: BTreeMap<String, String>,
    pub env: Env,
    pub spec: InstanceSpec,
    pub auth_mode: Option<String>,
    pub idle: Option<Idle>,
}

/// Starts an instance, and waits up to `patience` for it to be RUNNING. It may be STARTING still in the answer.
///
/// # Errors
/// `validation_failed`, `not_found` for an unknown tool, `not_granted`, `invalid_state` for a tool that is not ACTIVE,
/// `quota_exceeded`; when the start failed, what the cloud said, with the failed instance.
pub async fn create(
    app: &App,
    caller: &Caller,
    wanted: &Wanted,
    patience: Duration,
    intent: Intent,
) -> Result<Instance> {
    let prepared = prepare(app, caller, wanted).await?;
    let id = write_intent(app, caller, &prepared, None, &intent).await?;
    let starting = launch(app, &id);
    match wait::within(starting, patience).await? {
        Some(running) => Ok(running),
        None => super::reload(app, &id).await,
    }
}

/// As [`create`]; where there is no room for it, by the team's quota or the account's, it waits in line.
///
/// # Errors
/// As [`create`]; `quota_exceeded` with the position in line when the time is up.
pub async fn create_in_line(
    app: &App,
    caller: &Caller,
    wanted: &Wanted,
    patience: Duration,
    queueing: Queueing,
    intent: Intent,
) -> Result<Instance> {
    let prepared = prepare(app, caller, wanted).await?;
    let place = Place::new(app, caller, &prepared, queueing);
    loop {
        let id = place.wait(|| write_intent(app, caller, &prepared, Some(place.ticket()), &intent)).await?;
        match accepted(app, &id, launch(app, &id), patience, place.left()).await {
            Err(error) if place.goes_on_after(&error) => place.hold().await?,
            outcome => return outcome,
        }
    }
}

/// The outcome of a start within `patience`; within `longest` it is at least known whether the cloud takes it.
///
/// # Errors
/// What the start fails with.
pub async fn accepted(
    app: &App,
    id: &InstanceId,
    mut starting: JoinHandle<Result<Instance>>,
    patience: Duration,
    longest: Duration,
) -> Result<Instance> {
    let began = Instant::now();
    loop {
        if let Ok(joined) = tokio::time::timeout(ACCEPTANCE_LOOK, &mut starting).await {
            return joined.map_err(Error::internal)?;
        }
        if began.elapsed() >= patience {
            let instance = super::reload(app, id).await?;
            if instance.upstream_id.is_some() || began.elapsed() >= longest {
                return Ok(instance);
            }
        }
    }
}

async fn write_intent(
    app: &App,
    caller: &Caller,
    prepared: &Prepared,
    ticket: Option<&str>,
    intent: &Intent,
) -> Result<InstanceId> {
    let mut tx = app.pool.begin().await?;
    let id = prepared.insert(app, caller, &mut tx, ticket).await?;
    caller.trail.intend(&mut tx).await?;
    intent.note(&mut tx, id.as_str()).await?;
    tx.commit().await?;
    Ok(id)
}

/// Starts an instance whose intent was just committed.
pub fn launch(app: &App, id: &InstanceId) -> JoinHandle<Result<Instance>> {
    app.lifecycle.spawn("start", seen::carried(start::drive(app.clone(), id.clone())))
}

/// An instance that may be created, but for its team's quota.
pub struct Prepared {
    tool: Tool,
    ready: Ready,
}

/// Checks what is wanted of a new instance.
///
/// # Errors
/// `validation_failed`, `not_found` for an unknown tool, `not_granted`, `invalid_state` for a tool that is not ACTIVE;
/// `scope_missing` for a credential that is bound to one instance.
pub async fn prepare(app: &App, caller: &Caller, wanted: &Wanted) -> Result<Prepared> {
    caller.require_unbound()?;
    let tool = tools::usable(app, caller, requested_tool(app, wanted)?).await?;
    let ready = resolve(app, caller, wanted, &tool)?;
    Ok(Prepared { tool, ready })
}

fn requested_tool<'a>(app: &'a App, wanted: &'a Wanted) -> Result<&'a str> {
    let default = app.config.tools.default_tool.as_deref();
    wanted.tool.as_deref().or(default).ok_or_else(|| Error::field("tool", "is required: no default tool is configured"))
}

/// What the request, the tool and the configuration come to.
struct Ready {
    timeout_seconds: u32,
    metadata: BTreeMap<String, String>,
    env: BTreeMap<String, String>,
    spec: InstanceSpec,
    auth_mode: String,
    idle: Option<Idle>,
}

fn resolve(app: &App, caller: &Caller, wanted: &Wanted, tool: &Tool) -> Result<Ready> {
    let mut checks = Checks::default();
    let auth_mode = wanted.auth_mode.clone().unwrap_or_else(|| "DEFAULT".to_owned());
    checks.that(AUTH_MODES.contains(&auth_mode.as_str()), "auth_mode", "must be DEFAULT, TOKEN, NONE or PUBLIC");
    check_metadata(&mut checks, &wanted.metadata);
    wanted.env.check(&mut checks);
    check_idle(&mut checks, wanted.idle.as_ref());
    let spec = InstanceSpec {
        container: over_tool(wanted.spec.container.clone(), &tool.spec.container),
        mounts: wanted.spec.mounts.clone(),
    };
    spec.check(&mut checks, &tool.spec.storage_mounts);
    let timeout_seconds = timeout(app, caller, wanted, tool, &mut checks);
    checks.finish()?;
    let grants = &caller.team.grants;
    if !grants.allows_upstream(&tool.upstream) {
        return Err(not_granted("tool", "the upstream of this tool"));
    }
    if !grants.allows_auth_mode(&auth_mode) {
        return Err(not_granted("auth_mode", &format!("the auth mode {auth_mode}")));
    }
    check_lifetime(caller, timeout_seconds)?;
    let (metadata, env) = (wanted.metadata.clone(), wanted.env.0.clone());
    Ok(Ready { timeout_seconds, metadata, env, spec, auth_mode, idle: wanted.idle.clone() })
}

fn not_granted(field: &str, what: &str) -> Error {
    let detail = format!("Your team was not granted {what}. Ask the gateway's operators for it.");
    Error::new(Code::NotGranted, detail).with_field(field, "was not granted to your team")
}

pub(super) fn check_idle(checks: &mut Checks, idle: Option<&Idle>) {
    let Some(idle) = idle else { return };
    let too_short = || format!("must be at least {MIN_IDLE_SECONDS}s");
    checks.that(idle.after_seconds >= MIN_IDLE_SECONDS, "idle.after", too_short());
    let Some(further) = idle.stop_after_seconds else { return };
    checks.that(further >= MIN_IDLE_SECONDS, "idle.stop_after", too_short());
    checks.that(idle.action == IdleAction::Pause, "idle.stop_after", "is for the action `pause`");
}

/// The cloud replaces resources and probe as a whole, so what the request leaves out of them comes from the tool.
fn over_tool(wanted: Container, tool: &Container) -> Container {
    Container {
        resources: wanted.resources.map(|own| own.over(tool.resources.as_ref())),
        probe: wanted.probe.map(|own: Probe| own.over(tool.probe.as_ref())),
        ..wanted
    }
}

/// Request, else the tool's default, else the configuration; what nobody asked for is cut to the team's longest.
fn timeout(app: &App, caller: &Caller, wanted: &Wanted, tool: &Tool, checks: &mut Checks) -> u32 {
    if let Some(Seconds(seconds)) = wanted.timeout {
        check_timeout(checks, "timeout", seconds);
        return seconds;
    }
    let configured = || u32::try_from(app.config.instances.timeout.as_secs()).unwrap_or(u32::MAX);
    tool.spec.default_timeout_seconds.unwrap_or_else(configured).min(caller.team.quotas.max_lifetime_seconds)
}

/// # Errors
/// `validation_failed` with the limit, for a life longer than the team's instances may have.
pub(super) fn check_lifetime(caller: &Caller, seconds: u32) -> Result<()> {
    let longest = caller.team.quotas.max_lifetime_seconds;
    if seconds <= longest {
        return Ok(());
    }
    let error = Error::field("timeout", format!("your team's instances may live {longest} s at most"));
    Err(error.with_limit("max_lifetime_seconds", longest.into(), seconds.into()))
}

impl Prepared {
    #[must_use]
    pub fn tool(&self) -> &Tool {
        &self.tool
    }

    /// Writes the intent in a transaction, which counts the team's creations one after the other until it ends. `ticket`: a
    /// place in line, which ends with it.
    ///
    /// # Errors
    /// `quota_exceeded`; `invalid_state` when the tool is being deleted.
    pub async fn insert(
        &self,
        app: &App,
        caller: &Caller,
        tx: &mut PgConnection,
        ticket: Option<&str>,
    ) -> Result<InstanceId> {
        let Self { tool, ready } = self;
        let id: InstanceId = app.ids.next();
        let token = app.ids.token();
        let new = NewInstance {
            id: &id,
            team: caller.team_id(),
            tool: &tool.id,
            tool_name: &tool.name,
            tool_type: &tool.kind,
            upstream: &tool.upstream,
            client_token: &token,
            spec: &ready.spec,
            metadata: &ready.metadata,
            env: &ready.env,
            auth_mode: &ready.auth_mode,
            timeout_seconds: ready.timeout_seconds,
            idle: ready.idle.as_ref(),
            created_by: &caller.key_id,
            startup_seconds: app.config.instances.startup_timeout.as_secs_f64(),
            claim_seconds: app.upkeep.claim_seconds(),
        };
        let team = teams::lock(tx, caller.team_id()).await?.ok_or_else(|| Error::not_found("team"))?;
        admit::check(app, tx, &team, &tool.upstream, ticket).await?;
        if tool_rows::hold(tx, &tool.id).await? != Some(ToolStatus::Active) {
            return Err(Error::new(Code::InvalidState, "The tool is being deleted."));
        }
        instances::insert(tx, &new).await?;
        caller.trail.note_instance(&id);
        caller.trail.note_tool(&tool.id);
        Ok(id)
    }
}
