//! Requests per second of teams, over all replicas.
//!
//! A team has one budget, in the database. Each replica may spend its slice of what is left there, from memory; what it has
//! spent it reports in the background, and learns what is left then. Requests never wait for that. When the database is
//! away each replica goes on with its slice of the rate. What several of them let through at once that was left but once is
//! made up for: the budget goes below zero, and comes back with time.

use std::{
    collections::HashMap,
    num::NonZeroU32,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use tokio::{sync::Notify, time::Instant};

use super::App;
use crate::{
    error::{Code, Error, Result},
    ids::TeamId,
    storage::{
        budgets::{self, Left, Spent},
        replicas,
    },
};

/// How often is reported at least, and at most.
const TICK: Duration = Duration::from_millis(100);
const REST: Duration = Duration::from_millis(10);
/// A team that made no request for this long is not asked after.
const QUIET: Duration = Duration::from_secs(10);

/// The budgets of the teams that this replica serves. Clones share them.
#[derive(Clone, Default)]
pub struct Rates(Arc<Shared>);

#[derive(Default)]
struct Shared {
    state: Mutex<State>,
    /// A slice is half spent.
    woken: Notify,
}

struct State {
    teams: HashMap<TeamId, Slice>,
    replicas: f64,
}

impl Default for State {
    fn default() -> Self {
        Self { teams: HashMap::new(), replicas: 1.0 }
    }
}

/// This replica's part of a team's budget.
struct Slice {
    rate: f64,
    tokens: f64,
    at: Instant,
    used_at: Instant,
    /// Let through since the last report, and by the report that is under way.
    spent: u64,
    reported: u64,
}

/// Where a team stands after a request.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Standing {
    /// Requests per second.
    pub rate: u32,
    /// Requests that may follow at once, here.
    pub remaining: u32,
    /// Until there is another one.
    pub wait: Duration,
    pub refused: bool,
}

impl Standing {
    /// # Errors
    /// `rate_limited` for a request that was refused.
    pub fn check(&self) -> Result<()> {
        if !self.refused {
            return Ok(());
        }
        let detail = format!("Your team may make {} requests per second. Wait, then go on more slowly.", self.rate);
        let error = Error::new(Code::RateLimited, detail).with_retry_after(self.wait);
        Err(error.with_limit("requests_per_second", self.rate.into(), self.rate.into()))
    }
}

impl Slice {
    fn new(rate: f64, replicas: f64, now: Instant) -> Self {
        Self { rate, tokens: part(rate, replicas), at: now, used_at: now, spent: 0, reported: 0 }
    }

    fn refill(&mut self, rate: f64, replicas: f64, now: Instant) {
        let earned = now.duration_since(self.at).as_secs_f64() * rate / replicas;
        (self.rate, self.at) = (rate, now);
        self.tokens = (self.tokens + earned).min(part(rate, replicas));
    }

    /// What is left in the database was told: what was spent since then is not known there yet.
    fn settle(&mut self, left: f64, replicas: f64, now: Instant) {
        self.at = now;
        self.reported = 0;
        let since = self.spent as f64;
        self.tokens = part(left, replicas) - since;
    }
}

/// One replica's part of what is left. A whole one is never divided: somebody must be able to spend it.
fn part(left: f64, replicas: f64) -> f64 {
    let part = left / replicas;
    if left >= 1.0 { part.max(1.0) } else { part }
}

impl Rates {
    fn state(&self) -> MutexGuard<'_, State> {
        self.0.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Counts a request of a team that may make `rate` per second.
    #[must_use]
    pub fn count(&self, team: &TeamId, rate: u32) -> Standing {
        let now = Instant::now();
        let mut state = self.state();
        let replicas = state.replicas;
        let limit = f64::from(rate.max(1));
        let slice = state.teams.entry(team.clone()).or_insert_with(|| Slice::new(limit, replicas, now));
        slice.refill(limit, replicas, now);
        slice.used_at = now;
        let refused = slice.tokens < 1.0;
        if !refused {
            slice.tokens -= 1.0;
            slice.spent += 1;
        }
        if slice.tokens < part(limit, replicas) / 2.0 {
            self.0.woken.notify_one();
        }
        let missing = (1.0 - slice.tokens).max(0.0);
        Standing {
            rate,
            remaining: slice.tokens.max(0.0) as u32,
            wait: Duration::from_secs_f64((missing * replicas / limit).min(3600.0)),
            refused,
        }
    }

    /// What is to be reported now.
    fn spent(&self) -> Vec<Spent> {
        let mut state = self.state();
        state.teams.retain(|_, slice| slice.spent + slice.reported > 0 || slice.used_at.elapsed() < QUIET);
        let spent = state.teams.iter_mut().map(|(team, slice)| {
            // What could not be reported the last time is reported now.
            slice.reported += std::mem::take(&mut slice.spent);
            let rate = slice.rate as u32;
            Spent { team: team.clone(), rate, requests: slice.reported }
        });
        spent.collect()
    }

    fn settle(&self, left: Vec<Left>, replicas: NonZeroU32) {
        let now = Instant::now();
        let mut state = self.state();
        state.replicas = replicas.get().into();
        let replicas = state.replicas;
        for Left { team, tokens } in left {
            if let Some(slice) = state.teams.get_mut(&team) {
                slice.settle(tokens, replicas, now);
            }
        }
    }
}

/// Reports what was spent, and learns what is left, until the drain.
pub async fn report(app: App) {
    let draining = app.lifecycle.draining();
    let due = || async {
        tokio::time::sleep(REST).await;
        tokio::select! {
            () = tokio::time::sleep(TICK) => {}
            () = app.rates.0.woken.notified() => {}
        }
    };
    let mut failing = false;
    while draining.run_until_cancelled(due()).await.is_some() {
        let reported = report_once(&app).await;
        if let (Err(error), false) = (&reported, failing) {
            tracing::warn!(%error, "what was spent of the requests per second could not be reported");
        }
        failing = reported.is_err();
    }
}

async fn report_once(app: &App) -> Result<()> {
    let spent = app.rates.spent();
    if spent.is_empty() {
        return Ok(());
    }
    let mut connection = app.pool.acquire().await?;
    let left = budgets::system_report(&mut connection, &spent).await?;
    app.rates.settle(left, replicas::system_count(&mut connection).await?);
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{clock, ids::Ids};

    fn team() -> TeamId {
        Ids::new(Arc::new(clock::System)).next()
    }

    fn let_through(rates: &Rates, team: &TeamId, rate: u32, asked: u32) -> u32 {
        (0..asked).map(|_| u32::from(!rates.count(team, rate).refused)).sum()
    }

    #[tokio::test(start_paused = true)]
    async fn a_seconds_worth_at_once_and_then_the_rate() {
        let (rates, team) = (Rates::default(), team());
        assert_eq!(let_through(&rates, &team, 10, 30), 10);
        let refused = rates.count(&team, 10);
        assert_eq!((refused.remaining, refused.wait.as_millis()), (0, 100));
        assert_eq!(refused.check().unwrap_err().code(), Code::RateLimited);
        tokio::time::advance(Duration::from_millis(500)).await;
        assert_eq!(let_through(&rates, &team, 10, 30), 5);
        tokio::time::advance(Duration::from_secs(60)).await;
        assert_eq!(let_through(&rates, &team, 10, 30), 10);
    }

    #[tokio::test(start_paused = true)]
    async fn what_others_spend_is_not_there_any_more_and_debts_are_made_up_for() {
        let (rates, team) = (Rates::default(), team());
        assert_eq!(let_through(&rates, &team, 10, 4), 4);
        let spent = rates.spent();
        assert_eq!((spent[0].requests, spent[0].rate), (4, 10));
        // One more while the report is under way.
        assert_eq!(let_through(&rates, &team, 10, 1), 1);
        rates.settle(vec![Left { team: team.clone(), tokens: 6.0 }], NonZeroU32::new(2).unwrap());
        assert_eq!(let_through(&rates, &team, 10, 10), 2);
        assert_eq!(rates.spent()[0].requests, 3);
        rates.settle(vec![Left { team: team.clone(), tokens: -10.0 }], NonZeroU32::new(2).unwrap());
        tokio::time::advance(Duration::from_secs(1)).await;
        assert_eq!(let_through(&rates, &team, 10, 10), 0);
        tokio::time::advance(Duration::from_millis(300)).await;
        assert_eq!(let_through(&rates, &team, 10, 10), 1);
    }

    #[tokio::test(start_paused = true)]
    async fn what_could_not_be_reported_is_reported_later_and_quiet_teams_are_forgotten() {
        let (rates, team) = (Rates::default(), team());
        assert_eq!(let_through(&rates, &team, 10, 2), 2);
        assert_eq!(rates.spent()[0].requests, 2);
        assert_eq!(let_through(&rates, &team, 10, 1), 1);
        assert_eq!(rates.spent()[0].requests, 3);
        rates.settle(vec![Left { team: team.clone(), tokens: 7.0 }], NonZeroU32::new(1).unwrap());
        tokio::time::advance(QUIET).await;
        assert!(rates.spent().is_empty());
    }
}
