//! Commands in instances: what is asked for, what becomes of it, and places in its output.

mod cursor;
mod kept;
mod output;
mod signal;
mod spec;
mod text;

use std::time::Duration;

use chrono::{DateTime, Utc};
use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

pub use self::{
    cursor::{Carried, Cursor, InvalidCursor},
    kept::{BASE64, Kept, as_text},
    output::{FIRST, GapReason, Offsets, Run, STARTED, Segment},
    signal::{Signal, UnknownSignal},
    spec::{Command, Limits, PtySize, Spec, env_problems},
    text::{Partial, Parts},
};
use crate::ids::{ExecId, InstanceId, KeyId, TeamId};

/// Where output comes from.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Stream {
    Stdout,
    Stderr,
    /// A terminal, which has one stream only.
    Pty,
}

impl Stream {
    pub const ALL: [Self; 3] = [Self::Stdout, Self::Stderr, Self::Pty];

    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Stdout => "stdout",
            Self::Stderr => "stderr",
            Self::Pty => "pty",
        }
    }

    /// Its number in binary frames and in the database.
    #[must_use]
    pub const fn number(self) -> u8 {
        self.index() as u8 + 1
    }

    #[must_use]
    pub const fn index(self) -> usize {
        match self {
            Self::Stdout => 0,
            Self::Stderr => 1,
            Self::Pty => 2,
        }
    }
}

/// Whether a command runs.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "lowercase")]
pub enum ExecStatus {
    Running,
    Exited,
    /// Its end was not seen: the way to it broke, or the gateway that followed it is gone.
    Lost,
}

/// How a command ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "lowercase")]
pub enum Reason {
    /// By itself.
    Exited,
    /// By a signal that the gateway did not send to end it.
    Signalled,
    /// Killed at its timeout.
    Timeout,
    /// Killed on request, or because the request it belonged to ended.
    Killed,
    /// Its end was not seen.
    Lost,
}

macro_rules! names {
    ($name:ident { $($variant:ident = $text:literal,)* }) => {
        impl $name {
            #[must_use]
            pub const fn as_str(self) -> &'static str {
                match self { $(Self::$variant => $text,)* }
            }

            /// From a stored name.
            #[must_use]
            pub fn from_name(name: &str) -> Option<Self> {
                match name {
                    $($text => Some(Self::$variant),)*
                    _ => None,
                }
            }
        }
    };
}

names! { ExecStatus { Running = "running", Exited = "exited", Lost = "lost", } }
names! { Reason { Exited = "exited", Signalled = "signalled", Timeout = "timeout", Killed = "killed", Lost = "lost", } }

/// The end of a command.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Exit {
    /// `None` when a signal ended it, or its end was not seen.
    pub exit_code: Option<i32>,
    /// Such as `SIGKILL`.
    pub signal: Option<String>,
    pub reason: Reason,
    pub error: Option<String>,
    pub duration: Duration,
}

impl Exit {
    /// An end that nobody saw.
    #[must_use]
    pub fn lost(error: &str, duration: Duration) -> Self {
        Self { exit_code: None, signal: None, reason: Reason::Lost, error: Some(error.to_owned()), duration }
    }

    #[must_use]
    pub fn status(&self) -> ExecStatus {
        if self.reason == Reason::Lost { ExecStatus::Lost } else { ExecStatus::Exited }
    }
}

/// A command as it is known afterwards: its row.
#[derive(Clone, Debug, PartialEq)]
pub struct Exec {
    pub id: ExecId,
    pub team_id: TeamId,
    pub instance_id: InstanceId,
    pub created_by: KeyId,
    pub command: Command,
    pub user: String,
    pub tag: Option<String>,
    pub background: bool,
    /// Ends with the request that started it.
    pub foreground: bool,
    pub pty: bool,
    /// Whether its input is a pipe.
    pub stdin: bool,
    /// Its output is in files in the sandbox.
    pub durable: bool,
    /// It counts as use of its instance while it runs, though nobody waits for it.
    pub keep_alive: bool,
    /// It was started by somebody else, and is known by its process id only.
    pub attached: bool,
    pub status: ExecStatus,
    pub pid: Option<u32>,
    pub exit_code: Option<i32>,
    pub signal: Option<String>,
    pub reason: Option<Reason>,
    pub error: Option<String>,
    /// Counts the owners that its output has had; cursors of another epoch are not places in this one.
    pub epoch: u32,
    /// The place after the last of its output, once it has ended.
    pub output_end: Option<u64>,
    pub started_at: DateTime<Utc>,
    /// When it is killed.
    pub expires_at: Option<DateTime<Utc>>,
    pub ended_at: Option<DateTime<Utc>>,
}

impl Exec {
    /// The same, ended.
    #[must_use]
    pub fn ended(self, exit: &Exit) -> Self {
        let lasted = chrono::Duration::from_std(exit.duration).unwrap_or_default();
        Self {
            status: exit.status(),
            exit_code: exit.exit_code,
            signal: exit.signal.clone(),
            reason: Some(exit.reason),
            error: exit.error.clone(),
            ended_at: Some(self.started_at + lasted),
            ..self
        }
    }

    /// How it ended, if it did.
    #[must_use]
    pub fn exit(&self) -> Option<Exit> {
        let reason = match (self.status, self.reason) {
            (ExecStatus::Running, _) => return None,
            (_, Some(reason)) => reason,
            (_, None) => Reason::Lost,
        };
        let duration = self.ended_at.and_then(|ended| (ended - self.started_at).to_std().ok()).unwrap_or_default();
        Some(Exit {
            exit_code: self.exit_code,
            signal: self.signal.clone(),
            reason,
            error: self.error.clone(),
            duration,
        })
    }
}
