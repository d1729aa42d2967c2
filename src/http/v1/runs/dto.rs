//! What callers send and get.

use std::{collections::BTreeMap, time::Duration};

use base64::{Engine, prelude::BASE64_STANDARD};
use chrono::{DateTime, Utc};
use serde::{Deserialize, Serialize};
use utoipa::{IntoParams, ToSchema};

use crate::{
    app::{App, runs::Wanted},
    domain::{
        code::{CodeError, Language},
        duration::Seconds,
        exec::{Command, Reason},
        run::{Failure, Input, InputFile, Outcome, Output, OutputFile, Run, RunStatus, Text, Work},
    },
    error::{Error, Result},
    http::{
        extract::{FromQuery, QueryReader},
        page::PageQuery,
        v1::{code::dto::CodeResult, queue::QueueQuery},
    },
    ids::{ExecId, InstanceId, KeyId, RunId, ToolId},
};

/// What is to be run, in an instance of its own.
#[derive(Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
#[schema(example = json!({"tool": "shell", "cmd": "wc -l < in.txt > out.txt",
    "files": [{"path": "in.txt", "content": "a\nb\n"}], "collect": ["out.txt"]}))]
pub struct CreateRun {
    /// Id or name. May be left out where the configuration has a default.
    #[schema(example = "shell")]
    pub tool: Option<String>,
    /// Written before.
    #[serde(default)]
    #[schema(required = false)]
    pub files: Vec<RunFileBody>,
    /// A line for `/bin/bash -l -c`, or a program and its arguments. Either this or `code`.
    pub cmd: Option<Command>,
    /// Code for the interpreter of a tool of type code-interpreter.
    #[schema(example = "print(1)")]
    pub code: Option<String>,
    /// Of the code. Default: `python`.
    pub language: Option<Language>,
    /// Whom the command runs as and whose files they are. Default: `root` in custom tools, `user` in code interpreters.
    #[schema(min_length = 1, max_length = 64, pattern = "^[^:\\x00-\\x1f\\x7f-\\x9f]+$")]
    pub user: Option<String>,
    /// Where the command runs: absolute, `~`, or relative to the user's home.
    #[schema(min_length = 1)]
    pub cwd: Option<String>,
    /// Read after it, whatever its exit code: 100 at most.
    #[serde(default)]
    #[schema(required = false, max_items = 100)]
    pub collect: Vec<String>,
    /// Of the command or the code, which is ended then. Default: 60 s.
    #[schema(required = false)]
    pub timeout: Option<Seconds>,
    #[serde(default)]
    #[schema(required = false)]
    pub env: BTreeMap<String, String>,
    /// Bytes of stdout and of stderr that are kept. Default: 1 MiB.
    #[schema(required = false)]
    pub output_limit: Option<u64>,
    /// Answer when it has begun: read it at `GET /v1/runs/{id}`.
    #[serde(default)]
    pub background: bool,
}

/// A file that is written before.
#[derive(Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct RunFileBody {
    /// Absolute, or relative to the user's home. Missing directories are made.
    #[schema(example = "in.txt")]
    pub path: String,
    pub content: String,
    #[serde(default)]
    #[schema(required = false)]
    pub encoding: Encoding,
}

/// How a content stands in JSON.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "lowercase")]
pub enum Encoding {
    /// As it is.
    #[default]
    Utf8,
    Base64,
}

impl CreateRun {
    /// # Errors
    /// `validation_failed` for what does not fit together. The rest is validated where it is run.
    pub fn into_wanted(self, app: &App) -> Result<Wanted> {
        let work = match (self.cmd, self.code) {
            (Some(command), None) => Work::Command { command, cwd: self.cwd },
            (None, Some(code)) => Work::Code { code, language: self.language },
            (Some(_), Some(_)) => return Err(Error::field("code", "may not stand beside `cmd`")),
            (None, None) => return Err(Error::field("cmd", "either this or `code` is required")),
        };
        let files = self.files.into_iter().enumerate().map(|(index, file)| file.decoded(index));
        let input = Input {
            work,
            env: self.env,
            files: files.collect::<Result<_>>()?,
            collect: self.collect,
            user: self.user,
            output_limit: self.output_limit.unwrap_or(app.config.exec.output_limit),
        };
        Ok(Wanted { tool: self.tool, timeout: self.timeout.map(Seconds::to_std), input })
    }
}

impl RunFileBody {
    fn decoded(self, index: usize) -> Result<InputFile> {
        let content = match self.encoding {
            Encoding::Utf8 => self.content.into_bytes(),
            Encoding::Base64 => BASE64_STANDARD
                .decode(self.content)
                .map_err(|_| Error::field(format!("files[{index}].content"), "is not base64"))?,
        };
        Ok(InputFile { path: self.path, content })
    }
}

/// A run. A failing command is a run that is done; one that failed says why in `error`.
#[derive(Debug, Serialize, ToSchema)]
#[schema(as = Run)]
pub struct RunDto {
    pub id: RunId,
    pub status: RunStatus,
    pub tool_id: ToolId,
    pub tool_name: String,
    /// Gone when the run has ended; its history stays.
    pub instance_id: InstanceId,
    /// The command's.
    pub exec_id: Option<ExecId>,
    /// Of code 0, or 1 when it raised something. Null until it has ended, and when it did not come to its end by itself.
    pub exit_code: Option<i32>,
    #[schema(example = "SIGKILL")]
    pub signal: Option<String>,
    pub reason: Option<Reason>,
    pub timed_out: bool,
    /// Why the run failed.
    pub error: Option<Failure>,
    /// Null in lists and in events, and until it is known.
    pub stdout: Option<String>,
    pub stderr: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(example = "base64")]
    pub stdout_encoding: Option<Encoding>,
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(example = "base64")]
    pub stderr_encoding: Option<Encoding>,
    /// Whether output beyond `output_limit`, or results beyond 16 MiB, were cut.
    pub truncated: bool,
    /// Of the command or the code.
    pub duration_ms: Option<u64>,
    /// What the code showed.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    #[schema(required = false)]
    pub results: Vec<CodeResult>,
    /// What the code raised.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub raised: Option<CodeError>,
    /// In the order of `collect`. Null in lists, and until they are read.
    pub files: Option<Vec<RunFileDto>>,
    pub created_by: KeyId,
    pub created_at: DateTime<Utc>,
    pub ended_at: Option<DateTime<Utc>>,
}

/// A file that was collected.
#[derive(Debug, Serialize, ToSchema)]
#[schema(as = RunFile)]
pub struct RunFileDto {
    /// As it was asked for.
    pub path: String,
    /// Null when it could not be read.
    pub content: Option<String>,
    pub encoding: Option<Encoding>,
    /// Why it could not be read.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub error: Option<Failure>,
}

impl From<OutputFile> for RunFileDto {
    fn from(file: OutputFile) -> Self {
        let (content, error) = match file.content {
            Ok(content) => (Some(content), None),
            Err(failure) => (None, Some(failure)),
        };
        let encoding = content.as_ref().map(encoding);
        Self { path: file.path, content: content.map(|content| content.content), encoding, error }
    }
}

fn encoding(text: &Text) -> Encoding {
    if text.base64 { Encoding::Base64 } else { Encoding::Utf8 }
}

impl RunDto {
    /// The run alone, without what it has come to.
    pub fn bare(run: Run) -> Self {
        Self {
            id: run.id,
            status: run.status,
            tool_id: run.tool_id,
            tool_name: run.tool_name,
            instance_id: run.instance_id,
            exec_id: (!run.code).then_some(run.exec_id),
            exit_code: None,
            signal: None,
            reason: None,
            timed_out: false,
            error: run.failure,
            stdout: None,
            stderr: None,
            stdout_encoding: None,
            stderr_encoding: None,
            truncated: false,
            duration_ms: None,
            results: Vec::new(),
            raised: None,
            files: None,
            created_by: run.created_by,
            created_at: run.created_at,
            ended_at: run.ended_at,
        }
    }

    pub fn of(run: Run, outcome: Outcome) -> Self {
        let bare = Self::bare(run);
        let files = outcome.files.map(|files| files.into_iter().map(RunFileDto::from).collect());
        match outcome.output {
            None => Self { files, ..bare },
            Some(output) => Self { files, ..bare.with(output) },
        }
    }

    fn with(self, output: Output) -> Self {
        let told = |text: &Text| text.base64.then_some(Encoding::Base64);
        Self {
            exit_code: output.exit_code,
            signal: output.signal,
            reason: Some(output.reason),
            timed_out: output.reason == Reason::Timeout,
            stdout_encoding: told(&output.stdout),
            stderr_encoding: told(&output.stderr),
            stdout: Some(output.stdout.content),
            stderr: Some(output.stderr.content),
            truncated: output.truncated,
            duration_ms: Some(output.duration_ms),
            results: output.results.into_iter().map(CodeResult::from).collect(),
            raised: output.raised,
            ..self
        }
    }

    /// As an event, whose output was told already.
    pub fn without_output(self) -> Self {
        Self { stdout: None, stderr: None, stdout_encoding: None, stderr_encoding: None, results: Vec::new(), ..self }
    }
}

/// Which runs.
#[derive(Debug, IntoParams)]
#[into_params(parameter_in = Query)]
pub struct RunsQuery {
    /// Such as `starting,executing`; several are separated by commas.
    #[param(value_type = Option<String>)]
    pub status: Vec<RunStatus>,
    #[param(ignore)]
    pub page: PageQuery,
}

impl FromQuery for RunsQuery {
    fn from_query(query: &mut QueryReader) -> Self {
        let mut status = Vec::new();
        for name in query.list("status") {
            match RunStatus::from_name(&name) {
                Some(one) => status.push(one),
                None => query
                    .error("status", format!("must be one of {}", RunStatus::ALL.map(RunStatus::as_str).join(", "))),
            }
        }
        Self { status, page: PageQuery::from_query(query) }
    }
}

/// How long to wait in line.
#[derive(Debug, IntoParams)]
#[into_params(parameter_in = Query)]
pub struct CreateRunQuery {
    /// How long to wait in line for an instance, where the team's quota or the cloud account's is used up. Default 0: 429 with the
    /// number in line. Whoever hangs up gives up its place.
    #[param(value_type = Option<String>, example = "5m")]
    pub queue: QueueQuery,
}

impl FromQuery for CreateRunQuery {
    fn from_query(query: &mut QueryReader) -> Self {
        Self { queue: QueueQuery::from_query(query) }
    }
}

/// How long to wait.
#[derive(Debug, IntoParams)]
#[into_params(parameter_in = Query)]
pub struct RunQuery {
    /// Wait so long for it to end. Default 0.
    #[param(value_type = Option<String>, example = "30s")]
    pub wait: Option<Seconds>,
}

impl FromQuery for RunQuery {
    fn from_query(query: &mut QueryReader) -> Self {
        Self { wait: query.duration("wait") }
    }
}

impl RunQuery {
    /// # Errors
    /// `validation_failed` for more than the configuration allows.
    pub fn patience(&self, app: &App) -> Result<Duration> {
        crate::app::wait::patience(self.wait, Duration::ZERO, app.config.instances.max_wait)
    }
}
