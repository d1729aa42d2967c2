//! Keeps an account below the cloud's rate limit, which counts calls per second and action.

use std::collections::HashMap;
use std::num::NonZeroU32;
use std::sync::{Arc, Mutex};
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
    clock: TokioClock,
    lanes: Mutex<HashMap<&'static str, Arc<Lane>>>,
}

/// The allowance of one action. Whoever is at its head holds `turn`, so that calls leave in the order in which
/// they came and none is overtaken until its deadline.
struct Lane {
    turn: tokio::sync::Mutex<()>,
    limiter: RateLimiter<NotKeyed, InMemoryState, TokioClock, NoOpMiddleware<Duration>>,
}

/// The deadline passed before it was the call's turn.
#[derive(Debug)]
pub(super) struct TooLate;

impl Limiter {
    pub fn new(rates: Rates) -> Limiter {
        let clock = TokioClock { origin: Instant::now() };
        Limiter(Arc::new(Inner { rates, clock, lanes: Mutex::default() }))
    }

    /// Waits until `action` may be called; gives up at once when that is known to be after `deadline`.
    pub(super) async fn turn(&self, action: &'static str, deadline: Instant) -> Result<(), TooLate> {
        let lane = self.lane(action);
        let _turn = timeout_at(deadline, lane.turn.lock()).await.map_err(|_| TooLate)?;
        while let Err(not_until) = lane.limiter.check() {
            let at = Instant::now() + not_until.wait_time_from(self.0.clock.now());
            if at > deadline {
                return Err(TooLate);
            }
            sleep_until(at).await;
        }
        Ok(())
    }

    fn lane(&self, action: &'static str) -> Arc<Lane> {
        let mut lanes = self.0.lanes.lock().unwrap_or_else(|poisoned| poisoned.into_inner());
        let lane = lanes.entry(action).or_insert_with(|| {
            let quota = quota(self.0.rates.of(action));
            let limiter = RateLimiter::direct_with_clock(quota, self.0.clock);
            Arc::new(Lane { turn: tokio::sync::Mutex::new(()), limiter })
        });
        lane.clone()
    }
}

/// A quarter of a second's calls may go at once, the rest is paced: a full burst on top of the pace would be
/// twice the limit within one second.
fn quota(rate: NonZeroU32) -> Quota {
    let burst = NonZeroU32::new(rate.get() / 4).unwrap_or(NonZeroU32::MIN);
    Quota::per_second(rate).allow_burst(burst)
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
            shared.turn(ACTION, far()).await.unwrap();
        }
        let elapsed = start.elapsed();
        assert!(elapsed >= Duration::from_millis(4990), "{elapsed:?} for 100 calls after a burst of 5");
        assert!(elapsed <= Duration::from_millis(5200), "{elapsed:?}: slower than the rate allows");
    }

    #[tokio::test(start_paused = true)]
    async fn actions_do_not_share_and_may_have_their_own_rate() {
        let one = NonZeroU32::MIN;
        let mut rates = Rates::uniform(one);
        rates.actions.insert(ACTION.into(), NonZeroU32::new(100).unwrap());
        let limiter = Limiter::new(rates);
        let start = Instant::now();
        limiter.turn("StopSandboxInstance", far()).await.unwrap();
        for _ in 0..25 {
            limiter.turn(ACTION, far()).await.unwrap();
        }
        assert_eq!(start.elapsed(), Duration::ZERO);
        limiter.turn("StopSandboxInstance", far()).await.unwrap();
        assert!(start.elapsed() >= Duration::from_millis(999));
    }

    #[tokio::test(start_paused = true)]
    async fn a_turn_after_the_deadline_is_refused_at_once() {
        let limiter = limiter(1);
        limiter.turn(ACTION, far()).await.unwrap();
        let start = Instant::now();
        let soon = start + Duration::from_millis(500);
        assert!(limiter.turn(ACTION, soon).await.is_err());
        assert_eq!(start.elapsed(), Duration::ZERO);
        limiter.turn(ACTION, far()).await.unwrap();
        assert!(start.elapsed() <= Duration::from_millis(1100), "the refused call used no allowance");
    }

    #[tokio::test(start_paused = true)]
    async fn calls_leave_in_the_order_in_which_they_came() {
        let limiter = limiter(1);
        let order = Arc::new(Mutex::new(Vec::new()));
        let waiting = (0..20).map(|i| {
            let (limiter, order) = (limiter.clone(), order.clone());
            async move {
                limiter.turn(ACTION, far()).await.unwrap();
                order.lock().unwrap().push(i);
            }
        });
        futures_util::future::join_all(waiting).await;
        assert_eq!(*order.lock().unwrap(), (0..20).collect::<Vec<_>>());
    }

    #[tokio::test(start_paused = true)]
    async fn a_call_that_is_given_up_does_not_block_the_lane() {
        let limiter = limiter(1);
        limiter.turn(ACTION, far()).await.unwrap();
        let given_up = tokio::time::timeout(Duration::from_millis(10), limiter.turn(ACTION, far()));
        assert!(given_up.await.is_err());
        limiter.turn(ACTION, Instant::now() + Duration::from_secs(2)).await.unwrap();
    }
}
