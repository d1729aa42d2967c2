//! What an emulator is started with, and what an admin may change while it runs.

use std::collections::BTreeMap;
use std::net::{Ipv4Addr, SocketAddr};
use std::path::PathBuf;

use secrecy::SecretString;
use serde::{Deserialize, Serialize};

use crate::clock::Mode;

/// A Tencent Cloud credential that the control plane accepts.
#[derive(Clone, Debug)]
pub struct Account {
    pub secret_id: String,
    pub secret_key: SecretString,
    /// When set, requests must carry it as `X-TC-Token` (a temporary credential).
    pub token: Option<SecretString>,
}

/// What stands behind an instance.
#[derive(Clone, Debug)]
pub enum Backing {
    /// A daemon and real processes; the path is a binary with the `daemon` command, this executable
    /// when `None`.
    Processes { daemon: Option<PathBuf> },
    /// Nothing: every call but those to the data plane works. For tests that want thousands.
    Nothing,
}

/// Everything fixed at the start.
#[derive(Clone, Debug)]
pub struct Settings {
    /// Control plane, E2B endpoint and data plane.
    pub listen: SocketAddr,
    /// Faults, clock and inspection; without authentication, so keep it on loopback.
    pub admin_listen: SocketAddr,
    /// Tools and API keys survive here; instances leave nothing behind.
    pub state_dir: PathBuf,
    /// Data-plane hosts are `{port}-{instance}.{domain}`, the E2B endpoint is `api.{domain}`.
    pub domain: String,
    pub region: String,
    /// Empty: one is made on first start and kept in the state directory.
    pub accounts: Vec<Account>,
    /// Keys the E2B endpoint accepts besides those made with `CreateAPIKey`.
    pub api_keys: Vec<SecretString>,
    pub clock: Mode,
    pub backing: Backing,
    /// Files and directories that must not be seen inside instances, besides the state directory.
    pub hidden: Vec<PathBuf>,
    /// What the daemons claim to be, and what the E2B endpoint reports.
    pub envd_version: String,
    pub tunables: Tunables,
}

impl Settings {
    /// Where instances have their files while they live.
    pub fn instances_dir(&self) -> PathBuf {
        self.state_dir.join("instances")
    }

    /// Ports of the system's choice on loopback, processes behind instances, real time.
    pub fn new(state_dir: impl Into<PathBuf>) -> Self {
        let any_port = SocketAddr::from((Ipv4Addr::LOCALHOST, 0));
        Self {
            listen: any_port,
            admin_listen: any_port,
            state_dir: state_dir.into(),
            domain: "ags.localhost".into(),
            region: "ap-guangzhou".into(),
            accounts: Vec::new(),
            api_keys: Vec::new(),
            clock: Mode::Auto,
            backing: Backing::Processes { daemon: None },
            hidden: Vec::new(),
            envd_version: "0.5.14".into(),
            tunables: Tunables::default(),
        }
    }
}

/// How a repeated `ClientToken` is answered (PROTOCOLS B.11 leaves it open).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum ClientTokenMode {
    /// Same parameters: the original answer. Other parameters: `FailedOperation.DuplicateRequest`.
    #[default]
    Replay,
    /// `FailedOperation.DuplicateRequest` whatever the parameters.
    DuplicateRequest,
    /// A finished call is forgotten: the effect happens again.
    Forgotten,
}

/// What the data plane says of an instance that is no more.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum GoneStyle {
    /// 404 to a `{port}-{instance}` host, 502 to the `E2b-Sandbox-Id` header.
    #[default]
    ByRoute,
    /// Always 404, as AGS's own clients expect (PROTOCOLS C.2).
    Ags,
    /// Always 502 with `The sandbox was not found` (PROTOCOLS D.11).
    E2b,
}

/// Changeable while running through `POST /settings` of the admin port. Spans are milliseconds of
/// the emulator's clock but for `start_wait_ms`, which is real time.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Tunables {
    /// Instances that are starting, running, resuming or on their way out.
    pub max_instances: usize,
    pub max_paused: usize,
    pub max_api_keys: usize,
    /// `null`: a token ends with the `ExpiresAt` its instance had when it was issued.
    pub token_ttl_seconds: Option<u64>,
    /// Whether a new token ends the life of those issued before.
    pub token_rotation_revokes: bool,
    pub client_token: ClientTokenMode,
    /// Requests per second and action; 0 is unlimited.
    pub rate_limit: u32,
    /// Overrides of `rate_limit` by action.
    pub rate_limits: BTreeMap<String, u32>,
    /// How long a Start waits for RUNNING before it answers STARTING.
    pub start_wait_ms: u64,
    pub tool_delay_ms: u64,
    pub tool_delete_delay_ms: u64,
    pub start_delay_ms: u64,
    pub pause_delay_ms: u64,
    pub resume_delay_ms: u64,
    pub stop_delay_ms: u64,
    /// How long an ended instance stays listed.
    pub stopped_retention_seconds: u64,
    /// Whether the countdown goes on while paused. Unknown of the cloud (PROTOCOLS H.6).
    pub paused_expire: bool,
    pub gone: GoneStyle,
    /// The header that may carry a TrafficToken (PROTOCOLS C.2: unverified).
    pub traffic_header: String,
}

impl Default for Tunables {
    fn default() -> Self {
        Self {
            max_instances: 10,
            max_paused: 10,
            max_api_keys: 10,
            token_ttl_seconds: None,
            token_rotation_revokes: false,
            client_token: ClientTokenMode::Replay,
            rate_limit: 20,
            rate_limits: BTreeMap::from([("StartSandboxInstance".into(), 100)]),
            start_wait_ms: 10_000,
            tool_delay_ms: 0,
            tool_delete_delay_ms: 0,
            start_delay_ms: 0,
            pause_delay_ms: 0,
            resume_delay_ms: 0,
            stop_delay_ms: 0,
            stopped_retention_seconds: 3600,
            paused_expire: false,
            gone: GoneStyle::ByRoute,
            traffic_header: "e2b-traffic-access-token".into(),
        }
    }
}
