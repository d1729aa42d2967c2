//! API keys.

use std::sync::Arc;

use axum::{extract::State, response::Response};
use chrono::{DateTime, Utc};
use http::StatusCode;
use secrecy::ExposeSecret;
use serde::{Deserialize, Serialize};
use utoipa::{IntoParams, ToSchema};
use utoipa_axum::{router::OpenApiRouter, routes};

use crate::{
    app::{
        self, App,
        keys::{Mint, Minted, Secret},
    },
    auth::Caller,
    domain::{
        credential::{self, ApiKey},
        duration::Seconds,
        scope::{Scope, scope},
    },
    error::Result,
    http::{
        extract::{Authorized, FromQuery, Path, Query, QueryReader},
        idempotency::{Created, Creation, Keyed, KeyedOption, lost, once},
        openapi::Failures,
        page::{List, PageQuery},
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
    #[schema(value_type = KeyKind)]
    pub kind: &'static str,
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
            kind: key.kind.as_str(),
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
    /// The whole key. It is not stored and cannot be shown again: null in the repetition of a call, and of kind `tencent`.
    #[schema(example = "agsk_0123456789abcdef…")]
    pub secret: Option<String>,
    /// Of kind `tencent`: the id of the pair that signs.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub secret_id: Option<String>,
    /// Of kind `tencent`: the key of the pair. It cannot be shown again: null in the repetition of a call.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub secret_key: Option<String>,
    #[serde(flatten)]
    pub key: KeyDto,
}

impl From<Minted> for MintedKey {
    fn from(minted: Minted) -> Self {
        let (mut made, key) = (Self::without_secret(minted.key), minted.secret);
        match key {
            Secret::Key(secret) => made.secret = Some(secret.expose_secret().to_owned()),
            Secret::Pair(pair) => {
                made.secret_id = Some(pair.secret_id);
                made.secret_key = Some(pair.secret_key.expose_secret().to_owned());
            }
        }
        made
    }
}

impl MintedKey {
    fn without_secret(key: ApiKey) -> Self {
        Self { secret: None, secret_id: None, secret_key: None, key: key.into() }
    }
}

impl Creation for MintedKey {
    const SHOWN_ONCE: &'static [&'static str] = &["secret", "secret_key"];
}

/// A key to be minted. It is never wider than the key that mints it.
#[derive(Debug, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
#[schema(example = json!({"name": "ci", "scopes": ["instances:read", "instances:write", "exec"], "expires_in": "24h"}))]
pub struct CreateKey {
    #[schema(
        min_length = 1,
        max_length = 50,
        pattern = "^[^\\s\\x00-\\x1f\\x7f-\\x9f]([^\\x00-\\x1f\\x7f-\\x9f]*[^\\s\\x00-\\x1f\\x7f-\\x9f])?$"
    )]
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
    /// The key itself: this API, and E2B's.
    #[default]
    Api,
    /// Signatures made with a pair (TC3): the cloud's own API, as the gateway answers it at `/`.
    Tencent,
}

impl From<KeyKind> for credential::KeyKind {
    fn from(kind: KeyKind) -> Self {
        match kind {
            KeyKind::Api => Self::Api,
            KeyKind::Tencent => Self::Tencent,
        }
    }
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
    /// Only live keys that were not used for so long, such as `720h`: to be looked at, and perhaps revoked.
    #[param(value_type = Option<String>, example = "720h")]
    unused_for: Option<Seconds>,
    #[param(ignore)]
    page: PageQuery,
}

impl FromQuery for KeysQuery {
    fn from_query(query: &mut QueryReader) -> Self {
        Self { team: query.text("team"), unused_for: query.duration("unused_for"), page: PageQuery::from_query(query) }
    }
}

pub fn routes() -> OpenApiRouter<App> {
    OpenApiRouter::new().routes(routes!(create_key, list_keys)).routes(routes!(rotate_key)).routes(routes!(delete_key))
}

/// Mints a key. Its secret is shown in this answer and never again.
#[utoipa::path(post, path = "/v1/keys", operation_id = "create_key", tag = "keys", request_body = CreateKey,
    params(("Idempotency-Key" = Option<String>, Header, description = "Makes a repetition safe for 24 h; it does not show the secret again.")),
    responses((status = 201, body = MintedKey), Failures))]
async fn create_key(
    State(app): State<App>,
    caller: Authorized<scope::KeysOrAdmin>,
    Keyed { body, key }: Keyed<CreateKey>,
) -> Result<Response> {
    let wanted = app::keys::Wanted {
        name: body.name,
        scopes: body.scopes.into_iter().collect(),
        expires_at: app::keys::expiry(app.clock.now(), body.expires_in)?,
        instance: body.instance_id,
        kind: body.kind.into(),
    };
    let team = body.team;
    let first = move |app: App, caller: Arc<Caller>, intent| async move {
        let minted = app::keys::create(&app, &caller, team.as_deref(), wanted, intent).await?;
        Ok((StatusCode::CREATED, MintedKey::from(minted)))
    };
    once(&app, caller.into_caller(), key, first, resumed).await
}

async fn resumed(app: App, caller: Arc<Caller>, id: String) -> Result<Created<MintedKey>> {
    let id: KeyId = id.parse().map_err(|_| lost())?;
    let key = app::keys::get(&app, &caller, &id).await.map_err(|_| lost())?;
    Ok((StatusCode::CREATED, MintedKey::without_secret(key)))
}

/// The team's keys, newest first, revoked ones included.
#[utoipa::path(get, path = "/v1/keys", operation_id = "list_keys", tag = "keys", params(KeysQuery, PageQuery),
    responses((status = 200, body = List<KeyDto>), Failures))]
async fn list_keys(
    State(app): State<App>,
    caller: Authorized<scope::KeysOrAdmin>,
    Query(query): Query<KeysQuery>,
) -> Result<List<KeyDto>> {
    caller.require_unbound()?;
    let team = app::keys::target_team(&app, &caller, query.team.as_deref()).await?;
    Ok(List::of(app::keys::list(&app.pool, &team, query.unused_for, &query.page.into()).await?, KeyDto::from))
}

/// Replaces a key's secret; during `grace` both work.
#[utoipa::path(post, path = "/v1/keys/{id}/rotate", operation_id = "rotate_key", tag = "keys",
    params(("id" = KeyId, Path),
        ("Idempotency-Key" = Option<String>, Header, description = "A repetition replaces nothing, and does not show the secret again.")),
    request_body = Option<RotateKey>,
    responses((status = 200, body = MintedKey), Failures))]
async fn rotate_key(
    State(app): State<App>,
    caller: Authorized<scope::KeysOrAdmin>,
    Path(id): Path<KeyId>,
    KeyedOption { body, key }: KeyedOption<RotateKey>,
) -> Result<Response> {
    let grace = body.and_then(|body| body.grace).unwrap_or(Seconds(0));
    let team = app::keys::manageable(&app, &caller, &id).await?;
    let first = move |app: App, caller: Arc<Caller>, _| async move {
        let minted = app::keys::rotate(&app.pool, Mint::of(&app), &team, &id, grace, &caller.trail).await?;
        app.auth.forget_all();
        Ok((StatusCode::OK, MintedKey::from(minted)))
    };
    // Nothing is noted with the key: a call that died told nobody its secret, and is made again.
    let again = |_: App, _: Arc<Caller>, _| async { Err::<Created<MintedKey>, _>(lost()) };
    once(&app, caller.into_caller(), key, first, again).await
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
    app::keys::revoke(&app.pool, &team, &id, &caller.trail).await?;
    app.auth.forget_all();
    Ok(StatusCode::NO_CONTENT)
}
