//! What the tests run on: one Postgres for the whole run with a database per test, and per test an emulator and a gateway.

mod api;
mod database;
mod stack;

pub use self::{
    api::{Api, read},
    stack::{Options, Stack},
};

/// Runs a test on the one runtime that outlives all tests: what one test starts (the database server) the others use.
pub fn run<F: Future<Output = ()>>(test: F) {
    database::runtime().block_on(test);
}
