//! Commands over HTTP and WebSocket, with real processes behind the emulator.

mod background;
mod sandbox;
mod streams;
mod waiting;

pub use sandbox::Sandbox;
