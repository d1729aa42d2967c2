//! Pure types, state machines and rules. Nothing here does I/O.

pub mod audit;
pub mod checks;
pub mod code;
pub mod credential;
pub mod duration;
pub mod exec;
pub mod file;
pub mod instance;
pub mod json;
mod open_enum;
pub mod page;
pub mod port;
pub mod preview;
pub mod reconciliation;
pub mod redaction;
pub mod run;
pub mod scope;
pub mod seal;
pub mod spec;
pub mod team;
pub mod tool;
