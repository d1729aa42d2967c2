//! Tools (PROTOCOLS B.6).

use std::{sync::Arc, time::Duration};

use ags_client::types::{
    CreateSandboxToolRequest, CreateSandboxToolResponse, DeleteSandboxToolRequest, DeleteSandboxToolResponse,
    DescribeSandboxToolListRequest, DescribeSandboxToolListResponse, UpdateSandboxToolRequest,
    UpdateSandboxToolResponse,
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
        tools::{Change, Wanted},
    },
    auth::Caller,
    domain::{
        page::{MAX_LIMIT, PageRequest},
        scope::Scope,
        tool::Tool,
    },
    error::{Error, Result},
    http::idempotency::{Created, Creation, once},
    ids::ToolId,
    storage::tools::ToolFilter,
};

/// For a tool to be ACTIVE, which in the cloud it is at once unless it has a network of its own (PROTOCOLS B.2).
const PATIENCE: Duration = Duration::from_secs(5);

impl Creation for CreateSandboxToolResponse {}

fn named(caller: &Caller, id: &str) -> Result<ToolId> {
    let id: ToolId = id.parse().map_err(|_| Error::not_found("tool"))?;
    caller.trail.note_tool(&id);
    Ok(id)
}

pub(super) async fn create(State(app): State<App>, call: Call<CreateSandboxToolRequest>) -> Result<Response> {
    call.require(&[Scope::ToolsWrite])?;
    let key = call.key()?;
    let wanted = wanted(call.request)?;
    let first = move |app: App, caller: Arc<Caller>, intent| async move {
        let tool = app::tools::create(&app, &caller, &wanted, PATIENCE, intent).await?;
        Ok(created(tool.id.to_string()))
    };
    let again = |_: App, _: Arc<Caller>, id: String| async move { Ok(created(id)) };
    once(&app, call.caller, key, first, again).await
}

fn created(tool_id: String) -> Created<CreateSandboxToolResponse> {
    (StatusCode::OK, CreateSandboxToolResponse { tool_id })
}

fn wanted(request: CreateSandboxToolRequest) -> Result<Wanted> {
    Ok(Wanted {
        name: request.tool_name,
        kind: request.tool_type.to_string(),
        upstream: None,
        description: request.description,
        default_timeout: convert::seconds("default_timeout", request.default_timeout.as_deref())?,
        network: Some(convert::network(request.network_configuration)),
        container: convert::container(request.custom_configuration),
        tags: convert::tags(request.tags).unwrap_or_default(),
        role_arn: request.role_arn,
        storage_mounts: convert::storage_mounts(request.storage_mounts)?,
        mount_envd: None,
        log: convert::log(request.log_configuration.as_ref()),
        persistent: request.persistent,
    })
}

pub(super) async fn update(
    State(app): State<App>,
    call: Call<UpdateSandboxToolRequest>,
) -> Result<Json<UpdateSandboxToolResponse>> {
    call.require(&[Scope::ToolsWrite])?;
    let request = call.request;
    let id = named(&call.caller, &request.tool_id)?;
    let change = Change {
        description: request.description,
        network: request.network_configuration.map(convert::network),
        tags: convert::tags(request.tags),
        replace_env: request.custom_configuration.as_ref().is_some_and(|custom| custom.env.is_some()),
        container: convert::container(request.custom_configuration),
        ..Change::default()
    };
    lasting(app, move |app| async move { app::tools::update(&app, &call.caller, &id, &change).await }).await?;
    Ok(Json(UpdateSandboxToolResponse {}))
}

pub(super) async fn delete(
    State(app): State<App>,
    call: Call<DeleteSandboxToolRequest>,
) -> Result<Json<DeleteSandboxToolResponse>> {
    call.require(&[Scope::ToolsWrite])?;
    let id = named(&call.caller, &call.request.tool_id)?;
    // One that was deleted is not there.
    app::tools::get(&app, &call.caller, &id).await?;
    lasting(app, move |app| async move { app::tools::delete(&app, &call.caller, &id).await }).await?;
    Ok(Json(DeleteSandboxToolResponse {}))
}

pub(super) async fn list(
    State(app): State<App>,
    call: Call<DescribeSandboxToolListRequest>,
) -> Result<Json<DescribeSandboxToolListResponse>> {
    call.require(&[Scope::ToolsRead])?;
    let request = call.request;
    let span = Span::of(request.offset, request.limit)?;
    let [names, kinds, statuses] = filters(request.filters, ["ToolName", "ToolType", "Status"])?;
    let ids = at_most_a_page("tool_ids", request.tool_ids)?;
    let filter = ToolFilter { ids, names, statuses, kinds, ..ToolFilter::default() };
    let all = all(&app, &call.caller, &filter).await?;
    let total_count = i64::try_from(all.len()).unwrap_or(i64::MAX);
    let sandbox_tool_set = span.part(all).into_iter().map(convert::tool).collect();
    Ok(Json(DescribeSandboxToolListResponse { sandbox_tool_set, total_count }))
}

/// All of the team's tools that match: a team has few.
async fn all(app: &App, caller: &Caller, filter: &ToolFilter) -> Result<Vec<Tool>> {
    let mut all = Vec::new();
    let mut page = PageRequest { limit: MAX_LIMIT, before: None };
    loop {
        let found = app::tools::list(app, caller, filter, &page).await?;
        all.extend(found.items);
        page.before = found.next;
        if page.before.is_none() {
            return Ok(all);
        }
    }
}
