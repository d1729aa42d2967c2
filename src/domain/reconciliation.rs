//! What the database and the cloud say differently of each other, and what is done about it.

use chrono::{DateTime, Utc};
use serde::Serialize;
use utoipa::ToSchema;

use crate::ids::TeamId;

/// What can differ.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, ToSchema)]
#[serde(rename_all = "lowercase")]
pub enum Kind {
    Instance,
    Tool,
}

impl Kind {
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Instance => "instance",
            Self::Tool => "tool",
        }
    }
}

/// Why something in the cloud is an orphan.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, ToSchema)]
#[serde(rename_all = "snake_case")]
pub enum OrphanReason {
    /// The gateway knows that it has ended.
    Ended,
    /// The gateway does not know it, though it carries its stamp.
    Unknown,
    /// Another one stands for the same instance.
    Twin,
}

/// Something that carries our stamp and that no live row stands for.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, ToSchema)]
pub struct Orphan {
    pub kind: Kind,
    pub upstream: String,
    pub upstream_id: String,
    /// The id that its stamp says.
    pub id: String,
    pub team_id: Option<TeamId>,
    /// As the cloud shows it.
    pub status: String,
    pub reason: OrphanReason,
    /// When a pass saw it first.
    pub since: DateTime<Utc>,
    /// Its grace has passed: a pass stops it.
    pub due: bool,
}

/// Something that should be in the cloud and is not shown there.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, ToSchema)]
pub struct Missing {
    pub kind: Kind,
    pub upstream: String,
    pub upstream_id: String,
    pub id: String,
    pub team_id: Option<TeamId>,
    /// As the gateway has it.
    pub status: String,
    /// When a pass missed it first.
    pub since: DateTime<Utc>,
    /// Its grace has passed: a pass records its end.
    pub due: bool,
}

/// Why an upstream is left as it is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, ToSchema)]
#[serde(rename_all = "snake_case")]
pub enum BrakeReason {
    /// The cloud's list contradicts itself. Never overridden.
    ListingUnsound,
    /// Far less is listed than should be there.
    TooManyMissing,
    /// Far more is to be stopped than is plausible.
    TooManyOrphans,
}

/// An upstream in which nothing is stopped and nothing ended, for somebody to look at.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, ToSchema)]
pub struct Brake {
    pub upstream: String,
    pub reason: BrakeReason,
    pub detail: String,
}

/// What a look, or a pass, has found; and what a pass has done.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, ToSchema)]
pub struct Report {
    pub checked_at: DateTime<Utc>,
    /// Every upstream could be listed, and no list contradicted itself.
    pub complete: bool,
    /// Nothing was changed.
    pub dry_run: bool,
    pub orphans: Vec<Orphan>,
    pub missing: Vec<Missing>,
    /// Instances in the account that do not carry our stamp. They are never touched.
    pub foreign: u64,
    /// Tools in the account that do not carry our stamp, the cloud's own included.
    pub foreign_tools: u64,
    /// The orphans that a pass stops (tools: deletes) unless it is braked.
    pub would_stop: Vec<Orphan>,
    /// Ids of the missing ones whose end a pass records unless it is braked.
    pub would_end: Vec<String>,
    /// In at least one upstream nothing was, or would be, stopped or ended.
    pub braked: bool,
    pub brakes: Vec<Brake>,
    /// Upstreams that could not be listed.
    pub unreachable: Vec<String>,
    /// The cloud's ids of what this pass stopped.
    pub stopped: Vec<String>,
    /// Ids of what this pass recorded as ended.
    pub ended: Vec<String>,
    /// Ids of what was brought to what the cloud shows.
    pub adopted: Vec<String>,
}

impl Report {
    /// Nothing was found yet.
    #[must_use]
    pub fn begin(checked_at: DateTime<Utc>, dry_run: bool) -> Self {
        Self {
            checked_at,
            complete: true,
            dry_run,
            orphans: Vec::new(),
            missing: Vec::new(),
            foreign: 0,
            foreign_tools: 0,
            would_stop: Vec::new(),
            would_end: Vec::new(),
            braked: false,
            brakes: Vec::new(),
            unreachable: Vec::new(),
            stopped: Vec::new(),
            ended: Vec::new(),
            adopted: Vec::new(),
        }
    }
}

/// How much may end at once before somebody has to look.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Tolerance {
    /// So much is always let pass.
    pub count: u32,
    /// So much of what there is.
    pub percent: u32,
}

impl Tolerance {
    /// Whether `some` of `all` is too much.
    #[must_use]
    pub fn exceeded(self, some: usize, all: usize) -> bool {
        let share = all as u128 * u128::from(self.percent);
        some as u128 > u128::from(self.count) && some as u128 * 100 > share
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_few_always_pass_and_many_only_as_a_share() {
        let tolerance = Tolerance { count: 10, percent: 20 };
        for (some, all, exceeded) in
            [(0, 0, false), (10, 10, false), (11, 11, true), (20, 100, false), (21, 100, true), (11, 1000, false)]
        {
            assert_eq!(tolerance.exceeded(some, all), exceeded, "{some} of {all}");
        }
    }
}
