//! Keys (PROTOCOLS B.8): what the cloud gives for its E2B endpoint is here a key of the gateway, good for all its faces.

use std::sync::Arc;

use ags_client::types::{
    ApiKeyInfo, CreateApiKeyRequest, CreateApiKeyResponse, DeleteApiKeyRequest, DeleteApiKeyResponse,
    DescribeApiKeyListRequest, DescribeApiKeyListResponse,
};
use axum::{Json, extract::State, response::Response};
use http::StatusCode;
use secrecy::ExposeSecret;

use super::Call;
use crate::{
    app::{self, App, keys::Wanted},
    auth::Caller,
    domain::{
        credential::{ApiKey, KeyKind, e2b_form},
        page::{MAX_LIMIT, PageRequest},
        scope::Scope,
    },
    error::{Error, Result},
    http::idempotency::{Creation, lost, once},
    ids::KeyId,
};

const UNNAMED: &str = "unnamed";

impl Creation for CreateApiKeyResponse {
    const SHOWN_ONCE: &'static [&'static str] = &["APIKey"];
}

/// Mints a key with the scopes of the one that signs, in the form that E2B's SDKs take.
pub(super) async fn create(State(app): State<App>, call: Call<CreateApiKeyRequest>) -> Result<Response> {
    call.require(&[Scope::Keys, Scope::Admin])?;
    let name = call.request.name.filter(|name| !name.is_empty()).unwrap_or_else(|| UNNAMED.to_owned());
    let first = move |app: App, caller: Arc<Caller>, intent| async move {
        let scopes = caller.scopes.iter().filter(|scope| *scope != Scope::Admin).collect();
        let wanted = Wanted { name, scopes, expires_at: None, instance: None, kind: KeyKind::Api };
        let minted = app::keys::create(&app, &caller, None, wanted, intent).await?;
        let secret = minted.secret.into_key().ok_or_else(lost)?;
        let answer = CreateApiKeyResponse {
            name: Some(minted.key.name),
            api_key: e2b_form(secret.expose_secret()).into(),
            key_id: minted.key.id.to_string(),
        };
        Ok((StatusCode::OK, answer))
    };
    let again = |_: App, _: Arc<Caller>, _: String| async move { Err(lost()) };
    once(&app, call.caller, None, first, again).await
}

pub(super) async fn list(
    State(app): State<App>,
    call: Call<DescribeApiKeyListRequest>,
) -> Result<Json<DescribeApiKeyListResponse>> {
    call.require(&[Scope::Keys, Scope::Admin])?;
    call.caller.require_unbound()?;
    let mut api_key_set = Vec::new();
    let mut page = PageRequest { limit: MAX_LIMIT, before: None };
    loop {
        let found = app::keys::list(&app.pool, call.caller.team_id(), None, &page).await?;
        let live = |key: &ApiKey| key.kind == KeyKind::Api && key.revoked_at.is_none();
        api_key_set.extend(found.items.into_iter().filter(live).map(|key| info(&app, key)));
        page.before = found.next;
        if page.before.is_none() {
            break;
        }
    }
    let total_count = i64::try_from(api_key_set.len()).unwrap_or(i64::MAX);
    Ok(Json(DescribeApiKeyListResponse { api_key_set, total_count }))
}

fn info(app: &App, key: ApiKey) -> ApiKeyInfo {
    let expired = key.expires_at.is_some_and(|end| end <= app.clock.now());
    let status = if expired { "API_KEY_STATUS_INACTIVE" } else { "API_KEY_STATUS_ACTIVE" };
    ApiKeyInfo {
        name: Some(key.name),
        key_id: Some(key.id.to_string()),
        status: Some(status.into()),
        masked_key: Some(format!("{}****", e2b_form(&key.prefix))),
        created_at: Some(key.created_at),
    }
}

pub(super) async fn delete(
    State(app): State<App>,
    call: Call<DeleteApiKeyRequest>,
) -> Result<Json<DeleteApiKeyResponse>> {
    call.require(&[Scope::Keys, Scope::Admin])?;
    let id: KeyId = call.request.key_id.parse().map_err(|_| Error::not_found("key"))?;
    let key = app::keys::get(&app, &call.caller, &id).await?;
    if key.revoked_at.is_some() {
        return Err(Error::not_found("key"));
    }
    app::keys::revoke(&app.pool, &key.team_id, &id, &call.caller.trail).await?;
    app.auth.forget_all();
    Ok(Json(DeleteApiKeyResponse {}))
}
