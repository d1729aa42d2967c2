//! Calls that last end with the key that made them: a request that is waited for, and an answer that is a stream.

use std::{
    pin::Pin,
    sync::Arc,
    task::{Context, Poll},
    time::Duration,
};

use axum::{
    body::{Body, HttpBody},
    extract::Request,
    response::{IntoResponse, Response},
};
use bytes::Bytes;
use http_body::{Frame, SizeHint};
use tokio_util::sync::WaitForCancellationFutureOwned;

use crate::{
    app::{
        App,
        holds::{self, Hold},
    },
    auth::Trail,
    storage::holders::Holder,
};

/// A call that takes longer is watched over.
const LASTS: Duration = Duration::from_millis(500);
/// An answer of a known size up to this is no stream.
const SMALL: u64 = 64 << 10;

/// Ends what lasts when the caller's key does.
pub async fn around<F: Future<Output = Response>>(
    app: &App,
    request: Request,
    answer: impl FnOnce(Request) -> F,
) -> Response {
    let Some(trail) = request.extensions().get::<Trail>().cloned() else { return answer(request).await };
    let response = tokio::select! {
        biased;
        response = answer(request) => response,
        () = key_ended(app, &trail) => return holds::ended().into_response(),
    };
    if response.body().size_hint().exact().is_some_and(|size| size <= SMALL) {
        return response;
    }
    match trail.key_id() {
        Some(key) => {
            let hold = app.holders.hold(&Holder::of_key(key));
            response.map(|body| Body::new(Held::new(body, hold)))
        }
        None => response,
    }
}

async fn key_ended(app: &App, trail: &Trail) {
    loop {
        tokio::time::sleep(LASTS).await;
        // Who calls may be known only after the request's body.
        if let Some(key) = trail.key_id() {
            let hold = app.holders.hold(&Holder::of_key(key));
            return hold.ended().cancelled().await;
        }
    }
}

/// A body that is cut when its hold ends, and with it what feeds it.
struct Held {
    body: Option<Body>,
    ended: Pin<Box<WaitForCancellationFutureOwned>>,
    _hold: Arc<Hold>,
}

impl Held {
    fn new(body: Body, hold: Arc<Hold>) -> Self {
        Self { body: Some(body), ended: Box::pin(hold.ended().clone().cancelled_owned()), _hold: hold }
    }
}

impl HttpBody for Held {
    type Data = Bytes;
    type Error = axum::Error;

    fn poll_frame(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, axum::Error>>> {
        if self.ended.as_mut().poll(cx).is_ready() {
            // Cut, not ended: nobody takes it for the whole.
            return Poll::Ready(self.body.take().map(|_| Err(axum::Error::new(holds::ended()))));
        }
        match &mut self.body {
            Some(body) => Pin::new(body).poll_frame(cx),
            None => Poll::Ready(None),
        }
    }

    fn is_end_stream(&self) -> bool {
        self.body.as_ref().is_none_or(HttpBody::is_end_stream)
    }

    fn size_hint(&self) -> SizeHint {
        self.body.as_ref().map_or_else(SizeHint::default, HttpBody::size_hint)
    }
}
