//! The client against a server on the other side of a real socket.

#![allow(refining_impl_trait)]

mod code;
mod daemon;
mod edge;
mod files;
mod filesystem;
mod harness;
mod kept;
mod process;
mod streams;
mod transport;
