//! A watch over a WebSocket: an event a message, nothing the other way.

use std::{sync::Arc, time::Duration};

use axum::extract::ws::{Message, WebSocket};
use futures_util::StreamExt;

use super::{EndReason, WatchEventDto, next_event};
use crate::{
    app::{files::Watch, holds::Hold},
    http::websocket::{
        CloseCode, KEY_ENDED,
        traffic::{Down, End, PING_EVERY, Step, Up, close, hear, send},
    },
};

/// Sends the events until either side is done.
pub(super) async fn serve(socket: WebSocket, watch: Watch, keepalive: Duration, hold: Arc<Hold>) {
    let (mut down, mut up) = socket.split();
    let end = tokio::select! {
        end = tell(&mut down, watch, keepalive) => end,
        end = left(&mut up) => end,
        () = hold.ended().cancelled() => Some(End::new(CloseCode::NotAllowed, KEY_ENDED)),
    };
    close(&mut down, &mut up, end).await;
}

/// `None`: the client has left.
async fn tell(down: &mut Down, mut watch: Watch, keepalive: Duration) -> Option<End> {
    let mut ping = tokio::time::interval(PING_EVERY);
    let mut event = Some(WatchEventDto::watching(&watch));
    loop {
        let message = match &event {
            Some(event) => Message::Text(event.json().into()),
            None => Message::Ping(Default::default()),
        };
        if let Step::Break(end) = send(down, message, "too slow: watch again").await {
            return end;
        }
        if let Some(reason) = event.and_then(|event| event.reason) {
            return Some(closing(reason));
        }
        event = tokio::select! {
            biased;
            _ = ping.tick() => None,
            event = next_event(&mut watch, keepalive) => Some(event?),
        };
    }
}

fn closing(reason: EndReason) -> End {
    match reason {
        EndReason::Removed => End::new(CloseCode::Done, "the directory was removed"),
        EndReason::Draining => End::new(CloseCode::Draining, "restarting: watch again"),
        EndReason::Overflow => End::new(CloseCode::Upstream, "the sandbox lost events: watch again"),
        EndReason::Unreachable => End::new(CloseCode::Upstream, "the sandbox cannot be reached"),
    }
}

/// What a client says means nothing here; this ends when it has left, or must have.
async fn left(up: &mut Up) -> Option<End> {
    loop {
        if let Step::Break(end) = hear(up).await {
            return end;
        }
    }
}
