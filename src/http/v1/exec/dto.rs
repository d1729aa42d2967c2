//! What callers send and get.

use std::collections::BTreeMap;

use chrono::{DateTime, Utc};
use serde::{Deserialize, Serialize};
use serde_json::value::RawValue;
use utoipa::{IntoParams, ToSchema};

use super::encode::milliseconds;
use crate::{
    domain::{
        duration::Seconds,
        exec::{Command, Cursor, Exec, ExecStatus, Exit, PtySize, Reason, Signal, Spec, UnknownSignal},
    },
    error::{Error, Result},
    http::{
        extract::{FromQuery, QueryReader},
        page::PageQuery,
    },
    ids::{ExecId, InstanceId, KeyId},
};

/// A command to be run.
#[derive(Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
#[schema(example = json!({"cmd": "echo hello", "timeout": "30s"}))]
pub struct ExecRequest {
    /// A line for `/bin/bash -l -c`, or a program and its arguments. May be left out for a terminal: a login shell.
    #[schema(required = true, example = "echo hello")]
    pub cmd: Option<Command>,
    /// Whom it runs as. Default: `root` in custom tools, `user` in code interpreters.
    #[schema(example = "root", min_length = 1, max_length = 64, pattern = "^[^:\\x00-\\x1f\\x7f-\\x9f]+$")]
    pub user: Option<String>,
    /// Absolute, `~`, or relative to the user's home.
    #[schema(min_length = 1)]
    pub cwd: Option<String>,
    /// On top of the instance's environment.
    #[serde(default)]
    #[schema(required = false)]
    pub env: BTreeMap<String, String>,
    /// It is killed then. Default: 60 s when the call waits or streams, none in the background and over WebSocket.
    #[schema(required = false)]
    pub timeout: Option<Seconds>,
    /// Whether it gets an input that can be written to. Without, its input is empty.
    #[serde(default)]
    pub stdin: bool,
    /// Run it in a terminal of this size.
    #[schema(required = false)]
    pub pty: Option<PtySize>,
    /// Answer when it runs. It then lives on by itself.
    #[serde(default)]
    pub background: bool,
    /// A name of the caller's for it.
    #[schema(min_length = 1, max_length = 128, pattern = "^[^\\x00-\\x1f\\x7f-\\x9f]+$")]
    pub tag: Option<String>,
    /// Its output and its exit code go to files in the sandbox and are read from there: nothing is lost when the way to it
    /// breaks or the gateway is gone. Not for a terminal. A program killed by signal n ends with exit code 128 + n.
    #[serde(default)]
    pub durable: bool,
    /// While it runs, its instance counts as used, though nobody waits for it or looks on. What is waited for counts anyway.
    #[serde(default)]
    pub keep_alive: bool,
    /// Bytes of stdout and of stderr kept for a waiting answer. Default: 1 MiB.
    #[schema(required = false)]
    pub output_limit: Option<u64>,
}

impl ExecRequest {
    /// # Errors
    /// `validation_failed` for what is missing or cannot be had. The rest is validated where it is run.
    pub fn into_spec(self) -> Result<Spec> {
        let command = match (self.cmd, self.pty) {
            (Some(command), _) => command,
            (None, Some(_)) => Command::login_shell(),
            (None, None) => return Err(Error::field("cmd", "this field is required")),
        };
        Ok(Spec {
            command,
            user: self.user,
            cwd: self.cwd,
            env: self.env,
            timeout: self.timeout.map(Seconds::to_std),
            stdin: self.stdin,
            pty: self.pty,
            background: self.background,
            durable: self.durable,
            keep_alive: self.keep_alive,
            tag: self.tag,
            output_limit: self.output_limit,
        })
    }
}

/// A command that ran to its end. One that failed is a success of this call.
#[derive(Debug, Serialize, ToSchema)]
pub struct ExecResult {
    pub exec_id: ExecId,
    pub pid: Option<u32>,
    /// Null when a signal ended it, or its end was not seen.
    pub exit_code: Option<i32>,
    #[schema(example = "SIGKILL")]
    pub signal: Option<String>,
    pub reason: Reason,
    pub timed_out: bool,
    pub error: Option<String>,
    /// What it wrote; a terminal's output stands here too.
    pub stdout: String,
    pub stderr: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(example = "base64")]
    pub stdout_encoding: Option<&'static str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(example = "base64")]
    pub stderr_encoding: Option<&'static str>,
    /// Whether output beyond `output_limit` was cut.
    pub truncated: bool,
    pub duration_ms: u64,
}

/// A command.
#[derive(Debug, Serialize, ToSchema)]
#[schema(as = Exec)]
pub struct ExecDto {
    pub id: ExecId,
    pub instance_id: InstanceId,
    pub cmd: Command,
    pub user: String,
    pub tag: Option<String>,
    pub background: bool,
    /// It counts as use of its instance while it runs, though nobody waits for it.
    pub keep_alive: bool,
    pub pty: bool,
    pub status: ExecStatus,
    pub pid: Option<u32>,
    pub exit_code: Option<i32>,
    pub signal: Option<String>,
    pub reason: Option<Reason>,
    pub error: Option<String>,
    pub created_by: KeyId,
    pub started_at: DateTime<Utc>,
    pub ended_at: Option<DateTime<Utc>>,
    pub duration_ms: Option<u64>,
}

impl From<Exec> for ExecDto {
    fn from(exec: Exec) -> Self {
        let exit = exec.exit();
        Self {
            id: exec.id,
            instance_id: exec.instance_id,
            cmd: exec.command,
            user: exec.user,
            tag: exec.tag,
            background: exec.background,
            keep_alive: exec.keep_alive,
            pty: exec.pty,
            status: exec.status,
            pid: exec.pid,
            exit_code: exec.exit_code,
            signal: exec.signal,
            reason: exit.as_ref().map(|exit: &Exit| exit.reason),
            error: exec.error,
            created_by: exec.created_by,
            started_at: exec.started_at,
            ended_at: exec.ended_at,
            duration_ms: exit.map(|exit| milliseconds(exit.duration)),
        }
    }
}

/// Which signal.
#[derive(Debug, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct SignalRequest {
    #[schema(
        example = "SIGINT",
        pattern = "^(SIG)?(HUP|INT|QUIT|ILL|TRAP|ABRT|BUS|FPE|KILL|USR1|SEGV|USR2|PIPE|ALRM|TERM|STKFLT|CHLD|CONT|STOP|TSTP|TTIN|TTOU|URG|XCPU|XFSZ|VTALRM|PROF|WINCH|IO|SYS)$"
    )]
    pub signal: String,
}

/// # Errors
/// `validation_failed` for what is no signal's name.
pub fn signal(name: &str) -> Result<Signal> {
    name.parse().map_err(|error: UnknownSignal| Error::field("signal", error.to_string()))
}

/// The events there are, where they end, and whether more may come.
#[derive(Serialize, ToSchema)]
pub struct OutputDocument {
    /// As they are streamed, with their `type`.
    #[schema(value_type = Vec<serde_json::Map<String, serde_json::Value>>)]
    pub events: Vec<Box<RawValue>>,
    pub cursor: String,
    pub status: ExecStatus,
}

/// Which commands.
#[derive(Debug, IntoParams)]
#[into_params(parameter_in = Query)]
pub struct ExecsQuery {
    /// `running`, `exited`, `lost`; several are separated by commas.
    #[param(value_type = Option<String>)]
    pub status: Vec<ExecStatus>,
    #[param(ignore)]
    pub page: PageQuery,
}

impl FromQuery for ExecsQuery {
    fn from_query(query: &mut QueryReader) -> Self {
        let mut status = Vec::new();
        for name in query.list("status") {
            match ExecStatus::from_name(&name) {
                Some(one) => status.push(one),
                None => query.error("status", "must be `running`, `exited` or `lost`"),
            }
        }
        Self { status, page: PageQuery::from_query(query) }
    }
}

/// Which part of the output.
#[derive(Debug, IntoParams)]
#[into_params(parameter_in = Query)]
pub struct OutputQuery {
    /// The cursor of the last event seen. Default: from the beginning.
    #[param(value_type = Option<String>)]
    pub after: Option<Cursor>,
    /// Go on until the command ends. For SSE and NDJSON.
    #[param(value_type = Option<bool>, default = false)]
    pub follow: bool,
}

impl FromQuery for OutputQuery {
    fn from_query(query: &mut QueryReader) -> Self {
        Self { after: query.parsed("after"), follow: query.parsed("follow").unwrap_or_default() }
    }
}

/// Where a socket begins, and what it may.
#[derive(Debug, IntoParams)]
#[into_params(parameter_in = Query)]
pub struct WsQuery {
    /// The cursor of the last event seen. Default: from the beginning.
    #[param(value_type = Option<String>)]
    pub after: Option<Cursor>,
    /// `viewer` looks on, `writer` sends input too (scope `exec`).
    #[param(rename = "role", value_type = Option<String>, pattern = "^(viewer|writer)$", default = "viewer")]
    pub writer: bool,
}

impl FromQuery for WsQuery {
    fn from_query(query: &mut QueryReader) -> Self {
        let writer = match query.text("role").as_deref() {
            None | Some("viewer") => false,
            Some("writer") => true,
            Some(_) => {
                query.error("role", "must be `viewer` or `writer`");
                false
            }
        };
        Self { after: query.parsed("after"), writer }
    }
}
