//! The steps of a run. Each can be done again by whoever drives the run next.

use std::{net::IpAddr, time::Duration};

use bytes::Bytes;
use futures_util::StreamExt;
use http::{HeaderMap, StatusCode};
use http_body_util::Full;
use tokio::{task::JoinHandle, time::sleep};

use super::{FIRST_LOOK, LONGEST_PAUSE, create, live::Live};
use crate::{
    app::{
        App,
        code::{self, Collector},
        exec::{self, Lifetime},
        files::{self, Announced, Files},
        holds,
    },
    auth::{Caller, Start, Trail},
    domain::{
        code::CodeReason,
        exec::{Exec, Kept, Reason},
        instance::{Instance, InstanceStatus},
        run::{Failure, Input, Outcome, Output, OutputFile, Run, RunStatus, Text},
    },
    error::{Code, Error, Result},
    storage::{execs, instances, keys, runs},
};

/// A step that was taken.
pub(super) struct Moved {
    pub(super) status: RunStatus,
    pub(super) outcome: Outcome,
    pub(super) failure: Option<Failure>,
}

impl Moved {
    fn to(status: RunStatus) -> Self {
        Self { status, outcome: Outcome::default(), failure: None }
    }
}

pub(super) struct Steps<'a> {
    app: &'a App,
    run: &'a Run,
    live: &'a Live,
    /// The start of its instance, where it is under way here.
    starting: Option<JoinHandle<Result<Instance>>>,
    /// It has failed.
    failed: bool,
}

impl<'a> Steps<'a> {
    pub(super) fn new(
        app: &'a App,
        run: &'a Run,
        live: &'a Live,
        starting: Option<JoinHandle<Result<Instance>>>,
    ) -> Self {
        Self { app, run, live, starting, failed: run.failure.is_some() }
    }

    /// # Errors
    /// What the step fails with.
    pub(super) async fn take(&mut self, status: RunStatus) -> Result<Moved> {
        match status {
            RunStatus::Starting => self.await_running().await.map(|()| Moved::to(RunStatus::Uploading)),
            RunStatus::Uploading => self.upload().await.map(|()| Moved::to(RunStatus::Executing)),
            RunStatus::Executing => self.execute().await,
            RunStatus::Collecting => self.collect().await,
            RunStatus::Stopping | RunStatus::Done | RunStatus::Failed => {
                super::stop_instance(self.app, self.run).await.map(|()| self.end())
            }
        }
    }

    /// The step to the end, because another failed.
    pub(super) fn failed(&mut self, failure: Failure) -> Moved {
        self.failed = true;
        Moved { failure: Some(failure), ..Moved::to(RunStatus::Stopping) }
    }

    /// The last one.
    pub(super) fn end(&self) -> Moved {
        Moved::to(if self.failed { RunStatus::Failed } else { RunStatus::Done })
    }

    async fn await_running(&mut self) -> Result<()> {
        if let Some(starting) = self.starting.take() {
            match starting.await {
                Ok(Ok(_)) => return Ok(()),
                // It is gone on with elsewhere, or its panic is seen in its row.
                Ok(Err(error)) if matches!(error.code(), Code::Unavailable | Code::Internal) => {}
                Err(_) => {}
                Ok(Err(error)) => return Err(error),
            }
        }
        let mut pause = FIRST_LOOK;
        loop {
            let mut connection = self.app.pool.acquire().await?;
            let instance = instances::system_find(&mut connection, &self.run.instance_id).await?;
            drop(connection);
            let instance = instance.ok_or_else(|| Error::not_found("instance"))?;
            match instance.status {
                InstanceStatus::Running => return Ok(()),
                InstanceStatus::Starting => {}
                _ => return Err(not_started(&instance)),
            }
            sleep(pause).await;
            pause = (pause * 2).min(LONGEST_PAUSE);
        }
    }

    async fn input(&self) -> Result<Input> {
        let mut connection = self.app.pool.acquire().await?;
        let input = runs::system_input(&mut connection, &self.run.id).await?;
        input.ok_or_else(|| Error::internal("a run that goes on has no input any more"))
    }

    /// Whoever asked for the run. `action`: what is done for it now, as the history calls it.
    async fn caller(&self, action: &str) -> Result<Caller> {
        let Run { team_id: team, created_by: key, origin, .. } = self.run;
        let mut connection = self.app.pool.acquire().await?;
        let found = keys::with_team(&mut connection, team, key, Vec::new()).await?.ok_or_else(holds::ended)?;
        let trail = Trail::new(Start {
            id: self.app.ids.next(),
            at: self.app.clock.now(),
            action: action.to_owned(),
            request_id: origin.request_id.clone(),
            client: origin.client.as_deref().and_then(|client| client.parse::<IpAddr>().ok()),
            on_behalf_of: origin.on_behalf_of.clone(),
        });
        trail.note_target(self.run.id.as_str());
        Ok(Caller::of_key(found.key, found.team).within(&trail))
    }

    async fn files(&self, input: &Input) -> Result<Files> {
        let caller = self.caller("create_run").await?;
        files::of(self.app, &caller, &self.run.instance_id, input.user.as_deref()).await
    }

    async fn upload(&self) -> Result<()> {
        let input = self.input().await?;
        if input.files.is_empty() {
            return Ok(());
        }
        let files = self.files(&input).await?;
        for file in input.files {
            let path = files::parse_path("files", &file.path)?;
            let announced = Announced { length: Some(file.content.len() as u64), only_new: false };
            let mut body = Full::new(Bytes::from(file.content));
            let written = files.write(&path, announced, &mut body).await;
            written.map_err(|error| naming(&file.path, error))?;
        }
        Ok(())
    }

    async fn execute(&mut self) -> Result<Moved> {
        let input = self.input().await?;
        let timeout = Duration::from_secs(self.run.timeout_seconds.into());
        let output = if self.run.code {
            self.run_code(&input, timeout).await?
        } else {
            self.run_command(&input, timeout).await?
        };
        let moved = if output.reason == Reason::Lost {
            let code = if self.run.code { "code_lost" } else { "command_lost" };
            self.failed(Failure::new(code, output.error.clone().unwrap_or_default()))
        } else {
            Moved::to(RunStatus::Collecting)
        };
        Ok(Moved { outcome: Outcome { output: Some(output), files: None }, ..moved })
    }

    /// Runs the command, or goes on with one that an earlier driver started.
    async fn run_command(&self, input: &Input, timeout: Duration) -> Result<Output> {
        let Run { team_id: team, instance_id: instance, exec_id: id, .. } = self.run;
        let caller = self.caller("exec_command").await?;
        let mut connection = self.app.pool.acquire().await?;
        let known = execs::find(&mut connection, team, instance, id).await?;
        drop(connection);
        if known.is_none() {
            let mut spec = create::command(input, timeout).ok_or_else(|| Error::internal("a run has no command"))?;
            spec.tag = Some(self.run.id.to_string());
            match exec::start_as(self.app, &caller, instance, spec, Lifetime::Own, id.clone()).await {
                Ok(_) => {}
                Err(error) if error.code() == Code::AlreadyExists => {}
                Err(error) => return Err(error),
            }
        }
        let exec = exec::ended(self.app, &caller, instance, id).await?;
        let mut source = exec::output(self.app, &caller, instance, id, None).await?;
        let limit = usize::try_from(input.output_limit).unwrap_or(usize::MAX);
        let gathered = source.gather(limit).await?;
        Ok(of_command(exec, gathered.stdout, gathered.stderr))
    }

    /// Runs the code. What an earlier driver may have started cannot be found again, and is not started twice.
    async fn run_code(&self, input: &Input, timeout: Duration) -> Result<Output> {
        if self.run.status == RunStatus::Executing {
            let detail =
                "The gateway that followed the code is gone, and its output with it. Run it again if that is safe.";
            return Ok(lost(detail));
        }
        let caller = self.caller("run_code").await?;
        let spec = create::code(input, timeout).ok_or_else(|| Error::internal("a run has no code"))?;
        let mut code = code::start(self.app, &caller, &self.run.instance_id, spec).await?;
        let bytes = |limit: u64| usize::try_from(limit).unwrap_or(usize::MAX);
        let mut collector = Collector::new(bytes(input.output_limit), bytes(self.app.config.exec.max_output_limit));
        while let Some(event) = code.next().await {
            self.live.code.push(&event);
            collector.add(event);
        }
        Ok(of_code(collector.finish()))
    }

    async fn collect(&self) -> Result<Moved> {
        let input = self.input().await?;
        let mut collected = Vec::with_capacity(input.collect.len());
        if !input.collect.is_empty() {
            let files = self.files(&input).await?;
            let limit = self.app.config.runs.max_collected;
            let mut room = usize::try_from(limit).unwrap_or(usize::MAX);
            for path in input.collect {
                let content = match read(&files, &path, &mut room).await {
                    Ok(Some(content)) => Ok(content),
                    Ok(None) => Err(Failure::too_large(limit)),
                    Err(error) if is_about_the_file(&error) => Err(Failure::from(&error)),
                    Err(error) => return Err(naming(&path, error)),
                };
                collected.push(OutputFile { path, content });
            }
        }
        let outcome = Outcome { output: None, files: Some(collected) };
        Ok(Moved { outcome, ..Moved::to(RunStatus::Stopping) })
    }
}

fn not_started(instance: &Instance) -> Error {
    let why = instance.status_reason.clone().unwrap_or_else(|| {
        let reason = instance.stop_reason.as_ref().map(|reason| format!(" ({reason})")).unwrap_or_default();
        format!("The instance is {}{reason}.", instance.status)
    });
    Error::new(Code::InstanceStartFailed, why).with_sandbox(instance.reference())
}

/// The caller gave several files: the error says which one it is about.
fn naming(path: &str, error: Error) -> Error {
    let detail = format!("{path:?}: {}", error.detail());
    error.with_detail(detail)
}

/// As against the sandbox, or the way to it.
fn is_about_the_file(error: &Error) -> bool {
    matches!(
        error.code(),
        Code::NotFound
            | Code::IsADirectory
            | Code::NotADirectory
            | Code::NotAFile
            | Code::PermissionDenied
            | Code::ValidationFailed
            | Code::UnsupportedFileSystem
    )
}

/// A file's content; `None` when there is more of it than room.
async fn read(files: &Files, path: &str, room: &mut usize) -> Result<Option<Text>> {
    let path = files::parse_path("collect", path)?;
    let mut reading = files.read(&path, &HeaderMap::new()).await?;
    if reading.status != StatusCode::OK {
        return Err(Error::new(Code::UpstreamError, format!("The sandbox answered {} for the file.", reading.status)));
    }
    let mut kept = Kept::default();
    let mut size = 0_usize;
    while let Some(piece) = reading.body.next().await {
        let piece = piece.map_err(|error| files.error(error))?;
        size = size.saturating_add(piece.len());
        kept.add(&piece, *room);
        if kept.cut() {
            return Ok(None);
        }
    }
    *room = room.saturating_sub(size);
    Ok(Some(kept.finish().into()))
}

fn of_command(exec: Exec, stdout: Kept, stderr: Kept) -> Output {
    let duration = exec.exit().map_or(Duration::ZERO, |exit| exit.duration);
    Output {
        exit_code: exec.exit_code,
        signal: exec.signal,
        reason: exec.reason.unwrap_or(Reason::Lost),
        error: exec.error,
        truncated: stdout.cut() || stderr.cut(),
        stdout: stdout.finish().into(),
        stderr: stderr.finish().into(),
        duration_ms: milliseconds(duration),
        results: Vec::new(),
        raised: None,
    }
}

fn of_code(collected: code::Collected) -> Output {
    let exit = collected.exit;
    let reason = match exit.reason {
        CodeReason::Finished => Reason::Exited,
        CodeReason::Timeout => Reason::Timeout,
        CodeReason::Interrupted => Reason::Killed,
        CodeReason::Lost => Reason::Lost,
    };
    Output {
        exit_code: (reason == Reason::Exited).then(|| collected.error.is_some().into()),
        signal: None,
        reason,
        error: exit.error,
        stdout: collected.stdout.finish().into(),
        stderr: collected.stderr.finish().into(),
        truncated: collected.truncated,
        duration_ms: milliseconds(exit.duration),
        results: collected.results,
        raised: collected.error,
    }
}

fn lost(detail: &str) -> Output {
    Output {
        exit_code: None,
        signal: None,
        reason: Reason::Lost,
        error: Some(detail.to_owned()),
        stdout: Text::default(),
        stderr: Text::default(),
        truncated: false,
        duration_ms: 0,
        results: Vec::new(),
        raised: None,
    }
}

fn milliseconds(duration: Duration) -> u64 {
    u64::try_from(duration.as_millis()).unwrap_or(u64::MAX)
}
