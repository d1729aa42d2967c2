//! Answers that are streams, and the answer that waits.

use std::time::Duration;

use axum::{
    body::Body,
    response::{IntoResponse, Response},
};
use bytes::Bytes;
use futures_util::stream;
use http::{HeaderMap, HeaderName, HeaderValue, header};
use tokio_util::sync::CancellationToken;

use super::{
    dto::{ExecResult, as_text},
    encode::{Encoder, Frames, Framing, milliseconds},
};
use crate::{
    app::exec::{Attached, Session, log::Batch},
    domain::exec::{Exit, Stream},
};

/// Output taken from the log at once.
pub const MAX_BATCH: usize = 256 << 10;

/// The form of answer that the `Accept` header asks for; `None` for a plain JSON document.
pub fn wanted(headers: &HeaderMap) -> Option<Framing> {
    let values = headers.get_all(header::ACCEPT).iter().filter_map(|value| value.to_str().ok());
    values.flat_map(|value| value.split(',')).find_map(|range| {
        match range.split(';').next().unwrap_or_default().trim() {
            "text/event-stream" => Some(Framing::Sse),
            "application/x-ndjson" => Some(Framing::Lines),
            _ => None,
        }
    })
}

/// A stream of events as an answer. Nothing on the way may hold it back or keep it.
pub fn respond(framing: Framing, body: Body) -> Response {
    let kind = if framing == Framing::Sse { "text/event-stream" } else { "application/x-ndjson" };
    let headers = [
        (header::CONTENT_TYPE, HeaderValue::from_static(kind)),
        (header::CACHE_CONTROL, HeaderValue::from_static("no-store")),
        (HeaderName::from_static("x-accel-buffering"), HeaderValue::from_static("no")),
    ];
    (headers, body).into_response()
}

/// What feeds a streamed answer.
pub struct Feed {
    pub source: Attached,
    pub encoder: Encoder,
    pub keepalive: Duration,
    /// Go on after what there is now.
    pub follow: bool,
    /// Ends the stream early; whoever reads it can resume.
    pub cut: Option<CancellationToken>,
}

impl Feed {
    /// The body. The command's reader is held back while nobody takes from it.
    pub fn into_body(self) -> Body {
        Body::from_stream(stream::unfold((self, Batch::default()), |(mut feed, mut batch)| async move {
            let bytes = feed.next(&mut batch).await?;
            Some((Ok::<_, std::convert::Infallible>(bytes), (feed, batch)))
        }))
    }

    async fn next(&mut self, batch: &mut Batch) -> Option<Bytes> {
        let mut frames = Frames::default();
        if !self.follow {
            if !self.source.take(MAX_BATCH, batch) {
                return None;
            }
            self.encoder.batch(batch, &mut frames);
            return Some(frames.bytes.freeze());
        }
        loop {
            let cut = async {
                match &self.cut {
                    Some(cut) => cut.cancelled().await,
                    None => std::future::pending().await,
                }
            };
            tokio::select! {
                biased;
                more = self.source.next(MAX_BATCH, batch) => {
                    if !more {
                        return None;
                    }
                    self.encoder.batch(batch, &mut frames);
                }
                () = cut => return None,
                () = tokio::time::sleep(self.keepalive) => self.encoder.keepalive(&mut frames),
            }
            // A piece of a character makes no frame.
            if !frames.bytes.is_empty() {
                return Some(frames.bytes.freeze());
            }
        }
    }
}

/// The start of a stream's output, up to a limit.
#[derive(Default)]
struct Kept {
    bytes: Vec<u8>,
    cut: bool,
}

impl Kept {
    fn add(&mut self, data: &[u8], limit: usize) {
        let room = limit.saturating_sub(self.bytes.len());
        self.bytes.extend_from_slice(&data[..data.len().min(room)]);
        self.cut |= data.len() > room;
    }

    /// Text is cut between characters.
    fn finish(mut self) -> (String, Option<&'static str>) {
        if self.cut
            && let Err(error) = std::str::from_utf8(&self.bytes)
            && error.error_len().is_none()
        {
            self.bytes.truncate(error.valid_up_to());
        }
        as_text(self.bytes)
    }
}

/// Waits for the end of a command and answers all of it, up to `limit` bytes of each stream.
pub async fn collect(mut source: Attached, limit: usize) -> ExecResult {
    let (mut batch, mut stdout, mut stderr) = (Batch::default(), Kept::default(), Kept::default());
    let mut exit = None;
    while source.next(MAX_BATCH, &mut batch).await {
        for chunk in &batch.chunks {
            let kept = if chunk.stream == Stream::Stderr { &mut stderr } else { &mut stdout };
            kept.add(&chunk.data, limit);
        }
        exit = batch.exit.take().map(|(exit, _)| exit);
    }
    result(&source.session, exit.as_deref(), stdout, stderr)
}

fn result(session: &Session, exit: Option<&Exit>, stdout: Kept, stderr: Kept) -> ExecResult {
    use crate::domain::exec::Reason;
    let truncated = stdout.cut || stderr.cut;
    let ((stdout, stdout_encoding), (stderr, stderr_encoding)) = (stdout.finish(), stderr.finish());
    let reason = exit.map_or(Reason::Lost, |exit| exit.reason);
    ExecResult {
        exec_id: session.id.clone(),
        pid: session.log.pid(),
        exit_code: exit.and_then(|exit| exit.exit_code),
        signal: exit.and_then(|exit| exit.signal.clone()),
        reason,
        timed_out: reason == Reason::Timeout,
        error: exit.and_then(|exit| exit.error.clone()),
        stdout,
        stderr,
        stdout_encoding,
        stderr_encoding,
        truncated,
        duration_ms: exit.map_or(0, |exit| milliseconds(exit.duration)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn accept(value: &str) -> Option<Framing> {
        wanted(&HeaderMap::from_iter([(header::ACCEPT, value.parse().unwrap())]))
    }

    #[test]
    fn the_accept_header_chooses_the_form() {
        assert_eq!(accept("text/event-stream"), Some(Framing::Sse));
        assert_eq!(accept("application/json, application/x-ndjson;q=0.9"), Some(Framing::Lines));
        assert_eq!(accept("application/json"), None);
        assert_eq!(accept("*/*"), None);
        assert_eq!(wanted(&HeaderMap::new()), None);
    }

    #[test]
    fn what_is_kept_is_cut_between_characters_and_said_to_be() {
        let mut kept = Kept::default();
        kept.add("aé".as_bytes(), 2);
        assert!(kept.cut);
        assert_eq!(kept.finish(), ("a".to_owned(), None));
        let mut kept = Kept::default();
        kept.add(b"ab", 2);
        kept.add(b"", 2);
        assert!(!kept.cut);
        kept.add(b"c", 2);
        assert!(kept.cut);
        let mut kept = Kept::default();
        kept.add(b"a\xe9", 10);
        assert_eq!(kept.finish(), ("Yek=".to_owned(), Some("base64")));
    }
}
