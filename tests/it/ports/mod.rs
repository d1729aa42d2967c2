//! Ports of sandboxes through the gateway, to a server that runs in one.

mod access;
mod browser;
mod headers;
mod hosts;
mod lane;
mod previews;
mod repeats;
mod stalls;
mod streams;
mod upgrades;
pub mod web;
