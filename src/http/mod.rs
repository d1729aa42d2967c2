//! The HTTP surface.

mod activity;
mod address;
mod audit;
mod client_addr;
mod client_io;
mod e2b;
pub mod extract;
mod forward;
pub mod front;
pub mod health;
mod held;
pub mod idempotency;
mod lane;
mod leftover;
mod limits;
mod objects;
pub mod openapi;
pub mod page;
pub mod problem;
mod proxy;
mod queries;
mod read_ahead;
pub mod request_log;
pub mod serve;
mod tencent;
pub mod tls;
mod unread;
pub mod v1;
pub mod websocket;

use axum::{
    Router,
    extract::{DefaultBodyLimit, Request, State},
    middleware::{self, Next},
    response::{IntoResponse, Response},
    routing::get,
};
use http::{HeaderName, HeaderValue, Method, header};
use tower_http::{
    catch_panic::CatchPanicLayer,
    cors::{AllowOrigin, CorsLayer},
    set_header::SetResponseHeaderLayer,
};
use utoipa::OpenApi;
use utoipa_axum::router::OpenApiRouter;
use utoipa_swagger_ui::{Config as SwaggerConfig, SwaggerUi};

use crate::{
    app::App,
    config::Server,
    error::{Code, Error},
};

/// Every documented route.
pub(crate) fn api() -> OpenApiRouter<App> {
    OpenApiRouter::with_openapi(openapi::Base::openapi()).merge(health::routes()).merge(v1::routes())
}

/// The routes, and the document of them.
fn api_parts() -> (Router<App>, utoipa::openapi::OpenApi) {
    let (routes, mut document) = api().split_for_parts();
    openapi::describe_wake(&mut document);
    openapi::describe_parameters(&mut document);
    (routes, document)
}

/// The API: routes and layers.
pub fn router(app: &App) -> Router {
    let (routes, document) = api_parts();
    let operations = audit::Operations::of(&document).and(e2b::operations().chain(tencent::operations()));
    let swagger = SwaggerUi::new("/docs")
        .url("/openapi.json", document)
        .config(SwaggerConfig::from("/openapi.json").persist_authorization(true).try_it_out_enabled(true));
    routes
        .merge(swagger)
        .nest(e2b::MOUNT, e2b::routes())
        .merge(tencent::routes())
        .route("/metrics", get(metrics))
        .fallback(unknown_path)
        .method_not_allowed_fallback(unknown_method)
        // From the outside in. Together they are one layer: of several, each would clone all that is inside of it for each request.
        .layer((
            // All below is logged, and carries the request id.
            middleware::from_fn_with_state(app.clone(), request_log::layer),
            SetResponseHeaderLayer::if_not_present(header::X_CONTENT_TYPE_OPTIONS, HeaderValue::from_static("nosniff")),
            // Browsers on configured origins may call; inside the log so that preflights are seen.
            cors(&app.config.server),
            // A panic becomes a problem document instead of a cut connection.
            CatchPanicLayer::custom(|_: Box<dyn std::any::Any + Send>| {
                Error::internal("a handler panicked").into_response()
            }),
            middleware::from_fn_with_state((app.clone(), operations), through),
            // Bodies are limited where they are read: JSON by configuration, files not at all.
            DefaultBodyLimit::disable(),
        ))
        .with_state(app.clone())
}

/// What a call goes through, the outermost last.
async fn through(State((app, operations)): State<(App, audit::Operations)>, request: Request, next: Next) -> Response {
    let app = &app;
    // Calls into an instance are its use, and may wake it; inside the forwarding, so that one replica counts them.
    let used = |request| activity::around(app, request, |request| next.run(request));
    // Another replica may be the one to answer; inside the log, so that both replicas log it.
    let forwarded = |request| forward::around(app, request, used);
    // What lasts ends with the key; inside the history, which says so.
    let held = |request| held::around(app, request, forwarded);
    // What is done is written down by the replica that was asked, outside of the forwarding.
    let told = |request| audit::around(app, &operations, request, held);
    // Where the caller's team stands is told with every answer to it, also to what is refused.
    limits::around(app, request, told).await
}

fn cors(server: &Server) -> CorsLayer {
    let origins = server.cors_origins.clone();
    let allowed = move |origin: &HeaderValue| {
        origin.to_str().is_ok_and(|origin| origins.iter().any(|allowed| allowed.matches(origin)))
    };
    CorsLayer::new()
        .allow_origin(AllowOrigin::predicate(move |origin, _| allowed(origin)))
        .allow_methods([Method::GET, Method::HEAD, Method::POST, Method::PUT, Method::PATCH, Method::DELETE])
        .allow_headers(
            [
                "authorization",
                "content-type",
                "x-api-key",
                "x-request-id",
                "idempotency-key",
                "x-on-behalf-of",
                "last-event-id",
                "range",
                "if-none-match",
                "if-modified-since",
                "x-sandbox-wake",
                "traceparent",
                "tracestate",
            ]
            .map(HeaderName::from_static),
        )
        .expose_headers(
            [
                "x-request-id",
                "retry-after",
                "ratelimit",
                "ratelimit-policy",
                "idempotency-replayed",
                "content-disposition",
                "content-range",
                "accept-ranges",
                "etag",
            ]
            .map(HeaderName::from_static),
        )
}

/// Prometheus metrics, for holders of any key; scrapers without one use the listener of `server.metrics_listen`.
async fn metrics(State(app): State<App>, _: extract::Authenticated) -> impl IntoResponse {
    rendered(&app)
}

/// The listener for scrapers: metrics and nothing else, without a key.
pub fn metrics_router(app: &App) -> Router {
    let app = app.clone();
    Router::new().route("/metrics", get(move || std::future::ready(rendered(&app))))
}

fn rendered(app: &App) -> impl IntoResponse + use<> {
    ([(header::CONTENT_TYPE, "text/plain; version=0.0.4")], app.metrics.render())
}

async fn unknown_path() -> Error {
    Error::new(Code::NotFound, "There is nothing at this path. The paths are listed at /docs.")
}

async fn unknown_method() -> Error {
    Error::new(Code::MethodNotAllowed, "This path does not take that method. See /docs.")
}
