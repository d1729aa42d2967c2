//! The code interpreter inside an instance of a tool of that type: contexts and their kernels on port 49999, as the
//! official template serves them (`PROTOCOLS` section E).
//!
//! A kernel is a process of `user` that runs one of our drivers: cells go to it over a socket on its standard input, and
//! come back from there as results and errors; what they print comes over pipes.

mod context;
mod kernel;
mod language;
mod lines;
mod output;
mod request;
mod server;
mod table;
mod wire;

pub use server::router;

/// The port the interpreter listens on.
pub const PORT: u16 = 49999;
