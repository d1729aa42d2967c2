//! Runs: an instance for one command or piece of code, of which nothing is left behind.

mod bench;
mod code;
mod commands;
mod ends;
mod kills;
mod refusals;
