//! `Expect: 100-continue` across the edge: a body is asked for only when the server behind asks for it.

use std::future::Future;
use std::pin::Pin;
use std::task::{Context, Poll, ready};
use std::time::Duration;

use bytes::Bytes;
use http::{Request, StatusCode};
use http_body::{Body as HttpBody, Frame, SizeHint};
use http_body_util::BodyExt as _;
use tokio_util::sync::CancellationToken;

use crate::body::{Body, Broken};

/// How long a body is kept back from a server that says nothing (RFC 9110, 10.1.1).
const PATIENCE: Duration = Duration::from_secs(1);

/// Keeps the body of `request` back until its server says `100 Continue`.
pub fn hold_back(request: Request<Body>) -> Request<Body> {
    let asked = CancellationToken::new();
    let wait = asked.clone().cancelled_owned();
    let mut request = request.map(|body| {
        let opened = Box::pin(async move {
            // Unanswered, the body is sent all the same.
            let _ = tokio::time::timeout(PATIENCE, wait).await;
        });
        Held { body, opened: Some(opened) }.boxed_unsync()
    });
    hyper::ext::on_informational(&mut request, move |interim| {
        if interim.status() == StatusCode::CONTINUE {
            asked.cancel();
        }
    });
    request
}

struct Held {
    body: Body,
    opened: Option<Pin<Box<dyn Future<Output = ()> + Send>>>,
}

impl HttpBody for Held {
    type Data = Bytes;
    type Error = Broken;

    fn poll_frame(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, Broken>>> {
        if let Some(opened) = &mut self.opened {
            ready!(opened.as_mut().poll(cx));
            self.opened = None;
        }
        Pin::new(&mut self.body).poll_frame(cx)
    }

    fn is_end_stream(&self) -> bool {
        self.body.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.body.size_hint()
    }
}
