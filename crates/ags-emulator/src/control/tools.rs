//! Tool actions (PROTOCOLS B.6).

use std::sync::Arc;

use ags_client::types::{
    CreateSandboxToolRequest, CreateSandboxToolResponse, CustomConfiguration, CustomConfigurationDetail,
    DeleteSandboxToolRequest, DeleteSandboxToolResponse, DescribeSandboxToolListRequest,
    DescribeSandboxToolListResponse, NetworkConfiguration, NetworkMode, SandboxTool, ToolStatus, ToolType,
    UpdateSandboxToolRequest, UpdateSandboxToolResponse,
};
use chrono::{DateTime, SubsecRound as _, Utc};

use super::error::{ApiError, ApiResult};
use super::listing::{self, Page};
use super::store::State;
use super::{Cloud, millis, timeout, validate};
use crate::faults::Struck;
use crate::ids;

/// Seconds an instance lives when neither call nor tool says.
pub const DEFAULT_TIMEOUT_SECONDS: u64 = 300;

const BUILT_IN: [(&str, ToolType); 2] =
    [("code-interpreter-v1", ToolType::CodeInterpreter), ("base", ToolType::CodeInterpreter)];

/// Adds the tools that every account has.
pub fn add_built_in(state: &mut State, now: DateTime<Utc>) {
    for (name, tool_type) in BUILT_IN {
        if state.tool_named(name).is_none() {
            let tool = SandboxTool {
                tool_id: ids::tool(),
                tool_name: Some(name.into()),
                tool_type: Some(tool_type),
                status: Some(ToolStatus::Active),
                description: Some("Built in.".into()),
                default_timeout_seconds: Some(DEFAULT_TIMEOUT_SECONDS),
                network_configuration: Some(NetworkConfiguration {
                    network_mode: NetworkMode::Public,
                    vpc_config: None,
                }),
                create_time: Some(now.trunc_subsecs(0)),
                update_time: Some(now.trunc_subsecs(0)),
                ..Default::default()
            };
            state.tools.insert(tool.tool_id.clone(), tool);
        }
    }
}

/// Brings transitions that the last run did not finish to their end.
pub fn settle_interrupted(state: &mut State) {
    state.tools.retain(|_, tool| tool.status != Some(ToolStatus::Deleting));
    for tool in state.tools.values_mut() {
        if tool.status == Some(ToolStatus::Creating) {
            tool.status = Some(ToolStatus::Active);
        }
    }
}

/// The configuration as responses show it, `over` winning field by field.
pub fn merge_custom(
    base: Option<&CustomConfigurationDetail>,
    over: Option<&CustomConfiguration>,
) -> Option<CustomConfigurationDetail> {
    let Some(over) = over else { return base.cloned() };
    let base = base.cloned().unwrap_or_default();
    let image = over.image.clone().or(base.image);
    let over = over.clone();
    Some(CustomConfigurationDetail {
        image_digest: image.as_deref().map(ids::image_digest),
        image,
        image_registry_type: over.image_registry_type.or(base.image_registry_type),
        command: over.command.or(base.command),
        args: over.args.or(base.args),
        env: over.env.or(base.env),
        ports: over.ports.or(base.ports),
        resources: over.resources.or(base.resources),
        probe: over.probe.or(base.probe),
        dns_config: over.dns_config.or(base.dns_config),
    })
}

impl Cloud {
    pub fn create_tool(
        self: &Arc<Self>,
        request: CreateSandboxToolRequest,
        struck: &Struck,
    ) -> ApiResult<CreateSandboxToolResponse> {
        let default_timeout_seconds = check_create(&request)?;
        let now = self.clock.now().trunc_subsecs(0);
        let tool = SandboxTool {
            tool_id: ids::tool(),
            tool_name: Some(request.tool_name),
            tool_type: Some(request.tool_type),
            status: Some(ToolStatus::Creating),
            description: request.description,
            persistent: request.persistent,
            default_timeout_seconds: Some(default_timeout_seconds),
            network_configuration: Some(request.network_configuration),
            tags: request.tags,
            create_time: Some(now),
            update_time: Some(now),
            role_arn: request.role_arn,
            storage_mounts: request.storage_mounts,
            custom_configuration: merge_custom(None, request.custom_configuration.as_ref()),
            log_configuration: request.log_configuration,
            status_reason: None,
        };
        let tool_id = tool.tool_id.clone();
        self.with_state(|state| {
            let name = tool.tool_name.as_deref().unwrap_or_default();
            if state.tool_named(name).is_some() {
                let message = format!("A sandbox tool named `{name}` exists already.");
                return Err(ApiError::value("SandboxTool", message));
            }
            state.tools.insert(tool_id.clone(), tool);
            self.saved(state)
        })?;
        self.finish_creation(tool_id.clone(), struck.fails_tool());
        Ok(CreateSandboxToolResponse { tool_id })
    }

    fn finish_creation(self: &Arc<Self>, tool_id: String, failure: Option<String>) {
        let delay = millis(self.tunables().tool_delay_ms);
        let settle = move |cloud: &Self| {
            cloud.with_state(|state| {
                let Some(tool) = state.tools.get_mut(&tool_id) else { return };
                if tool.status == Some(ToolStatus::Creating) {
                    let status = if failure.is_some() { ToolStatus::Failed } else { ToolStatus::Active };
                    tool.status = Some(status);
                    tool.status_reason = failure;
                    cloud.save_or_log(state);
                }
            });
        };
        if delay.is_zero() {
            return settle(self);
        }
        let cloud = self.clone();
        self.run(async move {
            cloud.clock.sleep(delay).await;
            settle(&cloud);
        });
    }

    pub fn update_tool(&self, request: UpdateSandboxToolRequest) -> ApiResult<UpdateSandboxToolResponse> {
        validate::description(request.description.as_deref())?;
        if let Some(network) = &request.network_configuration {
            validate::network(network)?;
        }
        validate::custom_configuration(request.custom_configuration.as_ref())?;
        let now = self.clock.now().trunc_subsecs(0);
        self.with_state(|state| {
            let tool = state
                .tools
                .get_mut(&request.tool_id)
                .filter(|tool| tool.status != Some(ToolStatus::Deleting))
                .ok_or_else(|| ApiError::no_tool(&request.tool_id))?;
            if let Some(description) = request.description {
                tool.description = Some(description);
            }
            if let Some(network) = request.network_configuration {
                tool.network_configuration = Some(network);
            }
            if let Some(tags) = request.tags {
                tool.tags = Some(tags);
            }
            if let Some(custom) = request.custom_configuration {
                tool.custom_configuration = merge_custom(None, Some(&custom));
            }
            tool.update_time = Some(now);
            self.saved(state)
        })?;
        Ok(UpdateSandboxToolResponse {})
    }

    pub fn delete_tool(self: &Arc<Self>, request: DeleteSandboxToolRequest) -> ApiResult<DeleteSandboxToolResponse> {
        let tool_id = request.tool_id;
        let delay = millis(self.tunables().tool_delete_delay_ms);
        self.with_state(|state| {
            if state.live_instances_of(&tool_id) > 0 {
                let message = format!("Sandbox tool `{tool_id}` has instances.");
                return Err(ApiError::new("ResourceInUse.SandboxTool", message));
            }
            let tool = state.tools.get_mut(&tool_id).ok_or_else(|| ApiError::no_tool(&tool_id))?;
            tool.status = Some(ToolStatus::Deleting);
            if delay.is_zero() {
                state.tools.shift_remove(&tool_id);
            }
            self.saved(state)
        })?;
        if !delay.is_zero() {
            let cloud = self.clone();
            self.run(async move {
                cloud.clock.sleep(delay).await;
                cloud.with_state(|state| {
                    state.tools.shift_remove(&tool_id);
                    cloud.save_or_log(state);
                });
            });
        }
        Ok(DeleteSandboxToolResponse {})
    }

    pub fn list_tools(&self, request: &DescribeSandboxToolListRequest) -> ApiResult<DescribeSandboxToolListResponse> {
        let ids = request.tool_ids.as_deref().unwrap_or_default();
        listing::check_ids("ToolIds", ids)?;
        let page = Page::new(request.offset, request.limit)?;
        let filters = request.filters.as_deref().unwrap_or_default();
        listing::check_filters(filters, &["ToolName", "ToolType", "Status"])?;
        let matches = |tool: &&SandboxTool| {
            (ids.is_empty() || ids.contains(&tool.tool_id))
                && listing::passes(filters, |name| match name {
                    "ToolName" => tool.tool_name.as_deref().unwrap_or_default(),
                    "ToolType" => tool.tool_type.as_ref().map_or("", ToolType::as_str),
                    _ => tool.status.as_ref().map_or("", ToolStatus::as_str),
                })
        };
        let rows: Vec<SandboxTool> =
            self.with_state(|state| state.tools.values().rev().filter(matches).cloned().collect());
        Ok(DescribeSandboxToolListResponse {
            total_count: i64::try_from(rows.len()).unwrap_or(i64::MAX),
            sandbox_tool_set: page.cut(rows),
        })
    }

    /// Saves, or answers that it could not.
    pub(crate) fn saved(&self, state: &State) -> ApiResult<()> {
        self.save(state).map_err(|error| {
            tracing::error!(%error, "the state could not be written");
            ApiError::new("InternalError", "The emulator could not write its state.")
        })
    }

    pub(crate) fn save_or_log(&self, state: &State) {
        if let Err(error) = self.save(state) {
            tracing::error!(%error, "the state could not be written");
        }
    }
}

/// The default timeout in seconds.
fn check_create(request: &CreateSandboxToolRequest) -> ApiResult<u64> {
    validate::tool_name(&request.tool_name)?;
    if !request.tool_type.is_known() {
        let message = format!("ToolType `{}` is not known.", request.tool_type);
        return Err(ApiError::value("ToolType", message));
    }
    validate::network(&request.network_configuration)?;
    validate::description(request.description.as_deref())?;
    validate::role_arn(request.role_arn.as_deref())?;
    let mounts = request.storage_mounts.as_deref().unwrap_or_default();
    validate::storage_mounts(mounts, request.role_arn.as_deref())?;
    validate::custom_configuration(request.custom_configuration.as_ref())?;
    validate::log_configuration(request.log_configuration.as_ref())?;
    match request.default_timeout.as_deref() {
        Some(text) => Ok(timeout::parse(text)?.as_secs()),
        None => Ok(DEFAULT_TIMEOUT_SECONDS),
    }
}
