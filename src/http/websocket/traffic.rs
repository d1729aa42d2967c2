//! What goes over an open WebSocket, whatever it is for: frames both ways, with patience, and the end with its reason.

use std::{error::Error as _, ops::ControlFlow, time::Duration};

use axum::extract::ws::{CloseFrame, Message, Utf8Bytes, WebSocket};
use bytes::Bytes;
use futures_util::{
    SinkExt, StreamExt,
    stream::{SplitSink, SplitStream},
};
use serde::de::DeserializeOwned;
use serde_json::{Map, Value};
use tokio_tungstenite::tungstenite;

use super::CloseCode;
use crate::{
    error::{Error, Result},
    http::{extract::from_json, problem::Problem},
};

/// How often a client is asked for a sign of life.
pub const PING_EVERY: Duration = Duration::from_secs(20);
/// Refusals that wait to be told.
pub const PENDING_NOTICES: usize = 16;
/// The answer to a client's `ping`.
pub const PONG: &str = r#"{"type":"pong"}"#;

/// A client that takes nothing for this long is dropped.
const SEND_PATIENCE: Duration = Duration::from_secs(60);
/// Silence, pongs included, after which the client counts as gone.
const SILENCE: Duration = Duration::from_secs(65);
/// Time for the first frame.
const START_PATIENCE: Duration = Duration::from_secs(30);
/// For the client's own close frame, which ends the handshake.
const FAREWELL: Duration = Duration::from_secs(5);

/// Towards the client.
pub type Down = SplitSink<WebSocket, Message>;
/// From the client.
pub type Up = SplitStream<WebSocket>;

/// What a socket is closed with.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct End {
    pub code: CloseCode,
    pub reason: &'static str,
}

impl End {
    #[must_use]
    pub const fn new(code: CloseCode, reason: &'static str) -> Self {
        Self { code, reason }
    }
}

/// A step of a socket's life; its end is `None` when the client has left.
pub type Step<T = ()> = ControlFlow<Option<End>, T>;

/// Sends a message. `too_slow`: what a client that does not take it is told.
pub async fn send(down: &mut Down, message: Message, too_slow: &'static str) -> Step {
    match tokio::time::timeout(SEND_PATIENCE, down.send(message)).await {
        Ok(Ok(())) => Step::Continue(()),
        Ok(Err(_)) => Step::Break(None),
        Err(_) => Step::Break(Some(End::new(CloseCode::TooSlow, too_slow))),
    }
}

/// What was encoded here, as a text message.
pub fn text(frame: Bytes) -> Step<Message> {
    match Utf8Bytes::try_from(frame) {
        Ok(text) => Step::Continue(Message::Text(text)),
        // Encoded here: it is text.
        Err(_) => Step::Break(Some(End::new(CloseCode::Upstream, "internal"))),
    }
}

/// A client's frame.
pub enum Frame {
    Text(Utf8Bytes),
    Binary(Bytes),
}

/// The client's next frame.
pub async fn hear(up: &mut Up) -> Step<Frame> {
    loop {
        match tokio::time::timeout(SILENCE, up.next()).await {
            Ok(Some(Ok(Message::Text(text)))) => return Step::Continue(Frame::Text(text)),
            Ok(Some(Ok(Message::Binary(frame)))) => return Step::Continue(Frame::Binary(frame)),
            Ok(Some(Ok(Message::Ping(_) | Message::Pong(_)))) => {}
            Ok(Some(Err(error))) if is_too_big(&error) => {
                return Step::Break(Some(End::new(CloseCode::TooBig, "frames may have 1 MiB")));
            }
            Ok(None | Some(Ok(Message::Close(_)) | Err(_))) | Err(_) => return Step::Break(None),
        }
    }
}

/// Whether a frame was larger than it may be.
fn is_too_big(error: &axum::Error) -> bool {
    let source = error.source().and_then(|source| source.downcast_ref());
    matches!(source, Some(tungstenite::Error::Capacity(_)))
}

/// The fields of the frame that starts something; an error when it does not come, or is another.
pub async fn first_frame<T: DeserializeOwned>(up: &mut Up) -> Step<Result<T>> {
    let fault = |message: &str| Err(Error::field("type", message));
    let Ok(heard) = tokio::time::timeout(START_PATIENCE, hear(up)).await else {
        return Step::Continue(fault("the first frame, {\"type\": \"start\", …}, did not come"));
    };
    Step::Continue(match heard? {
        Frame::Text(text) => start_frame(text.as_bytes()),
        Frame::Binary(_) => fault("the first frame must be text: {\"type\": \"start\", …}"),
    })
}

/// The fields of a `start` frame.
///
/// # Errors
/// `malformed_json`; `validation_failed` naming the field.
pub fn start_frame<T: DeserializeOwned>(text: &[u8]) -> Result<T> {
    let mut fields: Map<String, Value> = from_json(text)?;
    match fields.remove("type") {
        Some(Value::String(kind)) if kind == "start" => {}
        _ => return Err(Error::field("type", "the first frame must be {\"type\": \"start\", …}")),
    }
    from_json(Value::Object(fields).to_string().as_bytes())
}

/// An error as an event.
pub fn notice(error: &Error) -> Message {
    let mut event = serde_json::to_value(Problem::of(error.inner())).unwrap_or_default();
    event["problem"] = event["type"].take();
    event["type"] = "error".into();
    Message::Text(event.to_string().into())
}

/// Tells why nothing was started; answers what to close with.
pub async fn refuse(down: &mut Down, error: &Error) -> Option<End> {
    down.send(notice(error)).await.ok()?;
    Some(End::new(CloseCode::of(error), error.code().as_str()))
}

/// Closes a socket, or when the client has closed it, confirms that. A client that does not answer is left.
pub async fn close(down: &mut Down, up: &mut Up, end: Option<End>) {
    let farewell = async {
        let Some(end) = end else { return down.close().await };
        let frame = CloseFrame { code: end.code as u16, reason: end.reason.into() };
        down.send(Message::Close(Some(frame))).await?;
        while let Some(Ok(_)) = up.next().await {}
        Ok(())
    };
    drop(tokio::time::timeout(FAREWELL, farewell).await);
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use serde::Deserialize;

    use super::*;
    use crate::error::Code;

    #[derive(Debug, PartialEq, Deserialize)]
    #[serde(deny_unknown_fields)]
    struct Fields {
        text: String,
        number: Option<i64>,
    }

    fn faults(frame: &str) -> Vec<String> {
        let error = start_frame::<Fields>(frame.as_bytes()).unwrap_err();
        error.inner().fields.iter().map(|fault| fault.field.clone()).collect()
    }

    #[test]
    fn the_first_frame_says_what_it_is() {
        for frame in ["{}", r#"{"type":"ping"}"#, r#"{"type":1,"text":""}"#] {
            assert_eq!(faults(frame), ["type"], "{frame}");
        }
        assert_eq!(faults(r#"{"type":"start"}"#), ["text"]);
        assert_eq!(faults(r#"{"type":"start","text":"","colour":1}"#), ["colour"]);
        assert_eq!(start_frame::<Fields>(b"{").unwrap_err().code(), Code::MalformedJson);
    }

    proptest! {
        #[test]
        fn parsing_never_panics(frame in proptest::collection::vec(any::<u8>(), 0..64)) {
            let _ = start_frame::<Fields>(&frame);
        }

        #[test]
        fn fields_arrive_as_they_were_sent(text: String, number: Option<i64>) {
            let frame = serde_json::json!({"type": "start", "text": text, "number": number}).to_string();
            prop_assert_eq!(start_frame::<Fields>(frame.as_bytes()).unwrap(), Fields { text, number });
        }
    }
}
