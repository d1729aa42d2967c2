//! The byte plane: requests to what listens in sandboxes. Nothing is buffered, limits are on silence and never on the whole,
//! a permit is held per stream, and errors name their side.
//!
//! Two ways lead here. Below `/v1/instances/{id}/ports/{port}/` programs reach a port on the API's own origin, where what a
//! sandbox serves is made harmless ([`response`]); at `{port}-{instance}.{sandbox_domain}` programs and browsers reach it on
//! an origin of its own ([`host`]). The address dialled comes from the instance's row alone.

mod body;
pub mod host;
mod page;
mod repeat;
mod request;
mod response;
mod tunnel;
mod verdict;

use std::{sync::Arc, time::Duration};

use axum::body::Body;
use envd_client::{Bodiless, EnvdError, EnvdErrorKind};
use futures_util::StreamExt;
use http::{HeaderMap, HeaderName, Method, Request, Response, StatusCode, Version};
use http_body::Body as _;
use http_body_util::{BodyStream, StreamBody};
use percent_encoding::percent_decode_str;
use tokio::time::Instant;

use self::{
    body::{Flow, Inbound, Outgoing},
    repeat::Repeat,
    request::Upgrade,
    verdict::{Answer, Verdict},
};
pub use self::{host::LINK, repeat::Repeatable};
use crate::{
    app::{
        App,
        ports::{self, ENVD_PORT, Passage, Visitor},
    },
    auth::Caller,
    domain::port::Port,
    error::{Code, Error, Result},
    http::{activity, address::Address, client_io::SendingSide, unread::Bounded},
    ids::InstanceId,
};

/// A refusal that may be the server's own is taken for the edge's only when the token is at least this old: a server that
/// refuses everything must not cost a call to the cloud each time.
const DOUBTFUL_AGE: Duration = Duration::from_secs(30);

/// What only the control plane of the cloud may call (PROTOCOLS D.8).
const ENVD_INTERNAL: [&str; 7] = ["init", "freeze", "unfreeze", "fsfreeze", "fsthaw", "collapse", "upgrade"];

/// How a request came here, as far as the sandbox and the client may notice.
#[derive(Clone, Debug)]
pub enum Plane {
    /// On the API's origin, below this prefix (without a trailing slash).
    Path { prefix: String },
    /// On the port's own host.
    Host,
}

/// A request to a port, taken apart and authenticated.
pub struct Call {
    pub plane: Plane,
    pub instance: InstanceId,
    pub port: Port,
    pub visitor: Visitor,
    /// The header that authenticated the caller: the only credential that is not passed on. A preview's cookie is never.
    pub credential: Option<HeaderName>,
    /// How long the credential is believed without asking again, where that is known.
    pub believed_until: Option<Instant>,
    /// Path and query for the sandbox, byte for byte as they came.
    pub target: http::uri::PathAndQuery,
    /// Whether a client that has closed its sending side may still wait for the answer. If not it counts as gone at once.
    pub may_half_close: bool,
}

/// Passes a request on to the port and the answer back.
///
/// # Errors
/// `scope_missing`, `not_found`, `invalid_state`, `quota_exceeded`; `port_not_open`, `upstream_error`,
/// `upstream_unavailable`, `upstream_timeout` for what goes wrong behind.
pub async fn pass(app: &App, mut call: Call, mut request: Request<Body>) -> Result<Response<Body>> {
    refuse_internal(&call)?;
    note_wake(app, &mut call.visitor, request.headers_mut())?;
    let upgrade = Upgrade::of(&mut request)?;
    let passage = ports::admit(app, &call.visitor, &call.instance, call.port).await?;
    let address = Address::of(app, &request);
    let bare = upgrade.is_none() && request.body().is_end_stream();
    let multiplexed = request.version() == Version::HTTP_2;
    let repeatable = Repeatable::of(app, &request);
    let side = request.extensions().get::<SendingSide>().filter(|_| call.may_half_close);
    let answer_due = side.map(SendingSide::wait);
    let (mut parts, body) = request.into_parts();
    let waits = request::prepare(&mut parts, &call, &passage, &address, upgrade.as_ref());
    let flow = Flow::new(app, &passage, answer_due);
    if !bare {
        let mut outbound = Request::from_parts(parts, Inbound::upstream(body, &flow, waits.as_ref()));
        if let Some(gate) = waits {
            gate.open_on_continue(&mut outbound);
        }
        let answer = send(&passage, Outbound::Streamed(Box::new(outbound)), &flow).await?;
        let exchange = Exchange { call: &call, passage, address: &address, flow, sent: None };
        let response = exchange.conclude(app, upgrade, answer).await?;
        return Ok(if multiplexed { response.map(|body| bounded(app, body)) } else { response });
    }
    let bodiless = Bodiless { method: parts.method, target: parts.uri, headers: parts.headers };
    let answer = send(&passage, Outbound::Bodiless(&bodiless), &flow).await?;
    let way = repeatable.and_then(|repeatable| repeatable.by(&call, &passage, &bodiless));
    let exchange = Exchange { call: &call, passage, address: &address, flow, sent: Some(&bodiless) };
    let mut response = exchange.conclude(app, None, answer).await?;
    if let Some(way) = way {
        response.extensions_mut().insert(Repeat::remembered(app, way, call, address));
    }
    Ok(if multiplexed { response.map(|body| bounded(app, body)) } else { response })
}

/// Takes the wish to wake a paused instance out of a request, and notes it if the visitor may have it: a key does, a browser's
/// preview does not.
fn note_wake(app: &App, visitor: &mut Visitor, headers: &mut HeaderMap) -> Result<()> {
    let Some(value) = headers.remove(activity::WAKE_HEADER) else { return Ok(()) };
    if let Visitor::Key(caller) = visitor {
        let wake = activity::patience(app, activity::WAKE_HEADER.as_str(), value.to_str().unwrap_or_default())?;
        *caller = Arc::new(Caller { wake: Some(wake.0), ..Caller::clone(caller) });
    }
    Ok(())
}

/// A body that is let go when nobody takes it for too long. Where a connection carries one answer at a time, the connection
/// itself is watched for that.
fn bounded(app: &App, body: Body) -> Body {
    let frames = BodyStream::new(body).boxed();
    Body::new(StreamBody::new(Bounded::new(frames, app.config.server.write_timeout, &app.lifecycle)))
}

/// A request that was sent.
struct Exchange<'a> {
    call: &'a Call,
    passage: Passage,
    address: &'a Address,
    flow: Arc<Flow>,
    /// What was sent, if it can be sent again.
    sent: Option<&'a Bodiless>,
}

impl Exchange<'_> {
    /// What the client gets of an answer.
    async fn conclude(
        mut self,
        app: &App,
        upgrade: Option<Upgrade>,
        answer: Response<Answer>,
    ) -> Result<Response<Body>> {
        let answer = match verdict::of(&self.passage, answer).await? {
            Verdict::Server(answer) => answer,
            // What is rare is boxed: it does not make what is moved for each request larger.
            Verdict::Edge(failure) => {
                return Err(Box::pin(failure.into_error(app, &self.call.visitor, &self.passage)).await);
            }
            Verdict::Refused(answer) => Box::pin(self.renewed(app, answer)).await?,
        };
        finish(app, self.call, &self.passage, self.address, self.flow, upgrade, answer)
    }

    /// Tries once more with a fresh token, where there is no body that is spent.
    async fn renewed(&mut self, app: &App, refusal: Option<Response<Answer>>) -> Result<Response<Answer>> {
        let fresh = ports::readmit(app, &self.call.visitor, &self.passage).await?;
        let Some(mut again) = self.sent.cloned() else {
            return refusal.ok_or_else(|| verdict::not_repeated(&fresh));
        };
        fresh.destination.add_tokens(self.call.port, &mut again.headers);
        let answer = send(&fresh, Outbound::Bodiless(&again), &self.flow).await?;
        match verdict::of(&fresh, answer).await? {
            Verdict::Server(answer) | Verdict::Refused(Some(answer)) => {
                self.passage = fresh;
                Ok(answer)
            }
            Verdict::Refused(None) => Err(verdict::refused_for_good()),
            Verdict::Edge(failure) => Err(failure.into_error(app, &self.call.visitor, &fresh).await),
        }
    }
}

fn refuse_internal(call: &Call) -> Result<()> {
    if call.port.get() != ENVD_PORT {
        return Ok(());
    }
    // However it is spelled: a router behind may decode and collapse.
    let decoded = percent_decode_str(call.target.path()).decode_utf8_lossy();
    let mut names = decoded.split('/').filter(|name| !name.is_empty() && *name != ".");
    let internal = names.next().is_some_and(|first| ENVD_INTERNAL.iter().any(|name| first.eq_ignore_ascii_case(name)));
    if internal { Err(Error::not_found("path")) } else { Ok(()) }
}

/// A request on its way to the sandbox.
enum Outbound<'a> {
    /// Also for an upgrade.
    Streamed(Box<Request<envd_client::Body>>),
    Bodiless(&'a Bodiless),
}

/// Sends a request and waits for the head of its answer, as long as the request's body moves.
async fn send(passage: &Passage, request: Outbound<'_>, flow: &Arc<Flow>) -> Result<Response<Answer>> {
    let destination = &passage.destination;
    let (transport, instance, port) = (destination.transport(), destination.upstream_id(), passage.port.get());
    let sent = async {
        match request {
            // Boxed, like what else is rare: it does not make what is moved for each request larger.
            Outbound::Streamed(request) => {
                let answer = Box::pin(transport.request(instance, port, *request)).await?;
                Ok(answer.map(Answer::Streamed))
            }
            Outbound::Bodiless(request) => Ok(transport.fetch(instance, port, request).await?.map(Answer::Fetched)),
        }
    };
    answered(flow.within(sent).await, passage)
}

/// What came of sending: nothing when all was silent for too long.
fn answered<T>(sent: Option<std::result::Result<T, EnvdError>>, passage: &Passage) -> Result<T> {
    let error = match sent {
        Some(Ok(answer)) => return Ok(answer),
        Some(Err(error)) => unsent(error),
        None => {
            let detail = "The server on the port did not begin an answer in time (ports.idle_timeout).";
            Error::new(Code::UpstreamTimeout, detail)
        }
    };
    Err(error.with_sandbox(passage.destination.instance().reference()))
}

fn unsent(error: EnvdError) -> Error {
    let broken =
        || Error::new(Code::UpstreamError, "The server on the port, or the way to it, broke off before it answered.");
    let mapped = match error.kind() {
        EnvdErrorKind::Cancelled => Error::new(Code::InvalidRequest, "The body could not be read to its end."),
        EnvdErrorKind::InvalidArgument => Error::new(Code::InvalidRequest, "The request cannot be passed on as it is."),
        EnvdErrorKind::Unavailable if !error.outcome_unknown() => {
            Error::new(Code::UpstreamUnavailable, "The cloud's edge cannot be reached at the moment.")
        }
        _ => broken(),
    };
    mapped.with_source(error)
}

fn finish(
    app: &App,
    call: &Call,
    passage: &Passage,
    address: &Address,
    flow: Arc<Flow>,
    upgrade: Option<Upgrade>,
    mut answer: Response<Answer>,
) -> Result<Response<Body>> {
    let switched = answer.status() == StatusCode::SWITCHING_PROTOCOLS;
    match upgrade {
        Some(upgrade) if switched => {
            let protocol = answer.headers().get(http::header::UPGRADE).cloned();
            response::prepare(answer.headers_mut(), call, passage, address);
            tunnel::open(app, upgrade, protocol, answer, passage, flow)
        }
        None if switched => {
            let detail = "The server on the port switched protocols although it was not asked to.";
            Err(Error::new(Code::UpstreamError, detail).with_sandbox(passage.destination.instance().reference()))
        }
        _ => {
            response::prepare(answer.headers_mut(), call, passage, address);
            let hold = passage.hold_later();
            Ok(answer.map(|body| Body::new(Outgoing::new(body, flow, hold))))
        }
    }
}

/// Whether a request is a browser's own navigation, to be answered with a page that people can read.
#[must_use]
pub fn wants_page(request: &Request<Body>) -> bool {
    let accept = request.headers().get(http::header::ACCEPT).and_then(|value| value.to_str().ok()).unwrap_or_default();
    matches!(*request.method(), Method::GET | Method::HEAD | Method::POST) && accept.contains("text/html")
}
