//! AGS's own E2B endpoint (PROTOCOLS C.4, F): the classic and the v2 routes under `api.{domain}`.

pub mod custom_config;
pub mod error;
pub mod handlers;
pub mod listing;
pub mod view;

use std::sync::Arc;

use bytes::Bytes;
use http::{HeaderMap, Method, Response, StatusCode};

use crate::body::{self, Answer, Body, Broken};
use crate::clock::wall_now;
use crate::control::front::bare;
use crate::control::{Caller, Cloud};
use crate::edge::proxy::{Proxy, fault_status};
use crate::faults::{Instead, Plane, Subject};
use crate::ids;
use crate::journal::Call;
use error::Problem;

/// Largest body.
pub const MAX_BODY: usize = 1 << 20;

/// One request to the endpoint, complete.
pub struct E2bCall {
    pub method: Method,
    pub path: String,
    pub query: String,
    pub headers: HeaderMap,
    /// `None`: larger than [`MAX_BODY`].
    pub body: Option<Bytes>,
}

/// The endpoint's operations.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Operation {
    Create,
    List,
    Info,
    Kill,
    Connect,
    Resume,
    SetTimeout,
    Refresh,
    Pause,
    Metrics,
    Logs,
    /// Part of E2B, not of AGS.
    NotImplemented,
}

impl Operation {
    /// The operation and the sandbox it names.
    fn find<'a>(method: &Method, path: &'a str) -> Option<(Self, Option<&'a str>)> {
        let path = path.strip_prefix("/v2").unwrap_or(path);
        let mut segments = path.split('/').skip(1);
        if segments.next() != Some("sandboxes") {
            return Some((Self::NotImplemented, None));
        }
        let (id, action, rest) = (segments.next().filter(|id| !id.is_empty()), segments.next(), segments.next());
        let operation = match (method.as_str(), id, action, rest) {
            ("POST", None, None, None) => Self::Create,
            ("GET", None, None, None) => Self::List,
            ("GET", Some(_), None, None) => Self::Info,
            ("DELETE", Some(_), None, None) => Self::Kill,
            ("POST", Some(_), Some("connect"), None) => Self::Connect,
            ("POST", Some(_), Some("resume"), None) => Self::Resume,
            ("POST", Some(_), Some("timeout"), None) => Self::SetTimeout,
            ("POST", Some(_), Some("refreshes"), None) => Self::Refresh,
            ("POST", Some(_), Some("pause"), None) => Self::Pause,
            ("GET", Some(_), Some("metrics"), None) => Self::Metrics,
            ("GET", Some(_), Some("logs"), None) => Self::Logs,
            (_, Some(_), Some("network" | "fork" | "snapshots"), None) => Self::NotImplemented,
            _ => return None,
        };
        Some((operation, id))
    }

    fn name(self) -> &'static str {
        match self {
            Self::Create => "e2b.create",
            Self::List => "e2b.list",
            Self::Info => "e2b.info",
            Self::Kill => "e2b.kill",
            Self::Connect => "e2b.connect",
            Self::Resume => "e2b.resume",
            Self::SetTimeout => "e2b.set_timeout",
            Self::Refresh => "e2b.refresh",
            Self::Pause => "e2b.pause",
            Self::Metrics => "e2b.metrics",
            Self::Logs => "e2b.logs",
            Self::NotImplemented => "e2b.not_implemented",
        }
    }
}

impl Cloud {
    /// Answers a request to the E2B endpoint.
    ///
    /// # Errors
    /// A fault rule drops the connection.
    pub async fn answer_e2b(self: &Arc<Self>, proxy: &Proxy, call: E2bCall) -> Answer {
        let Some((operation, id)) = Operation::find(&call.method, &call.path) else {
            return Ok(Problem::new(StatusCode::NOT_FOUND, "no such route").into_response());
        };
        let struck = self.faults.strike(&Subject {
            plane: Plane::E2b,
            action: Some(operation.name()),
            path: &call.path,
            method: call.method.as_str(),
            port: None,
            instance: id,
        });
        struck.before().await;
        match struck.instead() {
            Some(Instead::Drop) => return Err(Broken::OnPurpose),
            Some(Instead::Http { status, body }) => return Ok(bare(status, body)),
            Some(Instead::Error { code, message }) => return Ok(fault_status(&code, &message)),
            None => {}
        }
        let (by, result) = match self.authenticate(&call.headers) {
            Err(problem) => ("unknown".into(), Err(problem)),
            Ok(caller) => {
                let id = id.unwrap_or_default();
                (caller.to_string(), self.perform_e2b(operation, id, &call, proxy, struck.fails_instance()).await)
            }
        };
        struck.after().await;
        self.note_e2b(operation, id, by, &result, struck.loses_response());
        if struck.loses_response() {
            return Err(Broken::OnPurpose);
        }
        let response = result.unwrap_or_else(Problem::into_response);
        Ok(match struck.cut_after() {
            Some(bytes) => response.map(|body| body::cut_after(body, bytes)),
            None => response,
        })
    }

    fn authenticate(&self, headers: &HeaderMap) -> Result<Caller, Problem> {
        let refused = |message: &str| Problem::new(StatusCode::UNAUTHORIZED, message);
        let given = headers.get("x-api-key").and_then(|value| value.to_str().ok());
        let given = given.ok_or_else(|| refused("X-API-Key is missing"))?;
        self.api_key_owner(given).map(Caller::ApiKey).ok_or_else(|| refused("the API key is not valid"))
    }

    fn note_e2b(
        &self,
        operation: Operation,
        id: Option<&str>,
        by: String,
        result: &Result<Response<Body>, Problem>,
        response_lost: bool,
    ) {
        self.journal.add(Call {
            at: self.clock.now(),
            wall_at: wall_now(),
            action: operation.name().into(),
            by,
            instance: id.map(str::to_owned),
            client_token: None,
            error: result.as_ref().err().map(|problem| problem.status.as_str().to_owned()),
            request_id: ids::request(),
            response_lost,
        });
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn both_generations_of_routes_are_known() {
        let find = |method, path| Operation::find(&method, path).map(|(operation, _)| operation);
        assert_eq!(find(Method::POST, "/sandboxes"), Some(Operation::Create));
        assert_eq!(find(Method::POST, "/v2/sandboxes"), Some(Operation::Create));
        assert_eq!(find(Method::GET, "/v2/sandboxes"), Some(Operation::List));
        assert_eq!(find(Method::POST, "/v2/sandboxes/x/connect"), Some(Operation::Connect));
        assert_eq!(find(Method::DELETE, "/sandboxes/x"), Some(Operation::Kill));
        assert_eq!(find(Method::GET, "/v3/templates"), Some(Operation::NotImplemented));
        assert_eq!(find(Method::PUT, "/sandboxes/x/network"), Some(Operation::NotImplemented));
        assert_eq!(find(Method::POST, "/sandboxes/x/y/z"), None);
        assert_eq!(Operation::find(&Method::GET, "/sandboxes/abc").unwrap().1, Some("abc"));
    }
}
