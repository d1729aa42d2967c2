//! The history: what was done, by whom, and what was used.

use chrono::{DateTime, Utc};
use serde::{Deserialize, Serialize};

use crate::ids::{AuditId, ExecId, InstanceId, KeyId, TeamId, ToolId};

/// Something that was done, or tried. Fields are named like the columns that hold them.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct AuditEvent {
    pub id: AuditId,
    pub at: DateTime<Utc>,
    /// Whose things it was about.
    pub team_id: TeamId,
    /// `None`: whoever holds the database's credentials, or the gateway itself.
    pub key_id: Option<KeyId>,
    pub key_prefix: Option<String>,
    /// The end user, as the caller says.
    pub on_behalf_of: Option<String>,
    /// The client's address.
    pub client: Option<String>,
    pub request_id: String,
    /// An operation's id, such as `create_instance`, or a deed of the gateway's own, such as `expire_instance`.
    pub action: String,
    pub instance_id: Option<InstanceId>,
    pub tool_id: Option<ToolId>,
    pub exec_id: Option<ExecId>,
    /// Anything else that it was about: a key, a team, a preview, a context.
    pub target_id: Option<String>,
    /// It started a command or code.
    pub runs: bool,
    /// The command line or the code, without secrets.
    pub command: Option<String>,
    /// [`OK`], [`REPLAYED`], [`CLIENT_LEFT`] or an error's code; `None` when it is not known (yet).
    pub outcome: Option<String>,
    /// Of HTTP.
    pub status: Option<i32>,
    /// How what it ran ended; of the gateway's own deeds, why.
    pub reason: Option<String>,
    pub exit_code: Option<i32>,
    pub upstream_request_id: Option<String>,
    /// Until the answer; of what it ran, until its end.
    pub duration_ms: Option<i64>,
}

pub const OK: &str = "ok";
/// Stands where the prefix of a key does, for what the gateway does of its own accord.
pub const GATEWAY: &str = "system";
/// An earlier answer was given again.
pub const REPLAYED: &str = "replayed";
/// The client went before there was an answer.
pub const CLIENT_LEFT: &str = "client_left";

/// Longest `X-On-Behalf-Of`, in characters.
pub const MAX_ON_BEHALF_OF: usize = 128;

/// Whether a text may name an end user: 1 to [`MAX_ON_BEHALF_OF`] characters, no control characters, no spaces at its ends.
#[must_use]
pub fn names_a_user(text: &str) -> bool {
    let length = text.chars().count();
    (1..=MAX_ON_BEHALF_OF).contains(&length) && !text.chars().any(char::is_control) && text.trim() == text
}

/// The end of what an event started.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct RunEnd {
    /// Of the event that started it; without one it is found by `exec_id`.
    pub id: Option<AuditId>,
    pub exec_id: Option<ExecId>,
    pub reason: String,
    pub exit_code: Option<i32>,
    pub duration_ms: i64,
}

/// Who used something: what counts are kept by.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize)]
pub struct UsedBy {
    pub team_id: TeamId,
    pub tool_id: ToolId,
    pub key_id: KeyId,
}

/// Counts of commands and code.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize)]
pub struct Used {
    pub execs: i64,
    pub exec_ms: i64,
    /// Output.
    pub bytes: i64,
}

impl std::ops::AddAssign for Used {
    fn add_assign(&mut self, other: Self) {
        self.execs += other.execs;
        self.exec_ms += other.exec_ms;
        self.bytes += other.bytes;
    }
}

/// What usage is told by.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, utoipa::ToSchema)]
#[serde(rename_all = "lowercase")]
pub enum GroupBy {
    Team,
    Tool,
    Key,
}

impl GroupBy {
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Team => "team",
            Self::Tool => "tool",
            Self::Key => "key",
        }
    }
}

/// It must be `team`, `tool` or `key`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("must be `team`, `tool` or `key`")]
pub struct UnknownGroup;

impl std::str::FromStr for GroupBy {
    type Err = UnknownGroup;
    fn from_str(text: &str) -> Result<Self, UnknownGroup> {
        [Self::Team, Self::Tool, Self::Key].into_iter().find(|group| group.as_str() == text).ok_or(UnknownGroup)
    }
}

/// What a team, a tool or a key used in a span of time.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Usage {
    pub id: String,
    pub team_id: TeamId,
    pub name: Option<String>,
    pub instances: u64,
    pub instance_seconds: u64,
    pub execs: u64,
    pub exec_seconds: u64,
    pub bytes: u64,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn end_users_are_named_in_bounded_plain_text() {
        for good in ["u-42", "anna@example.com", "Žofie N.", &"x".repeat(128)] {
            assert!(names_a_user(good), "{good:?}");
        }
        for bad in ["", " a", "a\tb", "a\u{7f}", &"x".repeat(129)] {
            assert!(!names_a_user(bad), "{bad:?}");
        }
    }
}
