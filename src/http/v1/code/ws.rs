//! Code over WebSocket: the same events as the streams, and an interrupt the other way.

use std::time::Duration;

use axum::{
    extract::{
        State, WebSocketUpgrade,
        ws::{Message, WebSocket, rejection::WebSocketUpgradeRejection},
    },
    response::Response,
};
use bytes::Bytes;
use futures_util::StreamExt;
use serde::Deserialize;
use tokio::sync::mpsc;
use utoipa_axum::{router::OpenApiRouter, routes};

use super::{
    dto::CodeRequest,
    stream::{encode, next},
};
use crate::{
    app::{self, App, code::Run},
    auth::Caller,
    domain::scope::Scope,
    error::{Error, Result},
    http::{
        extract::{Path, from_json},
        openapi::Failures,
        v1::exec::Framing,
        websocket::{
            CloseCode, KEY_ENDED, Opened, TEXT, accepted, gone,
            traffic::{
                Down, End, Frame, PENDING_NOTICES, PING_EVERY, PONG, Step, Up, close, first_frame, hear, notice,
                refuse, send, text,
            },
        },
    },
    ids::InstanceId,
    telemetry::request::carrying,
};

pub fn routes() -> OpenApiRouter<App> {
    OpenApiRouter::new().routes(routes!(code_websocket))
}

/// Runs code over a WebSocket. The first frame is `{"type": "start", …}` with the fields of `run_code`; then come the events.
/// Up goes `{"type": "interrupt"}`, after which the exit has the reason `interrupted`, and `{"type": "ping"}`. Closing the
/// socket interrupts the code too. The subprotocol is `ags.exec.v1`; a browser adds `ticket.<ticket>`. Close codes as for
/// `exec_websocket`.
#[utoipa::path(get, path = "/v1/instances/{id}/code/ws", operation_id = "code_websocket", tag = "code",
    params(("id" = InstanceId, Path)),
    responses((status = 101, description = "The socket is open."), Failures),
    extensions(("x-websocket" = json!({"subprotocols": [TEXT]}))))]
async fn code_websocket(
    State(app): State<App>,
    opened: Opened,
    Path(id): Path<InstanceId>,
    upgrade: Result<WebSocketUpgrade, WebSocketUpgradeRejection>,
) -> Result<Response> {
    let caller = opened.caller(&id, None, &[Scope::Exec])?;
    if let Err(error) = app::instances::running(&app, &caller, &id).await {
        return gone(upgrade, &[TEXT], error);
    }
    let permit = app.sockets.open(&app, &caller, &id)?;
    Ok(accepted(upgrade, &[TEXT])?.on_upgrade(carrying(move |socket: WebSocket| async move {
        let (mut down, mut up) = socket.split();
        let end = match start(&app, &caller, &id, &mut up).await {
            Step::Continue(Ok(run)) => tokio::select! {
                end = follow(&app, run, &mut down, &mut up) => end,
                () = permit.ended() => Some(End::new(CloseCode::NotAllowed, KEY_ENDED)),
            },
            Step::Continue(Err(error)) => refuse(&mut down, &error).await,
            Step::Break(end) => end,
        };
        close(&mut down, &mut up, end).await;
    })))
}

async fn start(app: &App, caller: &Caller, instance: &InstanceId, up: &mut Up) -> Step<Result<Run>> {
    Step::Continue(match first_frame::<CodeRequest>(up).await? {
        Ok(request) => app::code::start(app, caller, instance, request.into()).await,
        Err(error) => Err(error),
    })
}

/// Sends events and heeds the client until either side is done. `None`: the client has left.
async fn follow(app: &App, mut run: Run, down: &mut Down, up: &mut Up) -> Option<End> {
    let (said, mut heard) = mpsc::channel(PENDING_NOTICES);
    let draining = app.lifecycle.draining();
    let tell = async {
        let mut ping = tokio::time::interval(PING_EVERY);
        loop {
            let message = tokio::select! {
                biased;
                Some(said) = heard.recv() => match said {
                    Said::Interrupt => {
                        run.interrupt();
                        continue;
                    }
                    Said::Answer(message) => message,
                },
                message = event(&mut run, app.config.exec.keepalive) => match message {
                    Step::Continue(message) => message,
                    Step::Break(end) => return end,
                },
                () = draining.cancelled() => {
                    return Some(End::new(CloseCode::Draining, "restarting: the code was interrupted, run it again"));
                }
                _ = ping.tick() => Message::Ping(Bytes::new()),
            };
            if let Step::Break(end) = send(down, message, "too slow").await {
                return end;
            }
        }
    };
    tokio::select! {
        end = tell => end,
        end = listen(up, &said) => end,
    }
}

/// The next event as a message; the end after the last.
async fn event(run: &mut Run, keepalive: Duration) -> Step<Message> {
    match next(run, keepalive).await {
        Some(event) => text(encode(Framing::Messages, &event)),
        None => Step::Break(Some(End::new(CloseCode::Done, "the code has ended"))),
    }
}

/// What a client's frame asks for.
enum Said {
    Interrupt,
    /// To be sent back.
    Answer(Message),
}

/// A frame of the client's.
#[derive(Debug, Deserialize)]
#[serde(tag = "type", rename_all = "lowercase", deny_unknown_fields)]
pub enum Input {
    Interrupt {},
    Ping {},
}

/// # Errors
/// `malformed_json`, `validation_failed` naming the field.
pub fn parse_text(text: &[u8]) -> Result<Input> {
    from_json(text)
}

/// What comes from the client. A refusal is told and is not the end; `None`: the client has left.
async fn listen(up: &mut Up, said: &mpsc::Sender<Said>) -> Option<End> {
    loop {
        let input = match hear(up).await {
            Step::Continue(Frame::Text(text)) => parse_text(text.as_bytes()),
            Step::Continue(Frame::Binary(_)) => Err(Error::field("type", "frames must be text")),
            Step::Break(end) => return end,
        };
        let answer = match input {
            Ok(Input::Interrupt {}) => Said::Interrupt,
            Ok(Input::Ping {}) => Said::Answer(Message::Text(PONG.into())),
            Err(error) => Said::Answer(notice(&error)),
        };
        said.send(answer).await.ok()?;
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn frames_are_read_and_faults_are_named() {
        assert!(matches!(parse_text(br#"{"type":"interrupt"}"#), Ok(Input::Interrupt {})));
        assert!(matches!(parse_text(br#"{"type":"ping"}"#), Ok(Input::Ping {})));
        for frame in [&br#"{"type":"stdin","data":"x"}"#[..], br#"{"type":"ping","x":1}"#, b"{}", b"[]", b"\xff"] {
            assert!(parse_text(frame).is_err(), "{frame:?}");
        }
    }

    proptest! {
        #[test]
        fn parsing_never_panics(frame in proptest::collection::vec(any::<u8>(), 0..64)) {
            let _ = parse_text(&frame);
        }
    }
}
