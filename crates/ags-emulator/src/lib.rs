//! A local stand-in for AGS and envd: real processes, real files, the real protocols.
//!
//! [`Emulator::start`](server::Emulator::start) runs it inside another program (a test harness);
//! the `ags-emulator` binary runs it as a process. `docs/EMULATOR.md` describes both from outside.

pub mod admin;
pub mod body;
pub mod cli;
pub mod clock;
pub mod control;
pub mod e2b;
pub mod edge;
pub mod envd;
pub mod faults;
pub mod ids;
pub mod instance;
mod interpreter;
pub mod journal;
mod serve;
pub mod server;
pub mod settings;
pub mod simulated;
mod sys;

pub use server::Emulator;
pub use settings::Settings;
