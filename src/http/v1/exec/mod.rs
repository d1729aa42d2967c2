//! Commands in instances: one event model over JSON, SSE, NDJSON and WebSocket.

pub(super) mod dto;
mod encode;
pub(super) mod input;
mod processes;
pub(super) mod stream;
pub(super) mod ws;

pub use self::encode::Framing;
pub(super) use self::{
    encode::{Encoder, Frames, milliseconds, put_event},
    stream::{MAX_BATCH, respond, wanted},
};

use axum::{
    extract::State,
    response::{IntoResponse, Response},
};
use http::{HeaderMap, StatusCode};
use utoipa_axum::{router::OpenApiRouter, routes};

use self::{
    dto::{ExecDto, ExecRequest, ExecResult, ExecsQuery, OutputQuery, SignalRequest},
    stream::Feed,
};
use crate::{
    app::{
        self, App,
        exec::{
            Lifetime, Source,
            log::{Batch, Look},
        },
        idempotency::Intent,
    },
    auth::Caller,
    domain::{
        exec::{Cursor, Exec, GapReason, PtySize},
        scope::scope,
    },
    error::{Code, Error, Result},
    http::{
        extract::{Authorized, Json, Path, Query},
        idempotency::{Keyed, Started, as_replayed, lost, start_once},
        openapi::Failures,
        page::{List, PageQuery},
    },
    ids::{ExecId, InstanceId},
};

const LAST_EVENT_ID: &str = "last-event-id";

pub fn routes() -> OpenApiRouter<App> {
    OpenApiRouter::new()
        .routes(routes!(exec_command))
        .routes(routes!(list_execs))
        .routes(routes!(get_exec, kill_exec))
        .routes(routes!(get_exec_output))
        .routes(routes!(write_exec_stdin))
        .routes(routes!(close_exec_stdin))
        .routes(routes!(signal_exec))
        .routes(routes!(resize_exec))
        .merge(processes::routes())
        .merge(ws::routes())
}

/// Runs a command. The answer waits for its end, or with `Accept: text/event-stream` or `application/x-ndjson` streams
/// what happens; either way the command ends with the request. With `background` it lives on: 202. The repetition of a call
/// with an `Idempotency-Key` is answered with the command as it is then, not with its stream.
///
/// The events of a stream, over WebSocket too: `started {exec_id, pid, resume_token}` (the token only of a command that outlives its
/// viewers), `stdout|stderr|pty {data}` (text; with `encoding: "base64"` bytes that are none), `gap {bytes, reason}` for what cannot be
/// told any more, `exit {exit_code, signal, reason: exited|signalled|timeout|killed|lost, error, duration_ms}` and `keepalive`. Each but
/// `keepalive` has a `cursor` to go on from (`after`, `Last-Event-ID`). In SSE `event` is the type and `id` the cursor; lines of JSON and
/// messages have the `type` in the object.
#[utoipa::path(post, path = "/v1/instances/{id}/exec", operation_id = "exec_command", tag = "exec",
    params(("id" = InstanceId, Path),
        ("Idempotency-Key" = Option<String>, Header, description = "Makes a repetition safe for 24 h.")),
    request_body = ExecRequest,
    responses(
        (status = 200, description = "It ran to its end, whatever its exit code; or the stream of its events.", content(
            (ExecResult = "application/json"), (String = "text/event-stream"), (String = "application/x-ndjson"))),
        (status = 202, body = ExecDto, description = "It runs in the background."),
        Failures,
    ))]
async fn exec_command(
    State(app): State<App>,
    caller: Authorized<scope::Exec>,
    Path(id): Path<InstanceId>,
    headers: HeaderMap,
    Keyed { body, key }: Keyed<ExecRequest>,
) -> Result<Response> {
    let spec = body.into_spec()?;
    let limit = spec.output_limit.unwrap_or(app.config.exec.output_limit);
    let (background, lifetime) = (spec.background, if spec.background { Lifetime::Own } else { Lifetime::Request });
    let (exec, keyed): (ExecId, bool) = (app.ids.next(), key.is_some());
    let (with, by, at) = (&app, &caller, &id);
    let start = |intent: Intent| async move {
        // Whoever repeats a call that died asks for this command: it may have run.
        if keyed {
            // Boxed: calls without a key are not to be larger for it.
            Box::pin(async { intent.note(&mut *with.pool.acquire().await?, exec.as_str()).await }).await?;
        }
        app::exec::start_as(with, by, at, spec, lifetime, exec).await
    };
    let source = match start_once(&app, &caller, key, start, |source| source.exec().id.to_string()).await? {
        Started::Now(source) => source,
        Started::Before(exec) => return Box::pin(before(&app, &caller, &id, &exec)).await,
        Started::Refused(response) => return Ok(response),
    };
    if background {
        return Ok((StatusCode::ACCEPTED, Json(ExecDto::from(source.snapshot()))).into_response());
    }
    match stream::wanted(&headers) {
        Some(framing) => Ok(stream::respond(framing, feed(&app, &caller, framing, source, None, true).into_body())),
        None => {
            let limit = usize::try_from(limit).unwrap_or(usize::MAX);
            Ok(Json(stream::collect(source, limit).await?).into_response())
        }
    }
}

/// A command that an earlier call started.
async fn before(app: &App, caller: &Caller, id: &InstanceId, exec: &str) -> Result<Response> {
    let exec: ExecId = exec.parse().map_err(|_| lost())?;
    let found = app::exec::get(app, caller, id, &exec).await;
    let exec = found.map_err(|error| if error.code() == Code::NotFound { lost() } else { error })?;
    let status = if exec.foreground { StatusCode::OK } else { StatusCode::ACCEPTED };
    Ok(as_replayed((status, Json(ExecDto::from(exec))).into_response()))
}

fn feed(app: &App, caller: &Caller, framing: Framing, source: Source, after: Option<&Cursor>, follow: bool) -> Feed {
    let owns = source.exec().foreground;
    Feed {
        encoder: encoder(app, caller, framing, source.exec(), after),
        source,
        keepalive: app.config.exec.keepalive,
        follow,
        cut: (!owns).then(|| app.lifecycle.draining()),
    }
}

/// An encoder that tells a viewer with what to come back, if the command outlives it.
fn encoder(app: &App, caller: &Caller, framing: Framing, exec: &Exec, after: Option<&Cursor>) -> Encoder {
    let token = (!exec.foreground).then(|| app.grants.resume(caller, &exec.instance_id, &exec.id));
    Encoder::new(framing, exec.id.clone(), after, token)
}

/// The commands of an instance, newest first, ended ones included.
#[utoipa::path(get, path = "/v1/instances/{id}/execs", operation_id = "list_execs", tag = "exec",
    params(("id" = InstanceId, Path), ExecsQuery, PageQuery), responses((status = 200, body = List<ExecDto>), Failures))]
async fn list_execs(
    State(app): State<App>,
    caller: Authorized<scope::ExecOrExecRead>,
    Path(id): Path<InstanceId>,
    Query(query): Query<ExecsQuery>,
) -> Result<List<ExecDto>> {
    let page = app::exec::list(&app, &caller, &id, &query.status, &query.page.into()).await?;
    Ok(List::of(page, ExecDto::from))
}

/// A command, running or ended.
#[utoipa::path(get, path = "/v1/instances/{id}/execs/{exec_id}", operation_id = "get_exec", tag = "exec",
    params(("id" = InstanceId, Path), ("exec_id" = ExecId, Path)),
    responses((status = 200, body = ExecDto), Failures))]
async fn get_exec(
    State(app): State<App>,
    caller: Authorized<scope::ExecOrExecRead>,
    Path((id, exec)): Path<(InstanceId, ExecId)>,
) -> Result<Json<ExecDto>> {
    Ok(Json(app::exec::get(&app, &caller, &id, &exec).await?.into()))
}

/// Kills a command with all that it has started. Answers when it has ended; one that has ended already is fine.
#[utoipa::path(delete, path = "/v1/instances/{id}/execs/{exec_id}", operation_id = "kill_exec", tag = "exec",
    params(("id" = InstanceId, Path), ("exec_id" = ExecId, Path)), responses((status = 204), Failures))]
async fn kill_exec(
    State(app): State<App>,
    caller: Authorized<scope::Exec>,
    Path((id, exec)): Path<(InstanceId, ExecId)>,
) -> Result<StatusCode> {
    app::exec::kill(&app, &caller, &id, &exec).await?;
    Ok(StatusCode::NO_CONTENT)
}

/// What a command has printed since `after`. As SSE or NDJSON it can be followed; as a plain document it is what there is
/// now, or 410 when that has left the window.
#[utoipa::path(get, path = "/v1/instances/{id}/execs/{exec_id}/output", operation_id = "get_exec_output", tag = "exec",
    params(("id" = InstanceId, Path), ("exec_id" = ExecId, Path), OutputQuery,
        ("Last-Event-ID" = Option<String>, Header, description = "As `after`, from clients of SSE.")),
    responses(
        (status = 200, description = "`{events, cursor, status}`, or the stream of events.", content(
            (dto::OutputDocument = "application/json"), (String = "text/event-stream"), (String = "application/x-ndjson"))),
        Failures,
    ))]
async fn get_exec_output(
    State(app): State<App>,
    caller: Authorized<scope::ExecOrExecRead>,
    Path((id, exec)): Path<(InstanceId, ExecId)>,
    Query(query): Query<OutputQuery>,
    headers: HeaderMap,
) -> Result<Response> {
    let framing = stream::wanted(&headers);
    if query.follow && framing.is_none() {
        return Err(Error::field("follow", "needs `Accept: text/event-stream` or `application/x-ndjson`"));
    }
    // A client that comes again says in the header what it saw last; its address is still that of the first time.
    let after = last_event_id(&headers)?.or(query.after);
    let source = app::exec::output(&app, &caller, &id, &exec, after.as_ref()).await?;
    match framing {
        Some(framing) => {
            let feed = feed(&app, &caller, framing, source, after.as_ref(), query.follow);
            Ok(stream::respond(framing, feed.into_body()))
        }
        None => document(source, after.as_ref()).await,
    }
}

fn last_event_id(headers: &HeaderMap) -> Result<Option<Cursor>> {
    let Some(value) = headers.get(LAST_EVENT_ID) else { return Ok(None) };
    let cursor = value.to_str().unwrap_or_default().parse();
    cursor
        .map(Some)
        .map_err(|error: crate::domain::exec::InvalidCursor| Error::field("Last-Event-ID", error.to_string()))
}

fn expired() -> Error {
    Error::new(Code::OutputExpired, "That part of the output is not kept any more. Start over without `after`.")
}

/// All that there is now as one document.
async fn document(mut source: Source, after: Option<&Cursor>) -> Result<Response> {
    let mut encoder = Encoder::new(Framing::Messages, source.exec().id.clone(), after, None);
    let (mut batch, mut frames) = (Batch::default(), Frames::default());
    while source.take(MAX_BATCH, &mut batch).await? == Look::Taken {
        let expired = batch.gap.as_ref().is_some_and(|gap| after.is_some() || gap.reason == GapReason::Expired);
        if expired {
            return Err(self::expired());
        }
        encoder.batch(&batch, &mut frames);
    }
    let cursor = encoder.cursor().to_string();
    let status = source.snapshot().status;
    let events: Vec<Box<serde_json::value::RawValue>> = frames
        .split()
        .filter_map(|(frame, _)| serde_json::value::RawValue::from_string(String::from_utf8(frame.into()).ok()?).ok())
        .collect();
    Ok(Json(dto::OutputDocument { events, cursor, status }).into_response())
}

/// Writes to a command's input: the body as it is, after whatever was written before. Answers when the process has taken it.
#[utoipa::path(post, path = "/v1/instances/{id}/execs/{exec_id}/stdin", operation_id = "write_exec_stdin", tag = "exec",
    params(("id" = InstanceId, Path), ("exec_id" = ExecId, Path)),
    request_body(content = String, content_type = "application/octet-stream"),
    responses((status = 204), Failures))]
async fn write_exec_stdin(
    State(app): State<App>,
    caller: Authorized<scope::Exec>,
    Path((id, exec)): Path<(InstanceId, ExecId)>,
    body: axum::body::Body,
) -> Result<StatusCode> {
    let handle = app::exec::running(&app, &caller, &id, &exec).await?;
    handle.write_all(body.into_data_stream()).await?;
    Ok(StatusCode::NO_CONTENT)
}

/// Ends a command's input.
#[utoipa::path(post, path = "/v1/instances/{id}/execs/{exec_id}/close-stdin", operation_id = "close_exec_stdin",
    tag = "exec", params(("id" = InstanceId, Path), ("exec_id" = ExecId, Path)), responses((status = 204), Failures))]
async fn close_exec_stdin(
    State(app): State<App>,
    caller: Authorized<scope::Exec>,
    Path((id, exec)): Path<(InstanceId, ExecId)>,
) -> Result<StatusCode> {
    app::exec::running(&app, &caller, &id, &exec).await?.close_stdin().await?;
    Ok(StatusCode::NO_CONTENT)
}

/// Signals a command. SIGTERM and SIGKILL go to the process alone, others to the group that it leads.
#[utoipa::path(post, path = "/v1/instances/{id}/execs/{exec_id}/signal", operation_id = "signal_exec", tag = "exec",
    params(("id" = InstanceId, Path), ("exec_id" = ExecId, Path)), request_body = SignalRequest,
    responses((status = 204), Failures))]
async fn signal_exec(
    State(app): State<App>,
    caller: Authorized<scope::Exec>,
    Path((id, exec)): Path<(InstanceId, ExecId)>,
    Json(body): Json<SignalRequest>,
) -> Result<StatusCode> {
    let signal = dto::signal(&body.signal)?;
    app::exec::running(&app, &caller, &id, &exec).await?.signal(signal).await?;
    Ok(StatusCode::NO_CONTENT)
}

/// Resizes a command's terminal.
#[utoipa::path(post, path = "/v1/instances/{id}/execs/{exec_id}/resize", operation_id = "resize_exec", tag = "exec",
    params(("id" = InstanceId, Path), ("exec_id" = ExecId, Path)), request_body = PtySize,
    responses((status = 204), Failures))]
async fn resize_exec(
    State(app): State<App>,
    caller: Authorized<scope::Exec>,
    Path((id, exec)): Path<(InstanceId, ExecId)>,
    Json(size): Json<PtySize>,
) -> Result<StatusCode> {
    app::exec::running(&app, &caller, &id, &exec).await?.resize(size).await?;
    Ok(StatusCode::NO_CONTENT)
}
