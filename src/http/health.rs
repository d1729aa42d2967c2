//! Is the process alive, is it ready?

use std::collections::BTreeMap;

use axum::extract::State;
use http::StatusCode;
use serde::Serialize;
use utoipa::ToSchema;
use utoipa_axum::{router::OpenApiRouter, routes};

use super::extract::Json;
use crate::{app::App, storage, upstream::Reachable};

/// The process answers.
#[derive(Debug, Serialize, ToSchema)]
pub struct Health {
    pub status: &'static str,
    pub version: &'static str,
}

/// What a ready gateway needs, and what it reports besides.
#[derive(Debug, Serialize, ToSchema)]
pub struct Readiness {
    pub ready: bool,
    /// The database answers.
    pub database: bool,
    /// The schema is the one this version works with.
    pub migrations: bool,
    /// The signing secret is set (the gateway does not start without one).
    pub signing_secret: bool,
    /// The process is draining and takes no new work.
    pub draining: bool,
    /// What the last run left open has been settled. Not a gate: requests are taken meanwhile.
    pub reconciled: bool,
    /// Whether the cloud answered the last call to it, by upstream. Not a gate.
    pub upstreams: BTreeMap<String, Reachable>,
}

pub fn routes() -> OpenApiRouter<App> {
    OpenApiRouter::new().routes(routes!(get_health)).routes(routes!(get_readiness))
}

/// Whether the process is alive.
#[utoipa::path(get, path = "/healthz", operation_id = "get_health", tag = "service", security(()),
    responses((status = 200, body = Health)))]
async fn get_health() -> Json<Health> {
    Json(Health { status: "ok", version: env!("CARGO_PKG_VERSION") })
}

/// Whether the gateway can do its work.
#[utoipa::path(get, path = "/readyz", operation_id = "get_readiness", tag = "service", security(()),
    responses((status = 200, body = Readiness), (status = 503, body = Readiness)))]
async fn get_readiness(State(app): State<App>) -> (StatusCode, Json<Readiness>) {
    let (database, migrations) = match storage::applied_migrations(&app.pool).await {
        Ok(applied) => (true, applied >= storage::MIGRATIONS.iter().count()),
        Err(error) => {
            tracing::warn!(%error, "the database does not answer the readiness probe");
            (false, false)
        }
    };
    let draining = app.lifecycle.is_draining();
    let ready = database && migrations && !draining;
    let status = if ready { StatusCode::OK } else { StatusCode::SERVICE_UNAVAILABLE };
    (
        status,
        Json(Readiness {
            ready,
            database,
            migrations,
            signing_secret: true,
            draining,
            reconciled: app.upkeep.is_reconciled(),
            upstreams: app.upstreams.iter().map(|one| (one.name().to_owned(), one.reachable())).collect(),
        }),
    )
}
