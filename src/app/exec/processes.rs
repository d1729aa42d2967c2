//! Processes of an instance that run, whoever started them through its daemon.

use std::time::Duration;

use envd_client::ProcessInfo;

use super::{App, Exec, admit, app_instances, drive, new_exec};
use crate::{
    app::{exec::Lifetime, instances::Target},
    auth::Caller,
    domain::exec::{Command, Spec},
    error::{Error, Result},
    ids::{ExecId, InstanceId},
    storage::execs,
};

const LIST_LIMIT: Duration = Duration::from_secs(10);

/// A process that runs.
pub struct Running {
    pub pid: u32,
    /// The command that it is, if it was started here.
    pub exec_id: Option<ExecId>,
    /// The name that whoever started it gave it.
    pub tag: Option<String>,
    pub cmd: String,
    pub args: Vec<String>,
    pub cwd: Option<String>,
}

impl From<ProcessInfo> for Running {
    fn from(info: ProcessInfo) -> Self {
        let exec_id = info.tag.as_deref().and_then(|tag| tag.parse().ok());
        let tag = info.tag.filter(|_| exec_id.is_none());
        Self { pid: info.pid, exec_id, tag, cmd: info.cmd, args: info.args, cwd: info.cwd }
    }
}

/// The processes that were started through the instance's daemon and run, in the daemon's order.
///
/// # Errors
/// `not_found`; `invalid_state`; what the sandbox says.
pub async fn list(app: &App, caller: &Caller, instance: &InstanceId) -> Result<Vec<Running>> {
    let target = app_instances::running(app, caller, instance).await?;
    Ok(look(&target).await?.into_iter().map(Running::from).collect())
}

async fn look(target: &Target) -> Result<Vec<ProcessInfo>> {
    target.call(|envd| async move { envd.list(LIST_LIMIT).await }).await
}

/// Begins to follow a process that somebody else started: from now on it is a command like others. One that was started
/// here is answered as it is.
///
/// # Errors
/// `not_found` for the instance or the process; `invalid_state`; `quota_exceeded`; what the sandbox says.
pub async fn attach(app: &App, caller: &Caller, instance: &InstanceId, pid: u32) -> Result<Exec> {
    let running = app_instances::running(app, caller, instance);
    let (target, place) = tokio::join!(running, super::reserve(app, caller));
    let (target, place) = (target?, place?);
    let info = look(&target).await?.into_iter().find(|info| info.pid == pid);
    let info = info.ok_or_else(|| Error::not_found("process"))?;
    let running = Running::from(info);
    if let Some(id) = &running.exec_id {
        return super::get(app, caller, instance, id).await;
    }
    let command = Command::Argv(std::iter::once(running.cmd).chain(running.args).collect());
    let spec = Spec::of(command);
    let spec = Spec { tag: running.tag, ..spec };
    let exec = new_exec(app, caller, &spec, &target, Lifetime::Own, None);
    // It may have an input: whether is not told.
    let exec = Exec { pid: Some(pid), attached: true, stdin: true, ..exec };
    let session = admit(app, exec, target, place)?;
    let begun = begin(app, &session).await;
    match begun {
        Ok(events) => {
            app.lifecycle.spawn("exec", drive::go_on(app.clone(), session.clone(), Some(events)));
            Ok(session.snapshot())
        }
        Err(error) => {
            app.execs.retire(&session, false).await;
            Err(error)
        }
    }
}

async fn begin(app: &App, session: &super::Session) -> Result<envd_client::EventStream> {
    let (events, pid) = session.process().connect().await?.ok_or_else(|| Error::not_found("process"))?;
    session.log.started(pid);
    let mut connection = app.pool.acquire().await?;
    execs::insert(&mut connection, &session.exec, app.execs.replica(), super::leases::LEASE_SECONDS).await?;
    Ok(events)
}
