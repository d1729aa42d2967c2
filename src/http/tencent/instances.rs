//! Instances (PROTOCOLS B.7).

use std::{sync::Arc, time::Duration};

use ags_client::types::{
    DescribeSandboxInstanceListRequest, DescribeSandboxInstanceListResponse, PauseSandboxInstanceRequest,
    PauseSandboxInstanceResponse, ResumeSandboxInstanceRequest, ResumeSandboxInstanceResponse,
    StartSandboxInstanceRequest, StartSandboxInstanceResponse, StopSandboxInstanceRequest, StopSandboxInstanceResponse,
    UpdateSandboxInstanceRequest, UpdateSandboxInstanceResponse,
};
use axum::{Json, extract::State, response::Response};
use http::StatusCode;

use super::{
    Call, convert, lasting,
    listing::{Span, at_most_a_page, filters},
};
use crate::{
    app::{
        self, App,
        instances::{Change, Life, Wanted},
    },
    auth::Caller,
    domain::{
        instance::{Instance, InstanceSpec},
        scope::Scope,
        spec::Env,
    },
    error::{Error, Result},
    http::idempotency::{Created, Creation, lost, once},
    ids::InstanceId,
    storage::instances::InstanceFilter,
};

/// How long a start waits for the instance to run: clients do not look again, and give up after a minute.
const START: Duration = Duration::from_secs(50);

impl Creation for StartSandboxInstanceResponse {}

/// The instance that a request names; notes it for the history.
pub(super) fn named(caller: &Caller, id: &str) -> Result<InstanceId> {
    let id: InstanceId = id.parse().map_err(|_| Error::not_found("instance"))?;
    caller.trail.note_instance(&id);
    Ok(id)
}

pub(super) async fn start(State(app): State<App>, call: Call<StartSandboxInstanceRequest>) -> Result<Response> {
    call.require(&[Scope::InstancesWrite])?;
    let key = call.key()?;
    let wanted = wanted(call.request)?;
    let first = move |app: App, caller: Arc<Caller>, intent| async move {
        let instance = app::instances::create(&app, &caller, &wanted, START, intent).await?;
        started(&app, instance).await
    };
    once(&app, call.caller, key, first, resumed).await
}

fn wanted(request: StartSandboxInstanceRequest) -> Result<Wanted> {
    let tool = request.tool_id.or(request.tool_name).filter(|tool| !tool.is_empty());
    Ok(Wanted {
        tool: Some(tool.ok_or_else(|| Error::field("tool", "ToolId or ToolName is required"))?),
        timeout: convert::seconds("timeout", request.timeout.as_deref())?,
        metadata: convert::metadata(request.metadata).unwrap_or_default(),
        env: Env::default(),
        spec: InstanceSpec {
            container: convert::container(request.custom_configuration),
            mounts: convert::mounts(request.mount_options)?,
        },
        auth_mode: request.auth_mode.map(|mode| mode.to_string()),
        idle: None,
    })
}

async fn started(app: &App, instance: Instance) -> Result<Created<StartSandboxInstanceResponse>> {
    let details = app::instances::details(app, std::slice::from_ref(&instance)).await?;
    let instance = convert::instance(instance, details.into_values().next());
    Ok((StatusCode::OK, StartSandboxInstanceResponse { instance }))
}

async fn resumed(app: App, caller: Arc<Caller>, id: String) -> Result<Created<StartSandboxInstanceResponse>> {
    let id: InstanceId = id.parse().map_err(|_| lost())?;
    let instance = app::instances::get(&app, &caller, &id).await?;
    started(&app, instance).await
}

pub(super) async fn update(
    State(app): State<App>,
    call: Call<UpdateSandboxInstanceRequest>,
) -> Result<Json<UpdateSandboxInstanceResponse>> {
    call.require(&[Scope::InstancesWrite])?;
    let id = named(&call.caller, &call.request.instance_id)?;
    let change = Change {
        life: convert::seconds("timeout", call.request.timeout.as_deref())?.map(Life::Timeout),
        metadata: convert::metadata(call.request.metadata),
        idle: None,
    };
    lasting(app, move |app| async move { app::instances::update(&app, &call.caller, &id, &change).await }).await?;
    Ok(Json(UpdateSandboxInstanceResponse {}))
}

pub(super) async fn stop(
    State(app): State<App>,
    call: Call<StopSandboxInstanceRequest>,
) -> Result<Json<StopSandboxInstanceResponse>> {
    call.require(&[Scope::InstancesWrite])?;
    let id = named(&call.caller, &call.request.instance_id)?;
    if app::instances::get(&app, &call.caller, &id).await?.status.is_final() {
        // To the cloud what has ended is gone.
        return Err(Error::not_found("instance"));
    }
    lasting(app, move |app| async move { app::instances::stop(&app, &call.caller, &id).await }).await?;
    Ok(Json(StopSandboxInstanceResponse {}))
}

pub(super) async fn pause(
    State(app): State<App>,
    call: Call<PauseSandboxInstanceRequest>,
) -> Result<Json<PauseSandboxInstanceResponse>> {
    call.require(&[Scope::InstancesWrite])?;
    let id = named(&call.caller, &call.request.instance_id)?;
    let patience = app.config.instances.wait;
    let memory = call.request.memory;
    let paused =
        lasting(app, move |app| async move { app::instances::pause(&app, &call.caller, &id, memory, patience).await })
            .await?;
    Ok(Json(PauseSandboxInstanceResponse { instance_status: paused.status.as_str().into() }))
}

pub(super) async fn resume(
    State(app): State<App>,
    call: Call<ResumeSandboxInstanceRequest>,
) -> Result<Json<ResumeSandboxInstanceResponse>> {
    call.require(&[Scope::InstancesWrite])?;
    let id = named(&call.caller, &call.request.instance_id)?;
    let timeout = convert::seconds("timeout", call.request.timeout.as_deref())?;
    let patience = app.config.instances.wait;
    lasting(app, move |app| async move { app::instances::resume(&app, &call.caller, &id, timeout, patience).await })
        .await?;
    Ok(Json(ResumeSandboxInstanceResponse {}))
}

pub(super) async fn list(
    State(app): State<App>,
    call: Call<DescribeSandboxInstanceListRequest>,
) -> Result<Json<DescribeSandboxInstanceListResponse>> {
    call.require(&[Scope::InstancesRead])?;
    let request = call.request;
    let span = Span::of(request.offset, request.limit)?;
    let [statuses, names, mut tools] = filters(request.filters, ["Status", "ToolName", "ToolId"])?;
    tools.extend(names);
    tools.extend(request.tool_id);
    let ids = at_most_a_page("instance_ids", request.instance_ids)?;
    let filter = InstanceFilter { ids, statuses, tools, ..InstanceFilter::default() };
    let (instances, total) =
        app::instances::slice(&app, &call.caller, filter, span.offset.into(), span.limit.into()).await?;
    let mut details = app::instances::details(&app, &instances).await?;
    let described = instances.into_iter().map(|instance| {
        let details = details.remove(&instance.id);
        convert::instance(instance, details)
    });
    let instance_set = described.collect();
    Ok(Json(DescribeSandboxInstanceListResponse { instance_set, total_count: total }))
}
