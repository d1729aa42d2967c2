//! Instances and their tokens.

use chrono::{DateTime, Utc};
use serde::{Deserialize, Serialize};

use super::config::{CustomConfiguration, CustomConfigurationDetail, Filter, MetadataVar};
use super::enums::{AuthMode, InstanceStatus, NetworkMode, StopReason};
use super::secret::WireSecret;
use super::storage::MountOption;
use super::wire::{null_as_default, timestamp};

/// An instance (a sandbox, in E2B terms).
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "PascalCase")]
pub struct SandboxInstance {
    /// Lower-case alphanumerics: it stands in a DNS label.
    pub instance_id: String,
    pub tool_id: String,
    pub tool_name: String,
    pub status: InstanceStatus,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub persistent: Option<bool>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub timeout_seconds: Option<u64>,
    #[serde(default, with = "timestamp", skip_serializing_if = "Option::is_none")]
    pub expires_at: Option<DateTime<Utc>>,
    /// Only of an instance that is STOPPED, STOPPING_FAILED or FAILED.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub stop_reason: Option<StopReason>,
    #[serde(default, with = "timestamp", skip_serializing_if = "Option::is_none")]
    pub create_time: Option<DateTime<Utc>>,
    #[serde(default, with = "timestamp", skip_serializing_if = "Option::is_none")]
    pub update_time: Option<DateTime<Utc>>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub mount_options: Option<Vec<MountOption>>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub custom_configuration: Option<CustomConfigurationDetail>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub network_mode: Option<NetworkMode>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub metadata: Option<Vec<MetadataVar>>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub auth_mode: Option<AuthMode>,
}

/// Starts an instance of a tool, given by id or by name. The response carries no token:
/// [`AcquireSandboxInstanceTokenRequest`] gets one.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "PascalCase")]
pub struct StartSandboxInstanceRequest {
    #[serde(skip_serializing_if = "Option::is_none")]
    pub tool_id: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub tool_name: Option<String>,
    /// A [timeout string](crate::timeout), 30 s to 24 h; default the tool's, else 5 min.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub timeout: Option<String>,
    /// Idempotency token, at most 64 characters.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub client_token: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub mount_options: Option<Vec<MountOption>>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub custom_configuration: Option<CustomConfiguration>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub auth_mode: Option<AuthMode>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub metadata: Option<Vec<MetadataVar>>,
}

#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "PascalCase")]
pub struct StartSandboxInstanceResponse {
    pub instance: SandboxInstance,
}

/// Changes a RUNNING instance.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "PascalCase")]
pub struct UpdateSandboxInstanceRequest {
    pub instance_id: String,
    /// Restarts the countdown from now.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub timeout: Option<String>,
    /// Replaces the whole set.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub metadata: Option<Vec<MetadataVar>>,
}

#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct UpdateSandboxInstanceResponse {}

/// Stops an instance, for good.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "PascalCase")]
pub struct StopSandboxInstanceRequest {
    pub instance_id: String,
}

#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct StopSandboxInstanceResponse {}

/// Pauses a RUNNING instance.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "PascalCase")]
pub struct PauseSandboxInstanceRequest {
    pub instance_id: String,
    /// True keeps processes and memory, false only the disk. Default: currently true.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub memory: Option<bool>,
}

#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "PascalCase")]
pub struct PauseSandboxInstanceResponse {
    /// PAUSING, PAUSED or PAUSE_FAILED.
    pub instance_status: InstanceStatus,
}

/// Resumes a PAUSED instance.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "PascalCase")]
pub struct ResumeSandboxInstanceRequest {
    pub instance_id: String,
    /// Default 5 min, 30 s to 24 h.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub timeout: Option<String>,
}

#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct ResumeSandboxInstanceResponse {}

/// Lists instances by offset. Filters: `Status`, `ToolName`, `ToolId`. Ids that do not exist are left out.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "PascalCase")]
pub struct DescribeSandboxInstanceListRequest {
    /// At most 100.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub instance_ids: Option<Vec<String>>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub tool_id: Option<String>,
    /// Default 0.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub offset: Option<i64>,
    /// Default 20, at most 100.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub limit: Option<i64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub filters: Option<Vec<Filter>>,
}

#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "PascalCase")]
pub struct DescribeSandboxInstanceListResponse {
    #[serde(default, deserialize_with = "null_as_default")]
    pub instance_set: Vec<SandboxInstance>,
    /// Of all matches, not of the page.
    #[serde(default, deserialize_with = "null_as_default")]
    pub total_count: i64,
}

/// Issues a token for an instance's data plane.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "PascalCase")]
pub struct AcquireSandboxInstanceTokenRequest {
    pub instance_id: String,
}

#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "PascalCase")]
pub struct AcquireSandboxInstanceTokenResponse {
    /// `sit_…`, for `X-Access-Token`.
    pub token: WireSecret,
    #[serde(default, with = "timestamp", skip_serializing_if = "Option::is_none")]
    pub expires_at: Option<DateTime<Utc>>,
    /// For ports other than 49983.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub traffic_token: Option<WireSecret>,
}
