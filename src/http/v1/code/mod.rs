//! Code in the interpreter of an instance: the events of exec over JSON, SSE, NDJSON and WebSocket, and contexts.

pub(super) mod dto;
mod stream;
pub(super) mod ws;

use std::sync::Arc;

use axum::{
    extract::State,
    response::{IntoResponse, Response},
};
use http::{HeaderMap, StatusCode};
use utoipa_axum::{router::OpenApiRouter, routes};

use self::dto::{CodeAnswer, CodeRequest, ContextDto, CreateContext};
pub(super) use self::stream::encode;
use super::exec::{respond, wanted};
use crate::{
    app::{self, App, idempotency::Intent},
    auth::Caller,
    domain::{
        code::{CodeSpec, Language},
        scope::scope,
    },
    error::{Error, Result},
    http::{
        extract::{Authorized, Json, Path},
        idempotency::{Created, Keyed, lost, once},
        openapi::Failures,
        page::List,
    },
    ids::InstanceId,
};

pub fn routes() -> OpenApiRouter<App> {
    OpenApiRouter::new()
        .routes(routes!(run_code))
        .routes(routes!(create_context, list_contexts))
        .routes(routes!(restart_context))
        .routes(routes!(delete_context))
        .merge(ws::routes())
}

/// Runs code in the interpreter of an instance of a tool of type code-interpreter. The answer waits for its end, or with
/// `Accept: text/event-stream` or `application/x-ndjson` streams what happens: `started {execution_count}`,
/// `stdout|stderr {data}`, `result {text, html, png, …, is_main_result}`, `error {name, value, traceback}`,
/// `exit {execution_count, reason, error, duration_ms}` and `keepalive`. Either way the code is interrupted when the request
/// ends before it, or when its time is up; its context lives on. One run at a time in a context: others wait.
#[utoipa::path(post, path = "/v1/instances/{id}/code", operation_id = "run_code", tag = "code",
    params(("id" = InstanceId, Path),
        ("Idempotency-Key" = Option<String>, Header, description = "Runs the code once, to its end whoever hangs up, and answers a \
            repetition for 24 h. Not for streams.")),
    request_body = CodeRequest,
    responses(
        (status = 200, description = "It ran to its end, whether it failed or not; or the stream of its events.", content(
            (CodeAnswer = "application/json"), (String = "text/event-stream"), (String = "application/x-ndjson"))),
        Failures,
    ))]
async fn run_code(
    State(app): State<App>,
    caller: Authorized<scope::Exec>,
    Path(id): Path<InstanceId>,
    headers: HeaderMap,
    Keyed { body, key }: Keyed<CodeRequest>,
) -> Result<Response> {
    let spec = CodeSpec::from(body);
    let config = &app.config.exec;
    let limit = spec.output_limit.unwrap_or(config.output_limit);
    let bytes = |limit: u64| usize::try_from(limit).unwrap_or(usize::MAX);
    let (limit, results) = (bytes(limit), bytes(config.max_output_limit));
    match (wanted(&headers), key) {
        (Some(_), Some(_)) => {
            Err(Error::field("Idempotency-Key", "is for code that is waited for: a stream is not repeated"))
        }
        (Some(framing), None) => {
            let run = app::code::start(&app, &caller, &id, spec).await?;
            Ok(respond(framing, stream::body(framing, run, config.keepalive)))
        }
        (None, None) => {
            let run = app::code::start(&app, &caller, &id, spec).await?;
            Ok(Json(stream::collect(run, limit, results).await).into_response())
        }
        (None, key) => {
            let first = move |app: App, caller: Arc<Caller>, intent: Intent| async move {
                intent.note(&mut *app.pool.acquire().await?, id.as_str()).await?;
                let run = app::code::start(&app, &caller, &id, spec).await?;
                Ok((StatusCode::OK, stream::collect(run, limit, results).await))
            };
            // It may have run, and what came of it cannot be found: it is not run again.
            let again = |_: App, _: Arc<Caller>, _| async { Err::<Created<CodeAnswer>, _>(lost()) };
            once(&app, caller.into_caller(), key, first, again).await
        }
    }
}

/// Makes a context: a kernel with a state of its own.
#[utoipa::path(post, path = "/v1/instances/{id}/contexts", operation_id = "create_context", tag = "code",
    params(("id" = InstanceId, Path),
        ("Idempotency-Key" = Option<String>, Header, description = "Makes a repetition safe for 24 h.")),
    request_body = CreateContext,
    responses((status = 201, body = ContextDto), Failures))]
async fn create_context(
    State(app): State<App>,
    caller: Authorized<scope::Exec>,
    Path(id): Path<InstanceId>,
    Keyed { body, key }: Keyed<CreateContext>,
) -> Result<Response> {
    caller.require_instance(&id)?;
    let language = body.language.unwrap_or(Language::Python);
    let first = move |app: App, caller: Arc<Caller>, _| async move {
        let context = app::code::create(&app, &caller, &id, language, body.cwd).await?;
        caller.trail.note_target(&context.id);
        Ok((StatusCode::CREATED, ContextDto::from(context)))
    };
    // The sandbox knows contexts, the gateway does not: what a call made that died cannot be found again.
    let resumed = |_: App, _: Arc<Caller>, _: String| async { Err::<Created<ContextDto>, _>(lost()) };
    once(&app, caller.into_caller(), key, first, resumed).await
}

/// The contexts of an instance, oldest first; those that languages stand for are among them. All on one page.
#[utoipa::path(get, path = "/v1/instances/{id}/contexts", operation_id = "list_contexts", tag = "code",
    params(("id" = InstanceId, Path)), responses((status = 200, body = List<ContextDto>), Failures))]
async fn list_contexts(
    State(app): State<App>,
    caller: Authorized<scope::ExecOrExecRead>,
    Path(id): Path<InstanceId>,
) -> Result<List<ContextDto>> {
    let contexts = app::code::list(&app, &caller, &id).await?;
    Ok(List { items: contexts.into_iter().map(ContextDto::from).collect(), next_cursor: None })
}

/// Gives a context a fresh kernel: its state is gone, and what runs in it is broken off.
#[utoipa::path(post, path = "/v1/instances/{id}/contexts/{context_id}/restart", operation_id = "restart_context",
    tag = "code", params(("id" = InstanceId, Path), ("context_id" = String, Path)),
    responses((status = 204), Failures))]
async fn restart_context(
    State(app): State<App>,
    caller: Authorized<scope::Exec>,
    Path((id, context)): Path<(InstanceId, String)>,
) -> Result<StatusCode> {
    app::code::restart(&app, &caller, &id, &context).await?;
    Ok(StatusCode::NO_CONTENT)
}

/// Ends a context with what runs in it.
#[utoipa::path(delete, path = "/v1/instances/{id}/contexts/{context_id}", operation_id = "delete_context", tag = "code",
    params(("id" = InstanceId, Path), ("context_id" = String, Path)), responses((status = 204), Failures))]
async fn delete_context(
    State(app): State<App>,
    caller: Authorized<scope::Exec>,
    Path((id, context)): Path<(InstanceId, String)>,
) -> Result<StatusCode> {
    app::code::delete(&app, &caller, &id, &context).await?;
    Ok(StatusCode::NO_CONTENT)
}
