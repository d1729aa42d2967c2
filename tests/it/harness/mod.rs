//! What the tests run on: one Postgres for the whole run with a database per test, and per test an emulator and a gateway.

mod api;
mod database;
mod stack;

use std::time::Duration;

pub use self::{
    api::{Answer, Api, read},
    stack::{Options, Stack},
};

/// Runs a test on the one runtime that outlives all tests: what one test starts (the database server) the others use.
pub fn run<F: Future<Output = ()>>(test: F) {
    database::runtime().block_on(test);
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
