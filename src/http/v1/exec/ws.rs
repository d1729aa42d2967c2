//! Commands over WebSocket: the same events as the streams, and input the other way.

use std::{ops::ControlFlow, time::Duration};

use axum::{
    extract::{
        State, WebSocketUpgrade,
        ws::{CloseFrame, Message, WebSocket, rejection::WebSocketUpgradeRejection},
    },
    response::Response,
};
use bytes::Bytes;
use futures_util::{
    SinkExt, StreamExt,
    stream::{SplitSink, SplitStream},
};
use serde_json::{Map, Value};
use tokio::{sync::mpsc, time::Instant};
use utoipa_axum::{router::OpenApiRouter, routes};

use super::{
    dto::{ExecRequest, WsQuery},
    encode::{Encoder, Frames, Framing},
    input::{self, Input},
    past,
    stream::MAX_BATCH,
};
use crate::{
    app::{
        self, App,
        exec::{Attached, Handle, Lifetime, Output, log::Batch},
    },
    auth::Caller,
    domain::scope::Scope,
    error::{Code, Error, Result},
    http::{
        extract::{Path, Query, from_json},
        openapi::Failures,
        problem::Problem,
        websocket::{BINARY, Opened, TEXT},
    },
    ids::{ExecId, InstanceId},
};

/// Time for the first frame.
const START_PATIENCE: Duration = Duration::from_secs(30);
/// A client that takes nothing for this long is dropped; it can come back for the rest.
const SEND_PATIENCE: Duration = Duration::from_secs(60);
const PING_EVERY: Duration = Duration::from_secs(20);
/// Silence, pongs included, after which the client counts as gone.
const SILENCE: Duration = Duration::from_secs(65);
const MAX_MESSAGE: usize = 1 << 20;
/// Refusals of input that wait to be told.
const PENDING_NOTICES: usize = 16;

const DONE: u16 = 1000;
const DRAINING: u16 = 1001;
const NOT_ALLOWED: u16 = 1008;
const TOO_BIG: u16 = 1009;
const UPSTREAM: u16 = 1011;
const GONE: u16 = 4004;
const TOO_SLOW: u16 = 4008;
const TOO_MANY: u16 = 4029;

pub fn routes() -> OpenApiRouter<App> {
    OpenApiRouter::new().routes(routes!(exec_websocket)).routes(routes!(attach_websocket))
}

/// Runs a command over a WebSocket. The first frame is `{"type": "start", …}` with the fields of `exec_command`; then come
/// the events, and input goes up: `stdin {data, encoding}`, `close_stdin`, `resize {cols, rows}`, `signal {signal}`, `ping`.
/// The command outlives the socket. Subprotocols: `ags.exec.v1` (JSON text), `ags.exec.v1.bin` (output in binary frames: a
/// byte for the stream, a byte for the length of the cursor, the cursor, the output); a browser adds `ticket.<ticket>`.
/// Close codes: 1000 done, 1001 draining, 1008 not allowed, 1009 too big, 1011 upstream, 4004 gone, 4008 too slow, 4029 too many.
#[utoipa::path(get, path = "/v1/instances/{id}/exec/ws", operation_id = "exec_websocket", tag = "exec",
    params(("id" = InstanceId, Path)),
    responses((status = 101, description = "The socket is open."), Failures),
    extensions(("x-websocket" = json!({"subprotocols": [TEXT, BINARY]}))))]
async fn exec_websocket(
    State(app): State<App>,
    opened: Opened,
    Path(id): Path<InstanceId>,
    upgrade: Result<WebSocketUpgrade, WebSocketUpgradeRejection>,
) -> Result<Response> {
    let caller = opened.caller(&id, None, &[Scope::Exec])?;
    app::instances::running(&app, &caller, &id).await?;
    let framing = opened.framing();
    Ok(ready(upgrade)?.on_upgrade(move |socket| async move {
        let mut socket = Socket::new(app, socket, framing);
        if let Err(error) = socket.run_command(&caller, &id).await {
            socket.refuse(error).await;
        }
    }))
}

/// Attaches to a command: its events since `after` and from now on, and for a writer input the other way.
#[utoipa::path(get, path = "/v1/instances/{id}/execs/{exec_id}/ws", operation_id = "attach_websocket", tag = "exec",
    params(("id" = InstanceId, Path), ("exec_id" = ExecId, Path), WsQuery),
    responses((status = 101, description = "The socket is open."), Failures),
    extensions(("x-websocket" = json!({"subprotocols": [TEXT, BINARY]}))))]
async fn attach_websocket(
    State(app): State<App>,
    opened: Opened,
    Path((id, exec)): Path<(InstanceId, ExecId)>,
    Query(query): Query<WsQuery>,
    upgrade: Result<WebSocketUpgrade, WebSocketUpgradeRejection>,
) -> Result<Response> {
    let needed: &[Scope] = if query.writer { &[Scope::Exec] } else { &[Scope::Exec, Scope::ExecRead] };
    let caller = opened.caller(&id, Some(&exec), needed)?;
    let output = app::exec::output(&app, &caller, &id, &exec, query.after.as_ref()).await?;
    let framing = opened.framing();
    Ok(ready(upgrade)?.on_upgrade(move |socket| async move {
        let mut socket = Socket::new(app, socket, framing);
        match output {
            Output::Here(source) => {
                let handle = query.writer.then(|| Handle::of(source.session.clone()));
                let encoder = Encoder::new(framing, exec, query.after.as_ref(), None);
                socket.follow(source, encoder, handle).await;
            }
            Output::Gone(exec) => socket.tell_past(past(Framing::Messages, *exec)).await,
        }
    }))
}

fn ready(upgrade: Result<WebSocketUpgrade, WebSocketUpgradeRejection>) -> Result<WebSocketUpgrade> {
    let upgrade = upgrade.map_err(|error| {
        let detail = "This path is a WebSocket: send an upgrade request.";
        Error::new(Code::InvalidRequest, detail).with_source(error)
    })?;
    Ok(upgrade.protocols([BINARY, TEXT]).max_message_size(MAX_MESSAGE).max_frame_size(MAX_MESSAGE))
}

/// One open socket.
struct Socket {
    app: App,
    sink: SplitSink<WebSocket, Message>,
    stream: SplitStream<WebSocket>,
    framing: Framing,
}

/// How a socket's life ends.
struct End {
    code: u16,
    reason: &'static str,
}

impl Socket {
    fn new(app: App, socket: WebSocket, framing: Framing) -> Self {
        let (sink, stream) = socket.split();
        Self { app, sink, stream, framing }
    }

    async fn run_command(&mut self, caller: &Caller, instance: &InstanceId) -> Result<()> {
        let Some(request) = self.first_frame().await? else { return Ok(()) };
        let spec = request.into_spec()?;
        let source = app::exec::start(&self.app, caller, instance, spec, Lifetime::Own).await?;
        let encoder = Encoder::new(self.framing, source.session.id.clone(), None, None);
        let handle = Handle::of(source.session.clone());
        self.follow(source, encoder, Some(handle)).await;
        Ok(())
    }

    /// The frame that starts the command; `None` when the client leaves without one.
    async fn first_frame(&mut self) -> Result<Option<ExecRequest>> {
        let late = |_| Error::field("type", "the first frame, {\"type\": \"start\", …}, did not come");
        loop {
            let message = tokio::time::timeout(START_PATIENCE, self.stream.next()).await.map_err(late)?;
            match message {
                Some(Ok(Message::Text(text))) => return start_frame(text.as_bytes()).map(Some),
                Some(Ok(Message::Binary(_))) => {
                    return Err(Error::field("type", "the first frame must be text: {\"type\": \"start\", …}"));
                }
                Some(Ok(Message::Ping(_) | Message::Pong(_))) => {}
                Some(Ok(Message::Close(_)) | Err(_)) | None => return Ok(None),
            }
        }
    }

    /// Sends what the command prints and takes input for it, until either side is done.
    async fn follow(&mut self, source: Attached, encoder: Encoder, handle: Option<Handle>) {
        let (notices, told) = mpsc::channel(PENDING_NOTICES);
        let output = Downstream { sink: &mut self.sink, source, encoder, told, framing: self.framing };
        let end = tokio::select! {
            end = output.run(&self.app) => end,
            end = upstream(&mut self.stream, handle, &notices) => end,
        };
        if let Some(end) = end {
            self.close(end).await;
        }
    }

    async fn tell_past(&mut self, events: Bytes) {
        // Each event is a document of its own; they were encoded one after the other.
        let documents = serde_json::Deserializer::from_slice(&events).into_iter::<Value>();
        let messages: Vec<Message> = documents.flatten().map(|event| Message::Text(event.to_string().into())).collect();
        for message in messages {
            if self.sink.send(message).await.is_err() {
                return;
            }
        }
        self.close(End { code: DONE, reason: "the command has ended" }).await;
    }

    /// Tells why nothing was started, and closes.
    async fn refuse(&mut self, error: Error) {
        let code = match error.code() {
            Code::NotFound => GONE,
            Code::QuotaExceeded | Code::RateLimited => TOO_MANY,
            Code::Unavailable => DRAINING,
            _ if error.code().status() >= 500 => UPSTREAM,
            _ => NOT_ALLOWED,
        };
        let notice = notice(&error);
        if self.sink.send(Message::Text(notice.into())).await.is_ok() {
            self.close(End { code, reason: error.code().as_str() }).await;
        }
    }

    async fn close(&mut self, end: End) {
        let frame = CloseFrame { code: end.code, reason: end.reason.into() };
        let farewell = async {
            self.sink.send(Message::Close(Some(frame))).await?;
            // The client's own close frame ends the handshake.
            while let Some(Ok(_)) = self.stream.next().await {}
            Ok::<_, axum::Error>(())
        };
        // A client that does not answer is left.
        drop(tokio::time::timeout(Duration::from_secs(5), farewell).await);
    }
}

fn start_frame(text: &[u8]) -> Result<ExecRequest> {
    let mut fields: Map<String, Value> = from_json(text)?;
    match fields.remove("type") {
        Some(Value::String(kind)) if kind == "start" => {}
        _ => return Err(Error::field("type", "the first frame must be {\"type\": \"start\", …}")),
    }
    from_json(Value::Object(fields).to_string().as_bytes())
}

/// An error as an event.
fn notice(error: &Error) -> String {
    let mut event = serde_json::to_value(Problem::of(error.inner())).unwrap_or_default();
    event["problem"] = event["type"].take();
    event["type"] = "error".into();
    event.to_string()
}

/// What goes to the client.
struct Downstream<'a> {
    sink: &'a mut SplitSink<WebSocket, Message>,
    source: Attached,
    encoder: Encoder,
    told: mpsc::Receiver<Message>,
    framing: Framing,
}

impl Downstream<'_> {
    /// `None`: the client has left.
    async fn run(mut self, app: &App) -> Option<End> {
        let draining = app.lifecycle.draining();
        let keepalive = app.config.exec.keepalive;
        let (mut batch, mut ping) = (Batch::default(), tokio::time::interval(PING_EVERY));
        let mut silent_since = Instant::now();
        loop {
            let mut frames = Frames::default();
            tokio::select! {
                biased;
                Some(message) = self.told.recv() => {
                    if let ControlFlow::Break(end) = self.send(message).await {
                        return end;
                    }
                    continue;
                }
                more = self.source.next(MAX_BATCH, &mut batch) => {
                    if !more {
                        return Some(End { code: DONE, reason: "the command has ended" });
                    }
                    silent_since = Instant::now();
                    self.encoder.batch(&batch, &mut frames);
                }
                () = draining.cancelled() => return Some(End { code: DRAINING, reason: "restarting: reconnect" }),
                () = tokio::time::sleep_until(silent_since + keepalive) => {
                    silent_since = Instant::now();
                    self.encoder.keepalive(&mut frames);
                }
                _ = ping.tick() => {
                    if let ControlFlow::Break(end) = self.send(Message::Ping(Bytes::new())).await {
                        return end;
                    }
                    continue;
                }
            }
            if let ControlFlow::Break(end) = self.send_frames(frames).await {
                return end;
            }
        }
    }

    async fn send_frames(&mut self, frames: Frames) -> ControlFlow<Option<End>> {
        for (frame, binary) in frames.split() {
            let message = if binary && self.framing == Framing::Binary {
                Message::Binary(frame)
            } else {
                match frame.try_into() {
                    Ok(text) => Message::Text(text),
                    // Encoded here: it is text.
                    Err(_) => return ControlFlow::Break(Some(End { code: UPSTREAM, reason: "internal" })),
                }
            };
            self.send(message).await?;
        }
        ControlFlow::Continue(())
    }

    async fn send(&mut self, message: Message) -> ControlFlow<Option<End>> {
        match tokio::time::timeout(SEND_PATIENCE, self.sink.send(message)).await {
            Ok(Ok(())) => ControlFlow::Continue(()),
            Ok(Err(_)) => ControlFlow::Break(None),
            Err(_) => ControlFlow::Break(Some(End { code: TOO_SLOW, reason: "too slow: resume from the last cursor" })),
        }
    }
}

/// What comes from the client. A refusal is told and is not the end; `None`: the client has left.
async fn upstream(
    stream: &mut SplitStream<WebSocket>,
    handle: Option<Handle>,
    notices: &mpsc::Sender<Message>,
) -> Option<End> {
    loop {
        let message = match tokio::time::timeout(SILENCE, stream.next()).await {
            Err(_) | Ok(None) => return None,
            Ok(Some(Err(error))) if is_too_big(&error) => {
                return Some(End { code: TOO_BIG, reason: "frames may have 1 MiB" });
            }
            Ok(Some(Err(_))) => return None,
            Ok(Some(Ok(message))) => message,
        };
        let parsed = match message {
            Message::Text(text) => input::parse_text(text.as_bytes()),
            Message::Binary(frame) => input::parse_binary(&frame),
            Message::Ping(_) | Message::Pong(_) => continue,
            Message::Close(_) => return None,
        };
        let outcome = match parsed {
            Ok(Input::Ping) => {
                notices.send(Message::Text(r#"{"type":"pong"}"#.into())).await.ok()?;
                continue;
            }
            Ok(input) => match &handle {
                Some(handle) => input.apply(handle).await,
                None => Err(Error::new(Code::ScopeMissing, "This socket looks on only. Attach with `role=writer`.")),
            },
            Err(error) => Err(error),
        };
        if let Err(error) = outcome {
            notices.send(Message::Text(notice(&error).into())).await.ok()?;
        }
    }
}

fn is_too_big(error: &axum::Error) -> bool {
    let mut source: Option<&dyn std::error::Error> = Some(error);
    while let Some(error) = source {
        if error.to_string().contains("too long") || error.to_string().contains("too big") {
            return true;
        }
        source = error.source();
    }
    false
}
