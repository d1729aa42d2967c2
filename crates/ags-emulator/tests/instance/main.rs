//! Real instances, launched by the real binary, with whatever isolation this machine allows and without any.

mod client;
mod files;
mod filesystem;
mod harness;
mod interpreter;
mod isolation;
mod lifecycle;
mod process;
mod pty;
