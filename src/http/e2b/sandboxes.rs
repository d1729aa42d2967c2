//! What the SDKs do with sandboxes.

use std::{collections::HashMap, sync::Arc, time::Duration};

use axum::{
    extract::{RawQuery, State},
    response::{IntoResponse, Response},
};
use http::{HeaderName, HeaderValue, StatusCode};

use super::{
    body::Given,
    dto::{Create, Detail, Listed, Metric, Pause, Sandbox, State as SandboxState, Timeout, is_cut_off},
    query,
};
use crate::{
    app::{
        self, App,
        idempotency::Intent,
        instances::{Change, Life},
        tools, wait,
    },
    auth::Caller,
    domain::{
        duration::Seconds,
        instance::{Instance, InstanceStatus},
        page::{MAX_LIMIT, PageRequest, encode_cursor},
        scope::scope,
        tool::{TIMEOUT_RANGE, Tool},
    },
    error::{Code, Error, Result},
    http::{
        extract::{Authorized, Json, Path},
        idempotency::{Started, as_replayed, lost, start_once},
    },
    ids::{InstanceId, ToolId},
    storage::tools::ToolFilter,
    telemetry::request::carried,
};

const NEXT_TOKEN: HeaderName = HeaderName::from_static("x-next-token");
/// SDKs wait a minute for an answer.
const PATIENCE: Duration = Duration::from_secs(50);
/// What SDKs ask for when nobody has said which template.
const DEFAULT_TEMPLATE: &str = "base";
/// The shortest and the longest life that the gateway's own operations take.
const SHORTEST: u32 = *TIMEOUT_RANGE.start();
const LONGEST: u32 = *TIMEOUT_RANGE.end();

fn absent(id: &str) -> Error {
    Error::not_found("sandbox").with_detail(format!("Sandbox \"{id}\" doesn't exist or you don't have access to it"))
}

/// A sandbox of the caller's that E2B would know.
async fn found(app: &App, caller: &Caller, id: &str) -> Result<(Instance, SandboxState)> {
    let parsed: InstanceId = id.parse().map_err(|_| absent(id))?;
    let instance = match app::instances::get(app, caller, &parsed).await {
        Ok(instance) => instance,
        Err(error) if error.code() == Code::NotFound => return Err(absent(id)),
        Err(error) => return Err(error),
    };
    let state = SandboxState::of(&instance, app.clock.now()).ok_or_else(|| absent(id))?;
    Ok((instance, state))
}

async fn shown(app: &App, caller: &Caller, instance: Instance) -> Result<Json<Sandbox>> {
    let pass = app.auth.passes.issue(caller, &instance.id).await?;
    Ok(Json(Sandbox::of(app, instance, &pass)))
}

/// Creates a sandbox, and answers when it runs.
pub async fn create(
    State(app): State<App>,
    caller: Authorized<scope::InstancesWrite>,
    Given { body, key }: Given<Create>,
) -> Result<Response> {
    caller.require_unbound()?;
    let (task_app, caller) = (app.clone(), caller.into_caller());
    let task_caller = Arc::clone(&caller);
    let work = async move {
        let start = |intent| started(&task_app, &task_caller, &body, intent);
        start_once(&task_app, &task_caller, key, start, |instance| instance.id.to_string()).await
    };
    match wait::detached(&app, "create", carried(work)).await? {
        Started::Now(instance) => Ok((StatusCode::CREATED, shown(&app, &caller, instance).await?).into_response()),
        Started::Before(id) => {
            let (instance, _) = found(&app, &caller, &id).await.map_err(|_| lost())?;
            Ok(as_replayed((StatusCode::CREATED, shown(&app, &caller, instance).await?).into_response()))
        }
        Started::Refused(response) => Ok(response),
    }
}

async fn started(app: &App, caller: &Caller, body: &Create, intent: Intent) -> Result<Instance> {
    let mut wanted = body.wanted(SHORTEST)?;
    let tool = template(app, caller, body.tool()).await?;
    if body.is_cut_off() && !is_cut_off(&tool) {
        let detail =
            "Whether a sandbox reaches the internet is a property of its tool: use one whose network mode is SANDBOX.";
        return Err(Error::new(Code::NotSupported, detail));
    }
    wanted.tool = Some(tool.id.to_string());
    let instance = app::instances::create(app, caller, &wanted, PATIENCE, intent).await?;
    if instance.status != InstanceStatus::Running {
        // There is no way to tell an SDK of a sandbox that is not there yet.
        app::instances::stop(app, caller, &instance.id).await?;
        let detail = format!("The sandbox did not run within {} s and was stopped.", PATIENCE.as_secs());
        return Err(Error::new(Code::UpstreamTimeout, detail).with_sandbox(instance.reference()));
    }
    if body.timeout() < SHORTEST {
        return live_for(app, caller, &instance.id, body.timeout()).await;
    }
    Ok(instance)
}

/// The tool that a template's name or id means.
async fn template(app: &App, caller: &Caller, name: &str) -> Result<Tool> {
    match (tools::usable(app, caller, name).await, &app.config.tools.default_tool) {
        (Err(error), Some(default)) if error.code() == Code::NotFound && name == DEFAULT_TEMPLATE => {
            tools::usable(app, caller, default).await
        }
        (Err(error), _) if error.code() == Code::NotFound => {
            let detail = format!("There is no template \"{name}\": templates are tools of the gateway, by name or id.");
            Err(error.with_detail(detail))
        }
        (found, _) => found,
    }
}

/// Begins a sandbox's life anew.
async fn live_for(app: &App, caller: &Caller, id: &InstanceId, seconds: u32) -> Result<Instance> {
    let change = Change { life: Some(Life::Briefly(Seconds(seconds))), ..Change::default() };
    app::instances::update(app, caller, id, &change).await
}

/// Lengthens a sandbox's life; a later end stays.
async fn extended(app: &App, caller: &Caller, instance: Instance, seconds: u32) -> Result<Instance> {
    let left = instance.expires_at - app.clock.now();
    if left.num_milliseconds() >= i64::from(seconds) * 1000 {
        return Ok(instance);
    }
    live_for(app, caller, &instance.id, seconds).await
}

/// Work that goes on when the client hangs up.
async fn detached<T: Send + 'static>(app: &App, work: impl Future<Output = Result<T>> + Send + 'static) -> Result<T> {
    wait::detached(app, "e2b", carried(work)).await
}

/// Connects to a sandbox: resumes a paused one, and lengthens the life of a running one.
pub async fn connect(
    State(app): State<App>,
    caller: Authorized<scope::InstancesWrite>,
    Path(id): Path<String>,
    Given { body, .. }: Given<Timeout>,
) -> Result<Response> {
    let (resumed, sandbox) = connected(&app, caller.into_caller(), id, body.seconds()).await?;
    let status = if resumed { StatusCode::CREATED } else { StatusCode::OK };
    Ok((status, sandbox).into_response())
}

/// As [`connect`], for SDKs that expect 201 in any case.
pub async fn resume(
    State(app): State<App>,
    caller: Authorized<scope::InstancesWrite>,
    Path(id): Path<String>,
    Given { body, .. }: Given<Timeout>,
) -> Result<Response> {
    let (_, sandbox) = connected(&app, caller.into_caller(), id, body.seconds()).await?;
    Ok((StatusCode::CREATED, sandbox).into_response())
}

/// Whether it was resumed, and the sandbox.
async fn connected(app: &App, caller: Arc<Caller>, id: String, seconds: u32) -> Result<(bool, Json<Sandbox>)> {
    let task_app = app.clone();
    detached(app, async move {
        let (app, caller) = (&task_app, &caller);
        let (instance, _) = found(app, caller, &id).await?;
        let instance = app::instances::settled(app, caller, &instance.id, PATIENCE).await?;
        let paused = instance.status == InstanceStatus::Paused;
        let instance = if paused {
            let timeout = Some(Seconds(seconds.max(SHORTEST)));
            let resumed = app::instances::resume(app, caller, &instance.id, timeout, PATIENCE).await?;
            if seconds < SHORTEST { live_for(app, caller, &resumed.id, seconds).await? } else { resumed }
        } else {
            let (instance, _) = found(app, caller, &id).await?;
            extended(app, caller, instance, seconds).await?
        };
        Ok((paused, shown(app, caller, instance).await?))
    })
    .await
}

/// Sandboxes, page by page.
pub async fn list(
    State(app): State<App>,
    caller: Authorized<scope::InstancesRead>,
    RawQuery(query): RawQuery,
) -> Result<Response> {
    let wanted = query::Wanted::read(query.as_deref().unwrap_or_default())?;
    let page = app::instances::list(&app, &caller, wanted.filter, wanted.order, &wanted.page).await?;
    let tools = tools_of(&app, &caller, &page.items).await?;
    let now = app.clock.now();
    let listed = page.items.into_iter().filter_map(|instance| {
        let state = SandboxState::of(&instance, now)?;
        let tool = tools.get(&instance.tool_id);
        Some(Listed::of(&app, instance, state, tool))
    });
    let mut response = Json(listed.collect::<Vec<_>>()).into_response();
    if let Some(next) = page.next {
        let token = HeaderValue::from_str(&encode_cursor(&next)).map_err(Error::internal)?;
        response.headers_mut().insert(NEXT_TOKEN, token);
    }
    Ok(response)
}

/// The tools of instances, as far as the caller may see them.
async fn tools_of(app: &App, caller: &Caller, instances: &[Instance]) -> Result<HashMap<ToolId, Tool>> {
    if instances.is_empty() || caller.only_instance.is_some() {
        return Ok(HashMap::new());
    }
    let ids = instances.iter().map(|instance| instance.tool_id.to_string()).collect();
    let page = PageRequest { limit: MAX_LIMIT, before: None };
    let found = tools::list(app, caller, &ToolFilter { ids, ..ToolFilter::default() }, &page).await?;
    Ok(found.items.into_iter().map(|tool| (tool.id.clone(), tool)).collect())
}

/// One sandbox.
pub async fn info(
    State(app): State<App>,
    caller: Authorized<scope::InstancesRead>,
    Path(id): Path<String>,
) -> Result<Json<Detail>> {
    let (instance, state) = found(&app, &caller, &id).await?;
    let pass = app.auth.passes.issue(&caller, &instance.id).await?;
    let tools = tools_of(&app, &caller, std::slice::from_ref(&instance)).await?;
    let tool = tools.get(&instance.tool_id);
    let listed = Listed::of(&app, instance, state, tool);
    Ok(Json(Detail::of(&app, listed, tool, &pass)))
}

/// Stops a sandbox.
pub async fn kill(
    State(app): State<App>,
    caller: Authorized<scope::InstancesWrite>,
    Path(id): Path<String>,
) -> Result<StatusCode> {
    let (task_app, caller) = (app.clone(), caller.into_caller());
    detached(&app, async move {
        let (instance, _) = found(&task_app, &caller, &id).await?;
        app::instances::stop(&task_app, &caller, &instance.id).await
    })
    .await?;
    Ok(StatusCode::NO_CONTENT)
}

/// Begins a sandbox's life anew.
pub async fn set_timeout(
    State(app): State<App>,
    caller: Authorized<scope::InstancesWrite>,
    Path(id): Path<String>,
    Given { body, .. }: Given<Timeout>,
) -> Result<StatusCode> {
    let (task_app, caller, seconds) = (app.clone(), caller.into_caller(), body.required()?);
    detached(&app, async move {
        let (instance, _) = found(&task_app, &caller, &id).await?;
        live_for(&task_app, &caller, &instance.id, seconds).await
    })
    .await?;
    Ok(StatusCode::NO_CONTENT)
}

/// Lengthens a sandbox's life.
pub async fn refresh(
    State(app): State<App>,
    caller: Authorized<scope::InstancesWrite>,
    Path(id): Path<String>,
    Given { body, .. }: Given<Timeout>,
) -> Result<StatusCode> {
    let (task_app, caller, seconds) = (app.clone(), caller.into_caller(), body.seconds());
    detached(&app, async move {
        let (instance, _) = found(&task_app, &caller, &id).await?;
        extended(&task_app, &caller, instance, seconds).await
    })
    .await?;
    Ok(StatusCode::NO_CONTENT)
}

/// Pauses a sandbox, and keeps it for as long as the team's sandboxes may live: whoever pauses wants to come back.
pub async fn pause(
    State(app): State<App>,
    caller: Authorized<scope::InstancesWrite>,
    Path(id): Path<String>,
    Given { body, .. }: Given<Pause>,
) -> Result<StatusCode> {
    let (task_app, caller) = (app.clone(), caller.into_caller());
    detached(&app, async move {
        let (app, caller) = (&task_app, &caller);
        let (instance, state) = found(app, caller, &id).await?;
        if state == SandboxState::Paused {
            return Err(Error::new(Code::InvalidState, format!("Sandbox \"{id}\" is already paused")));
        }
        let paused = app::instances::pause(app, caller, &instance.id, body.memory, PATIENCE).await?;
        if paused.status == InstanceStatus::Paused {
            extended(app, caller, paused, caller.team.quotas.max_lifetime_seconds.min(LONGEST)).await?;
        }
        Ok(())
    })
    .await?;
    Ok(StatusCode::NO_CONTENT)
}

/// What a sandbox uses at this moment: there is no history of it. A paused one uses nothing.
pub async fn metrics(
    State(app): State<App>,
    caller: Authorized<scope::InstancesRead>,
    Path(id): Path<String>,
) -> Result<Json<Vec<Metric>>> {
    let (instance, state) = found(&app, &caller, &id).await?;
    if state == SandboxState::Paused {
        return Ok(Json(Vec::new()));
    }
    let measured = app::instances::measure(&app, &caller, &instance.id).await?;
    Ok(Json(vec![measured.into()]))
}
