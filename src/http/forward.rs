//! Requests about a command that another replica follows go to that replica, and its answer comes back as it flows.

use std::sync::{Arc, Mutex, PoisonError};

use axum::{
    body::Body,
    extract::{FromRequestParts, MatchedPath, RawPathParams, Request},
    response::{IntoResponse, Response},
};
use futures_util::{StreamExt, stream};
use http::{HeaderName, HeaderValue, Method, StatusCode, Uri, header, request::Parts};
use hyper_util::rt::TokioIo;

use super::{
    extract::authenticate,
    websocket::{self, Opened},
};
use crate::{
    app::{App, peers},
    auth::{API_KEY_HEADER, Caller, REPLICA_SCHEME},
    error::{Error, Result},
    ids::{ExecId, InstanceId},
    storage::replicas::Replica,
};

/// One command, and below it what acts on it: whoever follows it knows it best.
const COMMAND: &str = "/v1/instances/{id}/execs/{exec_id}";
/// Set on what was forwarded once: whoever gets it answers by itself.
const FORWARDED: HeaderName = HeaderName::from_static("ags-gateway-forwarded");

/// Forwards, or has it answered here.
pub async fn around<F: Future<Output = Response>>(
    app: &App,
    request: Request,
    answer: impl FnOnce(Request) -> F,
) -> Response {
    if !concerns_one_command(&request) || request.headers().contains_key(FORWARDED) {
        return answer(request).await;
    }
    // Boxed: what does not concern one command is not to be larger for it.
    match Box::pin(forwarded(app, request)).await {
        Ok(Elsewhere::Answered(response)) => response,
        Ok(Elsewhere::Not(request)) => answer(request).await,
        Err(error) => error.into_response(),
    }
}

/// What became of a request that another replica might have answered.
enum Elsewhere {
    Answered(Response),
    /// It is for this one to answer.
    Not(Request),
}

async fn forwarded(app: &App, request: Request) -> Result<Elsewhere> {
    let (mut parts, body) = request.into_parts();
    let Some((instance, exec)) = ids(&mut parts).await else {
        return Ok(Elsewhere::Not(Request::from_parts(parts, body)));
    };
    let Some(replica) = peers::follower(app, &exec).await? else {
        return Ok(Elsewhere::Not(Request::from_parts(parts, body)));
    };
    let body = Arc::new(Mutex::new(Some(body)));
    let command = (&instance, &exec);
    Ok(match forward(app, &replica, command, &mut parts, &body).await? {
        Some(response) => Elsewhere::Answered(response),
        // It is gone: what can be done without it is done here.
        None => Elsewhere::Not(Request::from_parts(parts, lend(&body))),
    })
}

/// A body that is taken only when somebody begins to read it.
fn lend(body: &Arc<Mutex<Option<Body>>>) -> Body {
    let body = Arc::clone(body);
    let read = stream::once(async move {
        let taken = body.lock().unwrap_or_else(PoisonError::into_inner).take();
        taken.unwrap_or_default().into_data_stream()
    });
    Body::from_stream(read.flatten())
}

fn concerns_one_command(request: &Request) -> bool {
    let path = request.extensions().get::<MatchedPath>().map_or("", MatchedPath::as_str);
    path.starts_with(COMMAND)
}

async fn ids(parts: &mut Parts) -> Option<(InstanceId, ExecId)> {
    let params = RawPathParams::from_request_parts(parts, &()).await.ok()?;
    let find = |name: &str| params.iter().find(|(found, _)| *found == name).map(|(_, value)| value.to_owned());
    Some((find("id")?.parse().ok()?, find("exec_id")?.parse().ok()?))
}

/// Who calls. What was found out of a WebSocket's credentials stays with the request: some are good once.
async fn caller(app: &App, (instance, exec): (&InstanceId, &ExecId), parts: &mut Parts) -> Result<Arc<Caller>> {
    if !parts.headers.contains_key(header::UPGRADE) {
        return authenticate(parts, app).await;
    }
    let opened = Opened::from_request_parts(parts, app).await?;
    parts.extensions.insert(opened.clone());
    opened.about(instance, exec)
}

/// The request as the other replica gets it.
fn passed_on(app: &App, replica: &Replica, caller: &Caller, parts: &Parts) -> Result<Parts> {
    let mut parts = parts.clone();
    let url = replica.url.as_deref().unwrap_or_default();
    let path = parts.uri.path_and_query().map_or("/", |path| path.as_str());
    parts.uri = format!("{url}{path}").parse::<Uri>().map_err(Error::internal)?;
    let grant = format!("{REPLICA_SCHEME}{}", app.grants.replica(caller, &replica.id));
    let mut grant = HeaderValue::from_str(&grant).map_err(Error::internal)?;
    grant.set_sensitive(true);
    for name in [API_KEY_HEADER, "origin", "cookie", "host"] {
        parts.headers.remove(name);
    }
    parts.headers.insert(header::AUTHORIZATION, grant);
    parts.headers.insert(FORWARDED, HeaderValue::from_static("1"));
    websocket::drop_credentials(&mut parts.headers);
    parts.extensions = http::Extensions::new();
    parts.version = http::Version::HTTP_11;
    Ok(parts)
}

/// `None`: the replica is gone, or another one is at its address, and nothing was done.
async fn forward(
    app: &App,
    replica: &Replica,
    command: (&InstanceId, &ExecId),
    parts: &mut Parts,
    body: &Arc<Mutex<Option<Body>>>,
) -> Result<Option<Response>> {
    let caller = caller(app, command, parts).await?;
    let request = Request::from_parts(passed_on(app, replica, &caller, parts)?, lend(body));
    let Some(mut response) = app.peers.send(request).await? else { return Ok(None) };
    if response.status() == StatusCode::UNAUTHORIZED {
        // The grant is for that replica alone: whoever is there now is its successor.
        return if is_whole(&parts.method, body) { Ok(None) } else { Err(peers::gone()) };
    }
    if response.status() == StatusCode::SWITCHING_PROTOCOLS
        && let Some(client_side) = parts.extensions.remove::<hyper::upgrade::OnUpgrade>()
    {
        let replica_side = hyper::upgrade::on(&mut response);
        app.lifecycle.spawn("forwarded-websocket", tunnel(app.clone(), client_side, replica_side));
    }
    Ok(Some(response.map(Body::new)))
}

/// Whether a request can still be answered here: a body that was sent once is not to be had again.
fn is_whole(method: &Method, body: &Mutex<Option<Body>>) -> bool {
    matches!(*method, Method::GET | Method::HEAD | Method::DELETE)
        || body.lock().unwrap_or_else(PoisonError::into_inner).is_some()
}

/// Copies both ways until one side ends, or this replica drains: the client can come back elsewhere.
async fn tunnel(app: App, client: hyper::upgrade::OnUpgrade, replica: hyper::upgrade::OnUpgrade) {
    let (Ok(client), Ok(replica)) = tokio::join!(client, replica) else { return };
    let (mut client, mut replica) = (TokioIo::new(client), TokioIo::new(replica));
    let copied = tokio::io::copy_bidirectional(&mut client, &mut replica);
    if let Some(Err(error)) = app.lifecycle.draining().run_until_cancelled(copied).await {
        tracing::debug!(%error, "a forwarded WebSocket broke");
    }
}
