//! How long to wait before a dead process is started again.

use std::time::Duration;

use tokio::time::Instant;

const FIRST: Duration = Duration::from_millis(200);
const LONGEST: Duration = Duration::from_secs(15);
/// Peace for this long forgets earlier deaths.
const FORGIVEN: Duration = Duration::from_secs(60);

/// Doubles with each death that follows closely on another.
#[derive(Default)]
pub(super) struct Backoff {
    last: Option<(Instant, Duration)>,
}

impl Backoff {
    pub(super) fn next(&mut self, now: Instant) -> Duration {
        let delay = match self.last {
            Some((time, delay)) if now.duration_since(time) < FORGIVEN => (delay * 2).min(LONGEST),
            _ => FIRST,
        };
        self.last = Some((now, delay));
        delay
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn delays_double_up_to_a_bound_and_are_forgiven() {
        let mut backoff = Backoff::default();
        let start = Instant::now();
        let mut delay = |second| backoff.next(start + Duration::from_secs(second)).as_millis();
        let delays: Vec<u128> = (0..8).map(&mut delay).collect();
        assert_eq!(delays, [200, 400, 800, 1_600, 3_200, 6_400, 12_800, 15_000]);
        assert_eq!(delay(7 + FORGIVEN.as_secs()), FIRST.as_millis());
    }
}
