//! API keys of the E2B endpoint (PROTOCOLS B.8) and the image pre-cache (B.9).

use ags_client::types::{
    ApiKeyInfo, ApiKeyStatus, CreateApiKeyRequest, CreateApiKeyResponse, CreatePreCacheImageTaskRequest,
    CreatePreCacheImageTaskResponse, DeleteApiKeyRequest, DeleteApiKeyResponse, DescribeApiKeyListResponse,
    DescribePreCacheImageTaskRequest, DescribePreCacheImageTaskResponse,
};
use chrono::SubsecRound as _;
use secrecy::ExposeSecret as _;
use subtle::ConstantTimeEq as _;

use super::error::{ApiError, ApiResult};
use super::persist::ApiKey;
use super::{Cloud, validate};
use crate::ids;

const MAX_KEY_NAME: usize = 64;

impl Cloud {
    pub fn create_api_key(&self, request: CreateApiKeyRequest) -> ApiResult<CreateApiKeyResponse> {
        let name = request.name.unwrap_or_default();
        if name.chars().count() > MAX_KEY_NAME {
            return Err(ApiError::value("Name", "Name is longer than 64 characters."));
        }
        let limit = self.tunables().max_api_keys;
        let key =
            ApiKey { id: ids::api_key_id(), name, key: ids::api_key(), created_at: self.clock.now().trunc_subsecs(0) };
        self.with_state(|state| {
            if state.keys.len() >= limit {
                let message = format!("The quota of {limit} API keys is used up.");
                return Err(ApiError::new("LimitExceeded.APIKeyQuota", message));
            }
            state.keys.insert(key.id.clone(), key.clone());
            self.saved(state)
        })?;
        Ok(CreateApiKeyResponse { name: Some(key.name), api_key: key.key.into(), key_id: key.id })
    }

    pub fn list_api_keys(&self) -> DescribeApiKeyListResponse {
        let api_key_set: Vec<ApiKeyInfo> = self.with_state(|state| state.keys.values().map(describe).collect());
        let total_count = i64::try_from(api_key_set.len()).unwrap_or(i64::MAX);
        DescribeApiKeyListResponse { api_key_set, total_count }
    }

    pub fn delete_api_key(&self, request: &DeleteApiKeyRequest) -> ApiResult<DeleteApiKeyResponse> {
        self.with_state(|state| {
            if state.keys.shift_remove(&request.key_id).is_none() {
                let message = format!("API key `{}` does not exist.", request.key_id);
                return Err(ApiError::new("ResourceNotFound", message));
            }
            self.saved(state)
        })?;
        Ok(DeleteApiKeyResponse {})
    }

    /// Whose key this is: its id, or `configured` for one from the settings.
    pub fn api_key_owner(&self, given: &str) -> Option<String> {
        let same = |key: &str| bool::from(key.as_bytes().ct_eq(given.as_bytes()));
        if self.settings.api_keys.iter().any(|key| same(key.expose_secret())) {
            return Some("configured".into());
        }
        self.with_state(|state| state.keys.values().find(|key| same(&key.key)).map(|key| key.id.clone()))
    }

    pub fn create_precache(
        &self,
        request: CreatePreCacheImageTaskRequest,
    ) -> ApiResult<CreatePreCacheImageTaskResponse> {
        if request.image.is_empty() {
            return Err(ApiError::missing("Image"));
        }
        validate::registry_type(&request.image_registry_type)?;
        Ok(CreatePreCacheImageTaskResponse {
            image_digest: ids::image_digest(&request.image),
            image: request.image,
            image_registry_type: request.image_registry_type,
        })
    }

    /// Nothing is pulled, so every known digest is cached already.
    pub fn describe_precache(
        &self,
        request: DescribePreCacheImageTaskRequest,
    ) -> ApiResult<DescribePreCacheImageTaskResponse> {
        if request.image_digest != ids::image_digest(&request.image) {
            return Err(ApiError::invalid("No pre-cache task has this image and digest."));
        }
        Ok(DescribePreCacheImageTaskResponse {
            image: request.image,
            image_digest: request.image_digest,
            image_registry_type: request.image_registry_type,
            status: Some("Success".into()),
            message: Some(String::new()),
        })
    }
}

fn describe(key: &ApiKey) -> ApiKeyInfo {
    let (head, tail) = (&key.key[..6.min(key.key.len())], &key.key[key.key.len().saturating_sub(4)..]);
    ApiKeyInfo {
        name: Some(key.name.clone()),
        key_id: Some(key.id.clone()),
        status: Some(ApiKeyStatus::Active),
        masked_key: Some(format!("{head}****{tail}")),
        created_at: Some(key.created_at),
    }
}
