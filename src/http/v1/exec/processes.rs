//! Processes that others started.

use axum::extract::State;
use http::StatusCode;
use serde::Serialize;
use utoipa::ToSchema;
use utoipa_axum::{router::OpenApiRouter, routes};

use super::dto::ExecDto;
use crate::{
    app::{self, App, exec::processes::Running},
    domain::scope::scope,
    error::Result,
    http::{
        extract::{Authorized, Json, Path},
        openapi::Failures,
        page::List,
    },
    ids::{ExecId, InstanceId},
};

pub fn routes() -> OpenApiRouter<App> {
    OpenApiRouter::new().routes(routes!(list_processes)).routes(routes!(attach_process))
}

/// A process that runs in an instance.
#[derive(Debug, Serialize, ToSchema)]
struct Process {
    pid: u32,
    /// The command that it is, if it was started through the gateway.
    exec_id: Option<ExecId>,
    /// The name that whoever else started it gave it.
    tag: Option<String>,
    cmd: String,
    args: Vec<String>,
    cwd: Option<String>,
}

impl From<Running> for Process {
    fn from(running: Running) -> Self {
        let Running { pid, exec_id, tag, cmd, args, cwd } = running;
        Self { pid, exec_id, tag, cmd, args, cwd }
    }
}

/// The processes that were started through the instance's daemon, by whomever, and run; all on one page.
///
/// Any of them can be attached to.
#[utoipa::path(get, path = "/v1/instances/{id}/processes", operation_id = "list_processes", tag = "exec",
    params(("id" = InstanceId, Path)), responses((status = 200, body = List<Process>), Failures))]
async fn list_processes(
    State(app): State<App>,
    caller: Authorized<scope::ExecOrExecRead>,
    Path(id): Path<InstanceId>,
) -> Result<List<Process>> {
    let running = app::exec::processes::list(&app, &caller, &id).await?;
    Ok(List { items: running.into_iter().map(Process::from).collect(), next_cursor: None })
}

/// Begins to follow a process that somebody else started, from now on: it becomes a command like those that were started
/// here. Of one that was, the command is answered as it is.
#[utoipa::path(post, path = "/v1/instances/{id}/processes/{pid}/attach", operation_id = "attach_process", tag = "exec",
    params(("id" = InstanceId, Path), ("pid" = u32, Path)),
    responses((status = 201, body = ExecDto), Failures))]
async fn attach_process(
    State(app): State<App>,
    caller: Authorized<scope::Exec>,
    Path((id, pid)): Path<(InstanceId, u32)>,
) -> Result<(StatusCode, Json<ExecDto>)> {
    let exec = app::exec::processes::attach(&app, &caller, &id, pid).await?;
    Ok((StatusCode::CREATED, Json(exec.into())))
}
