//! A local stand-in for AGS and envd: real processes, real files, the real protocols.
//!
//! `Emulator::start` runs it inside another program (a test harness);
//! the `ags-emulator` binary runs it as a process. `docs/EMULATOR.md` describes both from outside.

pub mod cli;
pub mod envd;
pub mod instance;
