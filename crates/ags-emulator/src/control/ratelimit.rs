//! Requests per second and action (PROTOCOLS A.9), in real time.

use std::collections::HashMap;
use std::sync::Mutex;
use std::time::Instant;

struct Bucket {
    tokens: f64,
    filled: Instant,
}

/// One token bucket per action; a full bucket holds one second's worth.
#[derive(Default)]
pub struct RateLimiter {
    buckets: Mutex<HashMap<String, Bucket>>,
}

impl RateLimiter {
    /// Takes one request's worth at `now`, or says that there is none. A limit of 0 is no limit.
    pub fn admit(&self, action: &str, per_second: u32, now: Instant) -> bool {
        if per_second == 0 {
            return true;
        }
        let full = f64::from(per_second);
        let mut buckets = self.buckets.lock().unwrap_or_else(|poisoned| poisoned.into_inner());
        let bucket = buckets.entry(action.to_owned()).or_insert_with(|| Bucket { tokens: full, filled: now });
        let gained = now.saturating_duration_since(bucket.filled).as_secs_f64() * full;
        bucket.tokens = (bucket.tokens + gained).min(full);
        bucket.filled = now;
        if bucket.tokens < 1.0 {
            return false;
        }
        bucket.tokens -= 1.0;
        true
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    #[test]
    fn a_second_refills_what_a_burst_took() {
        let limiter = RateLimiter::default();
        let start = Instant::now();
        let taken = |at| (0..50).filter(|_| limiter.admit("Start", 20, at)).count();
        assert_eq!(taken(start), 20);
        assert_eq!(taken(start + Duration::from_millis(500)), 10);
        assert_eq!(taken(start + Duration::from_secs(10)), 20);
    }

    #[test]
    fn actions_do_not_share() {
        let limiter = RateLimiter::default();
        let now = Instant::now();
        assert!(limiter.admit("A", 1, now));
        assert!(!limiter.admit("A", 1, now));
        assert!(limiter.admit("B", 1, now));
        assert!(limiter.admit("A", 0, now));
    }
}
