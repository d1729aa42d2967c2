//! Pure types, state machines and rules. Nothing here does I/O.

pub mod credential;
pub mod duration;
pub mod instance;
pub mod page;
pub mod scope;
pub mod team;
