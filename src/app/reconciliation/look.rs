//! How one upstream differs from the rows.

use std::collections::HashMap;

use chrono::{DateTime, Utc};

use super::Leave;
use crate::{
    app::App,
    domain::{
        instance::Instance,
        reconciliation::{Brake, BrakeReason, Kind, Missing, Orphan, OrphanReason, Report, Tolerance},
        tool::{Tool, ToolStatus},
    },
    error::Result,
    ids::TeamId,
    storage::{instances, reconciliation, tools},
    upstream::{Listed, ListedTool, SeenInstance, Upstream},
};

/// Whether it is written down since when something has been seen.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Notes {
    Read,
    Write,
}

/// What one upstream shows other than the rows say.
pub(super) struct Difference<'a> {
    pub upstream: &'a Upstream,
    /// When it was looked at, by the database's clock.
    pub as_of: DateTime<Utc>,
    pub orphans: Vec<Orphan>,
    pub missing: Vec<Missing>,
    /// The rows of the missing ones.
    pub lost: Vec<Instance>,
    pub lost_tools: Vec<Tool>,
    /// Rows, and what the cloud shows of them.
    pub shown: Vec<(Instance, SeenInstance)>,
    /// Tools that the cloud shows to have failed.
    pub failed_tools: Vec<(Tool, Option<String>)>,
    foreign: u64,
    foreign_tools: u64,
    pub brakes: Vec<Brake>,
}

impl Difference<'_> {
    /// Whether nothing may be stopped and nothing ended.
    pub fn is_braked(&self, leave: Leave) -> bool {
        self.brakes.iter().any(|brake| !leave.force || brake.reason == BrakeReason::ListingUnsound)
    }

    /// Whether nothing may be concluded at all.
    pub fn is_unsound(&self) -> bool {
        self.brakes.iter().any(|brake| brake.reason == BrakeReason::ListingUnsound)
    }

    pub fn tell(&self, report: &mut Report, leave: Leave) {
        report.orphans.extend(self.orphans.iter().cloned());
        report.missing.extend(self.missing.iter().cloned());
        report.would_stop.extend(self.orphans.iter().filter(|orphan| orphan.due).cloned());
        report.would_end.extend(self.missing.iter().filter(|missing| missing.due).map(|missing| missing.id.clone()));
        report.foreign += self.foreign;
        report.foreign_tools += self.foreign_tools;
        report.braked |= self.is_braked(leave);
        report.complete &= !self.is_unsound();
        report.brakes.extend(self.brakes.iter().cloned());
    }
}

/// Compares an upstream with the rows.
///
/// # Errors
/// When the cloud cannot be listed, or the database fails.
pub(super) async fn at<'a>(app: &App, upstream: &'a Upstream, notes: Notes) -> Result<Difference<'a>> {
    let as_of = instances::system_now(&mut *app.pool.acquire().await?).await?;
    let listed = upstream.list_instances(&app.deployment).await?;
    let listed_tools = upstream.list_tools(&app.deployment).await?;
    let mut difference = Difference {
        upstream,
        as_of,
        orphans: Vec::new(),
        missing: Vec::new(),
        lost: Vec::new(),
        lost_tools: Vec::new(),
        shown: Vec::new(),
        failed_tools: Vec::new(),
        foreign: listed.items.iter().filter(|seen| seen.stamp.is_none() && !seen.status.is_ending()).count() as u64,
        foreign_tools: listed_tools.items.iter().filter(|seen| seen.stamp.is_none()).count() as u64,
        brakes: Vec::new(),
    };
    doubt(&mut difference, &listed, &listed_tools);
    // A listing that contradicts itself leaves no notes either.
    let look = Look { app, notes: if difference.is_unsound() { Notes::Read } else { notes } };
    look.find_orphans(&mut difference, &listed.items).await?;
    look.find_orphan_tools(&mut difference, &listed_tools.items).await?;
    look.follow_instances(&mut difference, listed.items).await?;
    look.follow_tools(&mut difference, listed_tools.items).await?;
    Ok(difference)
}

fn doubt(difference: &mut Difference<'_>, listed: &Listed<SeenInstance>, tools: &Listed<ListedTool>) {
    for (doubt, what) in [(&listed.doubt, "instances"), (&tools.doubt, "tools")] {
        if let Some(doubt) = doubt {
            let detail = format!("The list of {what} contradicts itself: {doubt}.");
            brake(difference, BrakeReason::ListingUnsound, detail);
        }
    }
}

fn brake(difference: &mut Difference<'_>, reason: BrakeReason, detail: String) {
    difference.brakes.push(Brake { upstream: difference.upstream.name().to_owned(), reason, detail });
}

struct Look<'a> {
    app: &'a App,
    notes: Notes,
}

/// Something that carries our stamp.
struct Stamped {
    upstream_id: String,
    id: String,
    team_id: Option<TeamId>,
    status: String,
    reason: OrphanReason,
}

impl Look<'_> {
    fn tolerance(&self) -> Tolerance {
        self.app.config.jobs.brake
    }

    /// What carries our stamp and is no live row's instance.
    async fn find_orphans(&self, difference: &mut Difference<'_>, seen: &[SeenInstance]) -> Result<()> {
        let stamped = |seen: &&SeenInstance| seen.stamp.is_some() && !seen.status.is_ending();
        let live: Vec<&SeenInstance> = seen.iter().filter(stamped).collect();
        let ids: Vec<String> = live.iter().filter_map(|seen| seen.stamp.as_ref().map(ToString::to_string)).collect();
        let mut connection = self.app.pool.acquire().await?;
        let rows = instances::system_by_ids(&mut connection, &ids).await?;
        drop(connection);
        let rows: HashMap<&str, &Instance> = rows.iter().map(|row| (row.id.as_str(), row)).collect();
        let orphans = live.iter().filter_map(|seen| {
            let id = seen.stamp.as_ref()?.to_string();
            let reason = orphaned(rows.get(id.as_str()).copied(), seen)?;
            let (upstream_id, status) = (seen.id.clone(), seen.status.to_string());
            Some(Stamped { upstream_id, id, team_id: seen.team.clone(), status, reason })
        });
        self.judge_orphans(difference, Kind::Instance, orphans.collect(), live.len()).await
    }

    /// What we have made and no live row stands for. What was adopted bears a name of somebody else's making, and stays.
    async fn find_orphan_tools(&self, difference: &mut Difference<'_>, seen: &[ListedTool]) -> Result<()> {
        let own = |tool: &ListedTool| {
            let (id, team_id) = tool.stamp.clone()?;
            (tool.name == id.as_str() && tool.status != ToolStatus::Deleting).then(|| (id.to_string(), team_id))
        };
        let own: Vec<_> = seen.iter().filter_map(|tool| Some((tool, own(tool)?))).collect();
        let ids: Vec<String> = own.iter().map(|(_, (id, _))| id.clone()).collect();
        let mut connection = self.app.pool.acquire().await?;
        let known = tools::system_known(&mut connection, &ids).await?;
        drop(connection);
        let all = own.len();
        let orphans = own.into_iter().filter_map(|(tool, (id, team_id))| {
            let reason = match known.get(&id) {
                None => OrphanReason::Unknown,
                Some(true) => OrphanReason::Ended,
                Some(false) => return None,
            };
            Some(Stamped { upstream_id: tool.id.clone(), id, team_id, status: tool.status.to_string(), reason })
        });
        self.judge_orphans(difference, Kind::Tool, orphans.collect(), all).await
    }

    async fn judge_orphans(
        &self,
        difference: &mut Difference<'_>,
        kind: Kind,
        orphans: Vec<Stamped>,
        all: usize,
    ) -> Result<()> {
        let upstream = difference.upstream.name();
        let mut connection = self.app.pool.acquire().await?;
        if self.notes == Notes::Write {
            let ids: Vec<String> = orphans.iter().map(|orphan| orphan.upstream_id.clone()).collect();
            reconciliation::system_note_orphans(&mut connection, upstream, kind, &ids).await?;
        }
        let noted = reconciliation::system_orphans(&mut connection, upstream, kind).await?;
        drop(connection);
        let grace = self.app.config.jobs.orphan_grace;
        let mut uncertain = 0;
        for Stamped { upstream_id, id, team_id, status, reason } in orphans {
            let since = noted.get(&upstream_id).copied().unwrap_or(difference.as_of);
            let waited = (difference.as_of - since).to_std().unwrap_or_default() >= grace;
            // Of what has ended the gateway is sure; what it does not know may be known again after a restoration.
            let due = reason != OrphanReason::Unknown || waited;
            uncertain += usize::from(due && reason == OrphanReason::Unknown);
            let upstream = upstream.to_owned();
            difference.orphans.push(Orphan { kind, upstream, upstream_id, id, team_id, status, reason, since, due });
        }
        if self.tolerance().exceeded(uncertain, all) {
            let detail = format!(
                "{uncertain} of {all} {}s with our stamp are not known here. Is it the right database, and a current one?",
                kind.as_str()
            );
            brake(difference, BrakeReason::TooManyOrphans, detail);
        }
        Ok(())
    }

    /// Finds what the cloud shows of the rows, and which it does not show.
    async fn follow_instances(&self, difference: &mut Difference<'_>, seen: Vec<SeenInstance>) -> Result<()> {
        let (app, upstream) = (self.app, difference.upstream);
        let mut connection = app.pool.acquire().await?;
        let expected = instances::system_expected(&mut connection, upstream.name()).await?;
        drop(connection);
        let mut seen: HashMap<String, SeenInstance> = seen.into_iter().map(|seen| (seen.id.clone(), seen)).collect();
        let id = |row: &Instance| row.upstream_id.clone().unwrap_or_default();
        let absent: Vec<String> = expected.iter().map(id).filter(|id| !seen.contains_key(id)).collect();
        if !absent.is_empty() {
            // A listing may miss one; a direct question does not.
            let found = upstream.describe_instances(&app.deployment, &absent).await?;
            seen.extend(found.into_iter().map(|seen| (seen.id.clone(), seen)));
        }
        let all = expected.len();
        for row in expected {
            match seen.remove(&id(&row)) {
                Some(seen) => difference.shown.push((row, seen)),
                None => difference.lost.push(row),
            }
        }
        let missing: Vec<String> = difference.lost.iter().map(|row| row.id.to_string()).collect();
        let mut connection = app.pool.acquire().await?;
        if self.notes == Notes::Write {
            let present: Vec<String> = difference.shown.iter().map(|(row, _)| row.id.to_string()).collect();
            instances::system_present(&mut connection, &present).await?;
            instances::system_note_missing(&mut connection, &missing).await?;
        }
        let noted = instances::system_missing(&mut connection, upstream.name()).await?;
        drop(connection);
        let found: Vec<Missing> =
            difference.lost.iter().map(|row| self.missing_instance(row, &noted, difference.as_of)).collect();
        self.judge_missing(difference, Kind::Instance, found, all);
        Ok(())
    }

    fn missing_instance(
        &self,
        row: &Instance,
        noted: &HashMap<String, DateTime<Utc>>,
        as_of: DateTime<Utc>,
    ) -> Missing {
        let id = row.id.to_string();
        let since = noted.get(&id).copied().unwrap_or(as_of);
        Missing {
            kind: Kind::Instance,
            upstream: row.upstream.clone(),
            upstream_id: row.upstream_id.clone().unwrap_or_default(),
            team_id: Some(row.team_id.clone()),
            status: row.status.to_string(),
            due: self.is_gone(since, row.updated_at, as_of),
            id,
            since,
        }
    }

    /// The cloud's lists may lag behind what was changed a moment ago.
    fn is_gone(&self, since: DateTime<Utc>, updated_at: DateTime<Utc>, as_of: DateTime<Utc>) -> bool {
        let grace = self.app.config.jobs.missing_grace;
        [since, updated_at].into_iter().any(|then| (as_of - then).to_std().unwrap_or_default() >= grace)
    }

    fn judge_missing(&self, difference: &mut Difference<'_>, kind: Kind, missing: Vec<Missing>, all: usize) {
        let count = missing.len();
        difference.missing.extend(missing);
        if self.tolerance().exceeded(count, all) {
            let detail = format!(
                "{count} of {all} {}s that should be there are not listed. Is it the right account and region?",
                kind.as_str()
            );
            brake(difference, BrakeReason::TooManyMissing, detail);
        }
    }

    async fn follow_tools(&self, difference: &mut Difference<'_>, seen: Vec<ListedTool>) -> Result<()> {
        let (app, upstream, as_of) = (self.app, difference.upstream, difference.as_of);
        let mut connection = app.pool.acquire().await?;
        let expected = tools::system_expected(&mut connection, upstream.name()).await?;
        drop(connection);
        let seen: HashMap<String, ListedTool> = seen.into_iter().map(|seen| (seen.id.clone(), seen)).collect();
        let all = expected.len();
        for row in expected {
            let id = row.upstream_id.clone().unwrap_or_default();
            match seen.get(&id) {
                Some(seen) if seen.status == ToolStatus::Failed => {
                    difference.failed_tools.push((row, seen.status_reason.clone()));
                }
                Some(_) => {}
                // A listing may miss one; a direct question does not.
                None if upstream.describe_tool(&id).await?.is_some() => {}
                None => difference.lost_tools.push(row),
            }
        }
        let lost: Vec<String> = difference.lost_tools.iter().map(|row| row.id.to_string()).collect();
        let mut connection = app.pool.acquire().await?;
        if self.notes == Notes::Write {
            tools::system_note_missing(&mut connection, upstream.name(), &lost).await?;
        }
        let noted = tools::system_missing(&mut connection, upstream.name()).await?;
        drop(connection);
        let missing = difference.lost_tools.iter().map(|row| {
            let since = noted.get(row.id.as_str()).copied().unwrap_or(as_of);
            Missing {
                kind: Kind::Tool,
                upstream: row.upstream.clone(),
                upstream_id: row.upstream_id.clone().unwrap_or_default(),
                id: row.id.to_string(),
                team_id: row.team_id.clone(),
                status: row.status.to_string(),
                since,
                due: self.is_gone(since, row.updated_at, as_of),
            }
        });
        let missing = missing.collect();
        self.judge_missing(difference, Kind::Tool, missing, all);
        Ok(())
    }
}

/// An instance whose start is not recorded yet is no orphan, nor is one whose stop is under way.
fn orphaned(row: Option<&Instance>, seen: &SeenInstance) -> Option<OrphanReason> {
    match row {
        None => Some(OrphanReason::Unknown),
        Some(row) if row.status.is_final() => Some(OrphanReason::Ended),
        Some(row) => row.upstream_id.as_ref().is_some_and(|id| *id != seen.id).then_some(OrphanReason::Twin),
    }
}
