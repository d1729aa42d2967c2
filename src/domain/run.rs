//! Runs: an instance that is made for one command or piece of code, and is gone after it.

use std::collections::BTreeMap;

use chrono::{DateTime, Utc};
use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

use super::{
    code::{CodeError, Language, Shown},
    exec::{Command, Reason},
};
use crate::{
    error::{Code, Error, UpstreamRef},
    ids::{ExecId, InstanceId, KeyId, RunId, TeamId, ToolId},
};

/// Where a run is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "lowercase")]
pub enum RunStatus {
    /// Its instance is being started.
    Starting,
    /// Its files are being written.
    Uploading,
    Executing,
    /// What was asked for is being read.
    Collecting,
    /// Its instance is being stopped.
    Stopping,
    /// It ran to the end of its command, whatever that came to.
    Done,
    /// It did not come that far; `error` says why.
    Failed,
}

impl RunStatus {
    pub const ALL: [Self; 7] =
        [Self::Starting, Self::Uploading, Self::Executing, Self::Collecting, Self::Stopping, Self::Done, Self::Failed];

    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Starting => "starting",
            Self::Uploading => "uploading",
            Self::Executing => "executing",
            Self::Collecting => "collecting",
            Self::Stopping => "stopping",
            Self::Done => "done",
            Self::Failed => "failed",
        }
    }

    /// From a stored name.
    #[must_use]
    pub fn from_name(name: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|status| status.as_str() == name)
    }

    /// Nothing will change any more.
    #[must_use]
    pub const fn is_final(self) -> bool {
        matches!(self, Self::Done | Self::Failed)
    }
}

/// What is to be run, and with what. Not `Debug`: there are secrets in it.
#[derive(Clone, Serialize, Deserialize)]
pub struct Input {
    pub work: Work,
    pub env: BTreeMap<String, String>,
    pub files: Vec<InputFile>,
    /// Files that are read afterwards.
    pub collect: Vec<String>,
    /// Whose are the files, and who runs the command; `None`: the default of the tool's type.
    pub user: Option<String>,
    /// Bytes of each stream that are kept.
    pub output_limit: u64,
}

/// A command, or code.
#[derive(Clone, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Work {
    Command { command: Command, cwd: Option<String> },
    Code { code: String, language: Option<Language> },
}

/// A file that is written before.
#[derive(Clone, Serialize, Deserialize)]
pub struct InputFile {
    pub path: String,
    #[serde(with = "base64_text")]
    pub content: Vec<u8>,
}

/// Bytes as JSON holds them best.
mod base64_text {
    use base64::{Engine, prelude::BASE64_STANDARD};
    use serde::{Deserialize, Deserializer, Serializer, de::Error};

    pub fn serialize<S: Serializer>(bytes: &[u8], serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(&BASE64_STANDARD.encode(bytes))
    }

    pub fn deserialize<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Vec<u8>, D::Error> {
        let text = String::deserialize(deserializer)?;
        BASE64_STANDARD.decode(text).map_err(D::Error::custom)
    }
}

/// What came of the command or the code.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Output {
    /// Of code 0, or 1 when it raised something. `None` when it did not come to its end.
    pub exit_code: Option<i32>,
    pub signal: Option<String>,
    pub reason: Reason,
    /// Why it did not come to its end, in words.
    pub error: Option<String>,
    pub stdout: Text,
    pub stderr: Text,
    /// Something was beyond the limits.
    pub truncated: bool,
    pub duration_ms: u64,
    /// What the code showed.
    pub results: Vec<Shown>,
    /// What it raised.
    pub raised: Option<CodeError>,
}

/// Bytes as text, or in base64.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Text {
    pub content: String,
    pub base64: bool,
}

impl From<(String, Option<&'static str>)> for Text {
    fn from((content, encoding): (String, Option<&'static str>)) -> Self {
        Self { content, base64: encoding.is_some() }
    }
}

/// A file that was asked for.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct OutputFile {
    /// As it was asked for.
    pub path: String,
    /// Or why there is none.
    pub content: Result<Text, Failure>,
}

/// Why something failed.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[schema(as = RunFailure)]
pub struct Failure {
    /// A `code` of problem documents; `cancelled`; `code_lost` when the gateway that followed the code is gone.
    #[schema(example = "instance_start_failed")]
    pub code: String,
    pub detail: String,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub upstream: Option<UpstreamRef>,
}

impl Failure {
    #[must_use]
    pub fn new(code: &str, detail: impl Into<String>) -> Self {
        let detail: String = detail.into();
        // The database takes no NUL.
        Self { code: code.to_owned(), detail: detail.replace('\0', "\u{fffd}"), upstream: None }
    }

    /// Somebody cancelled the run.
    #[must_use]
    pub fn cancelled() -> Self {
        Self::new("cancelled", "The run was cancelled.")
    }

    #[must_use]
    pub fn too_large(limit: u64) -> Self {
        let detail = format!("The files of a run may have {limit} bytes together.");
        Self::new(Code::BodyTooLarge.as_str(), detail)
    }
}

impl From<&Error> for Failure {
    fn from(error: &Error) -> Self {
        let inner = error.inner();
        Self {
            code: inner.code.as_str().to_owned(),
            // The database takes no NUL.
            detail: inner.detail.replace('\0', "\u{fffd}"),
            upstream: inner.upstream.clone(),
        }
    }
}

/// Where the request came from.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Origin {
    pub request_id: String,
    pub client: Option<String>,
    pub on_behalf_of: Option<String>,
}

/// A run, without what it was given.
#[derive(Clone, Debug, PartialEq)]
pub struct Run {
    pub id: RunId,
    pub team_id: TeamId,
    pub created_by: KeyId,
    pub tool_id: ToolId,
    pub tool_name: String,
    pub instance_id: InstanceId,
    pub exec_id: ExecId,
    /// It runs code, not a command.
    pub code: bool,
    pub origin: Origin,
    pub status: RunStatus,
    /// Of the command or the code.
    pub timeout_seconds: u32,
    pub failure: Option<Failure>,
    pub created_at: DateTime<Utc>,
    pub cancelled_at: Option<DateTime<Utc>>,
    pub ended_at: Option<DateTime<Utc>>,
    /// Counts those who drove it.
    pub epoch: i32,
}

/// What a run came to.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Outcome {
    pub output: Option<Output>,
    /// `None` until they were collected.
    pub files: Option<Vec<OutputFile>>,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn statuses_are_found_by_their_names() {
        for status in RunStatus::ALL {
            assert_eq!(RunStatus::from_name(status.as_str()), Some(status));
            assert_eq!(serde_json::to_value(status).unwrap(), status.as_str());
        }
        assert_eq!(RunStatus::from_name("gone"), None);
    }

    #[test]
    fn input_survives_its_storage_byte_for_byte() {
        let input = Input {
            work: Work::Command { command: Command::Argv(vec!["a\0b".into()]), cwd: None },
            env: [("A".to_owned(), "\u{0}é".to_owned())].into(),
            files: vec![InputFile { path: "x".into(), content: (0..=255).collect() }],
            collect: vec!["y".into()],
            user: None,
            output_limit: 1,
        };
        let stored = serde_json::to_vec(&input).unwrap();
        let read: Input = serde_json::from_slice(&stored).unwrap();
        assert_eq!(read.files[0].content, input.files[0].content);
        assert_eq!(read.env, input.env);
        assert!(matches!(read.work, Work::Command { command: Command::Argv(argv), .. } if argv == ["a\0b"]));
    }
}
