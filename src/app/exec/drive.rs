//! The one task that starts a command, follows it and notes its end.

use std::{
    sync::{Arc, atomic::Ordering},
    time::Duration,
};

use envd_client::{EventStream, StartSpec};
use tokio::{sync::oneshot, time::sleep};

use super::{
    durable::{
        Files,
        tail::{self, Fate},
    },
    follow::{End, Follower, kill},
    leases::LEASE_SECONDS,
    process::first_event,
    session::Session,
    store,
};
use crate::{
    app::{App, audit},
    domain::exec::{Exec, Exit, Reason},
    error::{Code, Error, Result},
    storage::execs,
    telemetry::milliseconds,
};

/// For the daemon to say that the process runs.
const START_LIMIT: Duration = Duration::from_secs(30);
/// A command in the foreground that ends within this time costs the database one row and nothing else.
const AT_ONCE: Duration = Duration::from_millis(5);
/// How often, and how long, the end of a command is tried to be noted while the database is away.
const NOTE_RETRY: Duration = Duration::from_millis(500);
const NOTE_ATTEMPTS: u32 = 120;

/// What the task is given.
pub(super) struct Launch {
    pub(super) session: Arc<Session>,
    pub(super) start: StartSpec,
    /// Told the process id, or why there is none.
    pub(super) started: oneshot::Sender<Result<u32>>,
}

/// Starts the command and follows it to its end. What asks the database is boxed: the task is not to be larger for it.
pub(super) async fn drive(app: App, launch: Launch) {
    let Launch { session, start, started } = launch;
    let end = if session.exec.foreground {
        // It ends with its request: the row may come later than the process, and costs it no time.
        let (end, inserted, ()) =
            tokio::join!(run(&app, &session, start, started), insert_late(&app, &session), keep(&app, &session));
        if let Err(error) = &inserted {
            tracing::error!(exec = %session.exec.id, %error, "the command has no row until it ends");
        }
        end
    } else {
        if let Err(error) = Box::pin(insert(&app, &session)).await {
            let is_anothers = error.code() == Code::AlreadyExists;
            // Whoever asked may have gone.
            let _unheard = started.send(Err(error));
            return if is_anothers {
                app.execs.retire(&session, false).await;
            } else {
                Box::pin(forget(&app, &session)).await;
            };
        }
        let (end, ()) = tokio::join!(run(&app, &session, start, started), keep(&app, &session));
        end
    };
    match end {
        Some(end) => conclude(&app, &session, end).await,
        None => Box::pin(forget(&app, &session)).await,
    }
}

/// Follows a command that was started before. `events`: what it prints from now on, if that is at hand.
pub(super) async fn go_on(app: App, session: Arc<Session>, events: Option<EventStream>) {
    session.noted.store(true, Ordering::Release);
    let followed = async {
        let follower = Follower::new(&app, &session);
        let events = match events {
            Some(events) => events,
            None => match Box::pin(follower.reattach()).await {
                Ok(events) => events,
                Err(end) => return finish_log(&session, end).await,
            },
        };
        finish_log(&session, follower.follow(events).await).await
    };
    let (end, ()) = tokio::join!(followed, keep(&app, &session));
    conclude(&app, &session, end).await;
}

/// Writes the row of a command that does not end at once. Otherwise it is written with its end.
async fn insert_late(app: &App, session: &Session) -> Result<()> {
    tokio::select! {
        () = sleep(AT_ONCE) => Box::pin(insert(app, session)).await,
        _ = session.log.finished() => Ok(()),
    }
}

async fn insert(app: &App, session: &Session) -> Result<()> {
    // As it runs: should it end meanwhile, that is noted by itself.
    let running = Exec { pid: session.log.pid(), ..session.exec.clone() };
    let mut connection = app.pool.acquire().await?;
    if !execs::insert(&mut connection, &running, app.execs.replica(), LEASE_SECONDS).await? {
        return Err(Error::new(Code::AlreadyExists, "The command was started already."));
    }
    session.noted.store(true, Ordering::Release);
    Ok(())
}

/// `None`: it never ran.
async fn run(
    app: &App,
    session: &Arc<Session>,
    start: StartSpec,
    started: oneshot::Sender<Result<u32>>,
) -> Option<End> {
    let opened = tokio::time::timeout(START_LIMIT, open(session, start)).await;
    let opened =
        opened.unwrap_or_else(|_| Err(Error::new(Code::UpstreamTimeout, "The sandbox did not start it in time.")));
    let (events, pid) = match opened {
        Ok(opened) => opened,
        Err(error) => {
            if error.code() == Code::UpstreamTimeout {
                // It may have been started all the same.
                app.lifecycle.spawn("exec-kill", kill(Arc::clone(session)));
            }
            // Whoever asked may have gone.
            let _unheard = started.send(Err(error));
            session.log.finish(Arc::new(session.lost("It could not be started.")));
            return None;
        }
    };
    metrics::counter!("ags_gateway_execs_started_total").increment(1);
    session.log.started(pid);
    // Whoever asked may have gone.
    let _unheard = started.send(Ok(pid));
    if session.exec.foreground {
        return Some(finish_log(session, Follower::new(app, session).follow(events).await).await);
    }
    let (end, ()) = tokio::join!(Follower::new(app, session).follow(events), Box::pin(note_pid(app, session, pid)));
    Some(finish_log(session, end).await)
}

async fn note_pid(app: &App, session: &Session, pid: u32) {
    let noted = async {
        let mut connection = app.pool.acquire().await?;
        execs::set_pid(&mut connection, &session.exec.team_id, &session.exec.id, pid).await
    };
    if let Err(error) = noted.await {
        tracing::warn!(exec = %session.exec.id, %error, "the process id was not stored");
    }
}

/// Sees to its output while it runs.
async fn keep(app: &App, session: &Arc<Session>) {
    if session.exec.durable {
        Box::pin(tail::keep(app, session)).await;
    } else if session.log.is_kept() {
        Box::pin(store::keep(app, session)).await;
    }
}

async fn finish_log(session: &Session, end: End) -> End {
    match &end {
        End::Exited(exit) => {
            if session.exec.durable {
                session.fate.send_replace(if exit.reason == Reason::Lost { Fate::Lost } else { Fate::Ended });
                session.read_out.cancelled().await;
            }
            session.log.finish(Arc::new(exit.clone()));
        }
        End::Released => session.release(),
    }
    end
}

async fn open(session: &Session, start: StartSpec) -> Result<(EventStream, u32)> {
    let opened = session.target.call(|envd| {
        let start = start.clone();
        async move { first_event(envd.start(start).await?).await }
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

/// Notes how the command ended, or leaves it to another replica.
async fn conclude(app: &App, session: &Arc<Session>, end: End) {
    match end {
        End::Exited(exit) => {
            report(session, &exit);
            let tool = &session.target.instance.tool_id;
            if session.exec.foreground || session.exec.keep_alive {
                app.activity.touch(&session.exec.instance_id);
            }
            audit::exec_ended(app, &session.exec, Some(tool), &exit, session.log.total());
            Box::pin(note_end(app, session)).await;
            app.execs.retire(session, !session.exec.foreground).await;
            clean_up(app, session);
        }
        End::Released => {
            if let Err(error) = Box::pin(let_go(app, session)).await {
                tracing::warn!(exec = %session.exec.id, %error, "the command was left without a word");
            }
            session.log.cut();
            app.execs.retire(session, false).await;
        }
    }
}

/// Removes a durable command's files, unless a part of its output is nowhere else.
fn clean_up(app: &App, session: &Arc<Session>) {
    let stored = !session.log.is_kept() || session.log.total() <= app.config.exec.stored_window;
    if !session.exec.durable || !stored {
        return;
    }
    let session = Arc::clone(session);
    app.lifecycle.spawn("exec-files", async move {
        if let Err(error) = Files::of(&session.target, &session.exec.id).remove().await {
            // They go with the instance, if that is not why.
            tracing::debug!(exec = %session.exec.id, %error, "the files of a command were left in its instance");
        }
    });
}

/// Has what was seen of it stored, and another replica follow it. Without effect when one does already.
async fn let_go(app: &App, session: &Session) -> Result<()> {
    store::flush(app, session).await?;
    let mut connection = app.pool.acquire().await?;
    Ok(execs::system_release(&mut connection, app.execs.replica(), &session.exec.id).await?)
}

async fn note_end(app: &App, session: &Session) {
    let exec = Exec { output_end: Some(session.log.end()), ..session.snapshot() };
    for _ in 0..NOTE_ATTEMPTS {
        let noted = async {
            let mut connection = app.pool.acquire().await?;
            let (replica, known) = (app.execs.replica(), session.noted.load(Ordering::Acquire));
            if !known && execs::insert(&mut connection, &exec, replica, LEASE_SECONDS).await? {
                return Ok(true);
            }
            execs::finish(&mut connection, &exec, replica).await
        };
        match noted.await {
            Ok(_) => return,
            Err(error) => tracing::error!(exec = %exec.id, %error, "the end of the command was not stored"),
        }
        sleep(NOTE_RETRY).await;
    }
}

async fn forget(app: &App, session: &Arc<Session>) {
    let removed = async {
        let mut connection = app.pool.acquire().await?;
        execs::remove(&mut connection, &session.exec.team_id, &session.exec.id).await
    };
    if let Err(error) = removed.await {
        tracing::warn!(exec = %session.exec.id, %error, "the row of a command that never ran was left");
    }
    app.execs.retire(session, false).await;
}

fn report(session: &Session, exit: &Exit) {
    metrics::counter!("ags_gateway_execs_ended_total", "reason" => exit.reason.as_str()).increment(1);
    metrics::histogram!("ags_gateway_exec_seconds").record(exit.duration.as_secs_f64());
    tracing::info!(
        exec = %session.exec.id,
        instance = %session.exec.instance_id,
        team = %session.exec.team_id,
        pid = session.log.pid(),
        reason = exit.reason.as_str(),
        exit_code = exit.exit_code,
        signal = exit.signal,
        error = exit.error,
        output_bytes = session.log.total(),
        duration_ms = milliseconds(exit.duration),
        "exec ended"
    );
}
