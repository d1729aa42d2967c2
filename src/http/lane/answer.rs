//! Answers as they go out (RFC 9112).

use std::{
    future::poll_fn,
    io::{self, Write},
    pin::Pin,
    task::Poll,
};

use axum::body::Body;
use bytes::{Buf, Bytes};
use http::{Response, StatusCode, header, response::Parts};
use http_body::{Body as HttpBody, Frame, SizeHint};
use tokio::io::{AsyncWrite, AsyncWriteExt};
use tokio_util::sync::CancellationToken;

use super::while_there;
use crate::{clock::Clock, http::client_io::SendingSide};

/// RFC 9110, 5.6.7.
const IMF_FIXDATE: &str = "%a, %d %b %Y %H:%M:%S GMT";
/// A body's first piece up to this length goes out together with the head.
const TOGETHER: usize = 16 << 10;

/// How an answer is written.
#[derive(Clone, Copy)]
pub struct Manner<'a> {
    /// The request was a `HEAD`.
    pub(super) only_head: bool,
    /// Once it is cancelled, an answer is the last on its connection, and says so.
    pub(super) draining: &'a CancellationToken,
    pub(super) clock: &'a dyn Clock,
    /// The client's, who may have closed it.
    pub(super) side: &'a SendingSide,
}

/// How a body's end is told.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Framing {
    /// There is none.
    Nothing,
    Length(u64),
    Chunked,
}

impl Framing {
    fn of(status: StatusCode, only_head: bool, body: &Body) -> Self {
        if only_head || has_no_body(status) { Self::Nothing } else { Self::of_body(&body.size_hint()) }
    }

    /// Of an answer that has a body.
    pub fn of_body(size: &SizeHint) -> Self {
        size.exact().map_or(Self::Chunked, Self::Length)
    }
}

/// Whether an answer has no body whatever its head says (RFC 9112, 6.3).
pub fn has_no_body(status: StatusCode) -> bool {
    status.is_informational() || matches!(status, StatusCode::NO_CONTENT | StatusCode::NOT_MODIFIED)
}

/// Writes an answer to its end, and says whether it was the connection's last. `out` is for reuse.
///
/// # Errors
/// When the client has gone, or the body broke off: what was written is no whole answer then.
pub(super) async fn write<S: AsyncWrite + Unpin>(
    stream: &mut S,
    answer: Response<Body>,
    manner: Manner<'_>,
    out: &mut Vec<u8>,
) -> io::Result<bool> {
    let (parts, body) = answer.into_parts();
    let framing = Framing::of(parts.status, manner.only_head, &body);
    out.clear();
    let last = write_head(out, &parts, framing, manner);
    write_body(stream, body, framing, manner, out).await.map(|()| last)
}

/// Writes what `out` holds and the body that follows, to its end.
///
/// # Errors
/// As [`write`].
pub(super) async fn write_body<S: AsyncWrite + Unpin>(
    stream: &mut S,
    mut body: Body,
    framing: Framing,
    manner: Manner<'_>,
    out: &mut Vec<u8>,
) -> io::Result<()> {
    if framing == Framing::Nothing {
        return finish(stream, body, manner, out).await;
    }
    let mut left = framing;
    while left != Framing::Length(0) {
        // What is there already is gathered; before it waits, all is sent.
        let next = match now(&mut body).await {
            Poll::Ready(next) => next,
            Poll::Pending => {
                send(stream, out).await?;
                while_there(stream, poll_fn(|cx| Pin::new(&mut body).poll_frame(cx))).await?
            }
        };
        let Some(frame) = next else { break };
        // Trailers are for those who said that they take them; they do not come here.
        if let Ok(data) = frame.map_err(io::Error::other)?.into_data() {
            piece(stream, out, data, &mut left).await?;
        }
    }
    match left {
        Framing::Length(1..) => return Err(io::ErrorKind::UnexpectedEof.into()),
        Framing::Chunked => out.extend_from_slice(b"0\r\n\r\n"),
        Framing::Length(0) | Framing::Nothing => {}
    }
    finish(stream, body, manner, out).await
}

/// Sends what is left of an answer. What its request holds is let go before: whoever has all of an answer may ask again at once.
///
/// # Errors
/// When the client has gone.
pub(super) async fn finish<S: AsyncWrite + Unpin>(
    stream: &mut S,
    held: impl Send,
    manner: Manner<'_>,
    out: &mut Vec<u8>,
) -> io::Result<()> {
    // Whoever has closed the sending side is still owed this.
    let _answer_due = manner.side.wait();
    drop(held);
    send(stream, out).await
}

/// The next frame, if it is there.
async fn now(body: &mut Body) -> Poll<Option<Result<Frame<Bytes>, axum::Error>>> {
    poll_fn(|cx| Poll::Ready(Pin::new(&mut *body).poll_frame(cx))).await
}

/// Adds a piece of a body to what is to be sent, or sends it.
async fn piece<S: AsyncWrite + Unpin>(
    stream: &mut S,
    out: &mut Vec<u8>,
    data: Bytes,
    left: &mut Framing,
) -> io::Result<()> {
    if data.is_empty() {
        return Ok(());
    }
    match left {
        Framing::Length(left) => {
            *left = left.checked_sub(data.len() as u64).ok_or(io::ErrorKind::InvalidData)?;
        }
        Framing::Chunked => write!(out, "{:x}\r\n", data.len())?,
        Framing::Nothing => return Err(io::ErrorKind::InvalidData.into()),
    }
    let end: &[u8] = if *left == Framing::Chunked { b"\r\n" } else { b"" };
    if out.len() + data.len() <= TOGETHER {
        out.extend_from_slice(&data);
        out.extend_from_slice(end);
        return Ok(());
    }
    let mut all = out.as_slice().chain(data).chain(end);
    stream.write_all_buf(&mut all).await?;
    out.clear();
    Ok(())
}

async fn send<S: AsyncWrite + Unpin>(stream: &mut S, out: &mut Vec<u8>) -> io::Result<()> {
    if !out.is_empty() {
        stream.write_all(out).await?;
        out.clear();
    }
    stream.flush().await
}

fn write_head(out: &mut Vec<u8>, parts: &Parts, framing: Framing, manner: Manner<'_>) -> bool {
    begin(out, parts.status);
    for (name, value) in &parts.headers {
        // Said once, and by what frames the body; of an answer to HEAD it tells what GET would get.
        if *name != header::CONTENT_LENGTH || framing == Framing::Nothing && parts.status != StatusCode::NO_CONTENT {
            field(out, name.as_str(), value.as_bytes());
        }
    }
    end(out, framing, parts.headers.contains_key(header::DATE), manner)
}

/// Begins a head.
pub fn begin(out: &mut Vec<u8>, status: StatusCode) {
    let reason = status.canonical_reason().unwrap_or_default();
    for part in ["HTTP/1.1 ", status.as_str(), " ", reason, "\r\n"] {
        out.extend_from_slice(part.as_bytes());
    }
}

/// Adds a field to a head.
pub fn field(out: &mut Vec<u8>, name: &str, value: &[u8]) {
    for part in [name.as_bytes(), b": ", value, b"\r\n"] {
        out.extend_from_slice(part);
    }
}

/// Ends a head with what is said of the body and of the connection: whether it is the last on it.
pub fn end(out: &mut Vec<u8>, framing: Framing, dated: bool, manner: Manner<'_>) -> bool {
    match framing {
        Framing::Length(length) => field(out, "content-length", length.to_string().as_bytes()),
        Framing::Chunked => field(out, "transfer-encoding", b"chunked"),
        Framing::Nothing => {}
    }
    // A server that has no clock leaves it to whoever passes its answer on (RFC 9110, 6.6.1).
    if !dated {
        field(out, "date", manner.clock.now().format(IMF_FIXDATE).to_string().as_bytes());
    }
    let last = manner.draining.is_cancelled();
    if last {
        field(out, "connection", b"close");
    }
    out.extend_from_slice(b"\r\n");
    last
}

#[cfg(test)]
mod tests {
    use futures_util::stream;
    use http_body_util::StreamBody;
    use tokio::io::{AsyncReadExt, duplex};

    use super::*;
    use crate::clock::Mock;

    const DATE: &str = "date: Thu, 01 Jan 1970 00:00:00 GMT\r\n";

    fn streamed(frames: Vec<Result<Frame<Bytes>, io::Error>>) -> Body {
        Body::new(StreamBody::new(stream::iter(frames)))
    }

    fn data(text: &'static str) -> Result<Frame<Bytes>, io::Error> {
        Ok(Frame::data(Bytes::from_static(text.as_bytes())))
    }

    async fn written(answer: Response<Body>, only_head: bool, last: bool) -> (io::Result<()>, String) {
        let (mut ours, mut theirs) = duplex(1 << 20);
        let clock = Mock::at(chrono::DateTime::UNIX_EPOCH);
        let draining = CancellationToken::new();
        if last {
            draining.cancel();
        }
        let side = SendingSide::default();
        let manner = Manner { only_head, draining: &draining, clock: &*clock, side: &side };
        let result = write(&mut ours, answer, manner, &mut vec![b'x'; 3]).await;
        let result = result.map(|said| assert_eq!(said, last));
        drop(ours);
        let mut text = String::new();
        theirs.read_to_string(&mut text).await.unwrap();
        (result, text)
    }

    #[tokio::test]
    async fn a_length_is_told_where_it_is_known_and_chunks_where_not() {
        let (result, text) = written(Response::new(Body::from("hello")), false, false).await;
        assert_eq!(text, format!("HTTP/1.1 200 OK\r\ncontent-length: 5\r\n{DATE}\r\nhello"));
        result.unwrap();
        let mut trailers = http::HeaderMap::new();
        trailers.insert("x-sum", "7".parse().unwrap());
        let frames = vec![data("ab"), data(""), data("0123456789abcdef"), Ok(Frame::trailers(trailers))];
        let (result, text) = written(Response::new(streamed(frames)), false, true).await;
        let body = "2\r\nab\r\n10\r\n0123456789abcdef\r\n0\r\n\r\n";
        let head = format!("HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n{DATE}connection: close\r\n\r\n");
        assert_eq!(text, head + body);
        result.unwrap();
    }

    #[tokio::test]
    async fn what_has_no_body_gets_none() {
        let with_length = |status: u16| {
            let answer = Response::builder().status(status).header("content-length", "5").header("date", "today");
            answer.body(Body::empty()).unwrap()
        };
        for (status, only_head, length) in [(200, true, true), (304, false, true), (204, false, false)] {
            let (result, text) = written(with_length(status), only_head, false).await;
            assert!(text.starts_with(&format!("HTTP/1.1 {status} ")) && text.ends_with("\r\n\r\n"), "{text}");
            assert_eq!((text.contains("content-length: 5\r\n"), text.matches("date:").count()), (length, 1), "{text}");
            result.unwrap();
        }
    }

    #[tokio::test]
    async fn a_body_that_breaks_off_is_not_ended() {
        let frames = vec![data("ab"), Err(io::Error::other("broke"))];
        let (result, text) = written(Response::new(streamed(frames)), false, false).await;
        assert!(result.is_err() && !text.contains("0\r\n\r\n"), "{text}");
    }

    #[tokio::test]
    async fn a_large_piece_comes_whole() {
        let large = Bytes::from(vec![b'l'; 3 * TOGETHER]);
        let frames = vec![data("ab"), Ok(Frame::data(large.clone())), data("c")];
        let (result, text) = written(Response::new(streamed(frames)), false, false).await;
        let body = text.split_once("\r\n\r\n").unwrap().1;
        let expected = format!("2\r\nab\r\n{:x}\r\n{}\r\n1\r\nc\r\n0\r\n\r\n", large.len(), "l".repeat(large.len()));
        assert_eq!(body, expected);
        result.unwrap();
    }
}
