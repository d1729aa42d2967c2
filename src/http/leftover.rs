//! What a client sends that nobody reads. A request may be answered before its body has come: a connection that is closed then is
//! cut under the client's next request. So that it can go on, what is short is read and dropped.

use std::{
    pin::Pin,
    task::{Context, Poll},
    time::Duration,
};

use bytes::Bytes;
use http_body_util::BodyExt;
use hyper::body::{Body, Frame, Incoming, SizeHint};

use crate::lifecycle::Lifecycle;

/// Bytes that are read of a body that nobody wants: with more of them to come, closing costs less.
const MOST: u64 = 256 << 10;
/// How long they are waited for.
const PATIENCE: Duration = Duration::from_secs(10);

/// A request's body, whose rest is read when it is dropped.
pub struct Leftover {
    body: Option<Incoming>,
    lifecycle: Lifecycle,
}

impl Leftover {
    #[must_use]
    pub fn new(body: Incoming, lifecycle: &Lifecycle) -> Self {
        Self { body: Some(body), lifecycle: lifecycle.clone() }
    }
}

impl Body for Leftover {
    type Data = Bytes;
    type Error = hyper::Error;

    fn poll_frame(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, hyper::Error>>> {
        let Some(body) = &mut self.body else { return Poll::Ready(None) };
        let polled = Pin::new(body).poll_frame(cx);
        if matches!(polled, Poll::Ready(None | Some(Err(_)))) {
            self.body = None;
        }
        polled
    }

    fn is_end_stream(&self) -> bool {
        self.body.as_ref().is_none_or(Body::is_end_stream)
    }

    fn size_hint(&self) -> SizeHint {
        self.body.as_ref().map_or_else(|| SizeHint::with_exact(0), Body::size_hint)
    }
}

impl Drop for Leftover {
    fn drop(&mut self) {
        let Some(body) = self.body.take().filter(|body| !body.is_end_stream()) else { return };
        if body.size_hint().lower() <= MOST {
            let draining = self.lifecycle.draining();
            let discarded =
                async move { draining.run_until_cancelled(tokio::time::timeout(PATIENCE, discard(body))).await };
            self.lifecycle.spawn("leftover", discarded);
        }
    }
}

async fn discard(mut body: Incoming) {
    let mut left = MOST;
    while let Some(Ok(frame)) = body.frame().await {
        let length = frame.data_ref().map_or(0, |data| data.len() as u64);
        match left.checked_sub(length) {
            Some(rest) => left = rest,
            None => return,
        }
    }
}
