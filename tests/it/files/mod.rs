//! Files of instances: real ones, through a real daemon.

mod access;
mod content;
mod entries;
mod sandbox;
mod uploads;

use self::sandbox::Sandbox;
