//! Answers that are streams, and the answer that waits.

use std::{convert::Infallible, time::Duration};

use axum::body::Body;
use bytes::{Bytes, BytesMut};
use futures_util::stream;

use super::dto::{CodeAnswer, EventDto};
use crate::{
    app::code::{Collector, Run},
    http::v1::exec::{Framing, put_event},
};

/// An event as bytes.
pub fn encode(framing: Framing, event: &EventDto) -> Bytes {
    // These are plain structs: they always serialise.
    let json = serde_json::to_vec(event).unwrap_or_default();
    let mut out = BytesMut::with_capacity(json.len() + 32);
    put_event(framing, event.name(), &json, None, &mut out);
    out.freeze()
}

/// The next event; after `keepalive` of silence a sign of life. `None` after the exit. Can be dropped at any point.
pub async fn next(run: &mut Run, keepalive: Duration) -> Option<EventDto> {
    match tokio::time::timeout(keepalive, run.next()).await {
        Ok(event) => event.map(EventDto::from),
        Err(_) => Some(EventDto::Keepalive),
    }
}

/// The events as a body. The code is held back while nobody takes from it, and interrupted when it is dropped.
pub fn body(framing: Framing, run: Run, keepalive: Duration) -> Body {
    Body::from_stream(stream::unfold(run, move |mut run| async move {
        let event = next(&mut run, keepalive).await?;
        Some((Ok::<_, Infallible>(encode(framing, &event)), run))
    }))
}

/// Waits for the end of the code and answers all of it: up to `output_limit` bytes of each stream, and results of up to
/// `result_limit` together.
pub async fn collect(mut run: Run, output_limit: usize, result_limit: usize) -> CodeAnswer {
    let mut collector = Collector::new(output_limit, result_limit);
    while let Some(event) = run.next().await {
        collector.add(event);
    }
    collector.finish().into()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn events_are_framed_as_asked_for() {
        let event = EventDto::Stdout { data: "a\n".into() };
        let json = r#"{"type":"stdout","data":"a\n"}"#;
        assert_eq!(encode(Framing::Lines, &event), format!("{json}\n"));
        assert_eq!(encode(Framing::Messages, &event), json);
        assert_eq!(encode(Framing::Sse, &event), format!("event: stdout\ndata: {json}\n\n"));
    }
}
