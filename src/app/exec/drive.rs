//! The one task that starts a command, reads what it prints and sees its end.

use std::{sync::Arc, time::Duration};

use bytes::Bytes;
use envd_client::{EnvdError, EnvdErrorKind, EventStream, ProcessEvent, StartSpec};
use futures_util::StreamExt;
use tokio::{
    sync::oneshot,
    time::{Instant, sleep},
};

use super::{
    leases::LEASE_SECONDS,
    process::Process,
    session::{Lifetime, Session},
};
use crate::{
    app::App,
    domain::exec::{Exit, Reason, Signal, Stream},
    error::{Code, Error, Result},
    storage::{execs, instances},
};

/// For the daemon to say that the process runs.
const START_LIMIT: Duration = Duration::from_secs(30);
/// Silence after which a killed process counts as gone.
const KILL_PATIENCE: Duration = Duration::from_secs(15);
/// For a process whose whole tree was killed to be seen to end, before the daemon is told to wait no longer.
const TREE_GRACE: Duration = Duration::from_millis(500);

/// What the task is given.
pub(super) struct Launch {
    pub(super) session: Arc<Session>,
    pub(super) start: StartSpec,
    pub(super) timeout: Option<Duration>,
    /// Told the process id, or why there is none.
    pub(super) started: oneshot::Sender<Result<u32>>,
}

/// Starts the command and follows it to its end. The row is written meanwhile: it costs the command no time.
pub(super) async fn drive(app: App, launch: Launch) {
    let session = Arc::clone(&launch.session);
    let (pid_known, pid) = oneshot::channel();
    let (inserted, exit) = tokio::join!(insert_row(&app, &session, pid), follow(&app, launch, pid_known));
    if let Err(error) = &inserted {
        tracing::error!(exec = %session.id, %error, "the command has no row");
    }
    if let Some(exit) = &exit {
        report(&session, exit);
    }
    if let Err(error) = finish_row(&app, &session, exit.as_deref()).await {
        tracing::error!(exec = %session.id, %error, "the end of the command was not stored");
    }
    app.execs.retire(&session, keeps_output(&session, exit.is_some())).await;
}

/// Whether somebody may come back for the output.
fn keeps_output(session: &Session, ran: bool) -> bool {
    ran && session.lifetime == Lifetime::Own
}

async fn insert_row(app: &App, session: &Session, pid: oneshot::Receiver<u32>) -> Result<()> {
    let mut connection = app.pool.acquire().await?;
    execs::insert(&mut connection, &session.snapshot(), app.execs.replica(), LEASE_SECONDS).await?;
    drop(connection);
    // One that ends with its request gets the process id with its end: nobody asks before.
    if session.lifetime == Lifetime::Own
        && let Ok(pid) = pid.await
    {
        let mut connection = app.pool.acquire().await?;
        execs::set_pid(&mut connection, &session.team, &session.id, pid).await?;
    }
    Ok(())
}

async fn finish_row(app: &App, session: &Session, exit: Option<&Exit>) -> Result<()> {
    let mut connection = app.pool.acquire().await?;
    match exit {
        Some(exit) => execs::finish(&mut connection, &session.team, &session.id, session.log.pid(), exit).await?,
        None => execs::remove(&mut connection, &session.team, &session.id).await?,
    }
    Ok(())
}

fn report(session: &Session, exit: &Exit) {
    metrics::counter!("ags_gateway_execs_ended_total", "reason" => exit.reason.as_str()).increment(1);
    metrics::histogram!("ags_gateway_exec_seconds").record(exit.duration.as_secs_f64());
    tracing::info!(
        exec = %session.id,
        instance = %session.instance,
        team = %session.team,
        pid = session.log.pid(),
        reason = exit.reason.as_str(),
        exit_code = exit.exit_code,
        signal = exit.signal,
        error = exit.error,
        output_bytes = session.log.total(),
        duration_ms = exit.duration.as_secs_f64() * 1000.0,
        "exec ended"
    );
}

/// `None`: it never ran.
async fn follow(app: &App, launch: Launch, pid_known: oneshot::Sender<u32>) -> Option<Arc<Exit>> {
    let Launch { session, start, timeout, started } = launch;
    let opened = tokio::time::timeout(START_LIMIT, open(&session, start)).await;
    let opened =
        opened.unwrap_or_else(|_| Err(Error::new(Code::UpstreamTimeout, "The sandbox did not start it in time.")));
    let (mut events, pid) = match opened {
        Ok(opened) => opened,
        Err(error) => {
            if matches!(error.code(), Code::UpstreamTimeout | Code::UpstreamUnavailable) {
                // It may have been started all the same.
                app.lifecycle.spawn("exec-kill", kill(Arc::clone(&session), None));
            }
            // Whoever asked may have gone.
            let _unheard = started.send(Err(error));
            session.log.finish(Arc::new(never_ran()));
            return None;
        }
    };
    metrics::counter!("ags_gateway_execs_started_total").increment(1);
    session.log.started(pid);
    let _unheard = (started.send(Ok(pid)), pid_known.send(pid));
    let exit = Arc::new(Follower { app, session: &session, pid, ending: None }.read(&mut events, timeout).await);
    session.log.finish(Arc::clone(&exit));
    // Read to its last frame, its connection can be used again.
    if exit.reason != Reason::Lost {
        events.next().await;
    }
    Some(exit)
}

fn never_ran() -> Exit {
    let error = Some("It could not be started.".to_owned());
    Exit { exit_code: None, signal: None, reason: Reason::Lost, error, duration: Duration::ZERO }
}

async fn open(session: &Session, start: StartSpec) -> Result<(EventStream, u32)> {
    let opened = session.target.call(|envd| {
        let start = start.clone();
        async move {
            let mut events = envd.start(start).await?;
            loop {
                match events.next().await {
                    Some(Ok(ProcessEvent::Started { pid })) => return Ok(Some((events, pid))),
                    Some(Ok(ProcessEvent::Keepalive)) => {}
                    Some(Err(error)) => return Err(error),
                    Some(Ok(_)) | None => return Ok(None),
                }
            }
        }
    });
    match opened.await {
        Ok(Some(opened)) => Ok(opened),
        Ok(None) => Err(Error::new(Code::UpstreamError, "The sandbox did not say that the command runs.")),
        Err(error) => Err(name_field(error)),
    }
}

/// The daemon says in words which part of the request it refuses.
fn name_field(error: Error) -> Error {
    if error.code() != Code::ValidationFailed || !error.inner().fields.is_empty() {
        return error;
    }
    let field = if error.detail().starts_with("cwd") { "cwd" } else { "cmd" };
    Error::field(field, error.detail()).with_source(error)
}

/// Kills a process and all that it has started.
async fn kill(session: Arc<Session>, pid: Option<u32>) {
    let process = Process { target: &session.target, id: &session.id, pid };
    let killed = process.kill_tree().await;
    if killed.is_ok() && pid.is_some() && tokio::time::timeout(TREE_GRACE, session.log.finished()).await.is_ok() {
        return;
    }
    if let Err(error) = killed.and(process.kill().await) {
        tracing::warn!(exec = %session.id, %error, "the command could not be killed in good order");
    }
}

struct Follower<'a> {
    app: &'a App,
    session: &'a Arc<Session>,
    pid: u32,
    /// Why it is being killed.
    ending: Option<Reason>,
}

impl Follower<'_> {
    async fn read(&mut self, events: &mut EventStream, timeout: Option<Duration>) -> Exit {
        let mut stop = self.session.stop.subscribe();
        let draining = self.app.lifecycle.draining();
        let outlives = self.session.lifetime == Lifetime::Own;
        let mut deadline = std::pin::pin!(sleep(timeout.unwrap_or_default()));
        let mut patience = std::pin::pin!(sleep(Duration::ZERO));
        let mut held = None;
        loop {
            let event = tokio::select! {
                biased;
                _ = stop.wait_for(|stop| *stop), if self.ending.is_none() => {
                    patience.as_mut().reset(self.begin_end(Reason::Killed));
                    continue;
                }
                () = &mut deadline, if timeout.is_some() && self.ending.is_none() => {
                    patience.as_mut().reset(self.begin_end(Reason::Timeout));
                    continue;
                }
                () = draining.cancelled(), if outlives => {
                    return self.lost("The gateway that followed it was shut down. It may still run.");
                }
                () = &mut patience, if self.ending.is_some() => {
                    if held.is_none() {
                        return self.lost("It was killed, but its end was not seen.");
                    }
                    // A slow viewer is no silence.
                    patience.as_mut().reset(Instant::now() + KILL_PATIENCE);
                    continue;
                }
                event = step(self.session, &mut held, events) => event,
            };
            if self.ending.is_some() {
                patience.as_mut().reset(Instant::now() + KILL_PATIENCE);
            }
            match event {
                Some(Ok(ProcessEvent::Stdout(data))) => held = Some((Stream::Stdout, data)),
                Some(Ok(ProcessEvent::Stderr(data))) => held = Some((Stream::Stderr, data)),
                Some(Ok(ProcessEvent::Pty(data))) => held = Some((Stream::Pty, data)),
                Some(Ok(ProcessEvent::Started { .. } | ProcessEvent::Keepalive)) => {}
                Some(Ok(ProcessEvent::End { exit_code, exited, status, error })) => {
                    return self.ended(exit_code, exited, &status, error);
                }
                Some(Err(error)) => return self.broken(&error).await,
                None => return self.lost("The sandbox ended the output without saying how the command ended."),
            }
        }
    }

    /// Starts to kill it; answers until when its end is waited for.
    fn begin_end(&mut self, reason: Reason) -> Instant {
        self.ending = Some(reason);
        self.app.lifecycle.spawn("exec-kill", kill(Arc::clone(self.session), Some(self.pid)));
        Instant::now() + KILL_PATIENCE
    }

    fn exit(&self, reason: Reason, exit_code: Option<i32>, signal: Option<String>, error: Option<String>) -> Exit {
        Exit { exit_code, signal, reason, error, duration: self.session.began.elapsed() }
    }

    fn lost(&self, error: &str) -> Exit {
        self.exit(Reason::Lost, None, None, Some(error.to_owned()))
    }

    fn ended(&self, exit_code: i32, exited: bool, status: &str, error: Option<String>) -> Exit {
        if exited {
            // Even if it was about to be killed: it was faster.
            return self.exit(Reason::Exited, Some(exit_code), None, None);
        }
        let signal = Signal::name_of_status(status);
        let error = if signal.is_some() { None } else { error.or_else(|| Some(status.to_owned())) };
        self.exit(self.ending.unwrap_or(Reason::Signalled), None, signal, error)
    }

    /// The stream broke. The daemon's own deadline is a little after ours and kills; anything else hides the end.
    async fn broken(&self, error: &EnvdError) -> Exit {
        if error.kind() == EnvdErrorKind::Deadline && error.http_status().is_some() {
            return self.exit(Reason::Timeout, None, Some(Signal::KILL.to_string()), None);
        }
        tracing::info!(exec = %self.session.id, %error, "the output broke off");
        let text = match self.instance_status().await {
            Ok(Some(status)) => format!("The connection to it broke. The instance is {status}."),
            _ => "The connection to it broke.".to_owned(),
        };
        self.lost(&text)
    }

    async fn instance_status(&self) -> Result<Option<String>> {
        let mut connection = self.app.pool.acquire().await?;
        let instance = instances::find(&mut connection, &self.session.team, &self.session.instance).await?;
        Ok(instance.map(|instance| match instance.stop_reason {
            Some(reason) => format!("{} ({reason})", instance.status),
            None => instance.status.to_string(),
        }))
    }
}

/// Puts the output at hand into the log once there is room, then waits for what is next. Can be dropped at any point.
async fn step(
    session: &Session,
    held: &mut Option<(Stream, Bytes)>,
    events: &mut EventStream,
) -> Option<Result<ProcessEvent, EnvdError>> {
    if let Some((_, data)) = held {
        session.log.room(data.len()).await;
    }
    if let Some((stream, data)) = held.take() {
        session.log.append(stream, data);
    }
    events.next().await
}
