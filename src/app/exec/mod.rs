//! Commands in instances.
//!
//! Exactly one task reads a command's output and fills a bounded log ([`log`]); whoever looks on is served from there, over
//! whatever transport. What ends a command early (a timeout, a dropped request, a caller) is decided by that task too. A
//! command that lives on by itself has its output stored, and is followed by another replica when this one is gone.

mod adopt;
mod drive;
mod durable;
mod follow;
mod history;
pub mod leases;
pub mod log;
mod process;
pub mod processes;
mod registry;
mod session;
pub mod slots;
mod source;
mod store;

use std::{sync::Arc, time::Duration};

use bytes::Bytes;
use envd_client::{PtySize as WireSize, StartSpec};
use futures_util::{Stream, StreamExt};
use tokio::{sync::oneshot, time::sleep};

pub use self::{
    adopt::adopt_abandoned,
    registry::{CodePermit, Execs},
    session::{Lifetime, Session},
    source::{Gathered, Source},
};
use self::{
    drive::Launch,
    process::{Process, selector},
    registry::Limits as ReplicaLimits,
    session::{FIRST_EPOCH, Flow},
    slots::Reservation,
};
use super::{
    App, audit,
    instances::{self as app_instances, Target},
    ports,
};
use crate::{
    auth::Caller,
    domain::{
        exec::{Cursor, Exec, ExecStatus, FIRST, Limits, Offsets, PtySize, Signal, Spec},
        page::{Page, PageRequest},
        redaction::Excerpt,
    },
    error::{Code, Error, Result},
    ids::{ExecId, InstanceId},
    storage::{execs, instances},
};

/// The daemon's own limit is this much later than ours: a backstop for when the gateway is gone.
const BACKSTOP: Duration = Duration::from_secs(10);
/// Between two looks at a command that another replica follows.
const FIRST_LOOK: Duration = Duration::from_millis(10);
const LONGEST_PAUSE: Duration = Duration::from_millis(500);
/// A command without a row may have been started so shortly before that it gets one yet.
const YOUNG: chrono::Duration = chrono::Duration::seconds(1);
const ROW_DELAY: Duration = Duration::from_millis(25);
/// For the next piece of a body that is written to a command.
const BODY_PATIENCE: Duration = Duration::from_secs(60);

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
) -> Result<Source> {
    start_as(app, caller, instance, spec, lifetime, app.ids.next()).await
}

/// As [`start`], by an id that was decided beforehand: whoever else starts the same does not.
///
/// # Errors
/// As [`start`]; `already_exists` when there is a command of that id.
pub async fn start_as(
    app: &App,
    caller: &Caller,
    instance: &InstanceId,
    spec: Spec,
    lifetime: Lifetime,
    id: ExecId,
) -> Result<Source> {
    let run = audit::begin(app, caller, instance, || Excerpt::of_command(&spec.command));
    let started = launch(app, caller, instance, spec, lifetime, id).await;
    run.told(started, |source| Some(source.exec().id.clone()))
}

async fn launch(
    app: &App,
    caller: &Caller,
    instance: &InstanceId,
    spec: Spec,
    lifetime: Lifetime,
    id: ExecId,
) -> Result<Source> {
    let config = &app.config.exec;
    let limits = Limits { max_timeout: config.max_timeout, max_output_limit: config.max_output_limit };
    let problems = spec.problems(&limits);
    if !problems.is_empty() {
        return Err(Error::fields(problems));
    }
    if app.lifecycle.is_draining() {
        return Err(Error::new(Code::Unavailable, "This gateway is shutting down. Try again."));
    }
    app_instances::wake_if_asked(app, caller, instance).await?;
    let (target, place) = tokio::join!(ports::believed(app, caller, instance), reserve(app, caller));
    let (target, place) = (target?, place?);
    let timeout = match lifetime {
        Lifetime::Request => Some(spec.timeout.unwrap_or(config.timeout)),
        Lifetime::Own => spec.timeout,
    };
    let exec = Exec { id, ..new_exec(app, caller, &spec, &target, lifetime, timeout) };
    let tool = target.instance.tool_id.clone();
    let session = admit(app, exec, target, place)?;
    let source = Source::live(app, Arc::clone(&session), None, lifetime == Lifetime::Request);
    let (started, answer) = oneshot::channel();
    let start = wire_spec(&session, spec, timeout);
    app.lifecycle.spawn("exec", drive::drive(app.clone(), Launch { session, start, started }));
    if let Err(error) = answer.await.map_err(Error::internal)? {
        // The instance was believed to run: if it does not, that is what is wrong. Boxed, like what else is rare.
        Box::pin(async {
            app.ports.forget(caller.team_id(), instance).await;
            app_instances::running(app, caller, instance).await
        })
        .await?;
        return Err(error);
    }
    audit::count_run(app, caller, &tool);
    Ok(source)
}

/// Counts a run of code among what the caller's team and the instance run, until what is answered is dropped.
///
/// # Errors
/// `quota_exceeded`, naming the limit.
pub(super) async fn admit_code(app: &App, caller: &Caller, instance: &InstanceId) -> Result<CodePermit> {
    let place = reserve(app, caller).await?;
    app.execs.admit_code(caller.team_id(), instance, &replica_limits(app), place)
}

async fn reserve(app: &App, caller: &Caller) -> Result<Reservation> {
    slots::reserve(app, caller.team_id(), caller.team.quotas.max_execs.into()).await
}

fn replica_limits(app: &App) -> ReplicaLimits {
    ReplicaLimits { per_instance: app.config.exec.max_per_instance.into(), team_memory: app.config.exec.team_memory }
}

fn admit(app: &App, exec: Exec, target: Target, place: Reservation) -> Result<Arc<Session>> {
    let log = app.execs.log(&app.config.exec, &exec, FIRST);
    let session = Arc::new(Session::new(exec, log, Offsets::default(), target, app.clock.now()));
    app.execs.admit(&session, &replica_limits(app), place)?;
    Ok(session)
}

fn new_exec(
    app: &App,
    caller: &Caller,
    spec: &Spec,
    target: &Target,
    lifetime: Lifetime,
    timeout: Option<Duration>,
) -> Exec {
    let started_at = app.clock.now();
    let limit = timeout.and_then(|timeout| chrono::Duration::from_std(timeout).ok());
    Exec {
        id: app.ids.next(),
        team_id: caller.team_id().clone(),
        instance_id: target.instance.id.clone(),
        created_by: caller.key_id.clone(),
        command: spec.command.clone(),
        user: spec.user.clone().unwrap_or_else(|| target.default_user(app).to_owned()),
        tag: spec.tag.clone(),
        background: spec.background,
        foreground: lifetime == Lifetime::Request,
        pty: spec.pty.is_some(),
        stdin: spec.stdin,
        durable: spec.durable,
        keep_alive: spec.keep_alive,
        attached: false,
        status: ExecStatus::Running,
        pid: None,
        exit_code: None,
        signal: None,
        reason: None,
        error: None,
        epoch: FIRST_EPOCH,
        output_end: None,
        started_at,
        expires_at: limit.and_then(|limit| started_at.checked_add_signed(limit)),
        ended_at: None,
    }
}

fn wire_spec(session: &Session, spec: Spec, timeout: Option<Duration>) -> StartSpec {
    let (cmd, args) = spec.command.program();
    let start = StartSpec {
        cmd,
        args,
        envs: spec.environment(&session.target.instance.env).into_iter().collect(),
        cwd: spec.cwd,
        user: Some(session.exec.user.clone()),
        tag: Some(session.exec.id.to_string()),
        stdin: spec.stdin,
        pty: spec.pty.map(|size| WireSize { cols: size.cols, rows: size.rows }),
        deadline: timeout.map(|timeout| timeout + BACKSTOP),
    };
    if spec.durable { durable::wrap(start, &session.exec.id) } else { start }
}

/// What is known of a command: followed here, or by its row.
enum Found {
    Here(Arc<Session>),
    Row(Box<Exec>),
}

async fn find(app: &App, caller: &Caller, instance: &InstanceId, id: &ExecId) -> Result<Found> {
    caller.require_instance(instance)?;
    if let Some(session) = app.execs.get(id).await
        && session.exec.team_id == *caller.team_id()
        && session.exec.instance_id == *instance
    {
        return Ok(Found::Here(session));
    }
    let mut found = row(app, caller, instance, id).await?;
    if found.is_none() && app.clock.now() - id.made_at() < YOUNG {
        // The row of one in the foreground comes a moment after it, and another replica may follow it.
        sleep(ROW_DELAY).await;
        found = row(app, caller, instance, id).await?;
    }
    found.map(|exec| Found::Row(Box::new(exec))).ok_or_else(|| Error::not_found("command"))
}

async fn row(app: &App, caller: &Caller, instance: &InstanceId, id: &ExecId) -> Result<Option<Exec>> {
    let mut connection = app.pool.acquire().await?;
    Ok(execs::find(&mut connection, caller.team_id(), instance, id).await?)
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

/// Waits for the end of a command, whoever follows it.
///
/// # Errors
/// `not_found`.
pub async fn ended(app: &App, caller: &Caller, instance: &InstanceId, id: &ExecId) -> Result<Exec> {
    let mut pause = FIRST_LOOK;
    loop {
        let exec = match find(app, caller, instance, id).await? {
            Found::Here(session) => {
                tokio::select! {
                    _ = session.log.finished() => {}
                    () = session.released.cancelled() => {}
                    () = sleep(LONGEST_PAUSE) => {}
                }
                session.snapshot()
            }
            Found::Row(exec) => *exec,
        };
        if exec.status != ExecStatus::Running {
            return Ok(exec);
        }
        sleep(pause).await;
        pause = (pause * 2).min(LONGEST_PAUSE);
    }
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

/// Looks on at a command's output from `after`, or from its beginning.
///
/// # Errors
/// `not_found`.
pub async fn output(
    app: &App,
    caller: &Caller,
    instance: &InstanceId,
    id: &ExecId,
    after: Option<&Cursor>,
) -> Result<Source> {
    Ok(match find(app, caller, instance, id).await? {
        Found::Here(session) => Source::live(app, session, after, false),
        Found::Row(exec) => Source::stored(app, *exec, after),
    })
}

/// A command that runs, wherever it is followed: what is needed to act on its process.
pub struct Handle {
    exec: Exec,
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
        Found::Here(session) => {
            // A stream that is closed may be so because the instance is paused.
            if *session.flow.borrow() != Flow::Open {
                app_instances::running(app, caller, instance).await?;
            }
            Handle::of(session)
        }
        Found::Row(exec) => {
            Handle { target: app_instances::running(app, caller, instance).await?, exec: *exec, session: None }
        }
    })
}

/// Kills a command with all that it has started, and waits for its end. One that has ended already is fine.
///
/// # Errors
/// `not_found`; `invalid_state` while its instance is paused; when the sandbox cannot be reached.
pub async fn kill(app: &App, caller: &Caller, instance: &InstanceId, id: &ExecId) -> Result<()> {
    if get(app, caller, instance, id).await?.status != ExecStatus::Running {
        return Ok(());
    }
    match running(app, caller, instance, id).await {
        Ok(handle) => handle.kill().await,
        // It may have ended meanwhile.
        Err(_) if get(app, caller, instance, id).await?.status != ExecStatus::Running => Ok(()),
        Err(error) => Err(error),
    }
}

impl Handle {
    /// The process of a session.
    #[must_use]
    pub fn of(session: Arc<Session>) -> Self {
        Self { exec: session.snapshot(), target: session.target.clone(), session: Some(session) }
    }

    fn process(&self) -> Process<'_> {
        Process {
            target: &self.target,
            exec: &self.exec.id,
            selector: selector(&self.exec),
            pid: self.exec.pid,
            durable: self.exec.durable,
        }
    }

    /// Waits for one's turn to write: two writes to one input do not mix. The turn ends with what is answered.
    async fn turn(&self) -> Option<tokio::sync::MutexGuard<'_, ()>> {
        match &self.session {
            Some(session) => Some(session.input.lock().await),
            None => None,
        }
    }

    fn check_takes_input(&self) -> Result<()> {
        if self.exec.pty || self.exec.stdin {
            return Ok(());
        }
        let detail = "The command has no input: start it with `\"stdin\": true`.";
        Err(Error::new(Code::InvalidState, detail))
    }

    /// Writes to its input. Waits while the process does not read.
    ///
    /// # Errors
    /// `invalid_state` when it takes no input.
    pub async fn write(&self, data: Bytes) -> Result<()> {
        self.check_takes_input()?;
        let _turn = self.turn().await;
        self.process().write(data, self.exec.pty).await
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
            self.process().write(data, self.exec.pty).await?;
        }
        Ok(())
    }

    /// Ends its input.
    ///
    /// # Errors
    /// `invalid_state` for a terminal.
    pub async fn close_stdin(&self) -> Result<()> {
        if self.exec.pty {
            let detail = "A terminal's input has no end to close. Send Ctrl+D (0x04) as input.";
            return Err(Error::new(Code::InvalidState, detail));
        }
        let _turn = self.turn().await;
        self.process().close_stdin().await
    }

    /// # Errors
    /// `invalid_state` when it has ended.
    pub async fn signal(&self, signal: Signal) -> Result<()> {
        self.process().signal(signal, &self.exec.user).await
    }

    /// # Errors
    /// `invalid_state` for a process without a terminal; `validation_failed`.
    pub async fn resize(&self, size: PtySize) -> Result<()> {
        let problems = size.problems("");
        if !problems.is_empty() {
            return Err(Error::fields(problems));
        }
        if !self.exec.pty {
            return Err(Error::new(Code::InvalidState, "The command has no terminal."));
        }
        self.process().resize(size).await
    }

    async fn kill(&self) -> Result<()> {
        let Some(session) = &self.session else {
            return self.process().kill_tree().await.and(self.process().kill().await);
        };
        session.stop();
        tokio::select! {
            biased;
            _ = session.log.finished() => Ok(()),
            () = session.released.cancelled() => {
                Err(Error::new(Code::Unavailable, "Another replica of the gateway follows this command now. Try again."))
            }
        }
    }
}
