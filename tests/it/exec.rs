//! Commands over HTTP and WebSocket, with real processes behind the emulator.

mod attach;
mod background;
mod cuts;
mod durable;
mod sandbox;
mod storm;
mod streams;
mod tape;
mod waiting;

pub use sandbox::Sandbox;
