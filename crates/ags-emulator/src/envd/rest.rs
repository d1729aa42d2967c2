//! All that the daemon answers: the RPC services, files, and what says how it is.

use std::sync::Arc;

use axum::extract::{DefaultBodyLimit, Request, State};
use axum::middleware::{self, Next};
use axum::response::{IntoResponse as _, Response};
use axum::routing::{get, post};
use axum::{Json, Router};
use http::{HeaderName, Method, StatusCode, header};
use tower_http::cors::{Any, CorsLayer};

use super::daemon::Daemon;
use super::filesystem::FilesystemService;
use super::process::ProcessService;
use super::rest_error::RestError;
use super::{files, metrics};

/// Headers of the Connect protocol that scripts in browsers may read.
const EXPOSED: [HeaderName; 5] = [
    HeaderName::from_static("connect-protocol-version"),
    HeaderName::from_static("connect-timeout-ms"),
    HeaderName::from_static("grpc-status"),
    HeaderName::from_static("grpc-message"),
    header::LOCATION,
];

/// The daemon's routes.
pub fn router(daemon: Arc<Daemon>) -> Router {
    let services = connectrpc::Router::new()
        .add_service(Arc::new(ProcessService::new(Arc::clone(&daemon))))
        .add_service(Arc::new(FilesystemService::new(Arc::clone(&daemon))));
    let cors = CorsLayer::new().allow_origin(Any).allow_methods(Any).allow_headers(Any).expose_headers(EXPOSED);
    Router::new()
        .route("/health", get(health))
        .route("/metrics", get(metrics::metrics))
        .route("/envs", get(envs))
        .route("/files", get(files::download).post(files::upload))
        .route("/files/compose", post(files::compose))
        .fallback_service(envd_proto::service(services))
        // Files are as long as they are.
        .layer(DefaultBodyLimit::disable())
        .layer(middleware::from_fn_with_state(Arc::clone(&daemon), authorize))
        .layer(cors)
        .with_state(daemon)
}

async fn health() -> Response {
    (StatusCode::NO_CONTENT, [(header::CACHE_CONTROL, "no-store")]).into_response()
}

async fn envs(State(daemon): State<Arc<Daemon>>) -> Response {
    ([(header::CACHE_CONTROL, "no-store")], Json(&daemon.envs)).into_response()
}

/// Checks the token, where the daemon has one, on all paths that do not check for themselves.
async fn authorize(State(daemon): State<Arc<Daemon>>, request: Request, next: Next) -> Response {
    let free = matches!(
        (request.method(), request.uri().path()),
        (&Method::GET, "/health" | "/files") | (&Method::POST, "/files" | "/init")
    );
    if free || daemon.admits(request.headers()) {
        return next.run(request).await;
    }
    RestError::unauthorized("unauthorized access, please provide a valid access token or method signing if supported")
        .into_response()
}
