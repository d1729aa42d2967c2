//! What the tests run on: one Postgres for the whole run with a database per test, and per test an emulator and a gateway.

mod api;
mod cutter;
mod database;
mod failures;
mod program;
mod stack;

use std::{str::FromStr, time::Duration};

pub use self::{
    api::{Answer, Api, read},
    cutter::{Cutter, Target},
    program::{Program, peak_kib},
    stack::{Options, SECRETS, Stack},
};

/// No test takes this long, however busy the machine: one that hangs fails by its own name.
const HANGS: Duration = Duration::from_secs(300);

/// A setting of this run of the tests, by an environment variable.
///
/// # Panics
/// When it is set to what is none.
pub fn setting<T: FromStr>(name: &str, default: T) -> T {
    #[expect(clippy::disallowed_methods, reason = "whoever runs the tests says how much of them")]
    let set = std::env::var(name).ok();
    set.map_or(default, |text| text.parse().unwrap_or_else(|_| panic!("{name}={text} is not a value for it")))
}

/// Runs a test on the one runtime that outlives all tests: what one test starts (the database server) the others use.
///
/// # Panics
/// When the test does, or hangs.
pub fn run<F: Future<Output = ()>>(test: F) {
    failures::keep();
    let ended = database::runtime().block_on(async { tokio::time::timeout(HANGS, test).await });
    assert!(ended.is_ok(), "hangs");
}

/// Looks until there is something to see: a test waits for a condition, not for time.
///
/// # Panics
/// When there is nothing after a minute.
pub async fn eventually<T>(look: impl AsyncFn() -> Option<T>) -> T {
    let seen = async {
        loop {
            if let Some(seen) = look().await {
                return seen;
            }
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    };
    tokio::time::timeout(Duration::from_secs(60), seen).await.expect("in a minute")
}
