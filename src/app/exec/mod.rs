//! Commands in instances.
//!
//! Exactly one task reads a command's output and fills a bounded log ([`log`]); whoever looks on is served from there, over
//! whatever transport. What ends a command early (a timeout, a dropped request, a caller) is decided by that task too.

mod drive;
pub mod leases;
pub mod log;
mod process;
mod registry;
mod session;

use std::{sync::Arc, time::Duration};

use bytes::Bytes;
use envd_client::{PtySize as WireSize, StartSpec};
use futures_util::{Stream, StreamExt};
use tokio::{
    sync::{oneshot, watch},
    time::Instant,
};

use self::{drive::Launch, log::Log, process::Process, session::FIRST_EPOCH};
pub use self::{
    registry::Execs,
    session::{Attached, Lifetime, Session},
};
use super::{
    App,
    instances::{self as app_instances, Target},
};
use crate::{
    auth::Caller,
    domain::{
        exec::{Cursor, Exec, ExecStatus, Limits, PtySize, Signal, Spec},
        page::{Page, PageRequest},
    },
    error::{Code, Error, Result},
    ids::{ExecId, InstanceId},
    storage::{execs, instances},
};

/// The daemon's own limit is this much later than ours: a backstop for when the gateway is gone.
const BACKSTOP: Duration = Duration::from_secs(10);
/// For the next piece of a body that is written to a command.
const BODY_PATIENCE: Duration = Duration::from_secs(60);
/// Smallest window: two of the daemon's largest events.
const MIN_WINDOW: u64 = 64 << 10;

/// Starts a command and resolves when it runs. What is answered looks on from its beginning; if the command lives as long
/// as its request, dropping that ends it.
///
/// # Errors
/// `validation_failed`; `not_found`; `invalid_state` when the instance is not RUNNING; `quota_exceeded`; what the sandbox says.
pub async fn start(
    app: &App,
    caller: &Caller,
    instance: &InstanceId,
    spec: Spec,
    lifetime: Lifetime,
) -> Result<Attached> {
    let config = &app.config.exec;
    let limits = Limits { max_timeout: config.max_timeout, max_output_limit: config.max_output_limit };
    let problems = spec.problems(&limits);
    if !problems.is_empty() {
        return Err(Error::fields(problems));
    }
    if app.lifecycle.is_draining() {
        return Err(Error::new(Code::Unavailable, "This gateway is shutting down. Try again."));
    }
    let (target, counted) = tokio::join!(app_instances::running(app, caller, instance), count_running(app, caller));
    let (target, counted) = (target?, counted?);
    let timeout = match lifetime {
        Lifetime::Request => Some(spec.timeout.unwrap_or(config.timeout)),
        Lifetime::Own => spec.timeout,
    };
    let session = Arc::new(new_session(app, caller, instance, &spec, target, lifetime));
    app.execs.admit(&session, caller.team.quotas.max_execs, counted)?;
    let attached = Attached::new(Arc::clone(&session), None, true);
    let (started, answer) = oneshot::channel();
    let start = wire_spec(&session, spec, timeout);
    app.lifecycle.spawn("exec", drive::drive(app.clone(), Launch { session, start, timeout, started }));
    answer.await.map_err(Error::internal)??;
    Ok(attached)
}

async fn count_running(app: &App, caller: &Caller) -> Result<u64> {
    let mut connection = app.pool.acquire().await?;
    Ok(execs::count_running(&mut connection, caller.team_id()).await?)
}

fn new_session(
    app: &App,
    caller: &Caller,
    instance: &InstanceId,
    spec: &Spec,
    target: Target,
    lifetime: Lifetime,
) -> Session {
    let window = usize::try_from(app.config.exec.memory_window.max(MIN_WINDOW)).unwrap_or(usize::MAX);
    Session {
        id: app.ids.next(),
        team: caller.team_id().clone(),
        instance: instance.clone(),
        created_by: caller.key_id.clone(),
        command: spec.command.clone(),
        user: spec.user.clone().unwrap_or_else(|| target.default_user(app).to_owned()),
        tag: spec.tag.clone(),
        background: spec.background,
        pty: spec.pty.is_some(),
        stdin: spec.stdin,
        lifetime,
        started_at: app.clock.now(),
        log: Arc::new(Log::new(FIRST_EPOCH, window)),
        target,
        began: Instant::now(),
        stop: watch::channel(false).0,
        input: tokio::sync::Mutex::new(()),
    }
}

fn wire_spec(session: &Session, spec: Spec, timeout: Option<Duration>) -> StartSpec {
    let (cmd, args) = spec.command.program();
    StartSpec {
        cmd,
        args,
        envs: spec.environment(&session.target.instance.env).into_iter().collect(),
        cwd: spec.cwd,
        user: Some(session.user.clone()),
        tag: Some(session.id.to_string()),
        stdin: spec.stdin,
        pty: spec.pty.map(|size| WireSize { cols: size.cols, rows: size.rows }),
        deadline: timeout.map(|timeout| timeout + BACKSTOP),
    }
}

/// What is known of a command: followed here, or by its row.
enum Found {
    Here(Arc<Session>),
    Row(Box<Exec>),
}

async fn find(app: &App, caller: &Caller, instance: &InstanceId, id: &ExecId) -> Result<Found> {
    caller.require_instance(instance)?;
    if let Some(session) = app.execs.get(id).await
        && session.team == *caller.team_id()
        && session.instance == *instance
    {
        return Ok(Found::Here(session));
    }
    let mut connection = app.pool.acquire().await?;
    let found = execs::find(&mut connection, caller.team_id(), instance, id).await?;
    found.map(|exec| Found::Row(Box::new(exec))).ok_or_else(|| Error::not_found("command"))
}

/// A command, running or ended.
///
/// # Errors
/// `not_found`.
pub async fn get(app: &App, caller: &Caller, instance: &InstanceId, id: &ExecId) -> Result<Exec> {
    Ok(match find(app, caller, instance, id).await? {
        Found::Here(session) => session.snapshot(),
        Found::Row(exec) => *exec,
    })
}

/// An instance's commands, newest first, of the given statuses or of all.
///
/// # Errors
/// `not_found` for the instance.
pub async fn list(
    app: &App,
    caller: &Caller,
    instance: &InstanceId,
    statuses: &[ExecStatus],
    page: &PageRequest,
) -> Result<Page<Exec>> {
    caller.require_instance(instance)?;
    let mut connection = app.pool.acquire().await?;
    let known = instances::find(&mut connection, caller.team_id(), instance).await?;
    known.ok_or_else(|| Error::not_found("instance"))?;
    let statuses: Vec<String> = statuses.iter().map(|status| status.as_str().to_owned()).collect();
    let mut page = execs::list(&mut connection, caller.team_id(), instance, &statuses, page).await?;
    drop(connection);
    for exec in &mut page.items {
        // What is followed here is known better than its row tells.
        if exec.status == ExecStatus::Running
            && let Some(session) = app.execs.get(&exec.id).await
        {
            *exec = session.snapshot();
        }
    }
    Ok(page)
}

/// Where the output of a command is to be had.
pub enum Output {
    /// In memory here.
    Here(Attached),
    /// Not any more: this is how it ended.
    Gone(Box<Exec>),
}

/// Looks on at a command's output from `after`, or from its beginning.
///
/// # Errors
/// `not_found`; `unavailable` when another replica follows it.
pub async fn output(
    app: &App,
    caller: &Caller,
    instance: &InstanceId,
    id: &ExecId,
    after: Option<&Cursor>,
) -> Result<Output> {
    match find(app, caller, instance, id).await? {
        Found::Here(session) => Ok(Output::Here(session.attach(after))),
        Found::Row(exec) if exec.status == ExecStatus::Running => {
            Err(Error::new(Code::Unavailable, "Another replica of the gateway follows this command. Try again."))
        }
        Found::Row(exec) => Ok(Output::Gone(exec)),
    }
}

/// A command that runs, wherever it is followed: what is needed to act on its process.
pub struct Handle {
    id: ExecId,
    pid: Option<u32>,
    pty: bool,
    user: String,
    target: Target,
    session: Option<Arc<Session>>,
}

/// The process of a command that runs.
///
/// # Errors
/// `not_found`; `invalid_state` when it has ended, or its instance does not run.
pub async fn running(app: &App, caller: &Caller, instance: &InstanceId, id: &ExecId) -> Result<Handle> {
    let found = find(app, caller, instance, id).await?;
    let exec = match &found {
        Found::Here(session) => session.snapshot(),
        Found::Row(exec) => (**exec).clone(),
    };
    if exec.status != ExecStatus::Running {
        return Err(Error::new(Code::InvalidState, format!("The command is {}.", exec.status.as_str())));
    }
    Ok(match found {
        Found::Here(session) => Handle::of(session),
        Found::Row(exec) => Handle {
            target: app_instances::running(app, caller, instance).await?,
            id: exec.id,
            pid: exec.pid,
            pty: exec.pty,
            user: exec.user,
            session: None,
        },
    })
}

impl Handle {
    /// The process of a session.
    #[must_use]
    pub fn of(session: Arc<Session>) -> Self {
        Self {
            id: session.id.clone(),
            pid: session.log.pid(),
            pty: session.pty,
            user: session.user.clone(),
            target: session.target.clone(),
            session: Some(session),
        }
    }

    fn process(&self) -> Process<'_> {
        Process { target: &self.target, id: &self.id, pid: self.pid }
    }

    /// Waits for one's turn to write: two writes to one input do not mix. The turn ends with what is answered.
    async fn turn(&self) -> Option<tokio::sync::MutexGuard<'_, ()>> {
        match &self.session {
            Some(session) => Some(session.input.lock().await),
            None => None,
        }
    }

    fn check_takes_input(&self) -> Result<()> {
        match &self.session {
            Some(session) if !session.pty && !session.stdin => {
                let detail = "The command has no input: start it with `\"stdin\": true`.";
                Err(Error::new(Code::InvalidState, detail))
            }
            _ => Ok(()),
        }
    }

    /// Writes to its input. Waits while the process does not read.
    ///
    /// # Errors
    /// `invalid_state` when it takes no input.
    pub async fn write(&self, data: Bytes) -> Result<()> {
        self.check_takes_input()?;
        let _turn = self.turn().await;
        self.process().write(data, self.pty).await
    }

    /// Writes all of a body to its input, in one turn.
    ///
    /// # Errors
    /// `invalid_state` when it takes no input; `invalid_request` when the body breaks off or stalls.
    pub async fn write_all<E>(&self, mut body: impl Stream<Item = Result<Bytes, E>> + Unpin) -> Result<()>
    where
        E: std::error::Error + Send + Sync + 'static,
    {
        self.check_takes_input()?;
        let _turn = self.turn().await;
        let stalled = |_| Error::new(Code::InvalidRequest, "The body stalled.");
        while let Some(data) = tokio::time::timeout(BODY_PATIENCE, body.next()).await.map_err(stalled)? {
            let data =
                data.map_err(|error| Error::new(Code::InvalidRequest, "The body broke off.").with_source(error))?;
            self.process().write(data, self.pty).await?;
        }
        Ok(())
    }

    /// Ends its input.
    ///
    /// # Errors
    /// `invalid_state` for a terminal.
    pub async fn close_stdin(&self) -> Result<()> {
        if self.pty {
            let detail = "A terminal's input has no end to close. Send Ctrl+D (0x04) as input.";
            return Err(Error::new(Code::InvalidState, detail));
        }
        let _turn = self.turn().await;
        self.process().close_stdin().await
    }

    /// # Errors
    /// `invalid_state` when it has ended.
    pub async fn signal(&self, signal: Signal) -> Result<()> {
        self.process().signal(signal, &self.user).await
    }

    /// # Errors
    /// `invalid_state` for a process without a terminal; `validation_failed`.
    pub async fn resize(&self, size: PtySize) -> Result<()> {
        let problems = size.problems("");
        if !problems.is_empty() {
            return Err(Error::fields(problems));
        }
        if !self.pty {
            return Err(Error::new(Code::InvalidState, "The command has no terminal."));
        }
        self.process().resize(size).await
    }

    /// Kills it with all that it has started.
    ///
    /// # Errors
    /// When the sandbox cannot be reached.
    pub async fn kill(&self) -> Result<()> {
        if let Some(session) = &self.session {
            session.stop();
            session.log.finished().await;
            return Ok(());
        }
        self.process().kill_tree().await.and(self.process().kill().await)
    }
}
