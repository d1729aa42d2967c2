//! `Idempotency-Key` on creating calls: the call runs to its end whoever hangs up, and a repetition gets its answer.

use std::sync::Arc;

use axum::{
    extract::{FromRequest, Request},
    response::{IntoResponse, Response},
};
use http::{HeaderName, HeaderValue, StatusCode, header};
use serde::{Serialize, de::DeserializeOwned};

use super::{
    extract::{Json, from_json, read_json},
    problem::{self, Problem},
    request_log::carried,
};
use crate::{
    app::{
        App,
        idempotency::{self, Answer, Intent, Key, Turn},
        wait,
    },
    auth::Caller,
    error::{Code, Error, Result},
};

pub const IDEMPOTENCY_KEY: HeaderName = HeaderName::from_static("idempotency-key");
const REPLAYED: HeaderName = HeaderName::from_static("idempotency-replayed");

/// A JSON body, and the caller's key for the call if it sent one.
pub struct Keyed<T> {
    pub body: T,
    pub key: Option<Key>,
}

impl<T: DeserializeOwned> FromRequest<App> for Keyed<T> {
    type Rejection = Error;

    async fn from_request(request: Request, app: &App) -> Result<Self> {
        let (method, path) = (request.method().clone(), request.uri().path().to_owned());
        let header = request.headers().get(IDEMPOTENCY_KEY).cloned();
        let bytes = read_json(request, app).await?;
        let key = header.map(|value| {
            let text = value.to_str().unwrap_or_default();
            Key::new(text, method.as_str(), &path, &bytes)
        });
        Ok(Self { key: key.transpose()?, body: from_json(&bytes)? })
    }
}

/// An answer with its status.
pub type Created<T> = (StatusCode, T);

/// Runs a creating call to its end. With a key it runs once: `first` gets what it notes its intent with; `again` answers
/// for an intent whose call died with its process.
///
/// # Errors
/// What the call fails with; `idempotency_key_reused`, `idempotency_in_progress`.
pub async fn once<T, F, A, First, Again>(
    app: &App,
    caller: Arc<Caller>,
    key: Option<Key>,
    first: First,
    again: Again,
) -> Result<Response>
where
    T: Serialize + Send + 'static,
    First: FnOnce(App, Arc<Caller>, Intent) -> F + Send + 'static,
    Again: FnOnce(App, Arc<Caller>, String) -> A + Send + 'static,
    F: Future<Output = Result<Created<T>>> + Send + 'static,
    A: Future<Output = Result<Created<T>>> + Send + 'static,
{
    caller.require_unbound()?;
    let Some(key) = key else {
        let call = first(app.clone(), caller, Intent::default());
        let created = detached(app, call).await?;
        return Ok((created.0, Json(created.1)).into_response());
    };
    let turn = idempotency::begin(app, caller.team_id(), &key).await?;
    let (task_app, team) = (app.clone(), caller.team_id().clone());
    let call_app = app.clone();
    let answer = match turn {
        Turn::Replay(answer) => return Ok(replayed(answer)),
        Turn::First(intent) => {
            detached(app, async move {
                let call = async { answer(first(call_app, caller, intent).await) };
                idempotency::hold(&task_app, &team, &key, call).await
            })
            .await?
        }
        Turn::Resume(resource) => {
            detached(app, async move {
                let call = async { answer(again(call_app, caller, resource).await) };
                idempotency::hold(&task_app, &team, &key, call).await
            })
            .await?
        }
    };
    Ok(respond(answer))
}

async fn detached<T: Send + 'static>(app: &App, call: impl Future<Output = Result<T>> + Send + 'static) -> Result<T> {
    wait::detached(app, "create", carried(call)).await
}

fn answer<T: Serialize>(outcome: Result<Created<T>>) -> Answer {
    let outcome = outcome.and_then(|(status, body)| {
        let body = serde_json::to_value(body).map_err(Error::internal)?;
        Ok(Answer { status: status.as_u16(), body })
    });
    outcome.unwrap_or_else(|error| {
        let inner = error.into_inner();
        tracing::info!(code = inner.code.as_str(), cause = inner.detail, "a call with an idempotency key failed");
        let body = serde_json::to_value(Problem::of(&inner)).unwrap_or_default();
        Answer { status: inner.code.status(), body }
    })
}

fn replayed(answer: Answer) -> Response {
    let mut response = respond(answer);
    response.headers_mut().insert(REPLAYED, HeaderValue::from_static("true"));
    response
}

fn respond(answer: Answer) -> Response {
    let status = StatusCode::from_u16(answer.status).unwrap_or(StatusCode::INTERNAL_SERVER_ERROR);
    let is_problem = status.is_client_error() || status.is_server_error();
    let kind = if is_problem { problem::CONTENT_TYPE } else { "application/json" };
    let waits = matches!(status, StatusCode::TOO_MANY_REQUESTS | StatusCode::SERVICE_UNAVAILABLE);
    let mut response = (status, [(header::CONTENT_TYPE, kind)], answer.body.to_string()).into_response();
    if waits {
        response.headers_mut().insert(header::RETRY_AFTER, HeaderValue::from_static("1"));
    }
    response
}

/// The error for a noted resource that is there no more.
#[must_use]
pub fn lost() -> Error {
    Error::new(Code::Unavailable, "What the first call made is gone. Use a new Idempotency-Key.").retryable(false)
}
