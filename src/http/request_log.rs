//! One structured line per request, and the request id that goes with it everywhere.

use std::{
    sync::{Arc, Mutex, PoisonError},
    time::Instant,
};

use axum::{
    extract::{MatchedPath, Request, State},
    middleware::Next,
    response::Response,
};
use http::{HeaderName, HeaderValue, StatusCode};
use tracing::Instrument;

use super::{client_addr, problem::Cause};
use crate::{app::App, auth::Caller};

pub const REQUEST_ID: HeaderName = HeaderName::from_static("x-request-id");
const MAX_REQUEST_ID: usize = 128;

tokio::task_local! {
    static CURRENT: RequestLog;
}

/// What the layers of one request learn about it.
#[derive(Clone)]
pub struct RequestLog {
    id: Arc<str>,
    caller: Arc<Mutex<Option<(String, String)>>>,
}

impl RequestLog {
    fn new(id: String) -> Self {
        Self { id: id.into(), caller: Arc::default() }
    }

    /// Notes who called.
    pub fn note_caller(&self, caller: &Caller) {
        let noted = (caller.team.id.to_string(), caller.key_id.to_string());
        *self.caller.lock().unwrap_or_else(PoisonError::into_inner) = Some(noted);
    }

    fn caller(&self) -> (String, String) {
        self.caller.lock().unwrap_or_else(PoisonError::into_inner).clone().unwrap_or_default()
    }

    #[must_use]
    pub fn id(&self) -> &str {
        &self.id
    }
}

/// The id of the request that is being handled, or an empty text outside of one.
#[must_use]
pub fn current_request_id() -> String {
    CURRENT.try_with(|log| log.id.to_string()).unwrap_or_default()
}

/// `work` with the present request's id, for a task of its own.
pub fn carried<F: Future>(work: F) -> impl Future<Output = F::Output> {
    let log = CURRENT.try_with(RequestLog::clone).unwrap_or_else(|_| RequestLog::new(String::new()));
    CURRENT.scope(log, work)
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

/// Middleware: gives the request its id and its span, and writes its line when the response head is ready.
pub async fn layer(State(app): State<App>, mut request: Request, next: Next) -> Response {
    let id = accepted_id(&request).unwrap_or_else(|| uuid::Uuid::now_v7().to_string());
    let header = HeaderValue::from_str(&id).ok();
    let log = RequestLog::new(id);
    request.extensions_mut().insert(log.clone());
    if let Some(header) = &header {
        // Proxied requests pass it on.
        request.headers_mut().insert(REQUEST_ID, header.clone());
    }
    let method = request.method().clone();
    let route = request.extensions().get::<MatchedPath>().map_or("unmatched", MatchedPath::as_str).to_owned();
    let path = request.uri().path().to_owned();
    let client = client_addr::of(&request, &app.config.server.trusted_proxies);
    let span = tracing::info_span!("request", request_id = %log.id(), %method, route, trace_id = trace_id(&request));
    let started = Instant::now();
    let mut response = CURRENT.scope(log.clone(), next.run(request)).instrument(span.clone()).await;
    if let Some(header) = header {
        response.headers_mut().insert(REQUEST_ID, header);
    }
    let elapsed = started.elapsed();
    let client = client.map(|address| address.to_string()).unwrap_or_default();
    span.in_scope(|| write_line(&log, &path, &client, &response, elapsed));
    let labels = [("method", method.to_string()), ("route", route), ("status", response.status().as_u16().to_string())];
    metrics::counter!("ags_gateway_http_requests_total", &labels).increment(1);
    metrics::histogram!("ags_gateway_http_request_seconds", &labels[..2]).record(elapsed.as_secs_f64());
    response
}

fn write_line(log: &RequestLog, path: &str, client: &str, response: &Response, elapsed: std::time::Duration) {
    let (team, key) = log.caller();
    let status = response.status();
    let duration_ms = elapsed.as_secs_f64() * 1000.0;
    let cause = response.extensions().get::<Cause>();
    let (code, cause) = cause.map_or(("", ""), |cause| (cause.code.as_str(), cause.chain.as_str()));
    if status.is_server_error() && status != StatusCode::SERVICE_UNAVAILABLE {
        tracing::error!(path, status = status.as_u16(), duration_ms, client, team, key, code, cause, "request failed");
    } else {
        tracing::info!(path, status = status.as_u16(), duration_ms, client, team, key, code, cause, "request");
    }
}
