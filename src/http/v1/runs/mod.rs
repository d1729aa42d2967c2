//! Runs: an instance for one command or piece of code.

mod dto;
mod stream;

use std::sync::Arc;

use axum::{
    extract::{FromRequest, Request, State},
    response::{IntoResponse, Response},
};
use http::{HeaderMap, StatusCode};
use utoipa_axum::{router::OpenApiRouter, routes};

use self::dto::{CreateRun, CreateRunQuery, RunDto, RunQuery, RunsQuery};
use super::exec::{respond, wanted};
use crate::{
    app::{self, App, wait},
    auth::Caller,
    domain::{run::Run, scope::scope},
    error::{Error, Result},
    http::{
        extract::{Authorized, Json, Path, Query},
        idempotency::{Keyed, Started, as_replayed, lost, start_once},
        openapi::Failures,
        page::List,
    },
    ids::RunId,
    telemetry::request::carried,
};

pub fn routes() -> OpenApiRouter<App> {
    OpenApiRouter::new().routes(routes!(create_run, list_runs)).routes(routes!(get_run, cancel_run))
}

/// A request for a run: its body has files in it, and a limit of its own.
struct RunBody(Keyed<CreateRun>);

impl FromRequest<App> for RunBody {
    type Rejection = Error;

    async fn from_request(request: Request, app: &App) -> Result<Self> {
        Keyed::read(request, app.config.runs.max_body).await.map(Self)
    }
}

/// Creates an instance, writes `files`, runs `cmd` or `code`, reads `collect` and stops the instance, as one operation that
/// goes on whoever hangs up and whichever gateway dies. The answer waits for the end: a failing command is a run that is
/// `done`, and a run that `failed` says why in `error`. With `Accept: text/event-stream` or `application/x-ndjson` it streams: `run` with the run
/// as it is whenever its status changes, the events of the command or the code in between, and `run` with its files last. With
/// `background`: 202. Needs the scopes `exec` and `instances:write`, with files also `files:write` and `files:read`.
#[utoipa::path(post, path = "/v1/runs", operation_id = "create_run", tag = "runs",
    params(CreateRunQuery, ("Idempotency-Key" = Option<String>, Header, description = "Makes a repetition safe for 24 h: it is answered with \
        the run that the first call began, not with its stream.")),
    request_body = CreateRun,
    responses(
        (status = 200, description = "It has ended, or the stream of its events.", content(
            (RunDto = "application/json"), (String = "text/event-stream"), (String = "application/x-ndjson"))),
        (status = 202, body = RunDto, description = "It goes on in the background."),
        Failures,
    ))]
async fn create_run(
    State(app): State<App>,
    caller: Authorized<scope::Exec>,
    headers: HeaderMap,
    Query(query): Query<CreateRunQuery>,
    RunBody(Keyed { body, key }): RunBody,
) -> Result<Response> {
    caller.require_unbound()?;
    let caller = caller.into_caller();
    let background = body.background;
    let wanted_run = body.into_wanted(&app)?;
    let (queueing, _place) = query.queue.queueing(&app, false)?;
    let (task_app, task_caller) = (app.clone(), Arc::clone(&caller));
    let start = |intent| {
        let work = async move { app::runs::create(&task_app, &task_caller, &wanted_run, queueing, intent).await };
        let app = app.clone();
        async move { wait::detached(&app, "create", carried(work)).await }
    };
    let run = match start_once(&app, &caller, key, start, |run: &Run| run.id.to_string()).await? {
        Started::Now(run) => run,
        Started::Before(id) => {
            let id: RunId = id.parse().map_err(|_| lost())?;
            return settled(&app, &caller, &id, background).await.map(as_replayed);
        }
        Started::Refused(response) => return Ok(response),
    };
    match wanted(&headers) {
        Some(framing) if !background => Ok(respond(framing, stream::body(&app, &caller, run, framing))),
        _ => settled(&app, &caller, &run.id, background).await,
    }
}

/// The answer to one who waits, or does not.
async fn settled(app: &App, caller: &Caller, id: &RunId, background: bool) -> Result<Response> {
    let patience = background.then_some(std::time::Duration::ZERO);
    let run = app::runs::ended(app, caller, id, patience).await?;
    let status = if run.status.is_final() || !background { StatusCode::OK } else { StatusCode::ACCEPTED };
    Ok((status, Json(whole(app, caller, run).await?)).into_response())
}

async fn whole(app: &App, caller: &Caller, run: Run) -> Result<RunDto> {
    let outcome = app::runs::outcome(app, caller, &run.id).await?;
    Ok(RunDto::of(run, outcome))
}

/// The team's runs, newest first, without their output and files.
#[utoipa::path(get, path = "/v1/runs", operation_id = "list_runs", tag = "runs",
    params(RunsQuery, crate::http::page::PageQuery), responses((status = 200, body = List<RunDto>), Failures))]
async fn list_runs(
    State(app): State<App>,
    caller: Authorized<scope::ExecOrExecRead>,
    Query(query): Query<RunsQuery>,
) -> Result<List<RunDto>> {
    let page = app::runs::list(&app, &caller, &query.status, &query.page.into()).await?;
    Ok(List::of(page, RunDto::bare))
}

/// A run with what it has come to so far. It is kept for `runs.retention` (a day) after its end.
#[utoipa::path(get, path = "/v1/runs/{id}", operation_id = "get_run", tag = "runs",
    params(("id" = RunId, Path), RunQuery), responses((status = 200, body = RunDto), Failures))]
async fn get_run(
    State(app): State<App>,
    caller: Authorized<scope::ExecOrExecRead>,
    Path(id): Path<RunId>,
    Query(query): Query<RunQuery>,
) -> Result<Json<RunDto>> {
    let run = app::runs::ended(&app, &caller, &id, Some(query.patience(&app)?)).await?;
    whole(&app, &caller, run).await.map(Json)
}

/// Ends a run early: its command is killed with its instance, and it fails with `cancelled`. Answers when that is done; a run
/// that has ended already stays as it is.
#[utoipa::path(delete, path = "/v1/runs/{id}", operation_id = "cancel_run", tag = "runs",
    params(("id" = RunId, Path)), responses((status = 204), Failures))]
async fn cancel_run(
    State(app): State<App>,
    caller: Authorized<scope::Exec>,
    Path(id): Path<RunId>,
) -> Result<StatusCode> {
    let (task_app, caller) = (app.clone(), caller.into_caller());
    let work = async move { app::runs::cancel(&task_app, &caller, &id).await };
    wait::detached(&app, "cancel", carried(work)).await?;
    Ok(StatusCode::NO_CONTENT)
}
