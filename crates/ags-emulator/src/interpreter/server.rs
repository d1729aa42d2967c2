//! What the interpreter answers (`PROTOCOLS` E.1).

use std::collections::BTreeMap;
use std::convert::Infallible;
use std::sync::Arc;
use std::time::Duration;

use axum::body::Body;
use axum::extract::{DefaultBodyLimit, Path, State};
use axum::response::{IntoResponse, Response};
use axum::routing::{delete, get, post};
use axum::{Json, Router};
use bytes::Bytes;
use futures_util::stream;
use http::{HeaderMap, StatusCode};
use serde_json::{Value, json};
use tokio::sync::mpsc;

use super::context::{Context, Description, Run};
use super::request::{Create, Execute};
use super::table::{Missing, Table};
use super::wire::Event;
use crate::envd::Daemon;

/// Silence after which there is a sign of life.
const KEEPALIVE: Duration = Duration::from_secs(5);
/// Lines that wait to be sent. A kernel whose output nobody takes is held up.
const QUEUE: usize = 16;

struct Interpreter {
    daemon: Arc<Daemon>,
    table: Table,
}

/// The interpreter's routes.
pub fn router(daemon: Arc<Daemon>) -> Router {
    let interpreter = Interpreter { table: Table::new(Arc::clone(&daemon)), daemon };
    Router::new()
        .route("/health", get(async || Json("OK")))
        .route("/execute", post(execute))
        .route("/contexts", get(list).post(create))
        .route("/contexts/{id}/restart", post(restart))
        .route("/contexts/{id}", delete(remove))
        .fallback(async || (StatusCode::NOT_FOUND, Json(json!({"detail": "Not Found"}))))
        // Code is as long as it is.
        .layer(DefaultBodyLimit::disable())
        .with_state(Arc::new(interpreter))
}

type Answer<T> = Result<T, Response>;

impl IntoResponse for Missing {
    fn into_response(self) -> Response {
        match self {
            Self::Unknown(id) => (StatusCode::NOT_FOUND, format!("Context {id} not found")).into_response(),
            Self::Kernel(reason) => {
                (StatusCode::INTERNAL_SERVER_ERROR, format!("Failed to create the context: {reason}")).into_response()
            }
        }
    }
}

async fn execute(State(interpreter): State<Arc<Interpreter>>, headers: HeaderMap, body: Bytes) -> Answer<Response> {
    let request = Execute::read(&body).map_err(IntoResponse::into_response)?;
    let table = &interpreter.table;
    let context = match (request.context_id, request.language) {
        (Some(_), Some(_)) => {
            let text = "Only one of context_id or language can be provided";
            return Err((StatusCode::BAD_REQUEST, text).into_response());
        }
        (Some(id), None) => {
            let context = table.find(&id).map_err(IntoResponse::into_response)?;
            context.prepare().await.map_err(|reason| Missing::Kernel(reason).into_response())?;
            context
        }
        (None, language) => table.default_of(language.as_deref()).await.map_err(IntoResponse::into_response)?,
    };
    let run = Run { code: request.code, env_vars: request.env_vars, envs: interpreter.envs(&headers) };
    Ok(interpreter.stream(context, run))
}

impl Interpreter {
    /// What envd would answer to `GET /envs` with the caller's token.
    fn envs(&self, headers: &HeaderMap) -> BTreeMap<String, String> {
        if self.daemon.admits(headers) { self.daemon.envs.clone() } else { BTreeMap::new() }
    }

    /// The answer begins before the cell does, and ends with it; when it is dropped the cell is interrupted.
    fn stream(&self, context: Arc<Context>, run: Run) -> Response {
        let (sender, receiver) = mpsc::channel(QUEUE);
        self.daemon.tasks.spawn(async move { context.execute(run, sender).await });
        let lines = stream::unfold(receiver, |mut receiver| async move {
            let line = match tokio::time::timeout(KEEPALIVE, receiver.recv()).await {
                Ok(line) => line?,
                Err(_) => Event::Keepalive.line(),
            };
            Some((Ok::<_, Infallible>(line), receiver))
        });
        // As there: without a content type.
        Response::new(Body::from_stream(lines))
    }
}

async fn list(State(interpreter): State<Arc<Interpreter>>) -> Json<Vec<Description>> {
    Json(interpreter.table.list())
}

async fn create(State(interpreter): State<Arc<Interpreter>>, body: Bytes) -> Answer<Json<Description>> {
    let request = Create::read(&body).map_err(IntoResponse::into_response)?;
    let created = interpreter.table.create(request.language.as_deref(), request.cwd).await;
    created.map(Json).map_err(IntoResponse::into_response)
}

async fn restart(State(interpreter): State<Arc<Interpreter>>, Path(id): Path<String>) -> Answer<Json<Value>> {
    let context = interpreter.table.find(&id).map_err(IntoResponse::into_response)?;
    context.restart().await.map_err(|reason| Missing::Kernel(reason).into_response())?;
    Ok(Json(Value::Null))
}

async fn remove(State(interpreter): State<Arc<Interpreter>>, Path(id): Path<String>) -> Answer<Json<Value>> {
    interpreter.table.remove(&id).await.map_err(IntoResponse::into_response)?;
    Ok(Json(Value::Null))
}
