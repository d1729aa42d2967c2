//! The history: who did what, with what outcome, and what was used.
//!
//! What a transaction changes is written down in that transaction, without an outcome yet; outcomes, and events that have no
//! transaction, go through a bounded queue to one [`writer`]. What does not fit is counted and logged whole.

mod attempt;
mod runs;
mod system;
mod writer;

use std::collections::BTreeMap;

use sqlx::PgPool;
use tokio::sync::mpsc;
use tokio_util::sync::CancellationToken;

pub use self::{
    attempt::Attempt,
    runs::{CodeRun, Run, begin, count_run, exec_ended},
    system::{Deed, of_gateway},
};
use super::{App, keys::target_team};
use crate::{
    auth::Caller,
    domain::{
        audit::{AuditEvent, GroupBy, RunEnd, Usage, Used, UsedBy},
        page::{Page, PageRequest},
        scope::Scope,
    },
    error::{Error, Result},
    ids::TeamId,
    storage::{
        audit::{self, AuditFilter},
        usage::{self, Span},
    },
};

/// What waits to be written. A second of a busy replica.
const QUEUE: usize = 10_000;

/// Something for the history.
#[derive(Clone, Debug)]
enum Note {
    Event(Box<AuditEvent>),
    End(Box<RunEnd>),
    Used(Box<(UsedBy, Used)>),
}

/// The way to the history. Clones share it.
#[derive(Clone, Debug)]
pub struct History {
    notes: mpsc::Sender<Note>,
    /// Command lines are written down.
    commands: bool,
}

/// The other end of a [`History`], to be driven by [`write`].
pub struct Pending(mpsc::Receiver<Note>);

impl History {
    #[must_use]
    pub fn new(commands: bool) -> (Self, Pending) {
        let (notes, pending) = mpsc::channel(QUEUE);
        (Self { notes, commands }, Pending(pending))
    }

    /// Hands an event over to be written. Never waits.
    pub fn record(&self, event: AuditEvent) {
        self.send(Note::Event(Box::new(event)));
    }

    fn send(&self, note: Note) {
        if let Err(error) = self.notes.try_send(note) {
            writer::report_lost(&error.into_inner());
        }
    }
}

/// Writes what is handed over, until the process has ended all else.
pub async fn write(pool: PgPool, pending: Pending, closing: CancellationToken) {
    writer::Writer::new(pool).run(pending.0, closing).await;
}

/// Whose history the caller may see: one team's, or for administrators everybody's.
///
/// # Errors
/// `not_found` for another team.
pub async fn visible(app: &App, caller: &Caller, team: Option<&str>) -> Result<Option<TeamId>> {
    if team.is_none() && caller.scopes.contains(Scope::Admin) && caller.only_instance.is_none() {
        return Ok(None);
    }
    target_team(app, caller, team).await.map(Some)
}

/// What was done, newest first. A credential that is bound to one instance sees what was done to that.
///
/// # Errors
/// `not_found` for another team.
pub async fn list(
    app: &App,
    caller: &Caller,
    team: Option<&str>,
    mut filter: AuditFilter,
    page: &PageRequest,
) -> Result<Page<AuditEvent>> {
    let team = visible(app, caller, team).await?;
    if let Some(only) = &caller.only_instance {
        if !filter.instances.is_empty() && !filter.instances.iter().any(|id| id == only.as_str()) {
            return Ok(Page { items: Vec::new(), next: None });
        }
        filter.instances = vec![only.to_string()];
    }
    let mut connection = app.pool.acquire().await?;
    Ok(audit::system_list(&mut connection, team.as_ref(), &filter, page).await?)
}

/// What was used in a span of time.
///
/// # Errors
/// `not_found` for another team; `scope_missing` for a credential that is bound to one instance; `validation_failed` for a
/// span that ends before it begins.
pub async fn used(
    app: &App,
    caller: &Caller,
    team: Option<&str>,
    span: Span,
    group: GroupBy,
    page: &PageRequest,
) -> Result<Page<Usage>> {
    caller.require_unbound()?;
    if span.to <= span.from {
        return Err(Error::field("to", "must be later than `from`"));
    }
    let team = visible(app, caller, team).await?;
    let mut connection = app.pool.acquire().await?;
    Ok(usage::system_sum(&mut connection, team.as_ref(), span, group, page).await?)
}

/// Counts by who used it.
type Sums = BTreeMap<UsedBy, Used>;
