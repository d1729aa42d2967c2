//! Sandboxes as E2B's SDKs send and read them (PROTOCOLS F.3, F.4).

use std::collections::BTreeMap;

use chrono::{DateTime, SecondsFormat, Utc};
use secrecy::ExposeSecret;
use serde::{Deserialize, Serialize, Serializer};
use serde_json::Value;

use super::{
    custom_config,
    query::{PAUSED, RUNNING},
};
use crate::{
    app::{self, App},
    auth::Pass,
    domain::{
        duration::Seconds,
        instance::{Instance, InstanceSpec, InstanceStatus},
        spec::{Env, Resources},
        tool::Tool,
    },
    error::{Code, Error, Result},
    ids::{InstanceId, ToolId},
};

/// Seconds that a sandbox lives when the call does not say.
pub const DEFAULT_TIMEOUT: u32 = 300;

/// A sandbox to be made. What is not known is left to later versions.
#[derive(Debug, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Create {
    #[serde(rename = "templateID")]
    pub template: String,
    timeout: Option<i64>,
    metadata: Option<BTreeMap<String, String>>,
    env_vars: Option<Env>,
    #[serde(default)]
    auto_pause: bool,
    auto_resume: Option<Switch>,
    /// The snake case is E2B's own.
    #[serde(rename = "allow_internet_access")]
    allow_internet_access: Option<bool>,
    network: Option<Network>,
    mcp: Option<Value>,
    iam: Option<Value>,
    #[serde(default)]
    volume_mounts: Vec<Value>,
}

#[derive(Debug, Deserialize)]
struct Switch {
    #[serde(default)]
    enabled: bool,
}

#[derive(Debug, Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
struct Network {
    allow_public_traffic: Option<bool>,
    allow_out: Vec<Value>,
    deny_out: Vec<Value>,
    mask_request_host: Option<String>,
}

impl Create {
    /// The name or id of the tool: E2B puts a tag behind it.
    pub fn tool(&self) -> &str {
        self.template.split(':').next().unwrap_or_default()
    }

    /// How long the sandbox shall live.
    pub fn timeout(&self) -> u32 {
        seconds(self.timeout)
    }

    /// Whether it shall reach nothing outside.
    pub fn is_cut_off(&self) -> bool {
        self.allow_internet_access == Some(false)
    }

    /// What of it the gateway's own operation shall do. `shortest`: what that takes as a timeout.
    ///
    /// # Errors
    /// `not_supported` for what Agent Sandbox cannot do; `validation_failed`.
    pub fn wanted(&self, shortest: u32) -> Result<app::instances::Wanted> {
        self.check_supported()?;
        let metadata = self.metadata.clone().unwrap_or_default();
        let container = metadata.get(custom_config::KEY).map(|text| custom_config::read(text)).transpose()?;
        let public = self.network.as_ref().is_some_and(|network| network.allow_public_traffic == Some(true));
        Ok(app::instances::Wanted {
            tool: Some(self.tool().to_owned()),
            timeout: Some(Seconds(self.timeout().max(shortest))),
            env: self.env_vars.clone().unwrap_or_default(),
            spec: InstanceSpec { container: container.unwrap_or_default(), mounts: Vec::new() },
            auth_mode: public.then(|| "PUBLIC".to_owned()),
            idle: None,
            metadata,
        })
    }

    fn check_supported(&self) -> Result<()> {
        let network = self.network.as_ref();
        let rules = network.is_some_and(|n| !(n.allow_out.is_empty() && n.deny_out.is_empty()));
        let asked = [
            (self.auto_pause, "autoPause: sandboxes end when their time is up; pause them before"),
            (self.auto_resume.as_ref().is_some_and(|switch| switch.enabled), "autoResume: connect to a paused sandbox"),
            (rules, "rules for single addresses: the network is a property of the tool"),
            (network.is_some_and(|n| n.mask_request_host.is_some()), "maskRequestHost"),
            (self.mcp.as_ref().is_some_and(|mcp| !mcp.is_null()), "MCP servers"),
            (self.iam.as_ref().is_some_and(|iam| !iam.is_null()), "workload identities"),
            (!self.volume_mounts.is_empty(), "volumes: mounts are a property of the tool"),
        ];
        match asked.iter().find(|(asked, _)| *asked) {
            Some((_, what)) => Err(Error::new(Code::NotSupported, format!("Agent Sandbox does not support {what}."))),
            None => Ok(()),
        }
    }
}

/// A time from now on; negative counts as none. The least there is, is a second.
fn seconds(given: Option<i64>) -> u32 {
    given.map_or(DEFAULT_TIMEOUT, |given| u32::try_from(given.max(1)).unwrap_or(u32::MAX))
}

/// How long a sandbox shall live on.
#[derive(Debug, Deserialize)]
pub struct Timeout {
    timeout: Option<i64>,
    duration: Option<i64>,
}

impl Timeout {
    pub fn seconds(&self) -> u32 {
        seconds(self.timeout.or(self.duration))
    }

    /// What stands under `timeout` alone.
    ///
    /// # Errors
    /// `validation_failed` without it.
    pub fn required(&self) -> Result<u32> {
        self.timeout.map(|given| seconds(Some(given))).ok_or_else(|| Error::field("timeout", "is required"))
    }
}

/// How to pause.
#[derive(Debug, Deserialize)]
pub struct Pause {
    pub memory: Option<bool>,
}

/// Whether a sandbox runs, in E2B's words.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum State {
    Running,
    Paused,
}

impl State {
    /// `None` for what E2B does not know any more.
    pub fn of(instance: &Instance, now: DateTime<Utc>) -> Option<Self> {
        let over = instance.expires_at <= now && instance.status != InstanceStatus::Starting;
        match &instance.status {
            _ if over => None,
            status if RUNNING.contains(status) => Some(Self::Running),
            status if PAUSED.contains(status) => Some(Self::Paused),
            _ => None,
        }
    }
}

/// What create, connect and resume answer.
#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Sandbox {
    #[serde(rename = "templateID")]
    template: ToolId,
    alias: String,
    #[serde(rename = "sandboxID")]
    sandbox: InstanceId,
    #[serde(rename = "clientID")]
    client: &'static str,
    envd_version: String,
    envd_access_token: String,
    traffic_access_token: String,
    domain: Option<String>,
}

/// Whom E2B's own answers name here has no meaning to SDKs.
const CLIENT: &str = "ags-gateway";

impl Sandbox {
    pub fn of(app: &App, instance: Instance, pass: &Pass) -> Self {
        Self {
            envd_version: envd_version(app, &instance),
            template: instance.tool_id,
            alias: instance.tool_name,
            sandbox: instance.id,
            client: CLIENT,
            envd_access_token: pass.access.expose_secret().to_owned(),
            traffic_access_token: pass.traffic.expose_secret().to_owned(),
            domain: domain(app),
        }
    }
}

fn envd_version(app: &App, instance: &Instance) -> String {
    app.upstreams.get(&instance.upstream).map(|upstream| upstream.config.envd_version.clone()).unwrap_or_default()
}

/// Below what the sandboxes' ports have hosts of their own. SDKs insist on TLS there: without it none is told.
fn domain(app: &App) -> Option<String> {
    let server = &app.config.server;
    let own = server.public_url.as_ref().filter(|url| url.scheme() == "https")?;
    let port = own.port().map(|port| format!(":{port}")).unwrap_or_default();
    server.sandbox_domain.as_ref().map(|domain| format!("{domain}{port}"))
}

/// An entry of the list.
#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Listed {
    #[serde(rename = "templateID")]
    template: ToolId,
    alias: String,
    #[serde(rename = "sandboxID")]
    sandbox: InstanceId,
    #[serde(rename = "clientID")]
    client: &'static str,
    started_at: Time,
    end_at: Time,
    #[serde(flatten)]
    size: Size,
    state: State,
    envd_version: String,
    metadata: BTreeMap<String, String>,
}

impl Listed {
    pub fn of(app: &App, instance: Instance, state: State, tool: Option<&Tool>) -> Self {
        Self {
            size: Size::of(&instance, tool),
            envd_version: envd_version(app, &instance),
            template: instance.tool_id,
            alias: instance.tool_name,
            sandbox: instance.id,
            client: CLIENT,
            started_at: Time(instance.started_at.unwrap_or(instance.created_at)),
            end_at: Time(instance.expires_at),
            state,
            metadata: instance.metadata,
        }
    }
}

/// The info of one sandbox.
#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Detail {
    #[serde(flatten)]
    listed: Listed,
    envd_access_token: String,
    domain: Option<String>,
    allow_internet_access: bool,
    lifecycle: Lifecycle,
}

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct Lifecycle {
    on_timeout: &'static str,
    auto_resume: bool,
}

impl Detail {
    pub fn of(app: &App, listed: Listed, tool: Option<&Tool>, pass: &Pass) -> Self {
        Self {
            listed,
            envd_access_token: pass.access.expose_secret().to_owned(),
            domain: domain(app),
            allow_internet_access: !tool.is_some_and(is_cut_off),
            lifecycle: Lifecycle { on_timeout: "kill", auto_resume: false },
        }
    }
}

/// Whether a tool's sandboxes reach nothing outside.
pub fn is_cut_off(tool: &Tool) -> bool {
    tool.spec.network.mode == "SANDBOX"
}

/// As the SDKs' parsers of all languages take it.
#[derive(Clone, Copy, Debug)]
pub struct Time(pub DateTime<Utc>);

impl Serialize for Time {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(&self.0.to_rfc3339_opts(SecondsFormat::Micros, true))
    }
}

/// What a sandbox has of the machine; 0 where it is not known: the cloud tells it of no tool of its own.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Size {
    cpu_count: u32,
    #[serde(rename = "memoryMB")]
    memory_mb: u64,
    #[serde(rename = "diskSizeMB")]
    disk_size_mb: u64,
}

impl Size {
    fn of(instance: &Instance, tool: Option<&Tool>) -> Self {
        let own = instance.metadata.get(custom_config::KEY).and_then(|text| custom_config::read(text).ok());
        let own = own.and_then(|container| container.resources).unwrap_or_default();
        Self::from(&own.over(tool.and_then(|tool| tool.spec.container.resources.as_ref())))
    }

    pub fn of_tool(tool: &Tool) -> Self {
        tool.spec.container.resources.as_ref().map(Self::from).unwrap_or_default()
    }
}

impl From<&Resources> for Size {
    fn from(resources: &Resources) -> Self {
        Self {
            cpu_count: resources.cpu.as_deref().and_then(cores).unwrap_or_default(),
            memory_mb: resources.memory.as_deref().and_then(mebibytes).unwrap_or_default(),
            disk_size_mb: resources.storage.as_deref().and_then(mebibytes).unwrap_or_default(),
        }
    }
}

/// Whole cores, begun ones included.
fn cores(text: &str) -> Option<u32> {
    let thousandths = match text.strip_suffix('m') {
        Some(thousandths) => thousandths.parse().ok()?,
        None => text.parse::<f64>().ok()? * 1000.0,
    };
    let whole = (thousandths / 1000.0_f64).ceil();
    (1.0..=100_000.0).contains(&whole).then_some(whole as u32)
}

fn mebibytes(text: &str) -> Option<u64> {
    match text.strip_suffix("Gi") {
        Some(gibibytes) => Some(gibibytes.parse::<u64>().ok()? * 1024),
        None => text.strip_suffix("Mi")?.parse().ok(),
    }
}

/// One point of the metrics.
#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Metric {
    timestamp: Option<Time>,
    timestamp_unix: i64,
    cpu_count: u32,
    cpu_used_pct: f64,
    mem_used: u64,
    mem_total: u64,
    mem_cache: u64,
    disk_used: u64,
    disk_total: u64,
}

impl From<envd_client::Measured> for Metric {
    fn from(measured: envd_client::Measured) -> Self {
        Self {
            timestamp: DateTime::from_timestamp(measured.ts, 0).map(Time),
            timestamp_unix: measured.ts,
            cpu_count: measured.cpu_count,
            cpu_used_pct: measured.cpu_used_pct,
            mem_used: measured.mem_used,
            mem_total: measured.mem_total,
            mem_cache: measured.mem_cache,
            disk_used: measured.disk_used,
            disk_total: measured.disk_total,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn create(body: &str) -> Create {
        serde_json::from_str(body).unwrap()
    }

    #[test]
    fn bodies_of_all_generations_are_read() {
        for body in [
            r#"{"templateID":"my-tpl","timeout":120,"metadata":{"k":"v w"},"envVars":{"A":"1"}}"#,
            r#"{"templateID":"my-tpl:latest","timeout":120,"secure":true,"allow_internet_access":true,"metadata":{},"envVars":{}}"#,
            r#"{"templateID":"my-tpl","allow_internet_access":true,"autoPause":false,"autoResume":{"enabled":false},"timeout":120}"#,
        ] {
            let wanted = create(body).wanted(30).unwrap();
            assert_eq!((wanted.tool.as_deref(), wanted.timeout), (Some("my-tpl"), Some(Seconds(120))), "{body}");
        }
        let least = create(r#"{"templateID":"x"}"#);
        assert_eq!(least.timeout(), 300);
        assert_eq!(create(r#"{"templateID":"x","timeout":-5}"#).timeout(), 1);
        assert_eq!(create(r#"{"templateID":"x","timeout":5}"#).wanted(30).unwrap().timeout, Some(Seconds(30)));
    }

    #[test]
    fn what_cannot_be_done_is_said() {
        for (more, word) in [
            (r#""autoPause":true"#, "autoPause"),
            (r#""autoResume":{"enabled":true}"#, "autoResume"),
            (r#""network":{"denyOut":["0.0.0.0/0"]}"#, "rules"),
            (r#""mcp":{"x":{}}"#, "MCP"),
            (r#""volumeMounts":[{"name":"v","path":"/v"}]"#, "volumes"),
        ] {
            let error = create(&format!(r#"{{"templateID":"x",{more}}}"#)).wanted(30).unwrap_err();
            assert_eq!(error.code(), Code::NotSupported);
            assert!(error.detail().contains(word), "{error}");
        }
    }

    #[test]
    fn sizes_are_told_in_whole_cores_and_mebibytes() {
        let resources = |cpu: &str, memory: &str| Resources {
            cpu: Some(cpu.to_owned()),
            memory: Some(memory.to_owned()),
            storage: None,
        };
        let size = |cpu_count, memory_mb| Size { cpu_count, memory_mb, disk_size_mb: 0 };
        assert_eq!(Size::from(&resources("500m", "512Mi")), size(1, 512));
        assert_eq!(Size::from(&resources("2", "4Gi")), size(2, 4096));
        assert_eq!(Size::from(&resources("1.5", "?")), size(2, 0));
        assert_eq!(Size::from(&resources("-1", "")), size(0, 0));
    }
}
