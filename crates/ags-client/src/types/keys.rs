//! API keys of AGS's own E2B endpoint.

use chrono::{DateTime, Utc};
use serde::{Deserialize, Serialize};

use super::enums::ApiKeyStatus;
use super::secret::WireSecret;
use super::wire::{null_as_default, timestamp};

/// A key of AGS's own E2B endpoint, without its secret.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "PascalCase")]
pub struct ApiKeyInfo {
    #[serde(skip_serializing_if = "Option::is_none")]
    pub name: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub key_id: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub status: Option<ApiKeyStatus>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub masked_key: Option<String>,
    #[serde(default, with = "timestamp", skip_serializing_if = "Option::is_none")]
    pub created_at: Option<DateTime<Utc>>,
}

/// Creates a key.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "PascalCase")]
pub struct CreateApiKeyRequest {
    #[serde(skip_serializing_if = "Option::is_none")]
    pub name: Option<String>,
}

#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "PascalCase")]
pub struct CreateApiKeyResponse {
    #[serde(skip_serializing_if = "Option::is_none")]
    pub name: Option<String>,
    /// `ark_…`, shown only here.
    #[serde(rename = "APIKey")]
    pub api_key: WireSecret,
    pub key_id: String,
}

/// Lists all keys; there is no paging.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct DescribeApiKeyListRequest {}

#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "PascalCase")]
pub struct DescribeApiKeyListResponse {
    #[serde(rename = "APIKeySet", default, deserialize_with = "null_as_default")]
    pub api_key_set: Vec<ApiKeyInfo>,
    /// Of all matches, not of the page.
    #[serde(default, deserialize_with = "null_as_default")]
    pub total_count: i64,
}

/// Deletes a key.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "PascalCase")]
pub struct DeleteApiKeyRequest {
    pub key_id: String,
}

#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct DeleteApiKeyResponse {}
