//! Tools: templates of instances.

use std::collections::BTreeMap;

use chrono::{DateTime, Utc};
use serde::{Deserialize, Serialize};

use super::{
    checks::Checks,
    open_enum::open_enum,
    spec::{self, Container, LogFiles, Network, StorageMount},
};
use crate::ids::{KeyId, TeamId, ToolId};

/// Type of a tool whose image the caller chooses.
pub const CUSTOM: &str = "custom";
pub const MAX_DESCRIPTION: usize = 200;
const MAX_TAGS: usize = 40;
const MAX_TAG_KEY: usize = 127;
const MAX_TAG_VALUE: usize = 255;

open_enum! {
    /// Where a tool is in its life.
    ToolStatus {
        Creating = "CREATING",
        Active = "ACTIVE",
        Failed = "FAILED",
        Deleting = "DELETING",
    }
}

/// A tool as the gateway knows it.
#[derive(Clone, Debug, PartialEq)]
pub struct Tool {
    pub id: ToolId,
    /// `None`: one that the cloud has for everybody, shared with all teams by configuration.
    pub team_id: Option<TeamId>,
    pub upstream: String,
    pub upstream_id: Option<String>,
    pub client_token: String,
    pub name: String,
    /// `custom`, `code-interpreter`, …
    pub kind: String,
    pub spec: ToolSpec,
    pub status: ToolStatus,
    pub status_reason: Option<String>,
    pub created_by: Option<KeyId>,
    pub created_at: DateTime<Utc>,
    pub updated_at: DateTime<Utc>,
    pub deleted_at: Option<DateTime<Utc>>,
}

impl Tool {
    #[must_use]
    pub fn is_shared(&self) -> bool {
        self.team_id.is_none()
    }

    #[must_use]
    pub fn is_of(&self, team: &TeamId) -> bool {
        self.team_id.as_ref() == Some(team)
    }
}

/// What a tool was asked to be, defaults filled in.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct ToolSpec {
    pub description: Option<String>,
    pub default_timeout_seconds: Option<u32>,
    pub network: Network,
    pub container: Container,
    pub tags: BTreeMap<String, String>,
    pub role_arn: Option<String>,
    pub storage_mounts: Vec<StorageMount>,
    /// Whether the configured envd volume is mounted too.
    pub mount_envd: bool,
    pub log: Option<LogFiles>,
    pub persistent: Option<bool>,
}

impl ToolSpec {
    /// Checks what can be known without the cloud.
    pub fn check(&self, checks: &mut Checks) {
        let length = self.description.as_deref().map_or(0, |text| text.chars().count());
        checks.that(length <= MAX_DESCRIPTION, "description", format!("may have up to {MAX_DESCRIPTION} characters"));
        if let Some(seconds) = self.default_timeout_seconds {
            check_timeout(checks, "default_timeout", seconds);
        }
        self.network.check(checks);
        self.container.check(checks);
        self.check_tags(checks);
        spec::check_mounts(&self.storage_mounts, checks);
        if let Some(log) = &self.log {
            log.check(checks);
        }
    }

    fn check_tags(&self, checks: &mut Checks) {
        checks.that(self.tags.len() <= MAX_TAGS, "tags", format!("may have up to {MAX_TAGS} entries"));
        for (key, value) in &self.tags {
            let field = || format!("tags.{key}");
            let fits = (1..=MAX_TAG_KEY).contains(&key.chars().count()) && !key.chars().any(char::is_control);
            checks.that(fits, field(), format!("a key has 1 to {MAX_TAG_KEY} characters"));
            checks.that(!spec::is_reserved(key), field(), "this prefix is the gateway's own");
            let short = value.chars().count() <= MAX_TAG_VALUE && !value.chars().any(char::is_control);
            checks.that(short, field(), format!("a value has up to {MAX_TAG_VALUE} characters"));
        }
    }
}

/// Shortest and longest life of an instance that v1 accepts, seconds.
pub const TIMEOUT_RANGE: std::ops::RangeInclusive<u32> = 30..=86_400;

/// Checks a life of an instance.
pub fn check_timeout(checks: &mut Checks, field: &str, seconds: u32) {
    checks.that(TIMEOUT_RANGE.contains(&seconds), field, "must lie between 30s and 24h");
}

/// A tool's type is a word; which words there are is the cloud's to say.
pub fn check_type(checks: &mut Checks, kind: &str) {
    let word = (1..=50).contains(&kind.len())
        && kind.bytes().all(|b| b.is_ascii_lowercase() || b.is_ascii_digit() || b == b'-');
    checks.that(word, "type", "must be a type such as custom, code-interpreter or browser");
}
