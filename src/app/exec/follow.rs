//! Reading what a command prints until it has ended, over every break of the way to it.

use std::{sync::Arc, time::Duration};

use bytes::Bytes;
use envd_client::{EnvdError, EnvdErrorKind, EventStream, ProcessEvent};
use futures_util::StreamExt;
use tokio::time::{Instant, sleep};

use super::{
    durable::{Files, Verdict},
    session::{Flow, Session},
};
use crate::{
    app::App,
    domain::{
        exec::{Exit, GapReason, Reason, Signal, Stream},
        instance::{Instance, InstanceStatus},
    },
    error::{Code, Error, Result},
    storage::instances,
};

/// Silence after which a killed process counts as gone.
const KILL_PATIENCE: Duration = Duration::from_secs(15);
/// For a process whose whole tree was killed to be seen to end, before the daemon is told to wait no longer.
const TREE_GRACE: Duration = Duration::from_millis(500);
/// How long the way to a command whose instance runs is looked for.
const REATTACH_FOR: Duration = Duration::from_secs(60);
/// The same when the cloud says that there is no such instance: it is about to be known as ended.
const GONE_FOR: Duration = Duration::from_secs(5);
const MAX_COMPLAINT: usize = 512;
const FIRST_RETRY: Duration = Duration::from_millis(50);
const LONGEST_RETRY: Duration = Duration::from_secs(2);

/// How following a command ends.
pub(super) enum End {
    Exited(Exit),
    /// It is another replica's now, or will be.
    Released,
}

/// Why reading stopped.
enum Stop {
    End(End),
    /// The way to it broke, or the stream was closed for a pause.
    Broken,
}

pub(super) struct Follower<'a> {
    app: &'a App,
    session: &'a Arc<Session>,
    /// Why it is being killed.
    ending: Option<Reason>,
    /// What the parent of a durable command says itself: why there are no files.
    complaint: String,
}

impl<'a> Follower<'a> {
    pub(super) fn new(app: &'a App, session: &'a Arc<Session>) -> Self {
        Self { app, session, ending: None, complaint: String::new() }
    }

    /// Reads to the end of the command.
    pub(super) async fn follow(mut self, mut events: EventStream) -> End {
        loop {
            match self.read(&mut events).await {
                Stop::End(end) => {
                    // Read to its last frame, its connection can be used again.
                    if matches!(&end, End::Exited(exit) if exit.reason != Reason::Lost) {
                        events.next().await;
                    }
                    return end;
                }
                Stop::Broken => drop(events),
            }
            if self.session.exec.attached && *self.session.flow.borrow() == Flow::Open {
                // Its number may be another's by now.
                return End::Exited(self.session.lost("The connection to it broke."));
            }
            match Box::pin(self.reattach()).await {
                Ok(again) => events = again,
                Err(end) => return end,
            }
            // Of a durable command nothing is lost meanwhile.
            if !self.session.exec.durable {
                self.session.log.append_gap(GapReason::Reattached);
            }
        }
    }

    async fn read(&mut self, events: &mut EventStream) -> Stop {
        let session = self.session;
        let mut flow = session.flow.subscribe();
        let deadline = session.deadline();
        let mut deadline_passes = std::pin::pin!(sleep_until(deadline));
        let mut patience = std::pin::pin!(sleep(Duration::ZERO));
        let mut held = None;
        loop {
            let event = tokio::select! {
                biased;
                () = session.released.cancelled() => {
                    keep_held(session, &mut held);
                    return Stop::End(End::Released);
                }
                () = session.stop.cancelled(), if self.ending.is_none() => {
                    patience.as_mut().reset(self.begin_end(Reason::Killed));
                    continue;
                }
                () = &mut deadline_passes, if self.ending.is_none() => {
                    patience.as_mut().reset(self.begin_end(Reason::Timeout));
                    continue;
                }
                () = &mut patience, if self.ending.is_some() => {
                    if held.is_none() {
                        return Stop::End(End::Exited(session.lost("It was killed, but its end was not seen.")));
                    }
                    // A slow viewer is no silence.
                    patience.as_mut().reset(Instant::now() + KILL_PATIENCE);
                    continue;
                }
                _ = flow.wait_for(|flow| *flow == Flow::Closing) => {
                    keep_held(session, &mut held);
                    return Stop::Broken;
                }
                event = step(session, &mut held, events) => event,
            };
            if self.ending.is_some() {
                patience.as_mut().reset(Instant::now() + KILL_PATIENCE);
            }
            match event {
                Some(Ok(ProcessEvent::Stdout(data) | ProcessEvent::Stderr(data))) if session.exec.durable => {
                    self.complain(&data);
                }
                Some(Ok(ProcessEvent::Stdout(data))) => held = Some((Stream::Stdout, data)),
                Some(Ok(ProcessEvent::Stderr(data))) => held = Some((Stream::Stderr, data)),
                Some(Ok(ProcessEvent::Pty(data))) => held = Some((Stream::Pty, data)),
                Some(Ok(ProcessEvent::Started { .. } | ProcessEvent::Keepalive)) => {}
                Some(Ok(ProcessEvent::End { exit_code, exited, status, error })) => {
                    return Stop::End(End::Exited(self.ended(exit_code, exited, &status, error)));
                }
                Some(Err(error)) => return self.broken(&error),
                None => return Stop::Broken,
            }
        }
    }

    /// Starts to kill it; answers until when its end is waited for.
    fn begin_end(&mut self, reason: Reason) -> Instant {
        self.ending = Some(reason);
        self.app.lifecycle.spawn("exec-kill", kill(Arc::clone(self.session)));
        Instant::now() + KILL_PATIENCE
    }

    fn complain(&mut self, said: &[u8]) {
        let room = MAX_COMPLAINT.saturating_sub(self.complaint.len());
        self.complaint.push_str(&String::from_utf8_lossy(&said[..said.len().min(room)]));
    }

    fn exit(&self, reason: Reason, exit_code: Option<i32>, signal: Option<String>, error: Option<String>) -> Exit {
        Exit { exit_code, signal, reason, error, duration: self.session.began.elapsed() }
    }

    fn ended(&self, exit_code: i32, exited: bool, status: &str, error: Option<String>) -> Exit {
        if exited {
            // Even if it was about to be killed: it was faster.
            let said = self.complaint.trim();
            let error = (!said.is_empty()).then(|| format!("Its output could not be kept in files: {said}"));
            return self.exit(Reason::Exited, Some(exit_code), None, error);
        }
        let signal = Signal::name_of_status(status);
        let error = if signal.is_some() { None } else { error.or_else(|| Some(status.to_owned())) };
        self.exit(self.ending.unwrap_or(Reason::Signalled), None, signal, error)
    }

    /// The stream broke. The daemon's own deadline is a little after ours and kills; anything else hides the end.
    fn broken(&self, error: &EnvdError) -> Stop {
        if error.kind() == EnvdErrorKind::Deadline && error.http_status().is_some() {
            let signal = Some(Signal::KILL.to_string());
            return Stop::End(End::Exited(self.exit(Reason::Timeout, None, signal, None)));
        }
        tracing::info!(exec = %self.session.exec.id, %error, "the output broke off");
        Stop::Broken
    }

    /// Looks for the process again, by its tag. While the instance is paused there is no hurry.
    pub(super) async fn reattach(&self) -> Result<EventStream, End> {
        let session = self.session;
        let (mut retry, mut since) = (FIRST_RETRY, Instant::now());
        loop {
            session.flow.send_if_modified(|flow| std::mem::replace(flow, Flow::Closed) != Flow::Closed);
            match self.look().await {
                Seen::Process(events) => {
                    session.flow.send_if_modified(|flow| {
                        let closed = *flow == Flow::Closed;
                        if closed {
                            *flow = Flow::Open;
                        }
                        closed
                    });
                    return Ok(events);
                }
                Seen::End(exit) => return Err(End::Exited(exit)),
                Seen::Nothing(why) => return Err(End::Exited(session.lost(&why))),
                Seen::Waits => since = Instant::now(),
                Seen::Unreachable { patience } if since.elapsed() > patience => {
                    return Err(End::Exited(session.lost("The connection to it broke and could not be made again.")));
                }
                Seen::Unreachable { .. } => {}
            }
            tokio::select! {
                () = sleep(retry) => retry = (retry * 2).min(LONGEST_RETRY),
                () = session.released.cancelled() => return Err(End::Released),
            }
        }
    }

    async fn look(&self) -> Seen {
        let instance = match self.instance().await {
            Ok(Some(instance)) => instance,
            Ok(None) => return Seen::Nothing("The connection to it broke. Its instance is gone.".to_owned()),
            Err(error) => {
                tracing::warn!(exec = %self.session.exec.id, %error, "the state of its instance is not known");
                return Seen::Waits;
            }
        };
        match instance.status {
            InstanceStatus::Running => self.connect().await,
            InstanceStatus::Pausing | InstanceStatus::Paused | InstanceStatus::Resuming => Seen::Waits,
            status => {
                let reason = instance.stop_reason.map(|reason| format!(" ({reason})")).unwrap_or_default();
                Seen::Nothing(format!("The connection to it broke. The instance is {status}{reason}."))
            }
        }
    }

    async fn instance(&self) -> Result<Option<Instance>> {
        let exec = &self.session.exec;
        let mut connection = self.app.pool.acquire().await?;
        Ok(instances::find(&mut connection, &exec.team_id, &exec.instance_id).await?)
    }

    async fn connect(&self) -> Seen {
        let connected = self.session.process().connect().await;
        match connected {
            Ok(Some((events, _))) => Seen::Process(events),
            Ok(None) if self.session.exec.durable => self.read_verdict().await,
            Ok(None) => Seen::Nothing("It ended while the connection to it was broken: how was not seen.".to_owned()),
            Err(error) => self.unreachable(&error),
        }
    }

    async fn read_verdict(&self) -> Seen {
        match Files::of(&self.session.target, &self.session.exec.id).verdict().await {
            Ok(Some(Verdict { exit_code, ran })) => {
                let exit = self.exit(Reason::Exited, Some(exit_code), None, None);
                Seen::End(Exit { duration: ran, ..exit })
            }
            Ok(None) => Seen::Nothing("It ended and left no exit code: it was killed with its parent.".to_owned()),
            Err(error) => self.unreachable(&error),
        }
    }

    fn unreachable(&self, error: &Error) -> Seen {
        tracing::info!(exec = %self.session.exec.id, %error, "the command cannot be reached");
        Seen::Unreachable { patience: patience(error) }
    }
}

/// How long the way is looked for after this.
pub(super) fn patience(error: &Error) -> Duration {
    let gone = error.code() == Code::NotFound || error.code() == Code::UpstreamError;
    if gone { GONE_FOR } else { REATTACH_FOR }
}

enum Seen {
    Process(EventStream),
    /// How it ended, as its files say.
    End(Exit),
    /// It is known not to run.
    Nothing(String),
    /// Its instance is paused, or not known about.
    Waits,
    Unreachable {
        patience: Duration,
    },
}

async fn sleep_until(deadline: Option<Instant>) {
    match deadline {
        Some(deadline) => tokio::time::sleep_until(deadline).await,
        None => std::future::pending().await,
    }
}

/// Kills a process and all that it has started.
pub(super) async fn kill(session: Arc<Session>) {
    let process = session.process();
    let killed = process.kill_tree().await;
    if killed.is_ok() && process.pid.is_some() && tokio::time::timeout(TREE_GRACE, session.log.finished()).await.is_ok()
    {
        return;
    }
    if let Err(error) = killed.and(process.kill().await) {
        tracing::warn!(exec = %session.exec.id, %error, "the command could not be killed in good order");
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
    keep_held(session, held);
    events.next().await
}

fn keep_held(session: &Session, held: &mut Option<(Stream, Bytes)>) {
    if let Some((stream, data)) = held.take() {
        session.log.append(stream, data);
    }
}
