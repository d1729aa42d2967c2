//! Tools, and the image pre-cache.

use chrono::{DateTime, Utc};
use serde::{Deserialize, Serialize};

use super::config::{
    CustomConfiguration, CustomConfigurationDetail, Filter, LogConfiguration, NetworkConfiguration, Tag,
};
use super::enums::{ImageRegistryType, ToolStatus, ToolType};
use super::storage::StorageMount;
use super::wire::{null_as_default, timestamp};

/// A tool (a template, in E2B terms).
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "PascalCase")]
pub struct SandboxTool {
    /// `sdt-` and 8 lower-case alphanumerics.
    pub tool_id: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub tool_name: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub tool_type: Option<ToolType>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub status: Option<ToolStatus>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub description: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub persistent: Option<bool>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub default_timeout_seconds: Option<u64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub network_configuration: Option<NetworkConfiguration>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub tags: Option<Vec<Tag>>,
    #[serde(default, with = "timestamp", skip_serializing_if = "Option::is_none")]
    pub create_time: Option<DateTime<Utc>>,
    #[serde(default, with = "timestamp", skip_serializing_if = "Option::is_none")]
    pub update_time: Option<DateTime<Utc>>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub role_arn: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub storage_mounts: Option<Vec<StorageMount>>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub custom_configuration: Option<CustomConfigurationDetail>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub log_configuration: Option<LogConfiguration>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub status_reason: Option<String>,
}

/// Creates a tool; it serves instances once ACTIVE.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "PascalCase")]
pub struct CreateSandboxToolRequest {
    /// 1-50 of `[A-Za-z0-9_-]`, unique in the account.
    pub tool_name: String,
    pub tool_type: ToolType,
    pub network_configuration: NetworkConfiguration,
    /// At most 200 characters.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub description: Option<String>,
    /// A [timeout string](crate::timeout), 30 s to 24 h.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub default_timeout: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub tags: Option<Vec<Tag>>,
    /// Idempotency token, at most 64 characters.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub client_token: Option<String>,
    /// Required with COS mounts.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub role_arn: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub storage_mounts: Option<Vec<StorageMount>>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub custom_configuration: Option<CustomConfiguration>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub log_configuration: Option<LogConfiguration>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub persistent: Option<bool>,
}

#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "PascalCase")]
pub struct CreateSandboxToolResponse {
    pub tool_id: String,
}

/// Changes a tool. What is omitted stays.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "PascalCase")]
pub struct UpdateSandboxToolRequest {
    pub tool_id: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub description: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub network_configuration: Option<NetworkConfiguration>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub tags: Option<Vec<Tag>>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub custom_configuration: Option<CustomConfiguration>,
}

#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct UpdateSandboxToolResponse {}

/// Deletes a tool that has no live instances.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "PascalCase")]
pub struct DeleteSandboxToolRequest {
    pub tool_id: String,
}

#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct DeleteSandboxToolResponse {}

/// Lists tools by offset. Filters: `ToolName` (exact), `ToolType`, `Status`.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "PascalCase")]
pub struct DescribeSandboxToolListRequest {
    /// At most 100.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub tool_ids: Option<Vec<String>>,
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
pub struct DescribeSandboxToolListResponse {
    #[serde(default, deserialize_with = "null_as_default")]
    pub sandbox_tool_set: Vec<SandboxTool>,
    /// Of all matches, not of the page.
    #[serde(default, deserialize_with = "null_as_default")]
    pub total_count: i64,
}

/// Starts caching an image.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "PascalCase")]
pub struct CreatePreCacheImageTaskRequest {
    pub image: String,
    pub image_registry_type: ImageRegistryType,
}

#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "PascalCase")]
pub struct CreatePreCacheImageTaskResponse {
    pub image: String,
    pub image_digest: String,
    pub image_registry_type: ImageRegistryType,
}

/// Asks how caching an image is getting on.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "PascalCase")]
pub struct DescribePreCacheImageTaskRequest {
    pub image: String,
    pub image_digest: String,
    pub image_registry_type: ImageRegistryType,
}

#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "PascalCase")]
pub struct DescribePreCacheImageTaskResponse {
    pub image: String,
    pub image_digest: String,
    pub image_registry_type: ImageRegistryType,
    /// For example `Success`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub status: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub message: Option<String>,
}
