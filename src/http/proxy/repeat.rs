//! Requests that differ from the one before them on their connection in the target alone.
//!
//! Whose they are, where they go and what they look like there was found out for that one, and holds for as long as it is
//! believed ([`Leave`]). An answer whose head needs no more than a look at each field, too, is passed on as it is read. All
//! else, and whatever fails, goes the way of other requests.

use std::sync::Arc;

use axum::{
    body::Body,
    response::{IntoResponse, Response},
};
use envd_client::{Bodiless, Fetched, RawHead, Stencil};
use futures_util::future::BoxFuture;
use http::{HeaderMap, HeaderName, HeaderValue, Method, Request, StatusCode, Uri, header, uri::PathAndQuery};
use http_body::Body as _;

use super::{
    Answer, Call, Exchange, LINK, Outgoing, Plane, answered,
    body::Flow,
    response::{Fate, added, fate},
    verdict::may_be_of_edge,
    wants_page,
};
use crate::{
    app::{
        App,
        ports::{Beliefs, ENVD_PORT, Leave, Passage, Visitor},
    },
    error::{Code, Error, Result},
    http::{
        address::Address,
        client_addr,
        client_io::SendingSide,
        lane::{
            Again, Remembered, Rest, Way, Wires,
            answer::{self, Framing, Manner},
        },
        problem::Cause,
        request_log::{Line, REQUEST_ID, TRACEPARENT, note},
    },
    telemetry::request::RequestLog,
};

/// A request that others may repeat.
pub struct Repeatable {
    beliefs: Beliefs,
    log: RequestLog,
    side: SendingSide,
    client: String,
    /// Errors are shown to people.
    page: bool,
}

/// Of a request that others may repeat: what was believed before it was looked at.
#[derive(Clone, Copy)]
struct Mark(Beliefs);

impl Repeatable {
    /// Marks a request, before anything of it counts, unless it is told apart from others.
    pub fn mark(app: &App, request: &mut Request<Body>) {
        let headers = request.headers();
        let apart = [REQUEST_ID, TRACEPARENT].iter().any(|name| headers.contains_key(name));
        if *request.method() == Method::GET && !apart {
            request.extensions_mut().insert(Mark(Beliefs::of(app)));
        }
    }

    /// What is kept of a request that was marked.
    pub(super) fn of(app: &App, request: &Request<Body>) -> Option<Self> {
        let extensions = request.extensions();
        let Mark(beliefs) = *extensions.get()?;
        let (log, side) = (extensions.get::<RequestLog>()?.clone(), extensions.get::<SendingSide>()?.clone());
        let client = client_addr::of(request, &app.config.server.trusted_proxies);
        let (client, page) = (client.map(|address| address.to_string()).unwrap_or_default(), wants_page(request));
        Some(Self { beliefs, log, side, client, page })
    }

    /// By which way others like it go; `None` if each has to be looked at.
    pub(super) fn by(self, call: &Call, passage: &Passage, sent: &Bodiless) -> Option<Prepared> {
        let Visitor::Key(caller) = &call.visitor else { return None };
        let shown = self.page && matches!(call.plane, Plane::Host);
        if caller.wake.is_some() || call.port.get() == ENVD_PORT || !call.may_half_close || shown {
            return None;
        }
        let leave = passage.leave(self.beliefs, call.believed_until?);
        let (destination, mut headers) = (&passage.destination, sent.headers.clone());
        headers.remove(REQUEST_ID);
        let (instance, port) = (destination.upstream_id(), call.port.get());
        let stencil = destination.transport().stencil(instance, port, sent.method.clone(), &headers).ok()?;
        Some(Prepared { of: self, leave, stencil })
    }
}

/// A way that is ready for others.
pub(super) struct Prepared {
    of: Repeatable,
    leave: Leave,
    stencil: Stencil,
}

/// How a request is answered that repeats another.
pub(super) struct Repeat {
    app: App,
    way: Prepared,
    call: Call,
    address: Address,
    /// As they are sent to the sandbox.
    headers: HeaderMap,
}

/// An answer's head that was passed on.
struct Passed {
    status: StatusCode,
    dated: bool,
}

/// What became of a request.
struct Outcome {
    status: StatusCode,
    cause: Option<Cause>,
    again: Again,
}

impl Repeat {
    /// For the extensions of an answer.
    pub(super) fn remembered(app: &App, way: Prepared, call: Call, address: Address, sent: Bodiless) -> Remembered {
        Remembered(Arc::new(Self { app: app.clone(), way, call, address, headers: sent.headers }))
    }

    /// What is asked of the server, if that is all that a target says.
    fn target(&self, target: &str) -> Option<PathAndQuery> {
        if target.contains('#') || target.contains(LINK) {
            return None;
        }
        let below = match &self.call.plane {
            Plane::Host => target,
            Plane::Path { prefix } => target.strip_prefix(prefix.as_str())?,
        };
        if below.starts_with('/') { below.parse().ok() } else { None }
    }

    async fn pass(
        &self,
        path: &str,
        target: PathAndQuery,
        passage: Passage,
        manner: Manner<'_>,
        wires: &mut Wires,
    ) -> Again {
        let Repeatable { log, client, .. } = &self.way.of;
        let (log, begun) = (log.again(&self.app.ids.request()), passage.begun());
        let outcome = log.clone().scope(self.outcome(&log, target, passage, manner, wires)).await;
        let Outcome { status, cause, again } = outcome;
        note(&self.app, &log, Line { path, client, status, cause: cause.as_ref() }, begun);
        again
    }

    async fn outcome(
        &self,
        log: &RequestLog,
        target: PathAndQuery,
        passage: Passage,
        manner: Manner<'_>,
        wires: &mut Wires,
    ) -> Outcome {
        match self.exchange(log, &target, &passage, wires).await {
            Ok((Ok(passed), fetched, flow)) => {
                let again = pass_on(&passed, fetched, flow, &passage, manner, &mut wires.answer);
                Outcome { status: passed.status, cause: None, again }
            }
            Ok((Err(response), fetched, flow)) => {
                let answer = response.map(|()| Answer::Fetched(fetched));
                // Boxed, like what else is rare: it does not make what is moved for each request larger.
                self.outcome_of(log, Box::pin(self.conclude(log, target, passage, flow, answer)).await)
            }
            Err(error) => self.outcome_of(log, Err(error)),
        }
    }

    fn outcome_of(&self, log: &RequestLog, result: Result<Response>) -> Outcome {
        let mut response = result.unwrap_or_else(IntoResponse::into_response);
        if let Ok(id) = HeaderValue::from_str(log.id()) {
            response.headers_mut().insert(REQUEST_ID, id);
        }
        let cause = response.extensions().get::<Cause>().cloned();
        Outcome { status: response.status(), cause, again: Again::Response(response) }
    }

    /// Asks the server. The head of its answer is in `wires.answer`, but for its end; or it takes more than a look.
    async fn exchange(
        &self,
        log: &RequestLog,
        target: &PathAndQuery,
        passage: &Passage,
        wires: &mut Wires,
    ) -> Result<(std::result::Result<Passed, http::Response<()>>, Fetched, Arc<Flow>)> {
        let Wires { asked, answer } = wires;
        asked.clear();
        let Prepared { stencil, of, .. } = &self.way;
        stencil.write(target.as_str(), Some((REQUEST_ID.as_str(), log.id())), asked);
        let flow = Flow::new(&self.app, passage, Some(of.side.wait()));
        let read = |head: &RawHead<'_>| match self.read(head, log, passage, answer) {
            Some(passed) => Some(Ok(passed)),
            None => head.response().map(Err),
        };
        let sent = passage.destination.transport().fetch_again(stencil, asked, read);
        let (head, fetched) = answered(flow.within(sent).await, passage)?;
        let unusable = || {
            let detail = "The head of the server's answer cannot be passed on.";
            Error::new(Code::UpstreamError, detail).with_sandbox(passage.destination.instance().reference())
        };
        let head = head.ok_or_else(unusable)?;
        Ok((head, fetched, flow))
    }

    /// Passes a head on; `None` when that takes more than a look at each field.
    fn read(&self, head: &RawHead<'_>, log: &RequestLog, passage: &Passage, out: &mut Vec<u8>) -> Option<Passed> {
        if may_be_of_edge(head.status) || answer::has_no_body(head.status) {
            return None;
        }
        out.clear();
        answer::begin(out, head.status);
        let mut dated = false;
        for (name, value) in head.fields() {
            let name = HeaderName::from_bytes(name.as_bytes()).ok()?;
            match fate(&name, value, &self.call, passage) {
                Fate::Passes => answer::field(out, name.as_str(), value),
                Fate::Goes => continue,
                Fate::Unsaid => return None,
            }
            dated |= name == header::DATE;
        }
        for (name, value) in added(&self.call) {
            answer::field(out, name.as_str(), value.as_bytes());
        }
        answer::field(out, REQUEST_ID.as_str(), log.id().as_bytes());
        Some(Passed { status: head.status, dated })
    }

    async fn conclude(
        &self,
        log: &RequestLog,
        target: PathAndQuery,
        passage: Passage,
        flow: Arc<Flow>,
        answer: http::Response<Answer>,
    ) -> Result<Response> {
        let mut sent = Bodiless { method: Method::GET, target: Uri::from(target), headers: self.headers.clone() };
        sent.headers.insert(REQUEST_ID, HeaderValue::from_str(log.id()).map_err(Error::internal)?);
        let exchange = Exchange { call: &self.call, passage, address: &self.address, flow, sent: Some(&sent) };
        exchange.conclude(&self.app, None, answer).await
    }
}

/// Ends a head, and adds the body if all of it is there.
fn pass_on(
    passed: &Passed,
    mut fetched: Fetched,
    flow: Arc<Flow>,
    passage: &Passage,
    manner: Manner<'_>,
    out: &mut Vec<u8>,
) -> Again {
    let framing = Framing::of_body(&fetched.size_hint());
    let last = answer::end(out, framing, passed.dated, manner);
    let head = out.len();
    if fetched.take_whole(out) {
        flow.to_client_at_once(out.len() - head);
        return Again::Begun { last, rest: Rest::Whole(flow) };
    }
    let body = Body::new(Outgoing::new(Answer::Fetched(fetched), flow, passage.hold_later()));
    Again::Begun { last, rest: Rest::Body(body, framing) }
}

impl Way for Repeat {
    fn again<'a>(&'a self, target: &'a str, manner: Manner<'a>, wires: &'a mut Wires) -> Option<BoxFuture<'a, Again>> {
        let asked = self.target(target)?;
        let passage = self.way.leave.passage(&self.app)?;
        self.app.ports.meters.repeats.increment(1);
        let path = target.split('?').next().unwrap_or_default();
        Some(Box::pin(self.pass(path, asked, passage, manner, wires)))
    }
}
