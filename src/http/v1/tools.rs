//! Tools.

use std::{collections::BTreeMap, sync::Arc, time::Duration};

use axum::{extract::State, response::Response};
use chrono::{DateTime, Utc};
use http::StatusCode;
use serde::{Deserialize, Serialize};
use utoipa::{IntoParams, ToSchema};
use utoipa_axum::{router::OpenApiRouter, routes};

use crate::{
    app::{self, App, wait},
    auth::Caller,
    domain::{
        duration::Seconds,
        page::PageRequest,
        scope::scope,
        spec::{Container, Dns, Env, LogFiles, Network, Port, Probe, Resources, StorageMount},
        tool::{Tool, ToolStatus},
    },
    error::Result,
    http::{
        extract::{Authorized, FromQuery, Json, Path, Query, QueryReader},
        idempotency::{Created, Creation, Keyed, lost, once},
        openapi::Failures,
        page::{List, PageQuery},
    },
    ids::{KeyId, TeamId, ToolId},
    storage::tools::ToolFilter,
    telemetry::request::carried,
};

/// A tool: a template of instances.
#[derive(Debug, Serialize, ToSchema)]
#[schema(as = Tool)]
pub struct ToolDto {
    pub id: ToolId,
    /// The cloud's id of it.
    pub upstream_id: Option<String>,
    pub name: String,
    #[serde(rename = "type")]
    pub kind: String,
    pub status: ToolStatus,
    /// Why the creation failed.
    pub status_reason: Option<String>,
    /// One that the cloud has for everybody: every team may start it, none may change it.
    pub shared: bool,
    /// Whose it is: your team's, or that of the team that lends it to yours. Null for a shared one.
    pub team_id: Option<TeamId>,
    pub upstream: String,
    pub description: Option<String>,
    pub default_timeout_seconds: Option<u32>,
    pub network: Network,
    pub image: Option<String>,
    pub image_registry_type: Option<String>,
    pub command: Option<Vec<String>>,
    pub args: Option<Vec<String>>,
    pub env: Env,
    pub ports: Option<Vec<Port>>,
    pub resources: Option<Resources>,
    pub probe: Option<Probe>,
    pub dns: Option<Dns>,
    pub tags: BTreeMap<String, String>,
    pub role_arn: Option<String>,
    pub storage_mounts: Vec<StorageMount>,
    pub mount_envd: bool,
    pub log: Option<LogFiles>,
    pub persistent: Option<bool>,
    /// The key that created it; null for a shared one.
    pub created_by: Option<KeyId>,
    pub created_at: DateTime<Utc>,
    pub updated_at: DateTime<Utc>,
}

impl Creation for ToolDto {}

impl From<Tool> for ToolDto {
    fn from(tool: Tool) -> Self {
        let shared = tool.is_shared();
        let (spec, container) = (tool.spec.clone(), tool.spec.container);
        Self {
            id: tool.id,
            upstream_id: tool.upstream_id,
            name: tool.name,
            kind: tool.kind,
            status: tool.status,
            status_reason: tool.status_reason,
            shared,
            team_id: tool.team_id,
            upstream: tool.upstream,
            description: spec.description,
            default_timeout_seconds: spec.default_timeout_seconds,
            network: spec.network,
            image: container.image,
            image_registry_type: container.image_registry_type,
            command: container.command,
            args: container.args,
            env: container.env,
            ports: container.ports,
            resources: container.resources,
            probe: container.probe,
            dns: container.dns,
            tags: spec.tags,
            role_arn: spec.role_arn,
            storage_mounts: spec.storage_mounts,
            mount_envd: spec.mount_envd,
            log: spec.log,
            persistent: spec.persistent,
            created_by: tool.created_by,
            created_at: tool.created_at,
            updated_at: tool.updated_at,
        }
    }
}

/// A tool to be made. What is left out comes from the configuration, for type `custom`; the cloud decides for the others.
#[derive(Debug, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
#[schema(example = json!({"name": "my-tool", "type": "custom", "default_timeout": "10m"}))]
pub struct CreateTool {
    /// Unique in the team.
    #[schema(
        min_length = 1,
        max_length = 50,
        pattern = "^[^\\s\\x00-\\x1f\\x7f-\\x9f]([^\\x00-\\x1f\\x7f-\\x9f]*[^\\s\\x00-\\x1f\\x7f-\\x9f])?$",
        example = "my-tool"
    )]
    pub name: String,
    /// `custom`, `code-interpreter`, `browser`, `mobile`, …
    #[serde(rename = "type")]
    #[schema(example = "custom", pattern = "^[a-z0-9-]{1,50}$")]
    pub kind: String,
    #[schema(max_length = 200)]
    pub description: Option<String>,
    /// Life of its instances when they do not say.
    #[schema(required = false)]
    pub default_timeout: Option<Seconds>,
    pub network: Option<Network>,
    #[schema(example = "python:3.11", min_length = 1, max_length = 512, pattern = "^[^\\s\\x00-\\x1f\\x7f-\\x9f]+$")]
    pub image: Option<String>,
    /// `enterprise`, `personal` or `custom`.
    #[schema(pattern = "^(enterprise|personal|custom|system)$")]
    pub image_registry_type: Option<String>,
    pub command: Option<Vec<String>>,
    pub args: Option<Vec<String>>,
    #[serde(default)]
    pub env: Env,
    pub ports: Option<Vec<Port>>,
    pub resources: Option<Resources>,
    pub probe: Option<Probe>,
    pub dns: Option<Dns>,
    #[serde(default)]
    pub tags: BTreeMap<String, String>,
    /// A CAM role that the team was granted.
    pub role_arn: Option<String>,
    #[serde(default)]
    pub storage_mounts: Vec<StorageMount>,
    /// Mounts the configured volume with envd, for images without it.
    pub mount_envd: Option<bool>,
    pub log: Option<LogFiles>,
    pub persistent: Option<bool>,
    /// Where it is made; default by configuration.
    pub upstream: Option<String>,
}

impl From<CreateTool> for app::tools::Wanted {
    fn from(body: CreateTool) -> Self {
        Self {
            name: body.name,
            kind: body.kind,
            upstream: body.upstream,
            description: body.description,
            default_timeout: body.default_timeout,
            network: body.network,
            container: Container {
                image: body.image,
                image_registry_type: body.image_registry_type,
                command: body.command,
                args: body.args,
                env: body.env,
                ports: body.ports,
                resources: body.resources,
                probe: body.probe,
                dns: body.dns,
            },
            tags: body.tags,
            role_arn: body.role_arn,
            storage_mounts: body.storage_mounts,
            mount_envd: body.mount_envd,
            log: body.log,
            persistent: body.persistent,
        }
    }
}

/// What is left out stays as it is. Lists and maps are replaced as a whole; of `resources` and `probe` only what is given.
#[derive(Debug, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
#[schema(example = json!({"description": "what it is for"}))]
pub struct UpdateTool {
    #[schema(
        min_length = 1,
        max_length = 50,
        pattern = "^[^\\s\\x00-\\x1f\\x7f-\\x9f]([^\\x00-\\x1f\\x7f-\\x9f]*[^\\s\\x00-\\x1f\\x7f-\\x9f])?$"
    )]
    pub name: Option<String>,
    #[schema(max_length = 200)]
    pub description: Option<String>,
    #[schema(required = false)]
    pub default_timeout: Option<Seconds>,
    pub network: Option<Network>,
    pub tags: Option<BTreeMap<String, String>>,
    #[schema(min_length = 1, max_length = 512, pattern = "^[^\\s\\x00-\\x1f\\x7f-\\x9f]+$")]
    pub image: Option<String>,
    #[schema(pattern = "^(enterprise|personal|custom|system)$")]
    pub image_registry_type: Option<String>,
    pub command: Option<Vec<String>>,
    pub args: Option<Vec<String>>,
    pub env: Option<Env>,
    pub ports: Option<Vec<Port>>,
    pub resources: Option<Resources>,
    pub probe: Option<Probe>,
    pub dns: Option<Dns>,
}

impl From<UpdateTool> for app::tools::Change {
    fn from(body: UpdateTool) -> Self {
        Self {
            name: body.name,
            description: body.description,
            default_timeout: body.default_timeout,
            network: body.network,
            tags: body.tags,
            replace_env: body.env.is_some(),
            container: Container {
                image: body.image,
                image_registry_type: body.image_registry_type,
                command: body.command,
                args: body.args,
                env: body.env.unwrap_or_default(),
                ports: body.ports,
                resources: body.resources,
                probe: body.probe,
                dns: body.dns,
            },
        }
    }
}

/// A tool of the cloud's console to be adopted.
#[derive(Debug, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
#[schema(example = json!({"upstream_id": "sdt-a1b2c3d4"}))]
pub struct ImportTool {
    /// The cloud's id of it.
    pub upstream_id: String,
    /// Unique in the team. Default: as in the cloud.
    #[schema(
        min_length = 1,
        max_length = 50,
        pattern = "^[^\\s\\x00-\\x1f\\x7f-\\x9f]([^\\x00-\\x1f\\x7f-\\x9f]*[^\\s\\x00-\\x1f\\x7f-\\x9f])?$"
    )]
    pub name: Option<String>,
    /// Where it is; default by configuration.
    pub upstream: Option<String>,
}

/// Whom to lend a tool to.
#[derive(Debug, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct ShareTool {
    /// All of them: who is not named any more may not start instances of it any more. Those that run go on.
    #[schema(max_items = 100)]
    pub team_ids: Vec<TeamId>,
}

/// A tool, and the teams that it is lent to.
#[derive(Debug, Serialize, ToSchema)]
pub struct LentTool {
    #[serde(flatten)]
    pub tool: ToolDto,
    pub shared_with: Vec<TeamId>,
}

/// How long to wait.
#[derive(Debug, IntoParams)]
#[into_params(parameter_in = Query)]
pub struct CreateToolQuery {
    /// How long to wait for the tool to be ACTIVE; by default not at all.
    #[param(value_type = Option<String>, example = "30s")]
    wait: Option<Seconds>,
}

impl FromQuery for CreateToolQuery {
    fn from_query(query: &mut QueryReader) -> Self {
        Self { wait: query.duration("wait") }
    }
}

/// Which tools. Filters take several values, separated by commas or repeated.
#[derive(Debug, IntoParams)]
#[into_params(parameter_in = Query)]
pub struct ToolsQuery {
    #[param(value_type = Option<String>)]
    id: Vec<String>,
    #[param(value_type = Option<String>)]
    name: Vec<String>,
    #[param(value_type = Option<String>, example = "ACTIVE,CREATING")]
    status: Vec<String>,
    #[param(rename = "type", value_type = Option<String>)]
    kind: Vec<String>,
    /// By tag: `tag.<key>=<value>`; repeated for several values.
    #[param(value_type = Option<BTreeMap<String, String>>, style = Form, explode, example = json!({"tag.env": "prod"}))]
    tag: BTreeMap<String, Vec<String>>,
    #[param(ignore)]
    page: PageQuery,
}

impl FromQuery for ToolsQuery {
    fn from_query(query: &mut QueryReader) -> Self {
        Self {
            id: query.list("id"),
            name: query.list("name"),
            status: query.list("status"),
            kind: query.list("type"),
            tag: query.choices("tag"),
            page: PageQuery::from_query(query),
        }
    }
}

impl ToolsQuery {
    fn into_parts(self) -> (ToolFilter, PageRequest) {
        let Self { id: ids, name: names, status: statuses, kind: kinds, tag: tags, page } = self;
        (ToolFilter { ids, names, statuses, kinds, tags }, page.into())
    }
}

pub fn routes() -> OpenApiRouter<App> {
    OpenApiRouter::new()
        .routes(routes!(create_tool, list_tools))
        .routes(routes!(get_tool, update_tool, delete_tool))
        .routes(routes!(share_tool))
        .routes(routes!(import_tool))
}

fn created(tool: Tool) -> Created<ToolDto> {
    let status = if tool.status == ToolStatus::Creating { StatusCode::ACCEPTED } else { StatusCode::CREATED };
    (status, tool.into())
}

/// Creates a tool. After an error nothing of it is left.
#[utoipa::path(post, path = "/v1/tools", operation_id = "create_tool", tag = "tools", request_body = CreateTool,
    params(CreateToolQuery, ("Idempotency-Key" = Option<String>, Header, description = "Makes a repetition safe for 24 h.")),
    responses((status = 201, body = ToolDto), (status = 202, body = ToolDto, description = "It is CREATING still."), Failures))]
async fn create_tool(
    State(app): State<App>,
    caller: Authorized<scope::ToolsWrite>,
    Query(query): Query<CreateToolQuery>,
    Keyed { body, key }: Keyed<CreateTool>,
) -> Result<Response> {
    caller.require_unbound()?;
    let patience = wait::patience(query.wait, Duration::ZERO, app.config.tools.max_wait)?;
    let wanted = body.into();
    let first = move |app: App, caller: Arc<Caller>, intent| async move {
        app::tools::create(&app, &caller, &wanted, patience, intent).await.map(created)
    };
    once(&app, caller.into_caller(), key, first, resumed).await
}

async fn resumed(app: App, caller: Arc<Caller>, id: String) -> Result<Created<ToolDto>> {
    let id: ToolId = id.parse().map_err(|_| lost())?;
    let tool = app::tools::get(&app, &caller, &id).await.map_err(|_| lost())?;
    Ok(created(tool))
}

/// The team's tools and the shared ones, newest first.
#[utoipa::path(get, path = "/v1/tools", operation_id = "list_tools", tag = "tools", params(ToolsQuery, PageQuery),
    responses((status = 200, body = List<ToolDto>), Failures))]
async fn list_tools(
    State(app): State<App>,
    caller: Authorized<scope::ToolsRead>,
    Query(query): Query<ToolsQuery>,
) -> Result<List<ToolDto>> {
    let (filter, page) = query.into_parts();
    Ok(List::of(app::tools::list(&app, &caller, &filter, &page).await?, ToolDto::from))
}

/// One tool.
#[utoipa::path(get, path = "/v1/tools/{id}", operation_id = "get_tool", tag = "tools", params(("id" = ToolId, Path)),
    responses((status = 200, body = ToolDto), Failures))]
async fn get_tool(
    State(app): State<App>,
    caller: Authorized<scope::ToolsRead>,
    Path(id): Path<ToolId>,
) -> Result<Json<ToolDto>> {
    Ok(Json(app::tools::get(&app, &caller, &id).await?.into()))
}

/// Changes a tool; instances that are started from now on have it.
#[utoipa::path(patch, path = "/v1/tools/{id}", operation_id = "update_tool", tag = "tools", params(("id" = ToolId, Path)),
    request_body = UpdateTool, responses((status = 200, body = ToolDto), Failures))]
async fn update_tool(
    State(app): State<App>,
    caller: Authorized<scope::ToolsWrite>,
    Path(id): Path<ToolId>,
    Json(body): Json<UpdateTool>,
) -> Result<Json<ToolDto>> {
    let (task_app, caller, change) = (app.clone(), caller.into_caller(), body.into());
    let work = async move { app::tools::update(&task_app, &caller, &id, &change).await };
    Ok(Json(wait::detached(&app, "update", carried(work)).await?.into()))
}

/// Deletes a tool that has no live instance.
#[utoipa::path(delete, path = "/v1/tools/{id}", operation_id = "delete_tool", tag = "tools", params(("id" = ToolId, Path)),
    responses((status = 204), Failures))]
async fn delete_tool(
    State(app): State<App>,
    caller: Authorized<scope::ToolsWrite>,
    Path(id): Path<ToolId>,
) -> Result<StatusCode> {
    let (task_app, caller) = (app.clone(), caller.into_caller());
    let work = async move { app::tools::delete(&task_app, &caller, &id).await };
    wait::detached(&app, "delete", carried(work)).await?;
    Ok(StatusCode::NO_CONTENT)
}

/// Lends a tool of your team to other teams: they may start instances of it, as far as they were granted what it has (its
/// role, network, mounts and upstream), and may not change it.
#[utoipa::path(post, path = "/v1/tools/{id}/share", operation_id = "share_tool", tag = "tools", params(("id" = ToolId, Path)),
    request_body = ShareTool, responses((status = 200, body = LentTool), Failures))]
async fn share_tool(
    State(app): State<App>,
    caller: Authorized<scope::ToolsWrite>,
    Path(id): Path<ToolId>,
    Json(body): Json<ShareTool>,
) -> Result<Json<LentTool>> {
    let tool = app::tools::share(&app, &caller, &id, &body.team_ids).await?;
    let shared_with = app::tools::shared_with(&app, &caller, &tool).await?;
    Ok(Json(LentTool { tool: tool.into(), shared_with }))
}

/// Adopts a tool that was made in the cloud's console, for teams that were granted it and what the tool has. In the cloud
/// it only gets the gateway's tags; from now on it is changed and deleted here.
#[utoipa::path(post, path = "/v1/tools/import", operation_id = "import_tool", tag = "tools", request_body = ImportTool,
    params(("Idempotency-Key" = Option<String>, Header, description = "Makes a repetition safe for 24 h.")),
    responses((status = 201, body = ToolDto), Failures))]
async fn import_tool(
    State(app): State<App>,
    caller: Authorized<scope::ToolsWrite>,
    Keyed { body, key }: Keyed<ImportTool>,
) -> Result<Response> {
    caller.require_unbound()?;
    let wanted = app::tools::Import { upstream_id: body.upstream_id, name: body.name, upstream: body.upstream };
    let first = move |app: App, caller: Arc<Caller>, intent| async move {
        app::tools::import(&app, &caller, &wanted, intent).await.map(created)
    };
    once(&app, caller.into_caller(), key, first, resumed).await
}
