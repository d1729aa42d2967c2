//! Files of instances: real ones, through a real daemon.

mod access;
mod archive;
mod content;
mod entries;
mod memory;
mod sandbox;
mod uploads;
mod watch;

use self::sandbox::Sandbox;
