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
    dto::ExecResult,
    encode::{Encoder, Frames, Framing, milliseconds},
};
use crate::{
    app::exec::{
        Gathered, Source,
        log::{Batch, Look},
    },
    domain::exec::{Exec, Reason},
    error::Result,
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
    pub source: Source,
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
            // An error cuts the connection: whoever reads it can resume.
            let bytes = feed.next(&mut batch).await.transpose()?;
            Some((bytes, (feed, batch)))
        }))
    }

    async fn next(&mut self, batch: &mut Batch) -> Result<Option<Bytes>> {
        let mut frames = Frames::default();
        if !self.follow {
            if self.source.take(MAX_BATCH, batch).await? != Look::Taken {
                return Ok(None);
            }
            self.encoder.batch(batch, &mut frames);
            return Ok(Some(frames.bytes.freeze()));
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
                look = self.source.next(MAX_BATCH, batch) => {
                    if look? != Look::Taken {
                        return Ok(None);
                    }
                    self.encoder.batch(batch, &mut frames);
                }
                () = cut => return Ok(None),
                () = tokio::time::sleep(self.keepalive) => self.encoder.keepalive(&mut frames),
            }
            // A piece of a character makes no frame.
            if !frames.bytes.is_empty() {
                return Ok(Some(frames.bytes.freeze()));
            }
        }
    }
}

/// Waits for the end of a command and answers all of it, up to `limit` bytes of each stream.
///
/// # Errors
/// When what was printed cannot be read.
pub async fn collect(mut source: Source, limit: usize) -> Result<ExecResult> {
    let gathered = source.gather(limit).await?;
    Ok(result(source.snapshot(), gathered))
}

fn result(exec: Exec, Gathered { stdout, stderr }: Gathered) -> ExecResult {
    let duration_ms = exec.exit().map_or(0, |exit| milliseconds(exit.duration));
    let truncated = stdout.cut() || stderr.cut();
    let ((stdout, stdout_encoding), (stderr, stderr_encoding)) = (stdout.finish(), stderr.finish());
    let reason = exec.reason.unwrap_or(Reason::Lost);
    ExecResult {
        exec_id: exec.id,
        pid: exec.pid,
        exit_code: exec.exit_code,
        signal: exec.signal,
        reason,
        timed_out: reason == Reason::Timeout,
        error: exec.error,
        stdout,
        stderr,
        stdout_encoding,
        stderr_encoding,
        truncated,
        duration_ms,
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
}
