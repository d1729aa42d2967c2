//! Bodies on their way through: counted, watched for silence, and cut (never ended) when they may go on no longer.

use std::{
    future::Future,
    pin::Pin,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    task::{Context, Poll, ready},
    time::Duration,
};

use axum::body::Body;
use bytes::Bytes;
use http::StatusCode;
use http_body::{Body as HttpBody, Frame, SizeHint};
use tokio::time::{Instant, Sleep};
use tokio_util::sync::{CancellationToken, WaitForCancellationFutureOwned};

use super::verdict::{Answer, BrokeOff};
use crate::{
    app::{
        App,
        ports::{Hold, HoldLater, Meters, Passage, Permit},
    },
    http::client_io::Waits,
};

/// How long a client that asked to `100-continue` waits when the server says neither yes nor no (RFC 9110, 10.1.1).
const CONTINUE_PATIENCE: Duration = Duration::from_secs(1);

/// Why a stream was cut.
#[derive(Debug, thiserror::Error)]
pub enum Cut {
    #[error("the sandbox's side broke off")]
    Sandbox(#[source] BrokeOff),
    #[error("the key, the preview or the instance is over")]
    Ended,
    #[error("no byte moved for too long")]
    Silent,
}

/// One request under way: its permit, its bytes, and when the last of them moved.
pub struct Flow {
    begun: Instant,
    /// Milliseconds after `begun`.
    moved: AtomicU64,
    limit: Duration,
    meters: Meters,
    _permit: Permit,
    /// Whoever sent the request may close its sending side and wait.
    _answer_due: Option<Waits>,
}

impl Flow {
    pub fn new(app: &App, passage: &Passage, answer_due: Option<Waits>) -> Arc<Self> {
        app.ports.meters.requests.increment(1);
        Arc::new(Self {
            _answer_due: answer_due,
            begun: passage.begun(),
            moved: AtomicU64::new(0),
            limit: app.config.ports.idle_timeout,
            meters: app.ports.meters.clone(),
            _permit: passage.permit(),
        })
    }

    pub fn to_sandbox(&self, bytes: usize) {
        self.note();
        self.meters.to_sandbox.increment(bytes as u64);
    }

    pub fn to_client(&self, bytes: usize) {
        self.note();
        self.meters.to_client.increment(bytes as u64);
    }

    /// As [`to_client`](Self::to_client), of all there is: nothing is waited for any more, so that it does not count when.
    pub fn to_client_at_once(&self, bytes: usize) {
        self.meters.to_client.increment(bytes as u64);
    }

    fn note(&self) {
        let elapsed = u64::try_from(self.begun.elapsed().as_millis()).unwrap_or(u64::MAX);
        self.moved.store(elapsed, Ordering::Relaxed);
    }

    /// When it counts as silent, unless something moves until then.
    pub fn silent_at(&self) -> Instant {
        self.begun + Duration::from_millis(self.moved.load(Ordering::Relaxed)) + self.limit
    }

    /// Waits for `answer` as long as something moves.
    pub async fn within<T>(&self, answer: impl Future<Output = T>) -> Option<T> {
        let mut answer = std::pin::pin!(answer);
        loop {
            let until = self.silent_at();
            match tokio::time::timeout_at(until, answer.as_mut()).await {
                Ok(answer) => return Some(answer),
                Err(_) if self.silent_at() > until => {}
                Err(_) => return None,
            }
        }
    }
}

impl Drop for Flow {
    fn drop(&mut self) {
        self.meters.requests.decrement(1);
    }
}

/// Keeps a request's body back until the server asks for it, or leaves the question open for too long.
#[derive(Clone)]
pub struct Gate(CancellationToken);

impl Gate {
    pub fn new() -> Self {
        Self(CancellationToken::new())
    }

    /// Opens when the server says `100 Continue` to this request.
    pub fn open_on_continue<B>(self, request: &mut http::Request<B>) {
        hyper::ext::on_informational(request, move |interim| {
            if interim.status() == StatusCode::CONTINUE {
                self.0.cancel();
            }
        });
    }

    fn opened(&self) -> Pin<Box<dyn Future<Output = ()> + Send>> {
        let asked = self.0.clone().cancelled_owned();
        Box::pin(async move {
            // Unanswered, the body is sent all the same.
            let _ = tokio::time::timeout(CONTINUE_PATIENCE, asked).await;
        })
    }
}

/// A request's body.
pub struct Inbound {
    body: Body,
    flow: Arc<Flow>,
    closed: Option<Pin<Box<dyn Future<Output = ()> + Send>>>,
}

impl Inbound {
    /// A body to be sent to the sandbox.
    pub fn upstream(body: Body, flow: &Arc<Flow>, gate: Option<&Gate>) -> envd_client::Body {
        envd_client::stream(Self { body, flow: Arc::clone(flow), closed: gate.map(Gate::opened) })
    }
}

impl HttpBody for Inbound {
    type Data = Bytes;
    type Error = axum::Error;

    fn poll_frame(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, axum::Error>>> {
        if let Some(closed) = &mut self.closed {
            ready!(closed.as_mut().poll(cx));
            self.closed = None;
        }
        let frame = ready!(Pin::new(&mut self.body).poll_frame(cx));
        if let Some(Ok(frame)) = &frame {
            self.flow.to_sandbox(frame.data_ref().map_or(0, Bytes::len));
        }
        Poll::Ready(frame)
    }

    fn is_end_stream(&self) -> bool {
        self.body.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.body.size_hint()
    }
}

/// What is looked at while a stream waits for its next byte.
struct Guard {
    idle: Pin<Box<Sleep>>,
    ended: Pin<Box<WaitForCancellationFutureOwned>>,
    hold: Arc<Hold>,
}

impl Guard {
    fn new(flow: &Flow, hold: Arc<Hold>) -> Self {
        Self {
            idle: Box::pin(tokio::time::sleep_until(flow.silent_at())),
            ended: Box::pin(hold.ended().clone().cancelled_owned()),
            hold,
        }
    }

    fn poll(&mut self, flow: &Flow, cx: &mut Context<'_>) -> Poll<Cut> {
        if self.ended.as_mut().poll(cx).is_ready() {
            return Poll::Ready(Cut::Ended);
        }
        while self.idle.as_mut().poll(cx).is_ready() {
            let until = flow.silent_at();
            if until <= Instant::now() {
                return Poll::Ready(Cut::Silent);
            }
            self.idle.as_mut().reset(until);
        }
        Poll::Pending
    }
}

/// A response's body.
pub struct Outgoing {
    body: Answer,
    flow: Arc<Flow>,
    hold: HoldLater,
    /// Set up when the stream waits for the first time: an answer that is there at once needs none.
    guard: Option<Guard>,
}

impl Outgoing {
    pub fn new(body: Answer, flow: Arc<Flow>, hold: HoldLater) -> Self {
        Self { body, flow, hold, guard: None }
    }
}

impl HttpBody for Outgoing {
    type Data = Bytes;
    type Error = Cut;

    fn poll_frame(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, Cut>>> {
        let this = &mut *self;
        match Pin::new(&mut this.body).poll_frame(cx) {
            Poll::Ready(Some(Ok(frame))) => {
                if this.guard.as_ref().is_some_and(|guard| guard.hold.ended().is_cancelled()) {
                    return Poll::Ready(Some(Err(Cut::Ended)));
                }
                this.flow.to_client(frame.data_ref().map_or(0, Bytes::len));
                Poll::Ready(Some(Ok(frame)))
            }
            Poll::Ready(Some(Err(error))) => {
                tracing::debug!(%error, "the sandbox's side broke off");
                Poll::Ready(Some(Err(Cut::Sandbox(error))))
            }
            Poll::Ready(None) => Poll::Ready(None),
            Poll::Pending => {
                let guard = this.guard.get_or_insert_with(|| Guard::new(&this.flow, this.hold.hold()));
                guard.poll(&this.flow, cx).map(|cut| Some(Err(cut)))
            }
        }
    }

    fn is_end_stream(&self) -> bool {
        self.body.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.body.size_hint()
    }
}
