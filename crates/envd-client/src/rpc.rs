//! Connect calls in binary protobuf (PROTOCOLS D.3, D.4).
//!
//! The framing is ours and not connectrpc's client: that one folds a failed HTTP response into a
//! Connect code, and then a missing process and a missing instance (404), or a daemon that is
//! overloaded and an edge that has lost the port (503, 502), can no longer be told apart. Nor does it
//! let a stream be silent for a limited time.

use std::future::Future;
use std::time::Duration;

use buffa::{DecodeOptions, Message};
use bytes::{Bytes, BytesMut};
use http::header::{CONTENT_ENCODING, CONTENT_TYPE, HeaderName};
use http::{HeaderMap, HeaderValue, Method, Request, Response, StatusCode};
use http_body_util::BodyExt;
use hyper::body::Incoming;

use crate::client::{EnvdClient, select_user};
use crate::error::{self, Dialect, EnvdError, EnvdErrorKind};
use crate::frame::{Frame, FrameDecoder, FrameError, encode_message, parse_end};
use crate::idle;
use crate::transport::{Body, body_error, full};

const PROTOCOL_VERSION: HeaderName = HeaderName::from_static("connect-protocol-version");
const TIMEOUT_MS: HeaderName = HeaderName::from_static("connect-timeout-ms");
const KEEPALIVE: HeaderName = HeaderName::from_static("keepalive-ping-interval");
const UNARY: HeaderValue = HeaderValue::from_static("application/proto");
const STREAM: HeaderValue = HeaderValue::from_static("application/connect+proto");

/// Seconds of silence after which the daemon is asked to send a sign of life.
const KEEPALIVE_SECONDS: HeaderValue = HeaderValue::from_static("30");
/// The protocol allows ten digits.
const MAX_TIMEOUT_MS: u128 = 9_999_999_999;
/// An error object is short; what a proxy sends in its place may not be.
const MAX_ERROR_BODY: usize = 64 * 1024;
/// A list entry takes more memory than wire: what decoding may allocate, per byte allowed on the wire.
const DECODED_PER_WIRE_BYTE: usize = 8;

/// How long a stream whose outcome is known may take to close.
pub(crate) const LAST_FRAME_GRACE: Duration = Duration::from_secs(1);

/// The fixed part of a call.
pub(crate) struct Call<'a> {
    /// `/package.Service/Method`
    pub(crate) method: &'static str,
    pub(crate) user: Option<&'a str>,
}

impl EnvdClient {
    pub(crate) async fn unary<Req: Message, Reply: Message>(
        &self,
        call: Call<'_>,
        deadline: Duration,
        message: &Req,
    ) -> Result<Reply, EnvdError> {
        let mut request = self.rpc(call, UNARY, full(message.encode_to_bytes()))?;
        request.headers_mut().insert(TIMEOUT_MS, milliseconds(deadline));
        within_deadline(deadline, async {
            let mut response = accepted(self.send(request).await?, &UNARY).await?;
            let max = self.transport.settings().max_message;
            let body = read_up_to(response.body_mut(), max).await?.ok_or_else(|| too_long(max))?;
            decode(&body, max)
        })
        .await
    }

    /// Opens a server stream. `deadline` is the server's to keep: none is kept here.
    pub(crate) async fn server_stream<Req: Message>(
        &self,
        call: Call<'_>,
        deadline: Option<Duration>,
        message: &Req,
    ) -> Result<Messages, EnvdError> {
        let body = encode_message(&message.encode_to_bytes())
            .map_err(|e| EnvdError::invalid("the request is too long").with_source(e))?;
        let mut request = self.rpc(call, STREAM, full(body))?;
        request.headers_mut().insert(KEEPALIVE, KEEPALIVE_SECONDS);
        if let Some(deadline) = deadline {
            request.headers_mut().insert(TIMEOUT_MS, milliseconds(deadline));
        }
        let settings = self.transport.settings();
        let response =
            idle::within(settings.idle_timeout, async { accepted(self.send(request).await?, &STREAM).await }).await??;
        Ok(Messages {
            body: response.into_body(),
            decoder: FrameDecoder::new(settings.max_message),
            idle_timeout: settings.idle_timeout,
            ended: false,
        })
    }

    fn rpc(&self, call: Call<'_>, content_type: HeaderValue, body: Body) -> Result<Request<Body>, EnvdError> {
        let mut request = self.request(Method::POST, call.method, body)?;
        select_user(&mut request, call.user)?;
        let headers = request.headers_mut();
        headers.insert(CONTENT_TYPE, content_type);
        headers.insert(PROTOCOL_VERSION, HeaderValue::from_static("1"));
        Ok(request)
    }
}

/// The messages of a server stream, still encoded. Dropping it before the end closes the connection.
pub(crate) struct Messages {
    body: Incoming,
    decoder: FrameDecoder,
    idle_timeout: Option<Duration>,
    ended: bool,
}

impl Messages {
    /// The next message, `None` after the last. Reads from the network only while awaited.
    pub(crate) async fn next(&mut self) -> Result<Option<Bytes>, EnvdError> {
        while !self.ended {
            match self.decoder.next_frame().map_err(bad_frame)? {
                Some(Frame::Message(payload)) => return Ok(Some(payload)),
                Some(Frame::End(payload)) => {
                    self.ended = true;
                    self.give_back().await;
                    closing_error(&payload)?;
                }
                None => self.read().await?,
            }
        }
        Ok(None)
    }

    /// Reads on to the end of the body: only then can the connection be used again.
    async fn give_back(&mut self) {
        let rest = async { while matches!(self.body.frame().await, Some(Ok(_))) {} };
        // It is due at once. A server that withholds it costs us the connection and no more.
        let _ = tokio::time::timeout(LAST_FRAME_GRACE, rest).await;
    }

    async fn read(&mut self) -> Result<(), EnvdError> {
        let frame = idle::within(self.idle_timeout, self.body.frame()).await?;
        match frame {
            Some(frame) => {
                if let Ok(data) = frame.map_err(body_error)?.into_data() {
                    self.decoder.push(&data);
                }
                Ok(())
            }
            // Ending without a last frame is what a killed instance looks like through some proxies.
            None => Err(EnvdError::local(
                EnvdErrorKind::Unavailable,
                if self.decoder.is_mid_frame() {
                    "the stream ended within a frame"
                } else {
                    "the stream ended without its last frame"
                },
            )
            .with_unknown_outcome()),
        }
    }
}

/// Fails with the error the last frame carries, if any.
fn closing_error(payload: &[u8]) -> Result<(), EnvdError> {
    let error =
        parse_end(payload).map_err(|e| EnvdError::protocol("an end of stream that is no JSON").with_source(e))?;
    error.map_or(Ok(()), |error| Err(EnvdError::connect(StatusCode::OK, error)))
}

pub(crate) fn decode<M: Message>(payload: &[u8], max_message: usize) -> Result<M, EnvdError> {
    DecodeOptions::new()
        .with_element_memory_limit(max_message.saturating_mul(DECODED_PER_WIRE_BYTE))
        .decode_from_slice(payload)
        .map_err(|e| EnvdError::protocol("a message that does not decode").with_source(e))
}

/// Runs `call` for at most `deadline`.
pub(crate) async fn within_deadline<T>(
    deadline: Duration,
    call: impl Future<Output = Result<T, EnvdError>>,
) -> Result<T, EnvdError> {
    tokio::time::timeout(deadline, call).await.unwrap_or_else(|_| {
        Err(EnvdError::local(EnvdErrorKind::Deadline, format!("no answer within {} s", deadline.as_secs_f32()))
            .with_unknown_outcome())
    })
}

/// Lets a success pass; makes an error of everything else.
async fn accepted(response: Response<Incoming>, content_type: &HeaderValue) -> Result<Response<Incoming>, EnvdError> {
    if response.status() != StatusCode::OK {
        return Err(refusal(Dialect::Rpc, response).await);
    }
    if !is_type(response.headers(), content_type) {
        return Err(EnvdError::protocol("a content type that was not asked for"));
    }
    match response.headers().get(CONTENT_ENCODING) {
        Some(encoding) if encoding != "identity" => {
            Err(EnvdError::protocol("a compressed reply, although none was asked for"))
        }
        _ => Ok(response),
    }
}

fn is_type(headers: &HeaderMap, expected: &HeaderValue) -> bool {
    let Some(value) = headers.get(CONTENT_TYPE) else {
        return false;
    };
    let essence = value.as_bytes().split(|b| *b == b';').next().unwrap_or_default();
    essence.trim_ascii().eq_ignore_ascii_case(expected.as_bytes())
}

/// The error a response of no success stands for.
pub(crate) async fn refusal(dialect: Dialect, mut response: Response<Incoming>) -> EnvdError {
    // Too long a body, or one that breaks off, is not the daemon's: the status has to do.
    let body = read_up_to(response.body_mut(), MAX_ERROR_BODY).await.ok().flatten();
    error::from_response(dialect, response.status(), body.as_deref().unwrap_or_default())
}

/// The whole body, or `None` once it exceeds `max` bytes.
pub(crate) async fn read_up_to(body: &mut Incoming, max: usize) -> Result<Option<BytesMut>, EnvdError> {
    let mut out = BytesMut::new();
    while let Some(frame) = body.frame().await {
        let Ok(data) = frame.map_err(body_error)?.into_data() else {
            continue;
        };
        if out.len() + data.len() > max {
            return Ok(None);
        }
        out.extend_from_slice(&data);
    }
    Ok(Some(out))
}

fn too_long(max: usize) -> EnvdError {
    EnvdError::local(EnvdErrorKind::ResourceExhausted, format!("a reply of more than {max} bytes"))
        .with_unknown_outcome()
}

fn bad_frame(error: FrameError) -> EnvdError {
    EnvdError::protocol("a malformed stream").with_source(error)
}

fn milliseconds(duration: Duration) -> HeaderValue {
    let millis = duration.as_millis().clamp(1, MAX_TIMEOUT_MS);
    HeaderValue::from(u64::try_from(millis).unwrap_or(u64::MAX))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_deadline_fits_its_header() {
        assert_eq!(milliseconds(Duration::ZERO), "1");
        assert_eq!(milliseconds(Duration::from_secs(60)), "60000");
        assert_eq!(milliseconds(Duration::MAX), "9999999999");
    }

    #[test]
    fn a_content_type_may_have_parameters() {
        let mut headers = HeaderMap::new();
        assert!(!is_type(&headers, &UNARY));
        headers.insert(CONTENT_TYPE, HeaderValue::from_static("Application/Proto; v=1"));
        assert!(is_type(&headers, &UNARY));
        headers.insert(CONTENT_TYPE, HeaderValue::from_static("application/protobuf"));
        assert!(!is_type(&headers, &UNARY));
    }
}
