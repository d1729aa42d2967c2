//! Response bodies, and the ways in which they break off.

use std::convert::Infallible;
use std::future::Future as _;
use std::pin::Pin;
use std::task::{Context, Poll, ready};
use std::time::Duration;

use bytes::Bytes;
use http::{Response, StatusCode, header};
use http_body::{Body as HttpBody, Frame, SizeHint};
use http_body_util::{BodyExt as _, Full, combinators::UnsyncBoxBody};
use tokio::time::Sleep;
use tokio_util::sync::{CancellationToken, WaitForCancellationFutureOwned};

/// How long the bytes before a cut have to reach the socket.
const DELIVERY: Duration = Duration::from_millis(10);

/// Why a body or a connection ended early.
#[derive(Debug, thiserror::Error)]
pub enum Broken {
    /// A fault rule, or an instance that ended.
    #[error("the connection was dropped on purpose")]
    OnPurpose,
    #[error("reading from the instance failed")]
    Upstream(#[source] hyper::Error),
}

/// The body of every response of the public listener.
pub type Body = UnsyncBoxBody<Bytes, Broken>;

/// What a request becomes; an error drops the connection without an answer.
pub type Answer = Result<Response<Body>, Broken>;

/// A complete body.
pub fn full(bytes: impl Into<Bytes>) -> Body {
    Full::new(bytes.into()).map_err(|never: Infallible| match never {}).boxed_unsync()
}

/// A complete response of a content type.
pub fn respond(status: StatusCode, content_type: &'static str, bytes: impl Into<Bytes>) -> Response<Body> {
    let mut response = Response::new(full(bytes));
    *response.status_mut() = status;
    response.headers_mut().insert(header::CONTENT_TYPE, header::HeaderValue::from_static(content_type));
    response
}

/// A JSON response whose content type is exactly `application/json`.
pub fn json(status: StatusCode, value: &impl serde::Serialize) -> Response<Body> {
    match serde_json::to_vec(value) {
        Ok(bytes) => respond(status, "application/json", bytes),
        Err(error) => respond(StatusCode::INTERNAL_SERVER_ERROR, "text/plain", error.to_string()),
    }
}

/// Breaks the body off when `links` is cancelled.
pub fn linked(body: Body, links: &CancellationToken) -> Body {
    let gone = Box::pin(links.clone().cancelled_owned());
    Linked { body, gone }.boxed_unsync()
}

/// Breaks the body off after `bytes`.
pub fn cut_after(body: Body, bytes: u64) -> Body {
    CutAfter { body, left: bytes, delivery: None }.boxed_unsync()
}

struct Linked {
    body: Body,
    gone: Pin<Box<WaitForCancellationFutureOwned>>,
}

impl HttpBody for Linked {
    type Data = Bytes;
    type Error = Broken;

    fn poll_frame(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, Broken>>> {
        if self.gone.as_mut().poll(cx).is_ready() {
            return Poll::Ready(Some(Err(Broken::OnPurpose)));
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

struct CutAfter {
    body: Body,
    left: u64,
    /// Runs once the last byte was given; an error right behind it would keep it from being sent.
    delivery: Option<Pin<Box<Sleep>>>,
}

impl HttpBody for CutAfter {
    type Data = Bytes;
    type Error = Broken;

    fn poll_frame(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, Broken>>> {
        if self.left == 0 {
            let delivery = self.delivery.get_or_insert_with(|| Box::pin(tokio::time::sleep(DELIVERY)));
            ready!(delivery.as_mut().poll(cx));
            return Poll::Ready(Some(Err(Broken::OnPurpose)));
        }
        let frame = ready!(Pin::new(&mut self.body).poll_frame(cx));
        Poll::Ready(frame.map(|frame| {
            frame.map(|frame| match frame.into_data() {
                Ok(data) => {
                    let fits = usize::try_from(self.left).unwrap_or(usize::MAX).min(data.len());
                    self.left -= fits as u64;
                    Frame::data(data.slice(..fits))
                }
                Err(other) => other,
            })
        }))
    }

    fn size_hint(&self) -> SizeHint {
        self.body.size_hint()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn a_cut_body_gives_its_bytes_and_breaks() {
        let mut body = cut_after(full("abcdef"), 4);
        let frame = body.frame().await.unwrap().unwrap();
        assert_eq!(frame.into_data().unwrap(), "abcd");
        assert!(body.frame().await.unwrap().is_err());
    }

    #[tokio::test]
    async fn a_linked_body_breaks_with_its_links() {
        let links = CancellationToken::new();
        assert_eq!(linked(full("abc"), &links).collect().await.unwrap().to_bytes(), "abc");
        links.cancel();
        assert!(linked(full("abc"), &links).collect().await.is_err());
    }
}
