//! One structured line per request, and the request id that goes with it everywhere.

use std::{borrow::Cow, time::Duration};

use axum::{
    extract::{MatchedPath, Request, State},
    middleware::Next,
    response::Response,
};
use http::{HeaderName, HeaderValue, Method, StatusCode};
use tokio::time::Instant;

use super::{client_addr, problem::Cause};
use crate::{
    app::App,
    telemetry::{milliseconds, request::RequestLog},
};

pub const REQUEST_ID: HeaderName = HeaderName::from_static("x-request-id");
/// W3C Trace Context.
pub const TRACEPARENT: HeaderName = HeaderName::from_static("traceparent");
pub const TRACESTATE: HeaderName = HeaderName::from_static("tracestate");
const MAX_REQUEST_ID: usize = 128;

/// The id that a caller gives its request in `X-Request-ID`, if it is one.
#[must_use]
pub fn accepted_id(text: &str) -> Option<&str> {
    let plain = |b: u8| b.is_ascii_alphanumeric() || matches!(b, b'-' | b'_' | b'.' | b':');
    (!text.is_empty() && text.len() <= MAX_REQUEST_ID && text.bytes().all(plain)).then_some(text)
}

/// The trace that a caller is in: the id within a W3C `traceparent`.
#[must_use]
pub fn trace_id(traceparent: &str) -> Option<&str> {
    let mut parts = traceparent.split('-');
    let (_version, id) = (parts.next()?, parts.next()?);
    let valid = id.len() == 32 && id.bytes().all(|b| b.is_ascii_hexdigit()) && id.bytes().any(|b| b != b'0');
    valid.then_some(id)
}

fn text(request: &Request, name: HeaderName) -> Option<&str> {
    request.headers().get(name)?.to_str().ok()
}

/// Middleware: [`around`] the routes.
pub async fn layer(State(app): State<App>, request: Request, next: Next) -> Response {
    let route = request.extensions().get::<MatchedPath>().map_or("unmatched", MatchedPath::as_str).to_owned();
    around(&app, request, route, |request| next.run(request)).await
}

/// Gives a request its id, and writes its line when the response head is ready.
pub async fn around<F: Future<Output = Response>>(
    app: &App,
    mut request: Request,
    route: impl Into<Cow<'static, str>>,
    answer: impl FnOnce(Request) -> F,
) -> Response {
    let own = text(&request, REQUEST_ID).and_then(accepted_id);
    let id = own.map_or_else(|| app.ids.request(), str::to_owned);
    let header = HeaderValue::from_str(&id).ok();
    let trace = text(&request, TRACEPARENT).and_then(trace_id);
    let log = RequestLog::new(&id, request.method().clone(), route.into(), trace);
    request.extensions_mut().insert(log.clone());
    if let Some(header) = &header {
        // Proxied requests pass it on.
        request.headers_mut().insert(REQUEST_ID, header.clone());
    }
    let path = request.uri().path().to_owned();
    let client = client_addr::of(&request, &app.config.server.trusted_proxies);
    let started = Instant::now();
    // Boxed: it would be moved into each of these, and is large (docs/PERFORMANCE.md).
    let mut response = log.clone().scope(Box::pin(answer(request))).await;
    if let Some(header) = header {
        response.headers_mut().insert(REQUEST_ID, header);
    }
    let client = client.map(|address| address.to_string()).unwrap_or_default();
    let cause = response.extensions().get::<Cause>();
    note(app, &log, Line { path: &path, client: &client, status: response.status(), cause }, started);
    response
}

/// What a request's line tells besides whose it is.
pub struct Line<'a> {
    pub path: &'a str,
    pub client: &'a str,
    pub status: StatusCode,
    pub cause: Option<&'a Cause>,
}

/// Writes the line of a request whose response head is ready, and counts it.
pub fn note(app: &App, log: &RequestLog, line: Line<'_>, started: Instant) {
    let (elapsed, status) = (started.elapsed(), line.status.as_u16());
    log.clone().in_scope(|| write_line(log, line, elapsed));
    app.metrics.count_request(counted(log.method()), log.route(), status, elapsed);
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

fn write_line(log: &RequestLog, line: Line<'_>, elapsed: Duration) {
    let (team, key) = log.caller();
    let Line { path, client, status, cause } = line;
    let duration_ms = milliseconds(elapsed);
    // A face may say with another status what is no failure.
    let said = cause.map_or(status.as_u16(), |cause| cause.code.status());
    let (code, cause) = cause.map_or(("", ""), |cause| (cause.code.as_str(), cause.chain.as_str()));
    if said >= 500 && status != StatusCode::SERVICE_UNAVAILABLE {
        tracing::error!(path, status = status.as_u16(), duration_ms, client, team, key, code, cause, "request failed");
    } else {
        tracing::info!(path, status = status.as_u16(), duration_ms, client, team, key, code, cause, "request");
    }
}
