//! Pure types, state machines and rules. Nothing here does I/O.

pub mod checks;
pub mod credential;
pub mod duration;
pub mod exec;
pub mod file;
pub mod instance;
mod open_enum;
pub mod page;
pub mod scope;
pub mod spec;
pub mod team;
pub mod tool;
