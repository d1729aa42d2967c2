//! Instances.

use std::{collections::BTreeMap, sync::Arc};

use axum::{
    extract::State,
    response::{IntoResponse, Response},
};
use chrono::{DateTime, Utc};
use http::StatusCode;
use secrecy::ExposeSecret;
use serde::{Deserialize, Deserializer, Serialize};
use utoipa::{IntoParams, ToSchema};
use utoipa_axum::{router::OpenApiRouter, routes};

use super::queue::QueueQuery;
use crate::{
    app::{
        self, App,
        instances::{Life, Order, Tokens},
        wait,
    },
    auth::Caller,
    domain::{
        duration::Seconds,
        instance::{Idle, IdleAction, Instance, InstanceSpec, InstanceStatus, MountOverride, StopReason},
        page::PageRequest,
        port::Port,
        scope::scope,
        spec::{self, Container, Env, Probe, Resources},
    },
    error::{Error, Result},
    http::{
        address::OwnAddress,
        extract::{Authorized, FromQuery, Json, Path, Query, QueryReader},
        idempotency::{Created, Creation, Keyed, lost, once},
        openapi::Failures,
        page::{List, PageQuery},
    },
    ids::{InstanceId, KeyId, ToolId},
    storage::instances::InstanceFilter,
    telemetry::request::carried,
};

/// An instance: a running sandbox, or one that ran.
#[derive(Debug, Serialize, ToSchema)]
#[schema(as = Instance)]
pub struct InstanceDto {
    pub id: InstanceId,
    /// The cloud's id of it.
    pub upstream_id: Option<String>,
    pub tool_id: ToolId,
    pub tool_name: String,
    pub tool_type: String,
    pub status: InstanceStatus,
    /// Why it failed, and what to do about it.
    pub status_reason: Option<String>,
    pub metadata: BTreeMap<String, String>,
    pub created_at: DateTime<Utc>,
    pub updated_at: DateTime<Utc>,
    /// When it was RUNNING first.
    pub started_at: Option<DateTime<Utc>>,
    /// When it is stopped at the latest. Its timeout counts from `started_at`, or from the last change of it.
    pub expires_at: DateTime<Utc>,
    pub stopped_at: Option<DateTime<Utc>>,
    /// Set as soon as stopping begins.
    pub stop_reason: Option<StopReason>,
    pub timeout_seconds: u32,
    pub idle: Option<Idle>,
    pub last_active_at: Option<DateTime<Utc>>,
    pub auth_mode: String,
    pub upstream: String,
    pub created_by: KeyId,
}

impl Creation for InstanceDto {}

impl From<Instance> for InstanceDto {
    fn from(instance: Instance) -> Self {
        Self {
            id: instance.id,
            upstream_id: instance.upstream_id,
            tool_id: instance.tool_id,
            tool_name: instance.tool_name,
            tool_type: instance.tool_type,
            status: instance.status,
            status_reason: instance.status_reason,
            metadata: instance.metadata,
            created_at: instance.created_at,
            updated_at: instance.updated_at,
            started_at: instance.started_at,
            expires_at: instance.expires_at,
            stopped_at: instance.stopped_at,
            stop_reason: instance.stop_reason,
            timeout_seconds: instance.timeout_seconds,
            idle: instance.idle,
            last_active_at: instance.last_active_at,
            auth_mode: instance.auth_mode,
            upstream: instance.upstream,
            created_by: instance.created_by,
        }
    }
}

/// What happens to an instance that nobody uses.
#[derive(Clone, Copy, Debug, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct IdleBody {
    pub after: Seconds,
    /// `pause` stops what cannot be paused: its tool is not persistent, or the cloud refuses.
    pub action: IdleAction,
    /// With `pause`: what is paused, and is not used for so much longer, is stopped. By default it is kept until it expires.
    #[schema(required = false)]
    pub stop_after: Option<Seconds>,
}

impl From<IdleBody> for Idle {
    fn from(body: IdleBody) -> Self {
        Self {
            after_seconds: body.after.0,
            action: body.action,
            stop_after_seconds: body.stop_after.map(|after| after.0),
        }
    }
}

/// An instance to be started. What is left out comes from its tool.
#[derive(Debug, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
#[schema(example = json!({"tool": "code-interpreter-v1", "timeout": "5m", "metadata": {"purpose": "trying it out"}}))]
pub struct CreateInstance {
    /// Id or name of a tool; may be left out where a default is configured.
    #[schema(example = "code-interpreter-v1")]
    pub tool: Option<String>,
    /// How long it lives, 30 s to 24 h; by default as its tool says.
    #[schema(required = false)]
    pub timeout: Option<Seconds>,
    #[serde(default)]
    pub metadata: BTreeMap<String, String>,
    /// Added to every command and code run in it.
    #[serde(default)]
    pub env: Env,
    #[schema(min_length = 1, max_length = 512, pattern = "^[^\\s\\x00-\\x1f\\x7f-\\x9f]+$")]
    pub image: Option<String>,
    #[schema(pattern = "^(enterprise|personal|custom|system)$")]
    pub image_registry_type: Option<String>,
    pub command: Option<Vec<String>>,
    pub args: Option<Vec<String>>,
    pub resources: Option<Resources>,
    pub ports: Option<Vec<spec::Port>>,
    pub probe: Option<Probe>,
    /// Other ways to use storage mounts of its tool.
    #[serde(default)]
    pub mounts: Vec<MountOverride>,
    /// Which ports ask for a token: `DEFAULT` and `TOKEN` all, `PUBLIC` only envd's, `NONE` none (if granted).
    #[schema(pattern = "^(DEFAULT|TOKEN|PUBLIC|NONE)$")]
    pub auth_mode: Option<String>,
    pub idle: Option<IdleBody>,
}

impl From<CreateInstance> for app::instances::Wanted {
    fn from(body: CreateInstance) -> Self {
        let container = Container {
            image: body.image,
            image_registry_type: body.image_registry_type,
            command: body.command,
            args: body.args,
            resources: body.resources,
            ports: body.ports,
            probe: body.probe,
            ..Container::default()
        };
        Self {
            tool: body.tool,
            timeout: body.timeout,
            metadata: body.metadata,
            env: body.env,
            spec: InstanceSpec { container, mounts: body.mounts },
            auth_mode: body.auth_mode,
            idle: body.idle.map(Idle::from),
        }
    }
}

/// What is left out stays as it is.
#[derive(Debug, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
#[schema(example = json!({"timeout": "10m"}))]
pub struct UpdateInstance {
    /// How long it lives from now on. Not with `expires_at`.
    #[schema(required = false)]
    pub timeout: Option<Seconds>,
    /// Until when it lives. Not with `timeout`.
    pub expires_at: Option<DateTime<Utc>>,
    /// Replaces the whole.
    pub metadata: Option<BTreeMap<String, String>>,
    /// Null takes it away.
    #[serde(default, deserialize_with = "present")]
    #[schema(value_type = Option<IdleBody>)]
    pub idle: Option<Option<IdleBody>>,
}

/// Tells null from absence.
fn present<'de, D: Deserializer<'de>, T: Deserialize<'de>>(deserializer: D) -> Result<Option<Option<T>>, D::Error> {
    Option::<T>::deserialize(deserializer).map(Some)
}

impl UpdateInstance {
    fn into_change(self) -> Result<app::instances::Change> {
        let life = match (self.timeout, self.expires_at) {
            (Some(_), Some(_)) => return Err(Error::field("expires_at", "may not be given together with `timeout`")),
            (Some(timeout), None) => Some(Life::Timeout(timeout)),
            (None, Some(end)) => Some(Life::Until(end)),
            (None, None) => None,
        };
        let idle = self.idle.map(|idle| idle.map(Idle::from));
        Ok(app::instances::Change { life, metadata: self.metadata, idle })
    }
}

/// How to pause.
#[derive(Debug, Default, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct PauseInstance {
    /// True keeps processes and memory, false the disk only. Default: as the cloud does.
    pub memory: Option<bool>,
}

/// How to resume.
#[derive(Debug, Default, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
#[schema(example = json!({"timeout": "5m"}))]
pub struct ResumeInstance {
    /// How long it lives from now on; left out, as long as it had left.
    #[schema(required = false)]
    pub timeout: Option<Seconds>,
}

/// Where a port is reached through the gateway.
#[derive(Debug, Serialize, ToSchema)]
pub struct PortAddress {
    pub port: u16,
    /// For programs that send a key.
    pub url: String,
    /// On a host of its own, for programs and browsers; null without a `sandbox_domain`.
    pub host_url: Option<String>,
}

/// The cloud's own access to an instance, for clients that speak to it directly.
#[derive(Serialize, ToSchema)]
pub struct InstanceToken {
    /// For `X-Access-Token`.
    pub token: String,
    /// For ports other than envd's.
    pub traffic_token: Option<String>,
    pub expires_at: Option<DateTime<Utc>>,
    /// Ports are at `{scheme}://{port}-{upstream_id}.{domain}`.
    pub upstream_id: Option<String>,
    pub domain: String,
    pub scheme: String,
}

impl From<Tokens> for InstanceToken {
    fn from(tokens: Tokens) -> Self {
        Self {
            token: tokens.token.access.expose_secret().to_owned(),
            traffic_token: tokens.token.traffic.as_ref().map(|token| token.expose_secret().to_owned()),
            expires_at: tokens.token.expires_at,
            upstream_id: tokens.instance.upstream_id,
            domain: tokens.domain,
            scheme: tokens.scheme,
        }
    }
}

/// How long to wait.
#[derive(Debug, IntoParams)]
#[into_params(parameter_in = Query)]
pub struct WaitQuery {
    /// How long to wait until it has settled. Default 30 s.
    #[param(value_type = Option<String>, example = "30s")]
    wait: Option<Seconds>,
}

impl FromQuery for WaitQuery {
    fn from_query(query: &mut QueryReader) -> Self {
        Self { wait: query.duration("wait") }
    }
}

impl WaitQuery {
    fn patience(&self, app: &App) -> Result<std::time::Duration> {
        wait::patience(self.wait, app.config.instances.wait, app.config.instances.max_wait)
    }
}

/// How long to wait: in line, and for the start.
#[derive(Debug, IntoParams)]
#[into_params(parameter_in = Query)]
pub struct CreateQuery {
    /// How long to wait until it has settled. Default 30 s.
    #[param(value_type = Option<String>, example = "30s")]
    wait: WaitQuery,
    /// How long to wait in line where the team's quota or the cloud account's is used up. Each team's line is first come, first
    /// served, and teams take turns by how much of their quotas they use. Default 0: 429 with the number in line. Whoever hangs
    /// up gives up its place, unless the request has an `Idempotency-Key`.
    #[param(value_type = Option<String>, example = "5m")]
    queue: QueueQuery,
}

impl FromQuery for CreateQuery {
    fn from_query(query: &mut QueryReader) -> Self {
        Self { wait: WaitQuery::from_query(query), queue: QueueQuery::from_query(query) }
    }
}

/// Which port.
#[derive(Debug, IntoParams)]
#[into_params(parameter_in = Query)]
pub struct PortQuery {
    /// Default by configuration: 8000.
    #[param(value_type = Option<u16>, minimum = 1, maximum = 65535)]
    port: Option<Port>,
}

impl FromQuery for PortQuery {
    fn from_query(query: &mut QueryReader) -> Self {
        Self { port: query.parsed("port") }
    }
}

/// Which instances. Filters take several values, separated by commas or repeated.
#[derive(Debug, IntoParams)]
#[into_params(parameter_in = Query)]
pub struct InstancesQuery {
    #[param(value_type = Option<String>)]
    id: Vec<String>,
    #[param(value_type = Option<String>, example = "RUNNING,PAUSED")]
    status: Vec<String>,
    /// Ids or names of tools.
    #[param(value_type = Option<String>)]
    tool: Vec<String>,
    /// By metadata: `metadata.<key>=<value>`; repeated for several values.
    #[param(value_type = Option<BTreeMap<String, String>>, style = Form, explode, example = json!({"metadata.user": "42"}))]
    metadata: BTreeMap<String, Vec<String>>,
    created_after: Option<DateTime<Utc>>,
    #[param(ignore)]
    page: PageQuery,
}

impl FromQuery for InstancesQuery {
    fn from_query(query: &mut QueryReader) -> Self {
        Self {
            id: query.list("id"),
            status: query.list("status"),
            tool: query.list("tool"),
            metadata: query.choices("metadata"),
            created_after: query.parsed("created_after"),
            page: PageQuery::from_query(query),
        }
    }
}

impl InstancesQuery {
    fn into_parts(self) -> (InstanceFilter, PageRequest) {
        let Self { id: ids, status: statuses, tool: tools, metadata, created_after, page } = self;
        (InstanceFilter { ids, statuses, tools, metadata, created_after, started_from: None }, page.into())
    }
}

pub fn routes() -> OpenApiRouter<App> {
    OpenApiRouter::new()
        .routes(routes!(create_instance, list_instances))
        .routes(routes!(get_instance, update_instance, delete_instance))
        .routes(routes!(pause_instance))
        .routes(routes!(resume_instance))
        .routes(routes!(get_instance_url))
        .routes(routes!(create_instance_token))
}

fn created(instance: Instance) -> Created<InstanceDto> {
    let status = if instance.status == InstanceStatus::Starting { StatusCode::ACCEPTED } else { StatusCode::CREATED };
    (status, instance.into())
}

/// 200 in the wanted state, 202 on the way there.
fn settled(instance: Instance, wanted: &InstanceStatus) -> Response {
    let status = if instance.status == *wanted { StatusCode::OK } else { StatusCode::ACCEPTED };
    (status, Json(InstanceDto::from(instance))).into_response()
}

/// Starts an instance. It goes on when the client hangs up.
#[utoipa::path(post, path = "/v1/instances", operation_id = "create_instance", tag = "instances",
    request_body = CreateInstance,
    params(CreateQuery, ("Idempotency-Key" = Option<String>, Header, description = "Makes a repetition safe for 24 h.")),
    responses((status = 201, body = InstanceDto), (status = 202, body = InstanceDto, description = "It is STARTING still."),
        Failures))]
async fn create_instance(
    State(app): State<App>,
    caller: Authorized<scope::InstancesWrite>,
    Query(query): Query<CreateQuery>,
    Keyed { body, key }: Keyed<CreateInstance>,
) -> Result<Response> {
    caller.require_unbound()?;
    let patience = query.wait.patience(&app)?;
    // Who has a key may ask again.
    let (queueing, _place) = query.queue.queueing(&app, key.is_some())?;
    let wanted = body.into();
    let first = move |app: App, caller: Arc<Caller>, intent| async move {
        let instance = match queueing {
            None => app::instances::create(&app, &caller, &wanted, patience, intent).await?,
            Some(queueing) => {
                app::instances::create_in_line(&app, &caller, &wanted, patience, queueing, intent).await?
            }
        };
        Ok(created(instance))
    };
    once(&app, caller.into_caller(), key, first, resumed).await
}

async fn resumed(app: App, caller: Arc<Caller>, id: String) -> Result<Created<InstanceDto>> {
    let id: InstanceId = id.parse().map_err(|_| lost())?;
    app::instances::get(&app, &caller, &id).await.map(created)
}

/// The team's instances, newest first, ended ones included.
#[utoipa::path(get, path = "/v1/instances", operation_id = "list_instances", tag = "instances", params(InstancesQuery, PageQuery),
    responses((status = 200, body = List<InstanceDto>), Failures))]
async fn list_instances(
    State(app): State<App>,
    caller: Authorized<scope::InstancesRead>,
    Query(query): Query<InstancesQuery>,
) -> Result<List<InstanceDto>> {
    let (filter, page) = query.into_parts();
    Ok(List::of(app::instances::list(&app, &caller, filter, Order::NewestFirst, &page).await?, InstanceDto::from))
}

/// One instance, also after its end.
#[utoipa::path(get, path = "/v1/instances/{id}", operation_id = "get_instance", tag = "instances",
    params(("id" = InstanceId, Path)), responses((status = 200, body = InstanceDto), Failures))]
async fn get_instance(
    State(app): State<App>,
    caller: Authorized<scope::InstancesRead>,
    Path(id): Path<InstanceId>,
) -> Result<Json<InstanceDto>> {
    Ok(Json(app::instances::get(&app, &caller, &id).await?.into()))
}

/// Changes a live instance's timeout, metadata or idle rule.
#[utoipa::path(patch, path = "/v1/instances/{id}", operation_id = "update_instance", tag = "instances",
    params(("id" = InstanceId, Path)), request_body = UpdateInstance,
    responses((status = 200, body = InstanceDto), Failures))]
async fn update_instance(
    State(app): State<App>,
    caller: Authorized<scope::InstancesWrite>,
    Path(id): Path<InstanceId>,
    Json(body): Json<UpdateInstance>,
) -> Result<Json<InstanceDto>> {
    let (task_app, caller, change) = (app.clone(), caller.into_caller(), body.into_change()?);
    let work = async move { app::instances::update(&task_app, &caller, &id, &change).await };
    Ok(Json(wait::detached(&app, "update", carried(work)).await?.into()))
}

/// Stops an instance. 202 when the cloud has not done it yet: the gateway goes on until it has.
#[utoipa::path(delete, path = "/v1/instances/{id}", operation_id = "delete_instance", tag = "instances",
    params(("id" = InstanceId, Path)),
    responses((status = 204), (status = 202, body = InstanceDto, description = "It is STOPPING still."), Failures))]
async fn delete_instance(
    State(app): State<App>,
    caller: Authorized<scope::InstancesWrite>,
    Path(id): Path<InstanceId>,
) -> Result<Response> {
    let (task_app, caller) = (app.clone(), caller.into_caller());
    let work = async move { app::instances::stop(&task_app, &caller, &id).await };
    let instance = wait::detached(&app, "stop", carried(work)).await?;
    if instance.status.is_final() {
        return Ok(StatusCode::NO_CONTENT.into_response());
    }
    Ok((StatusCode::ACCEPTED, Json(InstanceDto::from(instance))).into_response())
}

/// Pauses a running instance. It keeps its `expires_at`.
#[utoipa::path(post, path = "/v1/instances/{id}/pause", operation_id = "pause_instance", tag = "instances",
    params(("id" = InstanceId, Path), WaitQuery), request_body = Option<PauseInstance>,
    responses((status = 200, body = InstanceDto), (status = 202, body = InstanceDto, description = "It is PAUSING still."),
        Failures))]
async fn pause_instance(
    State(app): State<App>,
    caller: Authorized<scope::InstancesWrite>,
    Path(id): Path<InstanceId>,
    Query(query): Query<WaitQuery>,
    body: Option<Json<PauseInstance>>,
) -> Result<Response> {
    let patience = query.patience(&app)?;
    let memory = body.and_then(|Json(body)| body.memory);
    let (task_app, caller) = (app.clone(), caller.into_caller());
    let work = async move { app::instances::pause(&task_app, &caller, &id, memory, patience).await };
    Ok(settled(wait::detached(&app, "pause", carried(work)).await?, &InstanceStatus::Paused))
}

/// Resumes a paused instance.
#[utoipa::path(post, path = "/v1/instances/{id}/resume", operation_id = "resume_instance", tag = "instances",
    params(("id" = InstanceId, Path), WaitQuery), request_body = Option<ResumeInstance>,
    responses((status = 200, body = InstanceDto), (status = 202, body = InstanceDto, description = "It is RESUMING still."),
        Failures))]
async fn resume_instance(
    State(app): State<App>,
    caller: Authorized<scope::InstancesWrite>,
    Path(id): Path<InstanceId>,
    Query(query): Query<WaitQuery>,
    body: Option<Json<ResumeInstance>>,
) -> Result<Response> {
    let patience = query.patience(&app)?;
    let timeout = body.and_then(|Json(body)| body.timeout);
    let (task_app, caller) = (app.clone(), caller.into_caller());
    let work = async move { app::instances::resume(&task_app, &caller, &id, timeout, patience).await };
    Ok(settled(wait::detached(&app, "resume", carried(work)).await?, &InstanceStatus::Running))
}

/// Where a port of an instance is reached through the gateway.
#[utoipa::path(get, path = "/v1/instances/{id}/url", operation_id = "get_instance_url", tag = "instances",
    params(("id" = InstanceId, Path), PortQuery), responses((status = 200, body = PortAddress), Failures))]
async fn get_instance_url(
    State(app): State<App>,
    caller: Authorized<scope::InstancesRead>,
    Path(id): Path<InstanceId>,
    Query(query): Query<PortQuery>,
    OwnAddress(base): OwnAddress,
) -> Result<Json<PortAddress>> {
    let port = query.port.map(Port::get);
    let address = app::instances::url(&app, &caller, &id, port, &base).await?;
    Ok(Json(PortAddress { port: address.port, url: address.url, host_url: address.host_url }))
}

/// The cloud's own token of a running instance.
#[utoipa::path(post, path = "/v1/instances/{id}/token", operation_id = "create_instance_token", tag = "instances",
    params(("id" = InstanceId, Path)), responses((status = 200, body = InstanceToken), Failures))]
async fn create_instance_token(
    State(app): State<App>,
    caller: Authorized<scope::Tokens>,
    Path(id): Path<InstanceId>,
) -> Result<Json<InstanceToken>> {
    Ok(Json(app::instances::token(&app, &caller, &id).await?.into()))
}
