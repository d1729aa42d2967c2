//! The admin port: clock, faults, inspection. Without authentication, for loopback only.

use std::sync::Arc;
use std::time::Duration;

use ags_client::types::InstanceStatus;
use axum::extract::rejection::JsonRejection;
use axum::extract::{Path, Query, State};
use axum::http::StatusCode;
use axum::response::{IntoResponse, Response};
use axum::routing::{delete, get, post};
use axum::{Json, Router};
use serde::Deserialize;
use serde_json::{Value, json};
use tokio::net::TcpListener;

use crate::clock::Mode;
use crate::control::Cloud;
use crate::control::state;
use crate::faults::NewRule;
use crate::journal::Call;
use crate::settings::Tunables;

type Shared = State<Arc<Cloud>>;
type Body<T> = Result<Json<T>, JsonRejection>;

/// Serves until the emulator ends.
pub async fn serve(cloud: Arc<Cloud>, listener: TcpListener) {
    if let Err(error) = axum::serve(listener, router(cloud)).await {
        tracing::error!(%error, "the admin port failed");
    }
}

fn router(cloud: Arc<Cloud>) -> Router {
    Router::new()
        .route("/health", get(async || "ok"))
        .route("/state", get(show_state))
        .route("/calls", get(show_calls).delete(clear_calls))
        .route("/clock", get(show_clock).post(set_clock))
        .route("/settings", get(show_settings).post(change_settings))
        .route("/faults", get(list_faults).post(add_fault).delete(clear_faults))
        .route("/faults/{id}", delete(remove_fault))
        .route("/tokens/expire", post(expire_tokens))
        .route("/instances/{id}/fail", post(fail_instance))
        .route("/instances/{id}/health", post(set_health))
        .with_state(cloud)
}

/// 400 or 404 with a sentence.
struct Refused(StatusCode, String);

impl IntoResponse for Refused {
    fn into_response(self) -> Response {
        (self.0, Json(json!({"error": self.1}))).into_response()
    }
}

impl From<JsonRejection> for Refused {
    fn from(rejection: JsonRejection) -> Self {
        Self(StatusCode::BAD_REQUEST, rejection.body_text())
    }
}

fn not_found(what: &str) -> Refused {
    Refused(StatusCode::NOT_FOUND, format!("no such {what}"))
}

async fn show_state(State(cloud): Shared) -> Json<Value> {
    let (instances, tools, keys) = cloud.with_state(|state| {
        let instances: Vec<Value> = state
            .newest_first()
            .into_iter()
            .map(|record| json!({"instance": record.to_wire(), "tokens": record.tokens.len(), "ended_at": record.ended_at}))
            .collect();
        let keys: Vec<&String> = state.keys.keys().collect();
        (instances, state.tools.values().cloned().collect::<Vec<_>>(), json!(keys))
    });
    let live = cloud.with_state(|state| state.count(|status| !state::is_final(status)));
    Json(json!({
        "clock": clock_value(&cloud),
        "live_instances": live,
        "instances": instances,
        "tools": tools,
        "api_keys": keys,
        "counters": cloud.journal.counters(),
        "stops": cloud.journal.calls(is_stop),
    }))
}

fn is_stop(call: &Call) -> bool {
    matches!(call.action.as_str(), "StopSandboxInstance" | "e2b.kill" | "timeout")
}

#[derive(Deserialize)]
struct CallFilter {
    action: Option<String>,
    instance: Option<String>,
}

async fn show_calls(State(cloud): Shared, Query(filter): Query<CallFilter>) -> Json<Vec<Call>> {
    Json(cloud.journal.calls(|call| {
        filter.action.as_ref().is_none_or(|action| *action == call.action)
            && filter.instance.as_ref().is_none_or(|id| Some(id) == call.instance.as_ref())
    }))
}

async fn clear_calls(State(cloud): Shared) -> StatusCode {
    cloud.journal.clear();
    StatusCode::NO_CONTENT
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct ClockChange {
    mode: Option<Mode>,
    /// A span such as `90s`.
    advance: Option<String>,
}

fn clock_value(cloud: &Cloud) -> Value {
    json!({"mode": cloud.clock.mode(), "now": cloud.clock.now()})
}

async fn show_clock(State(cloud): Shared) -> Json<Value> {
    Json(clock_value(&cloud))
}

async fn set_clock(State(cloud): Shared, body: Body<ClockChange>) -> Result<Json<Value>, Refused> {
    let Json(change) = body?;
    let span = match change.advance.as_deref() {
        None => Duration::ZERO,
        Some(text) => ags_client::timeout::parse(text)
            .map_err(|error| Refused(StatusCode::BAD_REQUEST, format!("advance: {error}")))?,
    };
    if let Some(mode) = change.mode {
        cloud.clock.set_mode(mode);
    }
    if !span.is_zero() {
        cloud.clock.advance(span);
    }
    Ok(Json(clock_value(&cloud)))
}

async fn show_settings(State(cloud): Shared) -> Json<Tunables> {
    Json(cloud.tunables())
}

/// Changes the given members and leaves the rest.
async fn change_settings(State(cloud): Shared, body: Body<Value>) -> Result<Json<Tunables>, Refused> {
    let bad = |error: serde_json::Error| Refused(StatusCode::BAD_REQUEST, error.to_string());
    let Json(change) = body?;
    let mut merged = serde_json::to_value(cloud.tunables()).map_err(bad)?;
    let (Value::Object(members), Value::Object(change)) = (&mut merged, change) else {
        return Err(Refused(StatusCode::BAD_REQUEST, "an object was expected".into()));
    };
    members.extend(change);
    let tunables: Tunables = serde_json::from_value(merged).map_err(bad)?;
    cloud.set_tunables(tunables.clone());
    Ok(Json(tunables))
}

async fn list_faults(State(cloud): Shared) -> Json<Value> {
    Json(json!(cloud.faults.list()))
}

async fn add_fault(State(cloud): Shared, body: Body<NewRule>) -> Result<Response, Refused> {
    let Json(rule) = body?;
    Ok((StatusCode::CREATED, Json(cloud.faults.add(rule))).into_response())
}

async fn clear_faults(State(cloud): Shared) -> StatusCode {
    cloud.faults.clear();
    StatusCode::NO_CONTENT
}

async fn remove_fault(State(cloud): Shared, Path(id): Path<u64>) -> Result<StatusCode, Refused> {
    if cloud.faults.remove(id) { Ok(StatusCode::NO_CONTENT) } else { Err(not_found("rule")) }
}

#[derive(Default, Deserialize)]
#[serde(default, deny_unknown_fields)]
struct ExpireTokens {
    instance: Option<String>,
}

async fn expire_tokens(State(cloud): Shared, body: Body<ExpireTokens>) -> Result<Json<Value>, Refused> {
    let Json(which) = body?;
    let expired = cloud.expire_tokens(which.instance.as_deref());
    Ok(Json(json!({"expired": expired})))
}

/// What a daemon's sudden end does.
async fn fail_instance(State(cloud): Shared, Path(id): Path<String>) -> Result<StatusCode, Refused> {
    let (known, handle) = cloud.with_state(|state| (state.instances.contains_key(&id), cloud.mark_failed(state, &id)));
    if let Some(handle) = handle {
        handle.stop().await;
    }
    if known { Ok(StatusCode::NO_CONTENT) } else { Err(not_found("instance")) }
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Health {
    unhealthy: bool,
}

async fn set_health(
    State(cloud): Shared,
    Path(id): Path<String>,
    body: Body<Health>,
) -> Result<Json<InstanceStatus>, Refused> {
    let Json(health) = body?;
    cloud.with_state(|state| {
        let record = state.instances.get_mut(&id).ok_or_else(|| not_found("instance"))?;
        record.unhealthy = health.unhealthy;
        Ok(Json(record.shown_status()))
    })
}
