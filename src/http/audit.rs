//! Every operation of the document that is not a mere look leaves an event in the history.

use std::{collections::HashMap, sync::Arc};

use axum::{
    extract::{FromRequestParts, MatchedPath, RawPathParams, Request},
    response::Response,
};
use http::{Method, request::Parts};
use utoipa::openapi::{OpenApi, path::Operation};

use super::{client_addr, idempotency, openapi::methods_of, problem::Cause};
use crate::{
    app::{App, audit::Attempt},
    auth::{Start, Trail},
    domain::audit::{OK, REPLAYED},
    ids::{ExecId, InstanceId, ToolId},
    telemetry::request::RequestLog,
    upstream::seen::Seen,
};

/// Ids of operations, by method and route: what is done is called in the history as in the document.
#[derive(Clone)]
pub struct Operations(Arc<HashMap<(Method, String), String>>);

impl Operations {
    #[must_use]
    pub fn of(document: &OpenApi) -> Self {
        let all = document.paths.paths.iter().flat_map(|(path, item)| {
            let named = |(method, operation): (Method, &Operation)| {
                Some(((method, path.clone()), operation.operation_id.clone()?))
            };
            methods_of(item).filter_map(named)
        });
        Self(Arc::new(all.collect()))
    }

    /// With those of a face that has no document.
    #[must_use]
    pub fn and(self, more: impl Iterator<Item = ((Method, String), String)>) -> Self {
        let all = self.0.iter().map(|(route, id)| (route.clone(), id.clone()));
        Self(Arc::new(all.chain(more).collect()))
    }

    fn find(&self, parts: &Parts) -> Option<&str> {
        let route = parts.extensions.get::<MatchedPath>()?.as_str();
        self.0.get(&(parts.method.clone(), route.to_owned())).map(String::as_str)
    }
}

/// Gives a request its trail, and tells the history what became of it.
pub async fn around<F: Future<Output = Response>>(
    app: &App,
    operations: &Operations,
    request: Request,
    answer: impl FnOnce(Request) -> F,
) -> Response {
    let (mut parts, body) = request.into_parts();
    let Some(action) = operations.find(&parts) else { return answer(Request::from_parts(parts, body)).await };
    let trail = Trail::new(start(app, action, &parts));
    note_path(&trail, &mut parts).await;
    parts.extensions.insert(trail.clone());
    // What is begun by a GET (over a WebSocket) tells of itself.
    let looks = parts.method == Method::GET;
    let attempt = Attempt::new(app, &trail, None);
    let seen = Seen::default();
    let work = seen.noting(answer(Request::from_parts(parts, body)));
    if looks {
        attempt.forget();
        return work.await;
    }
    let response = work.await;
    let cause = response.extensions().get::<Cause>();
    let outcome = match cause {
        _ if idempotency::is_replayed(&response) => REPLAYED,
        Some(cause) => cause.code.as_str(),
        None => OK,
    };
    let request_id = cause.and_then(|cause| cause.upstream_request_id.clone()).or_else(|| seen.request_id());
    attempt.finish(outcome, Some(response.status().as_u16()), request_id);
    response
}

fn start(app: &App, action: &str, parts: &Parts) -> Start {
    let log = parts.extensions.get::<RequestLog>();
    Start {
        id: app.ids.next(),
        at: app.clock.now(),
        action: action.to_owned(),
        request_id: log.map(|log| log.id().to_owned()).unwrap_or_default(),
        client: client_addr::of_parts(parts, &app.config.server.trusted_proxies),
        on_behalf_of: None,
    }
}

/// Notes what the path names.
async fn note_path(trail: &Trail, parts: &mut Parts) {
    let Ok(params) = RawPathParams::from_request_parts(parts, &()).await else { return };
    for (_, value) in &params {
        let known = note_parsed(value, |id: InstanceId| trail.note_instance(&id))
            || note_parsed(value, |id: ToolId| trail.note_tool(&id))
            || note_parsed(value, |id: ExecId| trail.note_exec(&id));
        if !known && value.len() <= MAX_TARGET && !value.chars().any(char::is_control) {
            trail.note_target(value);
        }
    }
}

/// Longest part of a path that is written down.
const MAX_TARGET: usize = 128;

fn note_parsed<I: std::str::FromStr>(value: &str, note: impl FnOnce(I)) -> bool {
    value.parse().map(note).is_ok()
}
