//! `filesystem.Filesystem`: entries, directories and watchers (`PROTOCOLS` D.6).

pub mod entry;
mod error;
mod inotify;
pub mod ops;
mod service;
pub mod watchers;

pub use service::FilesystemService;
