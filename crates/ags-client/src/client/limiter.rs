//! Keeps an account below the cloud's rate limit, which counts calls per second and action.

use std::collections::HashMap;
use std::num::NonZeroU32;
use std::sync::{
    Arc, Mutex, MutexGuard, PoisonError,
    atomic::{AtomicU32, Ordering},
};
use std::time::Duration;

use governor::clock::Clock;
use governor::middleware::NoOpMiddleware;
use governor::state::{InMemoryState, NotKeyed};
use governor::{Quota, RateLimiter};
use tokio::time::{Instant, sleep_until, timeout_at};

use super::settings::Rates;

/// One account's allowance. Clones share it; give clients of the same account the same limiter.
#[derive(Clone)]
pub struct Limiter(Arc<Inner>);

struct Inner {
    rates: Rates,
    /// How many limiters in other processes keep the account below its limit together with this one, itself included.
    parts: AtomicU32,
    clock: TokioClock,
    lanes: Mutex<HashMap<&'static str, Arc<Lane>>>,
}

/// Whom a call is made for.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Priority {
    /// Somebody waits for it.
    #[default]
    Caller,
    /// Nobody does: it leaves a quarter of the allowance to callers, and one such call at most stands in their line.
    Background,
}

type Governor = RateLimiter<NotKeyed, InMemoryState, TokioClock, NoOpMiddleware<Duration>>;

/// The allowance of one action. Whoever is at its head holds `turn`, so that calls leave in the order in which
/// they came and none is overtaken until its deadline.
struct Lane {
    turn: tokio::sync::Mutex<()>,
    limiter: Governor,
    /// Held by the background call that stands in the line, or is the next to do so.
    behind: tokio::sync::Mutex<()>,
    background: Governor,
}

/// The deadline passed before it was the call's turn.
#[derive(Debug)]
pub(super) struct TooLate;

impl Limiter {
    pub fn new(rates: Rates) -> Limiter {
        let clock = TokioClock { origin: Instant::now() };
        Limiter(Arc::new(Inner { rates, parts: AtomicU32::new(1), clock, lanes: Mutex::default() }))
    }

    /// From now on this one keeps to one of `parts` equal parts of the rates, the others being used elsewhere.
    pub fn divide(&self, parts: NonZeroU32) {
        if self.0.parts.swap(parts.get(), Ordering::Relaxed) != parts.get() {
            // Whoever waits in a lane goes on at its pace; the next ones get new ones.
            self.lanes().clear();
        }
    }

    fn lanes(&self) -> MutexGuard<'_, HashMap<&'static str, Arc<Lane>>> {
        self.0.lanes.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Waits until `action` may be called; gives up at once when that is known to be after `deadline`.
    pub(super) async fn turn(
        &self,
        action: &'static str,
        priority: Priority,
        deadline: Instant,
    ) -> Result<(), TooLate> {
        let lane = self.lane(action);
        let _behind = match priority {
            Priority::Caller => None,
            Priority::Background => {
                let behind = timeout_at(deadline, lane.behind.lock()).await.map_err(|_| TooLate)?;
                self.allowed(&lane.background, deadline).await?;
                Some(behind)
            }
        };
        let _turn = timeout_at(deadline, lane.turn.lock()).await.map_err(|_| TooLate)?;
        self.allowed(&lane.limiter, deadline).await
    }

    async fn allowed(&self, limiter: &Governor, deadline: Instant) -> Result<(), TooLate> {
        while let Err(not_until) = limiter.check() {
            let at = Instant::now() + not_until.wait_time_from(self.0.clock.now());
            if at > deadline {
                return Err(TooLate);
            }
            sleep_until(at).await;
        }
        Ok(())
    }

    fn lane(&self, action: &'static str) -> Arc<Lane> {
        let mut lanes = self.lanes();
        let lane = lanes.entry(action).or_insert_with(|| {
            let rate = at_least_one(self.0.rates.of(action).get() / self.0.parts.load(Ordering::Relaxed));
            let governor = |quota| RateLimiter::direct_with_clock(quota, self.0.clock);
            let behind = at_least_one(rate.get() - rate.get() / 4);
            Arc::new(Lane {
                turn: tokio::sync::Mutex::new(()),
                limiter: governor(quota(rate)),
                behind: tokio::sync::Mutex::new(()),
                background: governor(Quota::per_second(behind).allow_burst(NonZeroU32::MIN)),
            })
        });
        lane.clone()
    }
}

fn at_least_one(rate: u32) -> NonZeroU32 {
    NonZeroU32::new(rate).unwrap_or(NonZeroU32::MIN)
}

/// A quarter of a second's calls may go at once, the rest is paced: a full burst on top of the pace would be
/// twice the limit within one second.
fn quota(rate: NonZeroU32) -> Quota {
    Quota::per_second(rate).allow_burst(at_least_one(rate.get() / 4))
}

/// The clock of tokio's timers, so that a test which pauses those pauses this.
#[derive(Clone, Copy)]
struct TokioClock {
    origin: Instant,
}

impl Clock for TokioClock {
    type Instant = Duration;

    fn now(&self) -> Duration {
        self.origin.elapsed()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const ACTION: &str = "StartSandboxInstance";
    const CALLER: Priority = Priority::Caller;

    fn limiter(qps: u32) -> Limiter {
        Limiter::new(Rates::uniform(NonZeroU32::new(qps).unwrap()))
    }

    fn far() -> Instant {
        Instant::now() + Duration::from_secs(3600)
    }

    #[tokio::test(start_paused = true)]
    async fn the_rate_is_kept_and_shared_by_clones() {
        let limiter = limiter(20);
        let start = Instant::now();
        for i in 0..105 {
            let clone = limiter.clone();
            let shared = if i % 2 == 0 { &limiter } else { &clone };
            shared.turn(ACTION, CALLER, far()).await.unwrap();
        }
        let elapsed = start.elapsed();
        assert!(elapsed >= Duration::from_millis(4990), "{elapsed:?} for 100 calls after a burst of 5");
        assert!(elapsed <= Duration::from_millis(5200), "{elapsed:?}: slower than the rate allows");
    }

    #[tokio::test(start_paused = true)]
    async fn a_divided_limiter_keeps_to_its_part() {
        let limiter = limiter(20);
        limiter.turn(ACTION, CALLER, far()).await.unwrap();
        limiter.divide(NonZeroU32::new(4).unwrap());
        let start = Instant::now();
        for _ in 0..11 {
            limiter.turn(ACTION, CALLER, far()).await.unwrap();
        }
        assert!(start.elapsed() >= Duration::from_millis(1990), "{:?} for 10 calls at 5 a second", start.elapsed());
    }

    #[tokio::test(start_paused = true)]
    async fn actions_do_not_share_and_may_have_their_own_rate() {
        let one = NonZeroU32::MIN;
        let mut rates = Rates::uniform(one);
        rates.actions.insert(ACTION.into(), NonZeroU32::new(100).unwrap());
        let limiter = Limiter::new(rates);
        let start = Instant::now();
        limiter.turn("StopSandboxInstance", CALLER, far()).await.unwrap();
        for _ in 0..25 {
            limiter.turn(ACTION, CALLER, far()).await.unwrap();
        }
        assert_eq!(start.elapsed(), Duration::ZERO);
        limiter.turn("StopSandboxInstance", CALLER, far()).await.unwrap();
        assert!(start.elapsed() >= Duration::from_millis(999));
    }

    #[tokio::test(start_paused = true)]
    async fn a_turn_after_the_deadline_is_refused_at_once() {
        let limiter = limiter(1);
        limiter.turn(ACTION, CALLER, far()).await.unwrap();
        let start = Instant::now();
        let soon = start + Duration::from_millis(500);
        assert!(limiter.turn(ACTION, CALLER, soon).await.is_err());
        assert_eq!(start.elapsed(), Duration::ZERO);
        limiter.turn(ACTION, CALLER, far()).await.unwrap();
        assert!(start.elapsed() <= Duration::from_millis(1100), "the refused call used no allowance");
    }

    #[tokio::test(start_paused = true)]
    async fn calls_leave_in_the_order_in_which_they_came() {
        let limiter = limiter(1);
        let order = Arc::new(Mutex::new(Vec::new()));
        let waiting = (0..20).map(|i| {
            let (limiter, order) = (limiter.clone(), order.clone());
            async move {
                limiter.turn(ACTION, CALLER, far()).await.unwrap();
                order.lock().unwrap().push(i);
            }
        });
        futures_util::future::join_all(waiting).await;
        assert_eq!(*order.lock().unwrap(), (0..20).collect::<Vec<_>>());
    }

    #[tokio::test(start_paused = true)]
    async fn a_call_that_is_given_up_does_not_block_the_lane() {
        let limiter = limiter(1);
        limiter.turn(ACTION, CALLER, far()).await.unwrap();
        let given_up = tokio::time::timeout(Duration::from_millis(10), limiter.turn(ACTION, CALLER, far()));
        assert!(given_up.await.is_err());
        limiter.turn(ACTION, CALLER, Instant::now() + Duration::from_secs(2)).await.unwrap();
    }

    #[tokio::test(start_paused = true)]
    async fn a_caller_waits_for_one_call_of_the_background_at_most() {
        let limiter = limiter(4);
        limiter.turn(ACTION, CALLER, far()).await.unwrap();
        let order = Arc::new(Mutex::new(Vec::new()));
        let call = |name: &'static str, priority| {
            let (limiter, order) = (limiter.clone(), order.clone());
            async move {
                limiter.turn(ACTION, priority, far()).await.unwrap();
                order.lock().unwrap().push(name);
            }
        };
        let background = futures_util::future::join_all((0..40).map(|_| call("background", Priority::Background)));
        let callers = async {
            tokio::task::yield_now().await;
            futures_util::future::join_all((0..8).map(|_| call("caller", CALLER))).await;
        };
        let start = Instant::now();
        futures_util::future::join(background, callers).await;
        let order = order.lock().unwrap();
        let last = order.iter().rposition(|name| *name == "caller").unwrap();
        let between = order[..last].iter().filter(|name| **name == "background").count();
        assert!(between <= 8, "{order:?}");
        let elapsed = start.elapsed();
        assert!(elapsed <= Duration::from_secs(16), "{elapsed:?}: the background does not starve either");
    }

    #[tokio::test(start_paused = true)]
    async fn the_background_leaves_a_quarter_to_callers() {
        let limiter = limiter(20);
        let start = Instant::now();
        for _ in 0..31 {
            limiter.turn(ACTION, Priority::Background, far()).await.unwrap();
        }
        assert!(start.elapsed() >= Duration::from_millis(1990), "15 a second");
        let before = Instant::now();
        for _ in 0..4 {
            limiter.turn(ACTION, CALLER, far()).await.unwrap();
        }
        assert_eq!(before.elapsed(), Duration::ZERO, "callers' calls go at once");
    }
}
