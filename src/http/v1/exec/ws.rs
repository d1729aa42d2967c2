//! Commands over WebSocket: the same events as the streams, and input the other way.

use std::ops::ControlFlow;

use axum::{
    extract::{
        State, WebSocketUpgrade,
        ws::{Message, WebSocket, rejection::WebSocketUpgradeRejection},
    },
    response::Response,
};
use bytes::Bytes;
use futures_util::StreamExt;
use tokio::{sync::mpsc, time::Instant};
use utoipa_axum::{router::OpenApiRouter, routes};

use super::{
    dto::{ExecRequest, WsQuery},
    encode::{Encoder, Frames, Framing},
    encoder,
    input::{self, Input},
    stream::MAX_BATCH,
};
use crate::{
    app::{
        self, App,
        exec::{
            Handle, Lifetime, Source,
            log::{Batch, Look},
        },
        sockets::Permit,
    },
    auth::Caller,
    domain::{exec::Cursor, scope::Scope},
    error::{Code, Error, Result},
    http::{
        extract::{Path, Query},
        openapi::Failures,
        websocket::{
            BINARY, CloseCode, KEY_ENDED, Opened, TEXT, accepted, gone,
            traffic::{
                Down, End, Frame, PENDING_NOTICES, PING_EVERY, PONG, Step, Up, close, first_frame, hear, notice,
                refuse, send, text,
            },
        },
    },
    ids::{ExecId, InstanceId},
    telemetry::request::carrying,
};

/// What is spoken here; what comes first is preferred.
const PROTOCOLS: &[&str] = &[BINARY, TEXT];

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
    if let Err(error) = app::instances::running(&app, &caller, &id).await {
        return gone(upgrade, PROTOCOLS, error);
    }
    let permit = app.sockets.open(&app, &caller, &id)?;
    let framing = opened.framing();
    Ok(accepted(upgrade, PROTOCOLS)?.on_upgrade(carrying(move |socket: WebSocket| async move {
        let mut socket = Socket::new(app, socket, framing, permit);
        Box::pin(socket.run_command(&caller, &id)).await;
    })))
}

/// Attaches to a command: its events since `after` and from now on, and for a writer input the other way. A `keepalive`
/// stands where what was there when the socket was opened ends: a terminal that is drawn anew must not answer before it
/// what programs asked the terminal of then.
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
    let source = match app::exec::output(&app, &caller, &id, &exec, query.after.as_ref()).await {
        Ok(source) => source,
        Err(error) => return gone(upgrade, PROTOCOLS, error),
    };
    let permit = app.sockets.open(&app, &caller, &id)?;
    let framing = opened.framing();
    let encoder = encoder(&app, &caller, framing, source.exec(), query.after.as_ref());
    let handle = if query.writer { writer(&app, &caller, &id, &source).await } else { None };
    let present = source.present();
    Ok(accepted(upgrade, PROTOCOLS)?.on_upgrade(carrying(move |socket: WebSocket| async move {
        let mut socket = Socket::new(app, socket, framing, permit);
        Box::pin(socket.follow(source, encoder, handle, present)).await;
    })))
}

/// The process, for one who writes to it; `None` when it has ended.
async fn writer(app: &App, caller: &Caller, id: &InstanceId, source: &Source) -> Option<Handle> {
    match source.session() {
        Some(session) => Some(Handle::of(session.clone())),
        None => app::exec::running(app, caller, id, &source.exec().id).await.ok(),
    }
}

/// One open socket.
struct Socket {
    app: App,
    down: Down,
    up: Up,
    framing: Framing,
    permit: Permit,
}

impl Socket {
    fn new(app: App, socket: WebSocket, framing: Framing, permit: Permit) -> Self {
        let (down, up) = socket.split();
        Self { app, down, up, framing, permit }
    }

    /// Starts the command of the first frame and follows it, or tells why nothing was started.
    async fn run_command(&mut self, caller: &Caller, instance: &InstanceId) {
        let end = match Box::pin(self.start(caller, instance)).await {
            Step::Continue(Ok(source)) => {
                let encoder = encoder(&self.app, caller, self.framing, source.exec(), None);
                let handle = source.session().cloned().map(Handle::of);
                return Box::pin(self.follow(source, encoder, handle, None)).await;
            }
            Step::Continue(Err(error)) => refuse(&mut self.down, &error).await,
            Step::Break(end) => end,
        };
        close(&mut self.down, &mut self.up, end).await;
    }

    async fn start(&mut self, caller: &Caller, instance: &InstanceId) -> Step<Result<Source>> {
        let spec = first_frame::<ExecRequest>(&mut self.up).await?.and_then(ExecRequest::into_spec);
        Step::Continue(match spec {
            Ok(spec) => app::exec::start(&self.app, caller, instance, spec, Lifetime::Own).await,
            Err(error) => Err(error),
        })
    }

    /// Sends what the command prints and takes input for it, until either side is done. `present`: where what was there
    /// before this socket ends.
    async fn follow(&mut self, source: Source, encoder: Encoder, handle: Option<Handle>, present: Option<Cursor>) {
        let (notices, told) = mpsc::channel(PENDING_NOTICES);
        let output = Downstream { down: &mut self.down, source, encoder, told, framing: self.framing, present };
        let end = tokio::select! {
            end = Box::pin(output.run(&self.app)) => end,
            end = Box::pin(upstream(&mut self.up, handle, &notices)) => end,
            () = self.permit.ended() => Some(End::new(CloseCode::NotAllowed, KEY_ENDED)),
        };
        close(&mut self.down, &mut self.up, end).await;
    }
}

/// What goes to the client.
struct Downstream<'a> {
    down: &'a mut Down,
    source: Source,
    encoder: Encoder,
    told: mpsc::Receiver<Message>,
    framing: Framing,
    /// Where a sign is due that all before this socket was told.
    present: Option<Cursor>,
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
            self.mark_present(&mut frames);
            if !frames.bytes.is_empty()
                && let Step::Break(end) = self.send_frames(std::mem::take(&mut frames)).await
            {
                return end;
            }
            tokio::select! {
                biased;
                Some(message) = self.told.recv() => {
                    if let Step::Break(end) = self.send(message).await {
                        return end;
                    }
                    continue;
                }
                look = self.source.next(MAX_BATCH, &mut batch) => {
                    match look {
                        Ok(Look::Taken) => {}
                        Ok(Look::Cut) => return Some(End::new(CloseCode::Draining, "followed elsewhere: reconnect")),
                        Ok(_) => return Some(End::new(CloseCode::Done, "the command has ended")),
                        Err(error) => {
                            tracing::warn!(%error, "output could not be read");
                            return Some(End::new(CloseCode::Upstream, "reconnect"));
                        }
                    }
                    silent_since = Instant::now();
                    self.encoder.batch(&batch, &mut frames);
                    if batch.exit.is_some() {
                        // Nothing follows the end.
                        self.present = None;
                    }
                }
                () = draining.cancelled() => return Some(End::new(CloseCode::Draining, "restarting: reconnect")),
                () = tokio::time::sleep_until(silent_since + keepalive) => {
                    silent_since = Instant::now();
                    self.encoder.keepalive(&mut frames);
                }
                _ = ping.tick() => {
                    if let Step::Break(end) = self.send(Message::Ping(Bytes::new())).await {
                        return end;
                    }
                    continue;
                }
            }
            if let Step::Break(end) = self.send_frames(frames).await {
                return end;
            }
        }
    }

    /// Says once that all that was there before this socket has been told.
    fn mark_present(&mut self, frames: &mut Frames) {
        let told = self.encoder.cursor();
        if self.present.is_some_and(|present| told.epoch == present.epoch && told.position >= present.position) {
            self.present = None;
            self.encoder.sign_of_life(frames);
        }
    }

    async fn send_frames(&mut self, frames: Frames) -> Step {
        for (frame, binary) in frames.split() {
            let message = if binary && self.framing == Framing::Binary { Message::Binary(frame) } else { text(frame)? };
            self.send(message).await?;
        }
        ControlFlow::Continue(())
    }

    async fn send(&mut self, message: Message) -> Step {
        send(self.down, message, "too slow: resume from the last cursor").await
    }
}

/// What comes from the client. A refusal is told and is not the end; `None`: the client has left.
async fn upstream(up: &mut Up, handle: Option<Handle>, notices: &mpsc::Sender<Message>) -> Option<End> {
    loop {
        let parsed = match hear(up).await {
            Step::Continue(Frame::Text(text)) => input::parse_text(text.as_bytes()),
            Step::Continue(Frame::Binary(frame)) => input::parse_binary(&frame),
            Step::Break(end) => return end,
        };
        let outcome = match parsed {
            Ok(Input::Ping) => {
                notices.send(Message::Text(PONG.into())).await.ok()?;
                continue;
            }
            Ok(input) => match &handle {
                // Boxed, as is what runs for all the time that a socket is silent: it keeps only the room that it needs.
                Some(handle) => Box::pin(input.apply(handle)).await,
                None => Err(Error::new(Code::ScopeMissing, "This socket looks on only. Attach with `role=writer`.")),
            },
            Err(error) => Err(error),
        };
        if let Err(error) = outcome {
            notices.send(notice(&error)).await.ok()?;
        }
    }
}
