//! Whether there is room for one more instance, and waiting in line until there is.
//!
//! A team has a quota of its own, an account of the cloud another one, which several teams share. Where there is no room, who
//! asks with `?queue=` waits: each team's line is first come, first served, and the teams take turns by how much of its quota
//! each uses. Whoever does not wait comes after those who do.

use std::{sync::Arc, time::Duration};

use sqlx::PgConnection;
use tokio::{
    sync::Notify,
    time::{Instant, sleep},
};
use tokio_util::sync::CancellationToken;

use super::create::Prepared;
use crate::{
    app::{App, daily},
    auth::Caller,
    domain::team::Team,
    error::{Code, Error, Result},
    storage::queue::{self, Asker, Standing},
};

/// A place in line is kept for this long unless its holder says that it still waits.
const HELD_SECONDS: f64 = 6.0;
/// How often it is looked whether it is one's turn, besides when an instance ends.
const LOOK: Duration = Duration::from_secs(1);
/// How long the cloud's word is believed that an account is full, unless an instance of ours ends. Then one more is tried.
const TRUST_SECONDS: f64 = 10.0;
/// What is told of when to come back is this at most: instances may be stopped before their time.
const LONGEST_RETRY: Duration = Duration::from_secs(60);
const TEAM: &str = "max_instances";
const ACCOUNT: &str = "account_instances";

/// Wakes those who wait in line on this replica. Clones share it.
#[derive(Clone, Default)]
pub struct Lines(Arc<Notify>);

impl Lines {
    /// An instance ended somewhere.
    pub fn wake(&self) {
        self.0.notify_waiters();
    }
}

/// Why there is no room.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct NoRoom {
    limit: &'static str,
    value: u64,
    used: u64,
    /// Whoever asked is this far from its turn: 1 is next.
    position: u64,
}

/// Whether it is one's turn, by the team's quota and the account's.
fn room(standing: &Standing, max_instances: u32) -> Result<(), NoRoom> {
    let behind = |limit, value: u64, used: u64, ahead: u64| match (ahead + used).checked_sub(value) {
        Some(over) => Err(NoRoom { limit, value, used, position: over + 1 }),
        None => Ok(()),
    };
    behind(TEAM, max_instances.into(), standing.team_live, standing.team_ahead)?;
    match standing.account_limit {
        Some(limit) => behind(ACCOUNT, limit, standing.account_live, standing.team_ahead + standing.others_ahead),
        None => Ok(()),
    }
}

/// Checks in the transaction that is about to write an instance's intent that there is room for it; the team is locked.
///
/// # Errors
/// `quota_exceeded`, with the limit, the position and when to come back.
pub(super) async fn check(
    app: &App,
    tx: &mut PgConnection,
    team: &Team,
    upstream: &str,
    ticket: Option<&str>,
) -> Result<()> {
    daily::check(tx, team).await?;
    let max_instances = team.quotas.max_instances;
    let asker = Asker { team: &team.id, max_instances, upstream, ticket };
    let configured = app.upstreams.get(upstream)?.config.max_instances;
    let mut standing = queue::standing(tx, &asker, configured, TRUST_SECONDS).await?;
    if standing.account_limit.is_some() {
        queue::system_lock_account(tx, upstream).await?;
        standing = queue::standing(tx, &asker, configured, TRUST_SECONDS).await?;
    }
    if let Err(none) = room(&standing, max_instances) {
        return Err(refusal(tx, team, upstream, none).await?);
    }
    match ticket {
        Some(ticket) => Ok(queue::leave(tx, &team.id, ticket).await?),
        None => Ok(()),
    }
}

async fn refusal(tx: &mut PgConnection, team: &Team, upstream: &str, none: NoRoom) -> Result<Error> {
    let of_team = (none.limit == TEAM).then_some(&team.id);
    let end = queue::system_next_end(tx, of_team, upstream, none.position).await?;
    let until_end = Duration::try_from_secs_f64(end.unwrap_or_default().ceil()).unwrap_or_default();
    let whose = if none.limit == TEAM {
        "Your team's quota of live instances"
    } else {
        "The cloud account's quota of instances"
    };
    let detail = format!(
        "{whose} is used up: this one is number {} in line. Stop one that is not needed, or wait in line with `?queue=5m`.",
        none.position
    );
    let error = Error::new(Code::QuotaExceeded, detail).with_limit(none.limit, none.value, none.used);
    Ok(error.with_queue_position(none.position).with_retry_after(until_end.clamp(LOOK, LONGEST_RETRY)))
}

/// Whether a refusal passes when an instance ends.
fn passes(error: &Error) -> bool {
    let limit = error.inner().limit.as_ref().map(|limit| limit.name.as_str());
    error.code() == Code::QuotaExceeded && matches!(limit, Some(TEAM | ACCOUNT))
}

/// Whether it was the cloud that said that the account is full.
fn is_account_full(error: &Error) -> bool {
    error.code() == Code::QuotaExceeded && error.inner().upstream.is_some()
}

/// How somebody waits in line.
#[derive(Clone, Debug)]
pub struct Queueing {
    pub patience: Duration,
    /// Cancelled when nobody waits any more: the place is given up.
    pub given_up: CancellationToken,
}

/// A place in line.
pub struct Place<'a> {
    app: &'a App,
    caller: &'a Caller,
    upstream: String,
    ticket: String,
    end: Instant,
    given_up: CancellationToken,
}

impl<'a> Place<'a> {
    #[must_use]
    pub fn new(app: &'a App, caller: &'a Caller, prepared: &Prepared, queueing: Queueing) -> Self {
        let (upstream, ticket) = (prepared.tool().upstream.clone(), app.ids.request());
        let Queueing { patience, given_up } = queueing;
        Self { app, caller, upstream, ticket, end: Instant::now() + patience, given_up }
    }

    #[must_use]
    pub fn ticket(&self) -> &str {
        &self.ticket
    }

    /// Whether the line goes on, where it was, for one whose start failed so: the account is full, as the cloud says.
    #[must_use]
    pub fn goes_on_after(&self, error: &Error) -> bool {
        is_account_full(error) && !self.left().is_zero()
    }

    /// What is left of the patience.
    #[must_use]
    pub fn left(&self) -> Duration {
        self.end.saturating_duration_since(Instant::now())
    }

    /// Asks again and again until there is room, the patience is at its end, or nobody waits any more.
    ///
    /// # Errors
    /// Those of `ask`; `unavailable`.
    pub async fn wait<T, F: Future<Output = Result<T>>>(&self, ask: impl Fn() -> F) -> Result<T> {
        metrics::gauge!("ags_gateway_instance_queue").increment(1.0);
        let outcome = self.ask_until(ask).await;
        metrics::gauge!("ags_gateway_instance_queue").decrement(1.0);
        if outcome.is_err() {
            self.leave().await?;
        }
        outcome
    }

    async fn ask_until<T, F: Future<Output = Result<T>>>(&self, ask: impl Fn() -> F) -> Result<T> {
        loop {
            let woken = self.app.lines.0.notified();
            if self.given_up.is_cancelled() {
                return Err(Error::new(Code::Unavailable, "Nobody waits for it any more."));
            }
            let refused = match ask().await {
                Err(error) if passes(&error) && !self.left().is_zero() => error,
                outcome => return outcome,
            };
            tracing::debug!(ticket = self.ticket, %refused, "waiting in line");
            if self.app.lifecycle.is_draining() {
                return Err(Error::new(
                    Code::Unavailable,
                    "This gateway is shutting down. Ask again: the line goes on.",
                ));
            }
            self.hold().await?;
            tokio::select! {
                () = woken => {}
                () = sleep(LOOK.min(self.left())) => {}
                () = self.given_up.cancelled() => {}
                () = self.app.lifecycle.draining().cancelled_owned() => {}
            }
        }
    }

    /// Says that the place is still wanted.
    ///
    /// # Errors
    /// When the database fails.
    pub async fn hold(&self) -> Result<()> {
        let mut connection = self.app.pool.acquire().await?;
        let team = self.caller.team_id();
        Ok(queue::hold(&mut connection, team, &self.upstream, &self.ticket, HELD_SECONDS).await?)
    }

    async fn leave(&self) -> Result<()> {
        let mut connection = self.app.pool.acquire().await?;
        Ok(queue::leave(&mut connection, self.caller.team_id(), &self.ticket).await?)
    }
}

/// What a start failed with; of an account that is full, as the cloud says, with the limit. That is noted: those who ask from now
/// on wait for one of its instances to end.
pub(super) async fn with_limit(app: &App, upstream: &str, error: Error) -> Error {
    if !is_account_full(&error) {
        return error;
    }
    let error = error.retryable(true).with_retry_after(LOOK);
    match count_full(app, upstream).await {
        Ok(count) => error.with_limit(ACCOUNT, count, count),
        Err(failed) => {
            tracing::warn!(upstream, %failed, "a full account could not be noted");
            error
        }
    }
}

async fn count_full(app: &App, upstream: &str) -> Result<u64> {
    let mut connection = app.pool.acquire().await?;
    Ok(queue::system_note_full(&mut connection, upstream).await?)
}

/// Notes that the cloud took an instance: what it said of a full account may be over. It is only to be asked again sooner by that:
/// a start is no failure when it cannot be noted.
pub(super) async fn note_taken(app: &App, upstream: &str) {
    let noted = async {
        let mut connection = app.pool.acquire().await?;
        queue::system_note_taken(&mut connection, upstream).await
    };
    if let Err(error) = noted.await {
        tracing::warn!(upstream, %error, "a start could not be noted");
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const FREE: Standing =
        Standing { team_live: 2, team_ahead: 0, account_live: 9, account_limit: Some(10), others_ahead: 0 };

    #[test]
    fn it_is_ones_turn_when_there_is_room_for_all_before_and_oneself() {
        assert_eq!(room(&FREE, 3), Ok(()));
        assert_eq!(room(&Standing { account_limit: None, account_live: 99, ..FREE }, 3), Ok(()));
        let full = room(&Standing { team_live: 3, team_ahead: 1, ..FREE }, 3).unwrap_err();
        assert_eq!((full.limit, full.position), (TEAM, 2));
        // A free one that somebody waits for.
        let behind = room(&Standing { team_live: 2, team_ahead: 1, ..FREE }, 3).unwrap_err();
        assert_eq!((behind.limit, behind.value, behind.used, behind.position), (TEAM, 3, 2, 1));
        let others = room(&Standing { others_ahead: 2, ..FREE }, 3).unwrap_err();
        assert_eq!((others.limit, others.position), (ACCOUNT, 2));
    }
}
