//! API keys.

use axum::extract::State;
use chrono::{DateTime, Utc};
use http::StatusCode;
use secrecy::ExposeSecret;
use serde::{Deserialize, Serialize};
use utoipa::{IntoParams, ToSchema};
use utoipa_axum::{router::OpenApiRouter, routes};

use crate::{
    app::{self, App, keys::Minted},
    domain::{
        credential::ApiKey,
        duration::Seconds,
        page::PageRequest,
        scope::{Scope, scope},
    },
    error::Result,
    http::{
        extract::{Authorized, FromQuery, Json, List, Path, Query, QueryReader},
        openapi::Failures,
    },
    ids::{InstanceId, KeyId, TeamId},
};

/// A key, without its secret.
#[derive(Debug, Serialize, ToSchema)]
#[schema(as = ApiKey)]
pub struct KeyDto {
    pub id: KeyId,
    pub team_id: TeamId,
    pub name: String,
    pub kind: String,
    /// The first characters of the key, to recognise it by.
    pub prefix: String,
    pub scopes: Vec<Scope>,
    /// The key that minted this one.
    pub issuer_id: Option<KeyId>,
    /// Set: the key may touch this instance alone.
    pub instance_id: Option<InstanceId>,
    pub created_at: DateTime<Utc>,
    pub expires_at: Option<DateTime<Utc>>,
    pub revoked_at: Option<DateTime<Utc>>,
    /// To the minute.
    pub last_used_at: Option<DateTime<Utc>>,
}

impl From<ApiKey> for KeyDto {
    fn from(key: ApiKey) -> Self {
        Self {
            id: key.id,
            team_id: key.team_id,
            name: key.name,
            kind: key.kind,
            prefix: key.prefix,
            scopes: key.scopes.iter().collect(),
            issuer_id: key.issuer_id,
            instance_id: key.instance_id,
            created_at: key.created_at,
            expires_at: key.expires_at,
            revoked_at: key.revoked_at,
            last_used_at: key.last_used_at,
        }
    }
}

/// A key with its secret, shown this once.
#[derive(Serialize, ToSchema)]
pub struct MintedKey {
    /// The whole key. It is not stored and cannot be shown again.
    #[schema(example = "agsk_0123456789abcdef…")]
    pub secret: String,
    #[serde(flatten)]
    pub key: KeyDto,
}

impl From<Minted> for MintedKey {
    fn from(minted: Minted) -> Self {
        Self { secret: minted.secret.expose_secret().to_owned(), key: minted.key.into() }
    }
}

/// A key to be minted. It is never wider than the key that mints it.
#[derive(Debug, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
#[schema(example = json!({"name": "ci", "scopes": ["instances:read", "instances:write", "exec"], "expires_in": "24h"}))]
pub struct CreateKey {
    #[schema(min_length = 1, max_length = 50)]
    pub name: String,
    #[schema(min_items = 1)]
    pub scopes: Vec<Scope>,
    /// How long it shall be valid; left out, as long as the key that mints it.
    #[schema(required = false)]
    pub expires_in: Option<Seconds>,
    /// Limits the key to one instance.
    pub instance_id: Option<InstanceId>,
    /// The team it is for, id or name; administrators only. Default: the caller's.
    pub team: Option<String>,
    #[serde(default)]
    pub kind: KeyKind,
}

/// What speaks with the key.
#[derive(Clone, Copy, Debug, Default, Deserialize, ToSchema)]
#[serde(rename_all = "lowercase")]
pub enum KeyKind {
    /// This API, and the E2B one.
    #[default]
    Api,
}

/// How to rotate.
#[derive(Debug, Default, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
#[schema(example = json!({"grace": "1h"}))]
pub struct RotateKey {
    /// How long the old secret stays valid. Default: it ends at once.
    #[schema(required = false)]
    pub grace: Option<Seconds>,
}

/// Which keys.
#[derive(Debug, IntoParams)]
#[into_params(parameter_in = Query)]
pub struct KeysQuery {
    /// Another team's keys, by its id or name; administrators only.
    pub team: Option<String>,
    /// How many items at most.
    #[param(minimum = 1, maximum = 100, default = 20)]
    #[allow(dead_code, reason = "documentation; `page` holds what was read")]
    limit: Option<u32>,
    /// `next_cursor` of the page before.
    #[allow(dead_code, reason = "documentation; `page` holds what was read")]
    cursor: Option<String>,
    #[param(ignore)]
    page: PageRequest,
}

impl FromQuery for KeysQuery {
    fn from_query(query: &mut QueryReader) -> Self {
        Self { team: query.text("team"), limit: None, cursor: None, page: query.page() }
    }
}

pub fn routes() -> OpenApiRouter<App> {
    OpenApiRouter::new().routes(routes!(create_key, list_keys)).routes(routes!(rotate_key)).routes(routes!(delete_key))
}

/// Mints a key. Its secret is shown in this answer and never again.
#[utoipa::path(post, path = "/v1/keys", operation_id = "create_key", tag = "keys", request_body = CreateKey,
    responses((status = 201, body = MintedKey), Failures))]
async fn create_key(
    State(app): State<App>,
    caller: Authorized<scope::KeysOrAdmin>,
    Json(body): Json<CreateKey>,
) -> Result<(StatusCode, Json<MintedKey>)> {
    let KeyKind::Api = body.kind;
    let wanted = app::keys::Wanted {
        name: body.name,
        scopes: body.scopes.into_iter().collect(),
        expires_at: app::keys::expiry(app.clock.now(), body.expires_in)?,
        instance: body.instance_id,
    };
    let minted = app::keys::create(&app, &caller, body.team.as_deref(), wanted).await?;
    Ok((StatusCode::CREATED, Json(minted.into())))
}

/// The team's keys, newest first, revoked ones included.
#[utoipa::path(get, path = "/v1/keys", operation_id = "list_keys", tag = "keys", params(KeysQuery),
    responses((status = 200, body = List<KeyDto>), Failures))]
async fn list_keys(
    State(app): State<App>,
    caller: Authorized<scope::KeysOrAdmin>,
    Query(query): Query<KeysQuery>,
) -> Result<List<KeyDto>> {
    caller.require_unbound()?;
    let team = app::keys::target_team(&app, &caller, query.team.as_deref()).await?;
    Ok(List::of(app::keys::list(&app.pool, &team, &query.page).await?, KeyDto::from))
}

/// Replaces a key's secret; during `grace` both work.
#[utoipa::path(post, path = "/v1/keys/{id}/rotate", operation_id = "rotate_key", tag = "keys",
    params(("id" = KeyId, Path)), request_body = Option<RotateKey>,
    responses((status = 200, body = MintedKey), Failures))]
async fn rotate_key(
    State(app): State<App>,
    caller: Authorized<scope::KeysOrAdmin>,
    Path(id): Path<KeyId>,
    body: Option<Json<RotateKey>>,
) -> Result<Json<MintedKey>> {
    let grace = body.and_then(|Json(body)| body.grace).unwrap_or(Seconds(0));
    let team = app::keys::manageable(&app, &caller, &id).await?;
    let minted = app::keys::rotate(&app.pool, &app.peppers, &team, &id, grace).await?;
    app.auth.forget_all();
    Ok(Json(minted.into()))
}

/// Revokes a key and every key that was minted from it.
#[utoipa::path(delete, path = "/v1/keys/{id}", operation_id = "delete_key", tag = "keys",
    params(("id" = KeyId, Path)), responses((status = 204), Failures))]
async fn delete_key(
    State(app): State<App>,
    caller: Authorized<scope::KeysOrAdmin>,
    Path(id): Path<KeyId>,
) -> Result<StatusCode> {
    let team = app::keys::manageable(&app, &caller, &id).await?;
    app::keys::revoke(&app.pool, &team, &id).await?;
    app.auth.forget_all();
    Ok(StatusCode::NO_CONTENT)
}
