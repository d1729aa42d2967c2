//! `Idempotency-Key` on creating calls: the call runs to its end whoever hangs up, and a repetition gets its answer.

use std::sync::Arc;

use axum::{
    extract::{FromRequest, Request},
    response::{IntoResponse, Response},
};
use http::{HeaderName, HeaderValue, Method, StatusCode, header};
use serde::{Serialize, de::DeserializeOwned};

use super::{
    extract::{Json, content_type_is_json, from_json, optional_json, read_body, read_json},
    problem::{self, Cause, Problem},
};
use crate::{
    app::{
        App,
        idempotency::{self, Answer, Intent, Key, Turn},
        wait,
    },
    auth::Caller,
    error::{Code, Error, Result},
    telemetry::request::carried,
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
        Self::read(request, app.config.server.max_json_body).await
    }
}

impl<T: DeserializeOwned> Keyed<T> {
    /// From a body of up to `limit` bytes.
    ///
    /// # Errors
    /// `body_too_large`; those of the body, and of the key.
    pub async fn read(request: Request, limit: u64) -> Result<Self> {
        let asked = Asked::of(&request);
        let bytes = read_json(request, limit).await?;
        Ok(Self { key: asked.key(&bytes)?, body: from_json(&bytes)? })
    }
}

/// As [`Keyed`], where the body may be left out.
pub struct KeyedOption<T> {
    pub body: Option<T>,
    pub key: Option<Key>,
}

impl<T: DeserializeOwned> FromRequest<App> for KeyedOption<T> {
    type Rejection = Error;

    async fn from_request(request: Request, app: &App) -> Result<Self> {
        let is_json = content_type_is_json(&request);
        let asked = Asked::of(&request);
        let bytes = read_body(request, app.config.server.max_json_body).await?;
        Ok(Self { key: asked.key(&bytes)?, body: optional_json(&bytes, is_json)? })
    }
}

/// What a key stands for, but for the body.
struct Asked {
    method: Method,
    path: String,
    header: Option<HeaderValue>,
}

impl Asked {
    fn of(request: &Request) -> Self {
        let header = request.headers().get(IDEMPOTENCY_KEY).cloned();
        Self { method: request.method().clone(), path: request.uri().path().to_owned(), header }
    }

    fn key(self, body: &[u8]) -> Result<Option<Key>> {
        let key = |value: HeaderValue| {
            let text = value.to_str().unwrap_or_default();
            Key::new(text, self.method.as_str(), &self.path, body)
        };
        self.header.map(key).transpose()
    }
}

/// An answer with its status.
pub type Created<T> = (StatusCode, T);

/// What a creating call answers with.
pub trait Creation: Serialize {
    /// Fields that are secrets: they are shown once, and null in what is kept for repetitions.
    const SHOWN_ONCE: &'static [&'static str] = &[];
}

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
    T: Creation + Send + 'static,
    First: FnOnce(App, Arc<Caller>, Intent) -> F + Send + 'static,
    Again: FnOnce(App, Arc<Caller>, String) -> A + Send + 'static,
    F: Future<Output = Result<Created<T>>> + Send + 'static,
    A: Future<Output = Result<Created<T>>> + Send + 'static,
{
    let Some(key) = key else {
        // Boxed at once, here and below: what creates something is large, and is handed from layer to layer.
        let call = Box::pin(first(app.clone(), caller, Intent::default()));
        let created = detached(app, call).await?;
        return Ok((created.0, Json(created.1)).into_response());
    };
    let turn = idempotency::begin(app, caller.team_id(), &key).await?;
    let (task_app, team) = (app.clone(), caller.team_id().clone());
    let call_app = app.clone();
    let answer = match turn {
        Turn::Replay(answer) => return Ok(replayed(answer)),
        Turn::First(intent) => {
            let call = Box::pin(first(call_app, caller, intent));
            detached(app, async move { idempotency::hold(&task_app, &team, &key, async { answer(call.await) }).await })
                .await?
        }
        Turn::Resume(resource) => {
            let call = Box::pin(again(call_app, caller, resource));
            detached(app, async move { idempotency::hold(&task_app, &team, &key, async { answer(call.await) }).await })
                .await?
        }
    };
    Ok(respond(answer))
}

async fn detached<T: Send + 'static>(app: &App, call: impl Future<Output = Result<T>> + Send + 'static) -> Result<T> {
    wait::detached(app, "create", carried(call)).await
}

fn answer<T: Creation>(outcome: Result<Created<T>>) -> Answer {
    let outcome = outcome.and_then(|(status, body)| {
        let body = serde_json::to_value(body).map_err(Error::internal)?;
        Ok(Answer { status: status.as_u16(), body, shown_once: T::SHOWN_ONCE, retry_after: None })
    });
    outcome.unwrap_or_else(|error| refusal(&error))
}

fn refusal(error: &Error) -> Answer {
    let inner = error.inner();
    tracing::info!(code = inner.code.as_str(), cause = inner.detail, "a call with an idempotency key failed");
    let body = serde_json::to_value(Problem::of(inner)).unwrap_or_default();
    Answer { status: inner.code.status(), body, shown_once: &[], retry_after: inner.retry_after }
}

/// What has become of a call that starts something.
pub enum Started<T> {
    Now(T),
    /// An earlier call started what has this id.
    Before(String),
    /// An earlier call was refused, and so is this one.
    Refused(Response),
}

/// Starts something, with a key once; `start` gets what it may note its intent with. It is kept what was started, not what
/// becomes of it.
///
/// # Errors
/// What the start fails with; `idempotency_key_reused`, `idempotency_in_progress`.
pub async fn start_once<T, F: Future<Output = Result<T>>>(
    app: &App,
    caller: &Caller,
    key: Option<Key>,
    start: impl FnOnce(Intent) -> F,
    id: impl FnOnce(&T) -> String,
) -> Result<Started<T>> {
    let Some(key) = key else { return start(Intent::default()).await.map(Started::Now) };
    // Boxed: calls without a key are not to be larger for it.
    Box::pin(start_by_key(app, caller, key, start, id)).await
}

async fn start_by_key<T, F: Future<Output = Result<T>>>(
    app: &App,
    caller: &Caller,
    key: Key,
    start: impl FnOnce(Intent) -> F,
    id: impl FnOnce(&T) -> String,
) -> Result<Started<T>> {
    match idempotency::begin(app, caller.team_id(), &key).await? {
        Turn::Resume(id) => Ok(Started::Before(id)),
        Turn::Replay(answer) => Ok(match answer.body.get(STARTED).and_then(serde_json::Value::as_str) {
            Some(id) => Started::Before(id.to_owned()),
            None => Started::Refused(replayed(answer)),
        }),
        Turn::First(intent) => {
            let mut outcome = None;
            let call = async {
                let started = outcome.insert(start(intent).await);
                match started {
                    Ok(started) => Answer {
                        status: 200,
                        body: serde_json::json!({STARTED: id(started)}),
                        shown_once: &[],
                        retry_after: None,
                    },
                    Err(error) => refusal(error),
                }
            };
            idempotency::hold(app, caller.team_id(), &key, call).await?;
            outcome.ok_or_else(|| Error::internal("nothing was started"))?.map(Started::Now)
        }
    }
}

/// Where the id stands of what a call started.
const STARTED: &str = "started";

fn replayed(answer: Answer) -> Response {
    as_replayed(respond(answer))
}

/// Marks an answer as an earlier one's repetition.
pub fn as_replayed(mut response: Response) -> Response {
    response.headers_mut().insert(REPLAYED, HeaderValue::from_static("true"));
    response
}

/// Whether an answer is an earlier one's repetition.
#[must_use]
pub fn is_replayed(response: &Response) -> bool {
    response.headers().contains_key(REPLAYED)
}

fn respond(answer: Answer) -> Response {
    let status = StatusCode::from_u16(answer.status).unwrap_or(StatusCode::INTERNAL_SERVER_ERROR);
    let is_problem = status.is_client_error() || status.is_server_error();
    let kind = if is_problem { problem::CONTENT_TYPE } else { "application/json" };
    let waits = matches!(status, StatusCode::TOO_MANY_REQUESTS | StatusCode::SERVICE_UNAVAILABLE);
    let mut response = (status, [(header::CONTENT_TYPE, kind)], answer.body.to_string()).into_response();
    if let Some(cause) = Cause::of_document(&answer.body).filter(|_| is_problem) {
        response.extensions_mut().insert(cause);
    }
    if waits {
        let seconds = answer.retry_after.map_or(1, |after| after.as_secs().max(1));
        response.headers_mut().insert(header::RETRY_AFTER, HeaderValue::from(seconds));
    }
    response
}

/// The error for a noted resource that is there no more.
#[must_use]
pub fn lost() -> Error {
    Error::new(Code::Unavailable, "What the first call made is gone. Use a new Idempotency-Key.").retryable(false)
}
