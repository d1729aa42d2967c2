//! The gateway through its real HTTP surface, against a real Postgres and the emulator.

mod auth;
mod cli;
mod dev;
mod cloud;
mod harness;
mod instances;
mod reaper;
mod service;
mod tools;
