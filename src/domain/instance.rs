//! Instances: running sandboxes, and those that ran.

use std::collections::BTreeMap;

use chrono::{DateTime, Utc};
use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

use super::{
    checks::{Checks, absolute},
    open_enum::open_enum,
    spec::{Container, StorageMount},
};
use crate::{
    error::SandboxRef,
    ids::{InstanceId, KeyId, TeamId, ToolId},
};

open_enum! {
    /// Where an instance is in its life.
    InstanceStatus {
        Starting = "STARTING",
        Running = "RUNNING",
        Pausing = "PAUSING",
        Paused = "PAUSED",
        Resuming = "RESUMING",
        Stopping = "STOPPING",
        Stopped = "STOPPED",
        Failed = "FAILED",
    }
}

open_enum! {
    /// Why an instance ended, or is ending.
    StopReason {
        Manual = "manual",
        Timeout = "timeout",
        Idle = "idle",
        Quota = "quota",
        Error = "error",
        System = "system",
        Orphan = "orphan",
    }
}

impl InstanceStatus {
    /// Nothing will change any more.
    #[must_use]
    pub fn is_final(&self) -> bool {
        matches!(self, Self::Stopped | Self::Failed)
    }

    /// Over, or about to be: no change is taken any more.
    #[must_use]
    pub fn is_ending(&self) -> bool {
        self.is_final() || *self == Self::Stopping
    }
}

/// An instance as the gateway knows it.
#[derive(Clone, Debug, PartialEq)]
pub struct Instance {
    pub id: InstanceId,
    pub team_id: TeamId,
    pub tool_id: ToolId,
    pub tool_name: String,
    pub tool_type: String,
    pub upstream: String,
    pub upstream_id: Option<String>,
    pub client_token: String,
    pub status: InstanceStatus,
    pub status_reason: Option<String>,
    pub metadata: BTreeMap<String, String>,
    /// Added to every command and code run in it.
    pub env: BTreeMap<String, String>,
    pub auth_mode: String,
    pub timeout_seconds: u32,
    pub idle: Option<Idle>,
    pub created_by: KeyId,
    pub created_at: DateTime<Utc>,
    pub updated_at: DateTime<Utc>,
    pub started_at: Option<DateTime<Utc>>,
    pub expires_at: DateTime<Utc>,
    pub upstream_expires_at: Option<DateTime<Utc>>,
    pub last_active_at: Option<DateTime<Utc>>,
    pub stopping_at: Option<DateTime<Utc>>,
    pub stopped_at: Option<DateTime<Utc>>,
    pub stop_reason: Option<StopReason>,
}

/// What an instance was started with, besides what is said of it.
#[derive(Clone, Debug, PartialEq)]
pub struct Details {
    /// Over its tool's.
    pub spec: InstanceSpec,
    /// Whether its tool lets it be paused.
    pub persistent: bool,
    pub network_mode: Option<String>,
}

/// What happens to an instance that nobody uses.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct Idle {
    pub after_seconds: u32,
    pub action: IdleAction,
    /// What is paused, and is not used for so much longer, is stopped. `None`: it is kept until it expires.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub stop_after_seconds: Option<u32>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "lowercase")]
pub enum IdleAction {
    Pause,
    Stop,
}

/// What an event tells of.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "lowercase")]
pub enum EventKind {
    /// Its state changed.
    Status,
    /// Its life ends soon.
    Expiring,
}

impl EventKind {
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Status => "status",
            Self::Expiring => "expiring",
        }
    }
}

/// Something that happened to an instance.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct InstanceEvent {
    pub id: i64,
    pub at: DateTime<Utc>,
    pub kind: EventKind,
    pub status: InstanceStatus,
    pub stop_reason: Option<StopReason>,
    pub expires_at: DateTime<Utc>,
}

/// An instance's own way to use a storage mount of its tool; what is left out is as the tool says.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct MountOverride {
    /// Name of the tool's storage mount.
    pub name: String,
    #[serde(default)]
    #[schema(pattern = "^/")]
    pub mount_path: Option<String>,
    #[serde(default)]
    pub sub_path: Option<String>,
    #[serde(default)]
    pub read_only: Option<bool>,
}

/// What an instance has other than its tool.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct InstanceSpec {
    pub container: Container,
    pub mounts: Vec<MountOverride>,
}

impl InstanceSpec {
    /// Checks what can be known without the cloud; `tool_mounts` are the tool's.
    pub fn check(&self, checks: &mut Checks, tool_mounts: &[StorageMount]) {
        self.container.check(checks);
        for (index, mount) in self.mounts.iter().enumerate() {
            let field = |name: &str| format!("mounts[{index}].{name}");
            let known = tool_mounts.iter().any(|one| one.name == mount.name);
            checks.that(known, field("name"), "names no storage mount of the tool");
            let path = mount.mount_path.as_deref();
            checks.that(path.is_none_or(absolute), field("mount_path"), "must be an absolute path");
        }
    }
}

/// Metadata and environment are bounded, so that a list of instances stays readable.
pub const MAX_PAIRS: usize = 64;
const MAX_METADATA_KEY: usize = 128;
const MAX_METADATA_VALUE: usize = 1024;

/// Checks the metadata that a caller gives an instance.
pub fn check_metadata(checks: &mut Checks, metadata: &BTreeMap<String, String>) {
    checks.that(metadata.len() <= MAX_PAIRS, "metadata", format!("may have up to {MAX_PAIRS} entries"));
    for (key, value) in metadata {
        let field = || format!("metadata.{key}");
        let fits = (1..=MAX_METADATA_KEY).contains(&key.chars().count()) && !key.chars().any(char::is_control);
        checks.that(fits, field(), format!("a key has 1 to {MAX_METADATA_KEY} characters"));
        checks.that(!super::spec::is_reserved(key), field(), "this prefix is the gateway's own");
        let short = value.chars().count() <= MAX_METADATA_VALUE && !value.contains('\0');
        checks.that(short, field(), format!("a value has up to {MAX_METADATA_VALUE} characters"));
    }
}

impl Instance {
    /// How errors refer to it.
    #[must_use]
    pub fn reference(&self) -> SandboxRef {
        SandboxRef {
            id: self.id.to_string(),
            status: self.status.to_string(),
            stop_reason: self.stop_reason.as_ref().map(ToString::to_string),
            stopped_at: self.stopped_at,
        }
    }
}
