//! One structured line per request, and the request id that goes with it everywhere.

use std::{
    net::IpAddr,
    sync::{Arc, OnceLock},
    time::{Duration, Instant},
};

use axum::{
    extract::{MatchedPath, Request, State},
    middleware::Next,
    response::Response,
};
use http::{HeaderName, HeaderValue, Method, StatusCode};
use tokio::task::futures::TaskLocalFuture;
use tracing::Instrument;

use super::{client_addr, problem::Cause};
use crate::{
    app::App,
    auth::Caller,
    ids::{KeyId, TeamId},
};

pub const REQUEST_ID: HeaderName = HeaderName::from_static("x-request-id");
const MAX_REQUEST_ID: usize = 128;

tokio::task_local! {
    static CURRENT: RequestLog;
}

/// What the layers of one request learn about it.
#[derive(Clone)]
pub struct RequestLog(Arc<Learnt>);

struct Learnt {
    id: String,
    caller: OnceLock<(TeamId, KeyId)>,
}

impl RequestLog {
    fn new(id: String) -> Self {
        Self(Arc::new(Learnt { id, caller: OnceLock::new() }))
    }

    /// Notes who called.
    pub fn note_caller(&self, caller: &Caller) {
        self.note(&caller.team.id, &caller.key_id);
    }

    /// Notes whose key answers for the call; the first that is noted stays.
    pub fn note(&self, team: &TeamId, key: &KeyId) {
        self.0.caller.get_or_init(|| (team.clone(), key.clone()));
    }

    /// Team and key, empty when nobody was noted.
    fn caller(&self) -> (&str, &str) {
        self.0.caller.get().map_or(("", ""), |(team, key)| (team.as_str(), key.as_str()))
    }

    #[must_use]
    pub fn id(&self) -> &str {
        &self.0.id
    }
}

/// The id of the request that is being handled, or an empty text outside of one.
#[must_use]
pub fn current_request_id() -> String {
    CURRENT.try_with(|log| log.id().to_owned()).unwrap_or_default()
}

/// `work` with the present request's id, for a task of its own.
pub fn carried<F: Future>(work: F) -> impl Future<Output = F::Output> {
    let log = present();
    CURRENT.scope(log, work)
}

/// As [`carried`], for work that begins with what comes later.
pub fn carrying<T, F: Future>(work: impl FnOnce(T) -> F) -> impl FnOnce(T) -> TaskLocalFuture<RequestLog, F> {
    let log = present();
    move |with| CURRENT.scope(log, work(with))
}

fn present() -> RequestLog {
    CURRENT.try_with(RequestLog::clone).unwrap_or_else(|_| RequestLog::new(String::new()))
}

fn accepted_id(request: &Request) -> Option<String> {
    let text = request.headers().get(REQUEST_ID)?.to_str().ok()?;
    let plain = |b: u8| b.is_ascii_alphanumeric() || matches!(b, b'-' | b'_' | b'.' | b':');
    (!text.is_empty() && text.len() <= MAX_REQUEST_ID && text.bytes().all(plain)).then(|| text.to_owned())
}

/// The trace that the caller is in: the id within a W3C `traceparent`.
fn trace_id(request: &Request) -> Option<String> {
    let mut parts = request.headers().get("traceparent")?.to_str().ok()?.split('-');
    let (_version, id) = (parts.next()?, parts.next()?);
    let valid = id.len() == 32 && id.bytes().all(|b| b.is_ascii_hexdigit()) && id.bytes().any(|b| b != b'0');
    valid.then(|| id.to_owned())
}

/// Middleware: [`around`] the routes.
pub async fn layer(State(app): State<App>, request: Request, next: Next) -> Response {
    let route = request.extensions().get::<MatchedPath>().map_or("unmatched", MatchedPath::as_str).to_owned();
    around(&app, request, &route, |request| next.run(request)).await
}

/// Gives a request its id and its span, and writes its line when the response head is ready.
pub async fn around<F: Future<Output = Response>>(
    app: &App,
    mut request: Request,
    route: &str,
    answer: impl FnOnce(Request) -> F,
) -> Response {
    let id = accepted_id(&request).unwrap_or_else(|| app.ids.request());
    let header = HeaderValue::from_str(&id).ok();
    let log = RequestLog::new(id);
    request.extensions_mut().insert(log.clone());
    if let Some(header) = &header {
        // Proxied requests pass it on.
        request.headers_mut().insert(REQUEST_ID, header.clone());
    }
    let method = request.method().clone();
    let path = request.uri().path().to_owned();
    let client = client_addr::of(&request, &app.config.server.trusted_proxies);
    let (request_id, trace_id) = (log.id(), trace_id(&request));
    let span = tracing::info_span!("request", request_id, method = method.as_str(), route, trace_id);
    let started = Instant::now();
    // Boxed: it would be moved into each of these, and is large (docs/PERFORMANCE.md).
    let answered = Box::pin(answer(request));
    let mut response = CURRENT.scope(log.clone(), answered).instrument(span.clone()).await;
    if let Some(header) = header {
        response.headers_mut().insert(REQUEST_ID, header);
    }
    let elapsed = started.elapsed();
    span.in_scope(|| write_line(&log, &path, client, &response, elapsed));
    app.metrics.count_request(counted(&method), route, response.status().as_u16(), elapsed);
    response
}

/// A method as it is counted: any that is not known is the caller's own invention, and would be a series of its own.
fn counted(method: &Method) -> &'static str {
    match *method {
        Method::GET => "GET",
        Method::POST => "POST",
        Method::PUT => "PUT",
        Method::DELETE => "DELETE",
        Method::PATCH => "PATCH",
        Method::HEAD => "HEAD",
        Method::OPTIONS => "OPTIONS",
        _ => "other",
    }
}

fn write_line(log: &RequestLog, path: &str, client: Option<IpAddr>, response: &Response, elapsed: Duration) {
    let (team, key) = log.caller();
    let client = client.map(|address| address.to_string()).unwrap_or_default();
    let status = response.status();
    let duration_ms = elapsed.as_secs_f64() * 1000.0;
    let cause = response.extensions().get::<Cause>();
    // A face may say with another status what is no failure.
    let said = cause.map_or(status.as_u16(), |cause| cause.code.status());
    let (code, cause) = cause.map_or(("", ""), |cause| (cause.code.as_str(), cause.chain.as_str()));
    if said >= 500 && status != StatusCode::SERVICE_UNAVAILABLE {
        tracing::error!(path, status = status.as_u16(), duration_ms, client, team, key, code, cause, "request failed");
    } else {
        tracing::info!(path, status = status.as_u16(), duration_ms, client, team, key, code, cause, "request");
    }
}
