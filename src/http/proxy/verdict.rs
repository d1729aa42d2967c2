//! Whose word an answer is: the server's in the sandbox, or that of the cloud's edge in front of it.
//!
//! Nothing is known of the bodies of AGS's edge (PROTOCOLS C.2), so that only what has the shape of E2B's edge (D.11) and
//! names the very sandbox is taken for the edge's; everything else is the server's and passes.

use std::{
    pin::Pin,
    task::{Context, Poll},
};

use bytes::Bytes;
use envd_client::{FetchError, Fetched};
use http::{Response, StatusCode, header};
use http_body::{Body as HttpBody, Frame, SizeHint};
use http_body_util::BodyExt;
use hyper::body::Incoming;
use serde::Deserialize;

use super::DOUBTFUL_AGE;
use crate::{
    app::{
        App, instances,
        ports::{Passage, Visitor},
    },
    error::{Code, Error, Result},
};

/// The edge's own errors are short.
const LONGEST: u64 = 4096;
/// What a bad token gets, from the edge and from envd alike (PROTOCOLS D.2).
const TOKEN_REFUSED: &str = "unauthorized access, please provide a valid access token";

/// An answer broke off.
#[derive(Debug, thiserror::Error)]
#[error(transparent)]
pub enum BrokeOff {
    Streamed(#[from] hyper::Error),
    Fetched(#[from] FetchError),
}

/// The body of an answer; whole where it had to be looked into.
pub enum Answer {
    Streamed(Incoming),
    Fetched(Fetched),
    Whole(Option<Bytes>),
}

impl HttpBody for Answer {
    type Data = Bytes;
    type Error = BrokeOff;

    fn poll_frame(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, BrokeOff>>> {
        match &mut *self {
            Self::Streamed(body) => Pin::new(body).poll_frame(cx).map_err(BrokeOff::from),
            Self::Fetched(body) => Pin::new(body).poll_frame(cx).map_err(BrokeOff::from),
            Self::Whole(bytes) => Poll::Ready(bytes.take().map(|bytes| Ok(Frame::data(bytes)))),
        }
    }

    fn is_end_stream(&self) -> bool {
        match self {
            Self::Streamed(body) => body.is_end_stream(),
            Self::Fetched(body) => body.is_end_stream(),
            Self::Whole(bytes) => bytes.is_none(),
        }
    }

    fn size_hint(&self) -> SizeHint {
        match self {
            Self::Streamed(body) => body.size_hint(),
            Self::Fetched(body) => body.size_hint(),
            Self::Whole(bytes) => SizeHint::with_exact(bytes.as_ref().map_or(0, |bytes| bytes.len() as u64)),
        }
    }
}

/// Whose word an answer is.
pub enum Verdict {
    Server(Response<Answer>),
    /// The token was refused; with the answer if that may as well be the server's own.
    Refused(Option<Response<Answer>>),
    Edge(Failure),
}

/// What the edge says.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Failure {
    /// The instance is over, or not running.
    Gone,
    PortNotOpen,
    /// What listens there does not speak HTTP, or broke off before it answered.
    NoAnswer,
    Limited,
    Unauthorized,
}

/// An error of the edge (PROTOCOLS D.11), or envd's of a bad token (D.2).
#[derive(Deserialize)]
struct Said {
    #[serde(rename = "sandboxId")]
    sandbox: Option<String>,
    code: u16,
    message: String,
}

/// Whether an answer of this status may be the edge's word.
pub fn may_be_of_edge(status: StatusCode) -> bool {
    matches!(status.as_u16(), 401 | 403 | 404 | 409 | 429 | 502)
}

/// Judges an answer.
///
/// # Errors
/// When a short body breaks off.
pub async fn of(passage: &Passage, answer: Response<Answer>) -> Result<Verdict> {
    if !may_be_of_edge(answer.status()) {
        return Ok(Verdict::Server(answer));
    }
    let status = answer.status();
    if !short_json(&answer) {
        return Ok(unrecognised(passage, status, answer));
    }
    let (parts, body) = answer.into_parts();
    let bytes = body.collect().await.map_err(|error| {
        Error::new(Code::UpstreamError, "The answer of the server on the port broke off.").with_source(error)
    })?;
    let bytes = bytes.to_bytes();
    match read(status, &bytes, passage.destination.upstream_id()) {
        Some(Failure::Unauthorized) => Ok(Verdict::Refused(None)),
        Some(failure) => Ok(Verdict::Edge(failure)),
        None => {
            let whole = Answer::Whole(Some(bytes).filter(|bytes| !bytes.is_empty()));
            Ok(unrecognised(passage, status, Response::from_parts(parts, whole)))
        }
    }
}

fn unrecognised(passage: &Passage, status: StatusCode, answer: Response<Answer>) -> Verdict {
    let refusal = matches!(status, StatusCode::UNAUTHORIZED | StatusCode::FORBIDDEN);
    let doubtful = refusal && passage.destination.token_age().is_some_and(|age| age >= DOUBTFUL_AGE);
    if doubtful { Verdict::Refused(Some(answer)) } else { Verdict::Server(answer) }
}

fn short_json(answer: &Response<Answer>) -> bool {
    let kind = answer.headers().get(header::CONTENT_TYPE).and_then(|kind| kind.to_str().ok()).unwrap_or_default();
    kind.starts_with("application/json")
        && !answer.headers().contains_key(header::CONTENT_ENCODING)
        && answer.body().size_hint().exact().is_some_and(|length| length <= LONGEST)
}

fn read(status: StatusCode, body: &[u8], sandbox: &str) -> Option<Failure> {
    let said: Said = serde_json::from_slice(body).ok()?;
    if said.code != status.as_u16() {
        return None;
    }
    match said.sandbox {
        Some(named) if named == sandbox => Some(match status.as_u16() {
            401 | 403 => Failure::Unauthorized,
            429 => Failure::Limited,
            502 if said.message.contains("port is not open") => Failure::PortNotOpen,
            502 if !said.message.contains("not found") => Failure::NoAnswer,
            _ => Failure::Gone,
        }),
        None if status == StatusCode::UNAUTHORIZED && said.message.starts_with(TOKEN_REFUSED) => {
            Some(Failure::Unauthorized)
        }
        _ => None,
    }
}

impl Failure {
    /// The error for the caller; an instance that is over according to the edge is looked up anew.
    pub async fn into_error(self, app: &App, visitor: &Visitor, passage: &Passage) -> Error {
        let instance = passage.destination.instance();
        let error = match self {
            Self::PortNotOpen => {
                let detail = format!(
                    "Nothing listens on port {} in the sandbox. Is the server started, and on 0.0.0.0?",
                    passage.port
                );
                Error::new(Code::PortNotOpen, detail)
            }
            Self::NoAnswer => {
                Error::new(Code::UpstreamError, "The server on the port broke off, or does not speak HTTP.")
            }
            Self::Limited => Error::new(Code::UpstreamThrottled, "The cloud limits the connections to this sandbox."),
            Self::Unauthorized => refused_for_good(),
            Self::Gone => {
                app.ports.forget(visitor.team(), &instance.id).await;
                match instances::running_of(app, visitor.team(), &instance.id).await {
                    Err(ended) => return ended,
                    Ok(_) => {
                        Error::new(Code::UpstreamUnavailable, "The sandbox cannot be reached: it may have just ended.")
                    }
                }
            }
        };
        error.with_sandbox(instance.reference())
    }
}

/// The token was refused, the body is spent: the caller can repeat the call, the gateway cannot.
pub fn not_repeated(passage: &Passage) -> Error {
    let detail = "The cloud's token had ended and was renewed; the body was spent by then. Send the request again.";
    Error::new(Code::UpstreamUnavailable, detail).with_sandbox(passage.destination.instance().reference())
}

/// A fresh token was refused, too.
pub fn refused_for_good() -> Error {
    Error::new(Code::UpstreamError, "The cloud's edge refused the gateway's token.")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn judged(status: u16, body: &str) -> Option<Failure> {
        read(StatusCode::from_u16(status).unwrap(), body.as_bytes(), "sbx1")
    }

    #[test]
    fn the_edge_is_known_by_the_shape_of_its_errors() {
        let said = |code: u16, message: &str| {
            format!(r#"{{"sandboxId":"sbx1","port":80,"message":"{message}","code":{code}}}"#)
        };
        for (status, message, failure) in [
            (502, "The sandbox is running but port is not open", Failure::PortNotOpen),
            (502, "The sandbox was not found", Failure::Gone),
            (404, "The sandbox was not found", Failure::Gone),
            (409, "The sandbox is not running", Failure::Gone),
            (502, "The port did not answer with HTTP", Failure::NoAnswer),
            (403, "no token", Failure::Unauthorized),
            (429, "too many", Failure::Limited),
        ] {
            assert_eq!(judged(status, &said(status, message)), Some(failure), "{status} {message}");
        }
        let envd = format!(r#"{{"code":401,"message":"{TOKEN_REFUSED} or method signing if supported"}}"#);
        assert_eq!(judged(401, &envd), Some(Failure::Unauthorized));
    }

    #[test]
    fn what_a_server_says_of_itself_is_its_own() {
        for (status, body) in [
            (404, r#"{"code":404,"message":"no such page"}"#),
            (401, r#"{"code":401,"message":"log in first"}"#),
            (502, r#"{"sandboxId":"another","message":"port is not open","code":502}"#),
            (502, r#"{"sandboxId":"sbx1","message":"port is not open","code":404}"#),
            (502, "bad gateway"),
            (403, ""),
        ] {
            assert_eq!(judged(status, body), None, "{body}");
        }
    }
}
