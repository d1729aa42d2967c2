//! What the database and the cloud say differently of each other.

use axum::extract::State;
use serde::Deserialize;
use utoipa::ToSchema;
use utoipa_axum::{router::OpenApiRouter, routes};

use crate::{
    app::{
        App,
        reconciliation::{self, Leave},
        wait,
    },
    domain::{reconciliation::Report, scope::scope},
    error::Result,
    http::{
        extract::{Authorized, Json},
        openapi::Failures,
    },
    telemetry::request::carried,
};

/// How to make a pass.
#[derive(Debug, Default, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct RunReconciliation {
    /// Let much end at once: somebody has looked at the report. A list that contradicts itself is never acted upon.
    #[serde(default)]
    pub force: bool,
}

pub fn routes() -> OpenApiRouter<App> {
    OpenApiRouter::new().routes(routes!(get_reconciliation, run_reconciliation))
}

/// Compares the cloud with what the gateway knows, both ways, and tells what a pass would do. Nothing is changed.
#[utoipa::path(get, path = "/v1/reconciliation", operation_id = "get_reconciliation", tag = "teams",
    responses((status = 200, body = Report), Failures))]
async fn get_reconciliation(State(app): State<App>, caller: Authorized<scope::Admin>) -> Result<Json<Report>> {
    caller.require_unbound()?;
    Ok(Json(reconciliation::look(&app).await?))
}

/// Makes a pass now, when no replica makes one, and tells what it has found and done.
#[utoipa::path(post, path = "/v1/reconciliation", operation_id = "run_reconciliation", tag = "teams",
    request_body = Option<RunReconciliation>, responses((status = 200, body = Report), Failures))]
async fn run_reconciliation(
    State(app): State<App>,
    caller: Authorized<scope::Admin>,
    body: Option<Json<RunReconciliation>>,
) -> Result<Json<Report>> {
    caller.require_unbound()?;
    let leave = Leave { force: body.is_some_and(|Json(body)| body.force) };
    let (task_app, patience) = (app.clone(), app.config.instances.wait);
    let work = async move {
        reconciliation::take_up(&task_app).await?;
        reconciliation::pass_within(&task_app, leave, patience).await
    };
    Ok(Json(wait::detached(&app, "reconciliation", carried(work)).await?))
}
