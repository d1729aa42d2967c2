//! Ports of instances: programs' way to them, and browsers' previews.

use std::{num::NonZeroU16, sync::Arc};

use axum::{
    extract::{Request, State},
    response::Response,
    routing::any,
};
use chrono::{DateTime, Utc};
use http::{StatusCode, uri::PathAndQuery};
use secrecy::ExposeSecret;
use serde::{Deserialize, Serialize};
use utoipa::{OpenApi, ToSchema};
use utoipa_axum::{router::OpenApiRouter, routes};

use crate::{
    app::{
        App, instances,
        ports::{self, Visitor, Wanted},
    },
    auth::{Caller, Recognised},
    domain::{duration::Seconds, port::Port, preview::Preview, scope::scope},
    error::{Error, Result},
    http::{
        address::OwnAddress,
        extract::{Authorized, Path, Query},
        idempotency::{Created, Creation, Keyed, lost, once},
        openapi::Failures,
        page::{List, PageQuery},
        proxy::{self, Call, LINK, Plane},
    },
    ids::{InstanceId, KeyId, PreviewId},
    telemetry::request::RequestLog,
};

/// A preview to be made.
#[derive(Debug, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
#[schema(example = json!({"port": 8000, "ttl": "1h"}))]
pub struct CreatePreview {
    /// The port that the browser shall see.
    #[schema(value_type = u16, minimum = 1, maximum = 65535)]
    pub port: NonZeroU16,
    /// How long the link and the browser's leave are good. Default by configuration: 1 h.
    #[schema(required = false)]
    pub ttl: Option<Seconds>,
}

/// A preview just made.
#[derive(Serialize, ToSchema)]
pub struct PreviewLink {
    pub id: PreviewId,
    pub port: u16,
    /// To be opened in a browser, once; the parameter may be put on any path of the host. Shown in this answer only: null in
    /// the repetition of a call.
    pub url: Option<String>,
    pub expires_at: DateTime<Utc>,
}

impl Creation for PreviewLink {
    const SHOWN_ONCE: &'static [&'static str] = &["url"];
}

/// A live preview.
#[derive(Serialize, ToSchema)]
#[schema(as = Preview)]
pub struct PreviewDto {
    pub id: PreviewId,
    pub instance_id: InstanceId,
    pub port: u16,
    pub created_at: DateTime<Utc>,
    pub created_by: KeyId,
    pub expires_at: DateTime<Utc>,
    /// When a browser opened the link; null as long as none did.
    pub opened_at: Option<DateTime<Utc>>,
}

impl From<Preview> for PreviewDto {
    fn from(preview: Preview) -> Self {
        Self {
            id: preview.id,
            instance_id: preview.instance_id,
            port: preview.port,
            created_at: preview.created_at,
            created_by: preview.key_id,
            expires_at: preview.expires_at,
            opened_at: preview.opened_at,
        }
    }
}

/// The document has no word for a path that goes on, nor for every method: it is described apart from its route.
#[derive(OpenApi)]
#[openapi(paths(proxy_port))]
struct Described;

/// Where a port is reached, as logged and counted.
pub const PORT_ROUTE: &str = "/v1/instances/{id}/ports/{port}/{*path}";

pub fn routes() -> OpenApiRouter<App> {
    OpenApiRouter::with_openapi(Described::openapi())
        .route("/v1/instances/{id}/ports/{port}", any(proxy_port))
        .route("/v1/instances/{id}/ports/{port}/", any(proxy_port))
        .route(PORT_ROUTE, any(proxy_port))
        .routes(routes!(create_preview, list_previews))
        .routes(routes!(delete_preview))
}

/// Passes any request on to what listens on a port: HTTP with streams of any length both ways, SSE, and WebSockets.
///
/// For programs. The answer is the server's own but for what would concern this origin: no cookies either way, and headers
/// that keep browsers from running or showing it. Browsers use previews, on a host of the port's own.
/// Port 49983 (commands and files) also needs `exec`, `files:read` and `files:write`.
#[utoipa::path(method(get, head, post, put, patch, delete, options), path = "/v1/instances/{id}/ports/{port}/{path}",
    operation_id = "proxy_port", tag = "ports",
    params(("id" = InstanceId, Path), ("port" = u16, Path, minimum = 1, maximum = 65535),
        ("path" = String, Path, description = "Path on the server, with the query; passed on byte for byte.")),
    responses((status = "default",
        description = "What the server on the port answers; a problem document where the call did not get there.")))]
pub async fn proxy_port(State(app): State<App>, request: Request) -> Result<Response> {
    let (id, port, prefix, target) = take_apart(request.uri())?;
    let Recognised { caller, header, believed_until } = app.auth.recognise(request.headers()).await?;
    if let Some(log) = request.extensions().get::<RequestLog>() {
        log.note(caller.team_id(), &caller.key_id);
    }
    let instance = id.parse().map_err(|_| Error::not_found("instance"))?;
    let visitor = Visitor::Key(caller);
    let plane = Plane::Path { prefix };
    let (credential, believed_until) = (Some(header), Some(believed_until));
    let call = Call { plane, instance, port, visitor, credential, believed_until, target, may_half_close: true };
    proxy::pass(&app, call, request).await
}

/// Whether a path is of this kind, well-formed or not.
#[must_use]
pub fn is_port_path(path: &str) -> bool {
    let below = path.strip_prefix("/v1/instances/").and_then(|rest| rest.split_once('/'));
    below.is_some_and(|(_, rest)| rest.starts_with("ports/"))
}

/// `/v1/instances/{id}/ports/{port}` and what follows, as it came.
fn take_apart(uri: &http::Uri) -> Result<(&str, Port, String, PathAndQuery)> {
    let unknown = || Error::not_found("path");
    let path = uri.path();
    let (id, rest) = path.strip_prefix("/v1/instances/").and_then(|rest| rest.split_once('/')).ok_or_else(unknown)?;
    let rest = rest.strip_prefix("ports/").ok_or_else(unknown)?;
    let (port, below) = rest.split_at(rest.find('/').unwrap_or(rest.len()));
    let prefix = &path[..path.len() - below.len()];
    let port: Port =
        port.parse().map_err(|error: crate::domain::port::InvalidPort| Error::field("port", error.to_string()))?;
    let below = if below.is_empty() { "/" } else { below };
    let target = match uri.query() {
        Some(query) => format!("{below}?{query}").parse(),
        None => below.parse(),
    };
    Ok((id, port, prefix.to_owned(), target.map_err(|_| unknown())?))
}

/// Makes a link with which a browser sees one port: once for one browser, for a while, until it is revoked.
///
/// The browser exchanges the link for a cookie of the port's own host. Needs a `sandbox_domain`.
#[utoipa::path(post, path = "/v1/instances/{id}/previews", operation_id = "create_preview", tag = "ports",
    params(("id" = InstanceId, Path),
        ("Idempotency-Key" = Option<String>, Header, description = "Makes a repetition safe for 24 h; it does not show the link again.")),
    request_body = CreatePreview,
    responses((status = 201, body = PreviewLink), Failures))]
async fn create_preview(
    State(app): State<App>,
    caller: Authorized<scope::Ports>,
    Path(id): Path<InstanceId>,
    OwnAddress(base): OwnAddress,
    Keyed { body, key }: Keyed<CreatePreview>,
) -> Result<Response> {
    caller.require_instance(&id)?;
    let port = Port::from(body.port);
    let first = move |app: App, caller: Arc<Caller>, noted| async move {
        let link = ports::create(&app, &caller, &id, Wanted { port, ttl: body.ttl }, noted).await?;
        let domain = app.config.server.sandbox_domain.as_deref().unwrap_or_default();
        let host = instances::host_url(&id, port.get(), &base, domain);
        Ok(made(link.preview, Some(format!("{host}?{LINK}={}", link.token.expose_secret()))))
    };
    once(&app, caller.into_caller(), key, first, resumed).await
}

fn made(preview: Preview, url: Option<String>) -> Created<PreviewLink> {
    let link = PreviewLink { id: preview.id, port: preview.port, url, expires_at: preview.expires_at };
    (StatusCode::CREATED, link)
}

async fn resumed(app: App, caller: Arc<Caller>, id: String) -> Result<Created<PreviewLink>> {
    let id: PreviewId = id.parse().map_err(|_| lost())?;
    let preview = ports::get(&app, &caller, &id).await.map_err(|_| lost())?;
    Ok(made(preview, None))
}

/// The live previews of an instance, newest first.
#[utoipa::path(get, path = "/v1/instances/{id}/previews", operation_id = "list_previews", tag = "ports",
    params(("id" = InstanceId, Path), PageQuery), responses((status = 200, body = List<PreviewDto>), Failures))]
async fn list_previews(
    State(app): State<App>,
    caller: Authorized<scope::Ports>,
    Path(id): Path<InstanceId>,
    Query(query): Query<PageQuery>,
) -> Result<List<PreviewDto>> {
    Ok(List::of(ports::list(&app, &caller, &id, &query.into()).await?, PreviewDto::from))
}

/// Revokes a preview: its link, the browser's leave, and within a second what is open by it.
#[utoipa::path(delete, path = "/v1/instances/{id}/previews/{preview_id}", operation_id = "delete_preview", tag = "ports",
    params(("id" = InstanceId, Path), ("preview_id" = PreviewId, Path)), responses((status = 204), Failures))]
async fn delete_preview(
    State(app): State<App>,
    caller: Authorized<scope::Ports>,
    Path((id, preview)): Path<(InstanceId, PreviewId)>,
) -> Result<StatusCode> {
    ports::revoke(&app, &caller, &id, &preview).await?;
    Ok(StatusCode::NO_CONTENT)
}
