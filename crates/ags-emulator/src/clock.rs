//! The emulator's own time: instance deadlines, token expiry and state delays follow it.
//!
//! In [`Mode::Auto`] it runs with real time (plus whatever was advanced); in [`Mode::Explicit`] it
//! stands still until somebody advances it. Request signatures and rate limits follow real time.

use std::sync::Mutex;
use std::time::{Duration, Instant};

use chrono::{DateTime, TimeDelta, Utc};
use serde::{Deserialize, Serialize};
use tokio::sync::watch;

/// Who moves the clock.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, clap::ValueEnum)]
#[serde(rename_all = "lowercase")]
pub enum Mode {
    /// Real time.
    #[default]
    Auto,
    /// Only [`Clock::advance`].
    Explicit,
}

struct Reading {
    mode: Mode,
    base: DateTime<Utc>,
    since: Instant,
}

impl Reading {
    fn now(&self) -> DateTime<Utc> {
        match self.mode {
            Mode::Auto => self.base + to_delta(self.since.elapsed()),
            Mode::Explicit => self.base,
        }
    }

    fn rebase(&mut self, by: Duration) {
        self.base = self.now() + to_delta(by);
        self.since = Instant::now();
    }
}

/// Shared by everything that waits.
pub struct Clock {
    reading: Mutex<Reading>,
    moved: watch::Sender<()>,
}

impl Clock {
    /// Starts at the wall clock's time.
    pub fn new(mode: Mode) -> Self {
        Self::starting_at(mode, wall_now())
    }

    /// Starts at a time of the caller's choice.
    pub fn starting_at(mode: Mode, base: DateTime<Utc>) -> Self {
        let reading = Reading { mode, base, since: Instant::now() };
        Self { reading: Mutex::new(reading), moved: watch::Sender::new(()) }
    }

    fn read<T>(&self, f: impl FnOnce(&mut Reading) -> T) -> T {
        f(&mut self.reading.lock().unwrap_or_else(|poisoned| poisoned.into_inner()))
    }

    /// The emulator's time.
    pub fn now(&self) -> DateTime<Utc> {
        self.read(|r| r.now())
    }

    /// Who moves it.
    pub fn mode(&self) -> Mode {
        self.read(|r| r.mode)
    }

    /// Changes who moves it; the time itself does not jump.
    pub fn set_mode(&self, mode: Mode) {
        self.read(|r| {
            r.rebase(Duration::ZERO);
            r.mode = mode;
        });
        self.moved.send_replace(());
    }

    /// Jumps forward, in either mode.
    pub fn advance(&self, by: Duration) {
        self.read(|r| r.rebase(by));
        self.moved.send_replace(());
    }

    /// Waits until the emulator's time has reached `deadline`.
    pub async fn sleep_until(&self, deadline: DateTime<Utc>) {
        let mut moved = self.moved.subscribe();
        loop {
            moved.mark_unchanged();
            let (mode, now) = self.read(|r| (r.mode, r.now()));
            let Ok(left) = (deadline - now).to_std() else { return };
            if left.is_zero() {
                return;
            }
            // The sender lives in self, so `changed` fails only when nobody could wake us anyway.
            match mode {
                Mode::Explicit => drop(moved.changed().await),
                Mode::Auto => drop(tokio::time::timeout(left, moved.changed()).await),
            }
        }
    }

    /// Waits for a span of the emulator's time.
    pub async fn sleep(&self, span: Duration) {
        self.sleep_until(self.now() + to_delta(span)).await;
    }
}

/// Spans beyond what chrono can hold (292 million years) are cut to that.
pub fn to_delta(span: Duration) -> TimeDelta {
    TimeDelta::from_std(span).unwrap_or(TimeDelta::MAX)
}

/// Real time, for what is judged against other machines' clocks: signatures.
#[expect(clippy::disallowed_methods, reason = "the one place where real time enters")]
pub fn wall_now() -> DateTime<Utc> {
    Utc::now()
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use super::*;

    #[tokio::test]
    async fn explicit_time_moves_only_when_advanced() {
        let clock = Arc::new(Clock::new(Mode::Explicit));
        let start = clock.now();
        assert_eq!(clock.now(), start);
        let sleeper = {
            let clock = clock.clone();
            async move { clock.sleep(Duration::from_secs(3600)).await }
        };
        tokio::pin!(sleeper);
        assert!(futures_util::poll!(sleeper.as_mut()).is_pending());
        clock.advance(Duration::from_secs(3599));
        assert!(futures_util::poll!(sleeper.as_mut()).is_pending());
        clock.advance(Duration::from_secs(1));
        sleeper.await;
        assert_eq!(clock.now() - start, TimeDelta::seconds(3600));
    }

    #[tokio::test]
    async fn leaving_explicit_does_not_jump() {
        let clock = Clock::new(Mode::Explicit);
        clock.advance(Duration::from_secs(100));
        let before = clock.now();
        clock.set_mode(Mode::Auto);
        assert!(clock.now() - before < TimeDelta::seconds(50));
        clock.set_mode(Mode::Explicit);
        assert_eq!(clock.now(), clock.now());
    }
}
