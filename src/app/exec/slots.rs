//! What a team may run at once, over all replicas: each leases slots of the team's quota from the database, and together they
//! never have more than that. Who finds a free slot here asks nobody; slots that nobody needs are given back within a second.

use std::{
    collections::{HashMap, HashSet},
    time::Duration,
};

use super::{leases::LEASE_SECONDS, registry::Execs};
use crate::{
    app::App,
    error::{Code, Error, Result},
    ids::TeamId,
    storage::exec_slots::{self, Wanted},
};

/// How often what nobody needs is given back.
const GIVE_BACK: Duration = Duration::from_secs(1);
/// Beyond what is needed a replica takes such a part of the quota at once.
const SPARE: u64 = 16;

/// A place among what a team runs, to be used by what is about to begin. Dropping it gives it up.
pub(super) struct Reservation {
    execs: Execs,
    team: TeamId,
}

impl Reservation {
    pub(super) fn new(execs: Execs, team: TeamId) -> Self {
        Self { execs, team }
    }
}

impl Drop for Reservation {
    fn drop(&mut self) {
        self.execs.unreserve(&self.team);
    }
}

/// Reserves a place for one more command, or run of code, of a team that may have `most` of them.
///
/// # Errors
/// `quota_exceeded`, naming the limit; when the database fails.
pub(super) async fn reserve(app: &App, team: &TeamId, most: u64) -> Result<Reservation> {
    match app.execs.reserve(team, most) {
        Some(reservation) => Ok(reservation),
        // Boxed: what is rare does not make what is moved for each command larger.
        None => Box::pin(lease(app, team, most)).await,
    }
}

async fn lease(app: &App, team: &TeamId, most: u64) -> Result<Reservation> {
    // One at a time asks for more: the next one may find what it got.
    let mut held = app.execs.slots().lock().await;
    if let Some(reservation) = app.execs.reserve(team, most) {
        return Ok(reservation);
    }
    let used = app.execs.used(team);
    let wanted = Wanted {
        team,
        replica: app.execs.replica(),
        used,
        slots: used + 1 + most / SPARE / 2,
        most,
        lease_seconds: LEASE_SECONDS,
    };
    let mut tx = app.pool.begin().await?;
    let slots = exec_slots::lease(&mut tx, &wanted).await?;
    tx.commit().await?;
    held.insert(team.clone());
    app.execs.grant(team, slots.own);
    app.execs.reserve(team, most).ok_or_else(|| {
        let detail = "Your team runs as many commands and as much code as it may. Wait for some to end, or end them.";
        let used = (used + slots.others).min(most);
        Error::new(Code::QuotaExceeded, detail).with_limit("max_execs", most, used)
    })
}

/// Gives back what nobody needs, and keeps the rest, until the drain.
pub async fn keep(app: App) {
    let draining = app.lifecycle.draining();
    while draining.run_until_cancelled(tokio::time::sleep(GIVE_BACK)).await.is_some() {
        if let Err(error) = keep_once(&app).await {
            tracing::warn!(%error, "the slots of running commands could not be kept");
        }
    }
}

async fn keep_once(app: &App) -> Result<()> {
    let mut held = app.execs.slots().lock().await;
    let kept: HashMap<TeamId, u64> = app.execs.trim(&held);
    if kept.is_empty() {
        return Ok(());
    }
    let all: Vec<(TeamId, u64)> = kept.iter().map(|(team, slots)| (team.clone(), *slots)).collect();
    let mut connection = app.pool.acquire().await?;
    exec_slots::system_keep(&mut connection, app.execs.replica(), &all, LEASE_SECONDS).await?;
    *held = kept.into_iter().filter(|(_, slots)| *slots > 0).map(|(team, _)| team).collect::<HashSet<_>>();
    Ok(())
}
