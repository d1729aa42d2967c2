//! Watching a directory over SSE, lines of JSON, or a WebSocket.

mod socket;

use std::{convert::Infallible, time::Duration};

use axum::{
    body::Body,
    extract::{FromRequestParts, State, WebSocketUpgrade, ws::rejection::WebSocketUpgradeRejection},
    response::Response,
};
use bytes::Bytes;
use futures_util::{StreamExt, stream};
use http::{HeaderMap, request::Parts};
use serde::Serialize;
use utoipa::{IntoParams, ToSchema};

use super::dto::{self, FileInfoDto};
use crate::{
    app::{
        App,
        files::{self, Change, Seen, Watch, WatchEnd, parse_path},
    },
    domain::scope::{Scope, scope},
    error::Result,
    http::{
        extract::{Authorized, FromQuery, Path, Query, QueryReader},
        openapi::Failures,
        unread::Bounded,
        v1::{
            Framing,
            exec::stream::{respond, wanted},
        },
        websocket::{FILES, Opened, accepted, is_upgrade},
    },
    ids::InstanceId,
    telemetry::request::carrying,
};

/// Which directory.
#[derive(Debug, IntoParams)]
#[into_params(parameter_in = Query)]
pub(super) struct WatchQuery {
    /// The directory. Absolute, or under the user's home (`~` is the home itself).
    #[param(min_length = 1, max_length = 4095, example = "/tmp")]
    pub path: String,
    /// Everything below as well, directories made later included.
    #[param(default = false)]
    pub recursive: Option<bool>,
    /// The sandbox's user, under whose home relative paths are.
    #[param(example = "user")]
    pub user: Option<String>,
}

impl FromQuery for WatchQuery {
    fn from_query(query: &mut QueryReader) -> Self {
        Self { path: dto::required_path(query), recursive: query.parsed("recursive"), user: query.text("user") }
    }
}

/// An event of a watch. What does not belong to its type is left out.
#[derive(Debug, Serialize, ToSchema)]
#[schema(as = WatchEvent)]
pub(super) struct WatchEventDto {
    /// `watching` (comes first: what happens from here on is told), `create`, `write`, `remove`, `rename` (it left this
    /// name; what appears under another one is a `create`), `chmod` (mode, owner or times), `gap` (so many `events` were
    /// not kept, as they were not read fast enough), `keepalive`, `end` (comes last).
    #[serde(rename = "type")]
    #[schema(example = "create")]
    kind: &'static str,
    /// Relative to the watched directory, which is `.` itself.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(example = "sub/new.txt")]
    name: Option<String>,
    /// Of the entry; with `watching` of the directory.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(example = "/home/user/sub/new.txt")]
    path: Option<String>,
    /// With `create`, `write` and `chmod`: the entry as it was just after, if it was still there and the sandbox's daemon
    /// tells (envd 0.6.3 and newer).
    #[serde(skip_serializing_if = "Option::is_none")]
    entry: Option<FileInfoDto>,
    /// With `gap`.
    #[serde(skip_serializing_if = "Option::is_none")]
    events: Option<u64>,
    /// With `end`.
    #[serde(skip_serializing_if = "Option::is_none")]
    reason: Option<EndReason>,
}

/// Why a watch has ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, ToSchema)]
#[serde(rename_all = "snake_case")]
#[schema(as = WatchEndReason)]
enum EndReason {
    /// The directory is no more.
    Removed,
    /// The gateway restarts: watch again.
    Draining,
    /// More happened than the sandbox could queue: list what there is, and watch again.
    Overflow,
    /// The sandbox ended, or its daemon does not answer.
    Unreachable,
}

impl From<WatchEnd> for EndReason {
    fn from(end: WatchEnd) -> Self {
        match end {
            WatchEnd::Removed => Self::Removed,
            WatchEnd::Draining => Self::Draining,
            WatchEnd::Overflow => Self::Overflow,
            WatchEnd::Unreachable => Self::Unreachable,
        }
    }
}

impl WatchEventDto {
    fn of_kind(kind: &'static str) -> Self {
        Self { kind, name: None, path: None, entry: None, events: None, reason: None }
    }

    fn watching(watch: &Watch) -> Self {
        Self { path: Some(watch.path.clone()), ..Self::of_kind("watching") }
    }

    fn of(watch: &Watch, seen: Seen) -> Self {
        match seen {
            Seen::Change { name, change, entry } => Self {
                path: Some(watch.path_of(&name)),
                name: Some(name),
                entry: entry.map(|entry| (*entry).into()),
                ..Self::of_kind(name_of(change))
            },
            Seen::Gap(lost) => Self { events: Some(lost), ..Self::of_kind("gap") },
            Seen::End(end) => Self { reason: Some(end.into()), ..Self::of_kind("end") },
        }
    }

    fn json(&self) -> String {
        // Numbers, texts and nothing else: it cannot fail.
        serde_json::to_string(self).unwrap_or_default()
    }

    fn framed(&self, framing: Framing) -> Bytes {
        let json = self.json();
        match framing {
            Framing::Sse => format!("event: {}\ndata: {json}\n\n", self.kind).into(),
            _ => format!("{json}\n").into(),
        }
    }
}

fn name_of(change: Change) -> &'static str {
    match change {
        Change::Create => "create",
        Change::Write => "write",
        Change::Remove => "remove",
        Change::Rename => "rename",
        Change::Chmod => "chmod",
    }
}

/// Who asks, and how: by a key in a header, or over a WebSocket by a key or a ticket.
pub(super) enum Viewer {
    Stream(Authorized<scope::FilesRead>),
    Socket(Opened),
}

impl FromRequestParts<App> for Viewer {
    type Rejection = crate::error::Error;

    async fn from_request_parts(parts: &mut Parts, app: &App) -> Result<Self> {
        if is_upgrade(&parts.headers) {
            Opened::from_request_parts(parts, app).await.map(Self::Socket)
        } else {
            Authorized::from_request_parts(parts, app).await.map(Self::Stream)
        }
    }
}

/// Tells what changes in a directory, until the caller leaves: as SSE, or with `Accept: application/x-ndjson` as lines of JSON,
/// or over a WebSocket on the same path (subprotocol `ags.files.v1`; a browser adds `ticket.<ticket>`).
///
/// One write in the sandbox may be several events, and several the same. A caller that is too slow loses events and is
/// told how many (`gap`); there is no resuming, so list after a `gap` and after watching again. WebSocket close codes: 1000 the
/// directory was removed, 1001 draining, 1011 the sandbox, 4008 too slow.
#[utoipa::path(get, path = "/v1/instances/{id}/files/watch", operation_id = "watch_files", tag = "files",
    params(("id" = InstanceId, Path), WatchQuery),
    responses(
        (status = 200, description = "Events: `event:` is the type.", content(
            (WatchEventDto = "text/event-stream"), (WatchEventDto = "application/x-ndjson"))),
        (status = 101, description = "The socket is open: an event a message."), Failures),
    extensions(("x-websocket" = json!({"subprotocols": [FILES]}))))]
pub(super) async fn watch_files(
    State(app): State<App>,
    viewer: Viewer,
    Path(id): Path<InstanceId>,
    Query(query): Query<WatchQuery>,
    headers: HeaderMap,
    upgrade: Result<WebSocketUpgrade, WebSocketUpgradeRejection>,
) -> Result<Response> {
    let path = parse_path("path", &query.path)?;
    let recursive = query.recursive.unwrap_or(false);
    let user = query.user.as_deref();
    match viewer {
        Viewer::Stream(caller) => {
            let watch = files::of(&app, &caller, &id, user).await?.watch(&path, recursive).await?;
            Ok(streamed(&app, watch, wanted(&headers).unwrap_or(Framing::Sse)))
        }
        Viewer::Socket(opened) => {
            let upgrade = accepted(upgrade, &[FILES])?;
            let caller = opened.caller(&id, None, &[Scope::FilesRead])?;
            let watch = files::of(&app, &caller, &id, user).await?.watch(&path, recursive).await?;
            let hold = app.holders.hold_key(&caller);
            Ok(upgrade
                .on_upgrade(carrying(move |socket| socket::serve(socket, watch, app.config.exec.keepalive, hold))))
        }
    }
}

fn streamed(app: &App, watch: Watch, framing: Framing) -> Response {
    let keepalive = app.config.exec.keepalive;
    let first = stream::iter([WatchEventDto::watching(&watch)]);
    let events = first.chain(stream::unfold(watch, move |mut watch| async move {
        let event = next_event(&mut watch, keepalive).await?;
        Some((event, watch))
    }));
    let frames = events.map(move |event| Ok::<_, Infallible>(event.framed(framing))).boxed();
    respond(framing, Body::from_stream(Bounded::new(frames, app.config.files.idle_timeout, &app.lifecycle)))
}

/// The next event, or a sign of life after that much silence.
async fn next_event(watch: &mut Watch, keepalive: Duration) -> Option<WatchEventDto> {
    match tokio::time::timeout(keepalive, watch.next()).await {
        Ok(seen) => seen.map(|seen| WatchEventDto::of(watch, seen)),
        Err(_) => Some(WatchEventDto::of_kind("keepalive")),
    }
}
