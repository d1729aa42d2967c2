//! The emulator over HTTP, with instances that hold nothing but a small HTTP server.

mod clock;
mod control;
mod data;
mod e2b;
mod faults;
mod harness;
mod idempotency;
mod instances;
mod process;
