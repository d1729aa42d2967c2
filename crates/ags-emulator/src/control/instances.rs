//! Instance actions (PROTOCOLS B.7).

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use ags_client::types::{
    AcquireSandboxInstanceTokenRequest, AcquireSandboxInstanceTokenResponse, AuthMode, CustomConfigurationDetail,
    DescribeSandboxInstanceListRequest, DescribeSandboxInstanceListResponse, EnvVar, InstanceStatus, MetadataVar,
    MountOption, NetworkMode, PauseSandboxInstanceRequest, PauseSandboxInstanceResponse, ProbeConfiguration,
    ResumeSandboxInstanceRequest, ResumeSandboxInstanceResponse, SandboxInstance, SandboxTool,
    StartSandboxInstanceRequest, StartSandboxInstanceResponse, StopReason, StopSandboxInstanceRequest,
    StopSandboxInstanceResponse, ToolStatus, ToolType, UpdateSandboxInstanceRequest, UpdateSandboxInstanceResponse,
};
use chrono::{DateTime, SubsecRound as _, TimeDelta, Utc};

use super::error::{ApiError, ApiResult};
use super::lifecycle::{Launching, base_environment};
use super::listing::{self, Page};
use super::state::{self, Operation};
use super::store::{IssuedToken, Record, State};
use super::tools::{DEFAULT_TIMEOUT_SECONDS, merge_custom};
use super::{Caller, Cloud, timeout, validate};
use crate::clock::{to_delta, wall_now};
use crate::faults::Struck;
use crate::ids;
use crate::instance::{InstanceSpec, Probe};
use crate::journal::Call;

/// How long a token of an instance without an end lives.
const ENDLESS_TOKEN: TimeDelta = TimeDelta::hours(24);

/// What to start, whichever endpoint it was asked of.
#[derive(Clone, Debug, Default)]
pub struct StartPlan {
    /// Id or name of the tool.
    pub tool: ToolRef,
    pub timeout: Option<Duration>,
    pub custom: Option<ags_client::types::CustomConfiguration>,
    pub mount_options: Option<Vec<MountOption>>,
    pub metadata: Vec<MetadataVar>,
    pub auth_mode: Option<AuthMode>,
    /// Sandbox-wide environment on top of the tool's.
    pub envs: BTreeMap<String, String>,
}

/// How a caller names a tool.
#[derive(Clone, Debug, Default)]
pub struct ToolRef {
    pub id: Option<String>,
    pub name: Option<String>,
}

impl ToolRef {
    fn find<'a>(&self, state: &'a State) -> ApiResult<&'a SandboxTool> {
        let (found, shown) = match (&self.id, &self.name) {
            (Some(id), _) => (state.tools.get(id), id),
            (None, Some(name)) => (state.tool_named(name), name),
            (None, None) => return Err(ApiError::missing("ToolId or ToolName")),
        };
        let tool = found.ok_or_else(|| ApiError::no_tool(shown))?;
        if self.name.is_some() && self.id.is_some() && tool.tool_name != self.name {
            return Err(ApiError::invalid("ToolId and ToolName name different tools."));
        }
        if tool.status != Some(ToolStatus::Active) {
            let message = format!("Sandbox tool `{shown}` is not ACTIVE.");
            return Err(ApiError::new("ResourceUnavailable.SandboxTool", message));
        }
        Ok(tool)
    }
}

impl Cloud {
    pub async fn start_instance(
        self: &Arc<Self>,
        request: StartSandboxInstanceRequest,
        struck: &Struck,
    ) -> ApiResult<StartSandboxInstanceResponse> {
        let plan = StartPlan {
            tool: ToolRef {
                id: request.tool_id.filter(|id| !id.is_empty()),
                name: request.tool_name.filter(|name| !name.is_empty()),
            },
            timeout: request.timeout.as_deref().map(timeout::parse).transpose()?,
            custom: request.custom_configuration,
            mount_options: request.mount_options,
            metadata: request.metadata.unwrap_or_default(),
            auth_mode: request.auth_mode,
            envs: BTreeMap::new(),
        };
        let instance = self.start(plan, struck.fails_instance()).await?;
        Ok(StartSandboxInstanceResponse { instance })
    }

    /// Starts an instance as planned.
    pub async fn start(self: &Arc<Self>, plan: StartPlan, fails: bool) -> ApiResult<SandboxInstance> {
        let auth_mode = plan.auth_mode.clone().unwrap_or(AuthMode::Default);
        validate::auth_mode(&auth_mode)?;
        validate::custom_configuration(plan.custom.as_ref())?;
        let (now, tunables) = (self.clock.now(), self.tunables());
        let spec = self.with_state(|state| {
            state.forget_ended(seconds(tunables.stopped_retention_seconds), now);
            let tool = plan.tool.find(state)?.clone();
            let mounts = tool.storage_mounts.as_deref().unwrap_or_default();
            validate::mount_options(plan.mount_options.as_deref().unwrap_or_default(), mounts)?;
            if state.count(state::occupies_running) >= tunables.max_instances {
                return Err(ApiError::instance_quota("running", tunables.max_instances));
            }
            state.started += 1;
            let record = new_record(&tool, plan, auth_mode, state.started, now);
            let spec = self.spec_of(&record.0, record.1, tool.tool_type == Some(ToolType::CodeInterpreter));
            state.instances.insert(record.0.id.clone(), record.0);
            Ok(spec)
        })?;
        self.launch(Launching { spec, fails }).await
    }

    fn spec_of(&self, record: &Record, envs: BTreeMap<String, String>, code_interpreter: bool) -> InstanceSpec {
        let custom = record.custom.clone().unwrap_or_default();
        let mut environment = base_environment(&record.id, &record.tool_id);
        let tool_envs = custom.env.into_iter().flatten();
        environment.extend(tool_envs.map(|EnvVar { name, value }| (name, value)));
        environment.extend(envs);
        let resources = custom.resources.unwrap_or_default();
        InstanceSpec {
            id: record.id.clone(),
            state_dir: self.settings.instances_dir().join(&record.id),
            envs: environment,
            command: custom.command.unwrap_or_default(),
            args: custom.args.unwrap_or_default(),
            probe: custom.probe.as_ref().and_then(to_probe),
            cpu: resources.cpu.as_deref().and_then(validate::cores),
            memory: resources.memory.as_deref().and_then(validate::bytes),
            network: record.network_mode != Some(NetworkMode::Sandbox),
            envd_version: self.settings.envd_version.clone(),
            envd_token: None,
            code_interpreter,
        }
    }

    pub fn update_instance(&self, request: UpdateSandboxInstanceRequest) -> ApiResult<UpdateSandboxInstanceResponse> {
        let timeout = request.timeout.as_deref().map(timeout::parse).transpose()?;
        self.change_instance(&request.instance_id, timeout, request.metadata)?;
        Ok(UpdateSandboxInstanceResponse {})
    }

    /// Restarts the countdown and replaces the metadata, where given.
    pub fn change_instance(
        &self,
        id: &str,
        timeout: Option<Duration>,
        metadata: Option<Vec<MetadataVar>>,
    ) -> ApiResult<()> {
        let now = self.clock.now();
        self.with_state(|state| {
            let Some(record) = Self::judged(state, id, Operation::Update)? else { return Ok(()) };
            if let Some(metadata) = metadata {
                record.metadata = metadata;
                record.updated_at = now;
            }
            if let Some(timeout) = timeout {
                record.restart_countdown(timeout, now);
            }
            Ok(())
        })
    }

    pub async fn stop_instance(
        self: &Arc<Self>,
        request: StopSandboxInstanceRequest,
        struck: &Struck,
    ) -> ApiResult<StopSandboxInstanceResponse> {
        let fails = struck.fails_instance();
        self.stop(&request.instance_id, StopReason::Manual, fails).await?;
        Ok(StopSandboxInstanceResponse {})
    }

    pub async fn pause_instance(
        self: &Arc<Self>,
        request: PauseSandboxInstanceRequest,
        struck: &Struck,
    ) -> ApiResult<PauseSandboxInstanceResponse> {
        let instance_status = self.pause(&request.instance_id, struck.fails_instance()).await?;
        Ok(PauseSandboxInstanceResponse { instance_status })
    }

    pub async fn resume_instance(
        self: &Arc<Self>,
        request: ResumeSandboxInstanceRequest,
        struck: &Struck,
    ) -> ApiResult<ResumeSandboxInstanceResponse> {
        let timeout = match request.timeout.as_deref() {
            Some(text) => timeout::parse(text)?,
            None => Duration::from_secs(DEFAULT_TIMEOUT_SECONDS),
        };
        self.resume(&request.instance_id, timeout, struck.fails_instance()).await?;
        Ok(ResumeSandboxInstanceResponse {})
    }

    pub fn list_instances(
        &self,
        request: &DescribeSandboxInstanceListRequest,
    ) -> ApiResult<DescribeSandboxInstanceListResponse> {
        let ids = request.instance_ids.as_deref().unwrap_or_default();
        listing::check_ids("InstanceIds", ids)?;
        let page = Page::new(request.offset, request.limit)?;
        let filters = request.filters.as_deref().unwrap_or_default();
        listing::check_filters(filters, &["Status", "ToolName", "ToolId"])?;
        // UNHEALTHY is derived: RUNNING matches it too, and asked for alone it ignores the page.
        let unhealthy_only = filters.iter().any(|f| f.name == "Status" && f.values == ["UNHEALTHY"]);
        let retention = seconds(self.tunables().stopped_retention_seconds);
        let now = self.clock.now();
        let rows: Vec<SandboxInstance> = self.with_state(|state| {
            state.forget_ended(retention, now);
            let matches = |record: &&Record| {
                let shown = record.shown_status();
                let status = if unhealthy_only { &shown } else { &record.status };
                (ids.is_empty() || ids.contains(&record.id))
                    && request.tool_id.as_ref().is_none_or(|tool| *tool == record.tool_id)
                    && listing::passes(filters, |name| match name {
                        "Status" => status.as_str(),
                        "ToolName" => &record.tool_name,
                        _ => &record.tool_id,
                    })
            };
            state.newest_first().into_iter().filter(matches).map(Record::to_wire).collect()
        });
        let total_count = i64::try_from(rows.len()).unwrap_or(i64::MAX);
        let instance_set = if unhealthy_only { rows } else { page.cut(rows) };
        Ok(DescribeSandboxInstanceListResponse { instance_set, total_count })
    }

    pub fn acquire_token(
        &self,
        request: &AcquireSandboxInstanceTokenRequest,
    ) -> ApiResult<AcquireSandboxInstanceTokenResponse> {
        let (now, tunables) = (self.clock.now(), self.tunables());
        let ttl = tunables.token_ttl_seconds.map(seconds);
        let (issued, end) = self.with_state(|state| {
            let id = &request.instance_id;
            let record = Self::judged(state, id, Operation::AcquireToken)?.ok_or_else(|| ApiError::no_instance(id))?;
            let end = match ttl {
                Some(ttl) => now + ttl,
                None => record.expires_at.unwrap_or(now + ENDLESS_TOKEN),
            };
            if tunables.token_rotation_revokes {
                record.tokens.clear();
            }
            Ok((issue(record, Some(end)), end))
        })?;
        Ok(AcquireSandboxInstanceTokenResponse {
            token: issued.token.into(),
            expires_at: Some(end.trunc_subsecs(3)),
            traffic_token: Some(issued.traffic.into()),
        })
    }

    /// Expires every token of one instance, or of all.
    pub fn expire_tokens(&self, instance: Option<&str>) -> usize {
        self.with_state(|state| {
            let chosen = state.instances.values_mut();
            chosen
                .filter(|record| instance.is_none_or(|id| id == record.id))
                .map(|record| std::mem::take(&mut record.tokens).len())
                .sum()
        })
    }

    /// Notes what the emulator did by itself.
    pub(crate) fn journal_own(&self, action: &str, id: &str, error: Option<ApiError>) {
        self.journal.add(Call {
            at: self.clock.now(),
            wall_at: wall_now(),
            action: action.into(),
            by: Caller::System.to_string(),
            instance: Some(id.into()),
            client_token: None,
            error: error.map(|error| error.code.into_owned()),
            request_id: ids::request(),
            response_lost: false,
        });
    }
}

/// Adds a pair of tokens that lives until `expires_at`.
pub fn issue(record: &mut Record, expires_at: Option<DateTime<Utc>>) -> IssuedToken {
    let issued = IssuedToken { token: ids::access_token().into(), traffic: ids::traffic_token().into(), expires_at };
    record.tokens.push(issued.clone());
    issued
}

fn seconds(seconds: u64) -> TimeDelta {
    to_delta(Duration::from_secs(seconds))
}

/// A STARTING record, and the environment it was asked to have.
fn new_record(
    tool: &SandboxTool,
    plan: StartPlan,
    auth_mode: AuthMode,
    sequence: u64,
    now: DateTime<Utc>,
) -> (Record, BTreeMap<String, String>) {
    let default = tool.default_timeout_seconds.unwrap_or(DEFAULT_TIMEOUT_SECONDS);
    let timeout = plan.timeout.unwrap_or(Duration::from_secs(default));
    let custom = merge_custom(tool.custom_configuration.as_ref(), plan.custom.as_ref());
    let record = Record {
        id: ids::instance(),
        tool_id: tool.tool_id.clone(),
        tool_name: tool.tool_name.clone().unwrap_or_default(),
        status: InstanceStatus::Starting,
        unhealthy: false,
        persistent: tool.persistent,
        timeout,
        expires_at: Some(now + to_delta(timeout)),
        stop_reason: None,
        created_at: now,
        updated_at: now,
        ended_at: None,
        sequence,
        mount_options: plan.mount_options,
        custom: custom.filter(|c| *c != CustomConfigurationDetail::default()),
        network_mode: tool.network_configuration.as_ref().map(|n| n.network_mode.clone()),
        metadata: plan.metadata,
        auth_mode,
        tokens: Vec::new(),
        handle: None,
        links: Default::default(),
        changed: tokio::sync::watch::Sender::new(()),
    };
    (record, plan.envs)
}

fn to_probe(config: &ProbeConfiguration) -> Option<Probe> {
    let get = config.http_get.as_ref()?;
    let ms =
        |value: Option<i64>, default: u64| super::millis(value.and_then(|v| u64::try_from(v).ok()).unwrap_or(default));
    let count = |value: Option<i64>, default: u32| value.and_then(|v| u32::try_from(v).ok()).unwrap_or(default);
    Some(Probe {
        path: get.path.clone().unwrap_or_else(|| "/".into()),
        port: validate::port_number(get.port)?,
        scheme: get.scheme.clone().unwrap_or_else(|| "HTTP".into()),
        ready_timeout: ms(config.ready_timeout_ms, 30_000),
        timeout: ms(config.probe_timeout_ms, 1000),
        period: ms(config.probe_period_ms, 1000),
        success_threshold: count(config.success_threshold, 1),
        failure_threshold: count(config.failure_threshold, 3),
    })
}
