//! Requests that differ from the one before them on their connection in the target alone, and in what tells requests apart.
//!
//! Whose they are, where they go and what they look like there was found out for that one, and holds for as long as it is
//! believed ([`Leave`]). An answer whose head needs no more than a look at each field, too, is passed on as it is read. All
//! else, and whatever fails, goes the way of other requests.

use std::{borrow::Cow, sync::Arc};

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
            Again, Likely, OWN, Remembered, Repetition, Rest, Way, Wires,
            answer::{self, Framing, Manner},
        },
        problem::Cause,
        request_log::{Line, REQUEST_ID, TRACEPARENT, accepted_id, note, trace_id},
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
    /// Marks a request that is likely to be repeated, before anything of it counts.
    pub fn mark(app: &App, request: &mut Request<Body>) {
        if request.extensions().get::<Likely>().is_some() {
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
        for name in &OWN {
            headers.remove(name);
        }
        let (instance, port) = (destination.upstream_id(), call.port.get());
        let stencil = destination.transport().stencil(instance, port, sent.method.clone(), &headers).ok()?;
        Some(Prepared { of: self, leave, stencil, headers })
    }
}

/// A way that is ready for others.
pub(super) struct Prepared {
    of: Repeatable,
    leave: Leave,
    stencil: Stencil,
    /// As they are sent to the sandbox, but for what is a request's own.
    headers: HeaderMap,
}

/// How a request is answered that repeats another.
pub(super) struct Repeat {
    app: App,
    way: Prepared,
    call: Call,
    address: Address,
}

/// A repetition.
struct Asked<'a> {
    log: RequestLog,
    /// Path and query for the sandbox.
    target: PathAndQuery,
    came: Repetition<'a>,
}

impl Asked<'_> {
    /// What the sandbox gets that is this request's own.
    fn fields(&self) -> impl Iterator<Item = (&'static HeaderName, &str)> {
        OWN.iter().filter_map(|name| {
            let value = if *name == REQUEST_ID { Some(self.log.id()) } else { self.came.value(name) };
            value.map(|value| (name, value))
        })
    }
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
    pub(super) fn remembered(app: &App, way: Prepared, call: Call, address: Address) -> Remembered {
        Remembered(Arc::new(Self { app: app.clone(), way, call, address }))
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
        came: Repetition<'_>,
        target: PathAndQuery,
        passage: Passage,
        manner: Manner<'_>,
        wires: &mut Wires,
    ) -> Again {
        let own = came.value(&REQUEST_ID).and_then(accepted_id);
        let id = own.map_or_else(|| self.app.ids.request().into(), Cow::from);
        let log = self.way.of.log.again(&id, came.value(&TRACEPARENT).and_then(trace_id));
        let (asked, begun) = (Asked { log, target, came }, passage.begun());
        let outcome = asked.log.clone().scope(self.outcome(&asked, passage, manner, wires)).await;
        let Outcome { status, cause, again } = outcome;
        let path = came.target.split('?').next().unwrap_or_default();
        note(&self.app, &asked.log, Line { path, client: &self.way.of.client, status, cause: cause.as_ref() }, begun);
        again
    }

    async fn outcome(&self, asked: &Asked<'_>, passage: Passage, manner: Manner<'_>, wires: &mut Wires) -> Outcome {
        match self.exchange(asked, &passage, wires).await {
            Ok((Ok(passed), fetched, flow)) => {
                let again = pass_on(&passed, fetched, flow, &passage, manner, &mut wires.answer);
                Outcome { status: passed.status, cause: None, again }
            }
            Ok((Err(response), fetched, flow)) => {
                let answer = response.map(|()| Answer::Fetched(fetched));
                // Boxed, like what else is rare: it does not make what is moved for each request larger.
                outcome_of(&asked.log, Box::pin(self.conclude(asked, passage, flow, answer)).await)
            }
            Err(error) => outcome_of(&asked.log, Err(error)),
        }
    }

    /// Asks the server. The head of its answer is in `wires.answer`, but for its end; or it takes more than a look.
    async fn exchange(
        &self,
        asked: &Asked<'_>,
        passage: &Passage,
        wires: &mut Wires,
    ) -> Result<(std::result::Result<Passed, http::Response<()>>, Fetched, Arc<Flow>)> {
        let Wires { asked: wire, answer } = wires;
        wire.clear();
        let Prepared { stencil, of, .. } = &self.way;
        let fields = asked.fields().map(|(name, value)| (name.as_str(), value));
        stencil.write(asked.target.as_str(), fields, wire);
        let flow = Flow::new(&self.app, passage, Some(of.side.wait()));
        let read = |head: &RawHead<'_>| match self.read(head, &asked.log, passage, answer) {
            Some(passed) => Some(Ok(passed)),
            None => head.response().map(Err),
        };
        let sent = passage.destination.transport().fetch_again(stencil, wire, read);
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
        asked: &Asked<'_>,
        passage: Passage,
        flow: Arc<Flow>,
        answer: http::Response<Answer>,
    ) -> Result<Response> {
        let mut headers = self.way.headers.clone();
        for (name, value) in asked.fields() {
            headers.insert(name.clone(), HeaderValue::from_str(value).map_err(Error::internal)?);
        }
        let sent = Bodiless { method: Method::GET, target: Uri::from(asked.target.clone()), headers };
        let exchange = Exchange { call: &self.call, passage, address: &self.address, flow, sent: Some(&sent) };
        exchange.conclude(&self.app, None, answer).await
    }
}

fn outcome_of(log: &RequestLog, result: Result<Response>) -> Outcome {
    let mut response = result.unwrap_or_else(IntoResponse::into_response);
    if let Ok(id) = HeaderValue::from_str(log.id()) {
        response.headers_mut().insert(REQUEST_ID, id);
    }
    let cause = response.extensions().get::<Cause>().cloned();
    Outcome { status: response.status(), cause, again: Again::Response(response) }
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
    fn again<'a>(
        &'a self,
        asked: Repetition<'a>,
        manner: Manner<'a>,
        wires: &'a mut Wires,
    ) -> Option<BoxFuture<'a, Again>> {
        let target = self.target(asked.target)?;
        let passage = self.way.leave.passage(&self.app)?;
        self.app.ports.meters.repeats.increment(1);
        Some(Box::pin(self.pass(asked, target, passage, manner, wires)))
    }
}
