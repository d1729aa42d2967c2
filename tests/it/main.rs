//! The gateway through its real HTTP surface, against a real Postgres and the emulator.

mod auth;
mod cli;
mod cloud;
mod dev;
mod exec;
mod files;
mod harness;
mod instances;
mod reaper;
mod service;
mod tools;
mod ws;
