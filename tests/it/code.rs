//! Code in the interpreter, with real kernels behind the emulator.

mod contexts;
mod ends;
mod languages;
mod refusals;
mod results;
mod sandbox;
mod streams;
mod ws;

pub use sandbox::Interpreter;
