//! ags-gateway: one service that holds the cloud credentials and gives teams their sandboxes.
//!
//! A request comes in at [`http`], becomes a typed call in [`app`], touches [`storage`] and the cloud, and goes back out as
//! a document or a stream. Nothing imports what lies above it. See docs/ARCHITECTURE.md.

pub mod access;
pub mod app;
pub mod auth;
pub mod bootstrap;
pub mod cli;
pub mod clock;
pub mod config;
pub mod domain;
pub mod error;
mod failover;
pub mod http;
pub mod ids;
pub mod jobs;
pub mod lifecycle;
pub mod storage;
pub mod telemetry;
pub mod upstream;
