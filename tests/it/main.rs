//! The gateway through its real HTTP surface, against a real Postgres and the emulator.

mod auth;
mod cli;
mod dev;
mod harness;
mod instances;
mod service;
mod tools;
