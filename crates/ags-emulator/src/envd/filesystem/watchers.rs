//! Watchers that are polled (`CreateWatcher` and its kin), and the check of what may be watched.

use std::collections::HashMap;
use std::io;
use std::path::Path;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use nix::sys::statfs::{FsType, statfs};
use tokio::io::unix::AsyncFd;
use tokio_util::sync::{CancellationToken, DropGuard};
use tokio_util::task::TaskTracker;

use super::error::FsError;
use super::inotify::{Change, Watch};
use crate::sys;

/// File systems whose changes the kernel does not tell.
const NETWORK: [i64; 5] = [
    0x6969,      // NFS
    0x517B,      // SMB
    0xFF53_4D42, // CIFS
    0xFE53_4D42, // SMB2
    0x6573_5546, // FUSE
];

/// Starts a watch after checking that it can see changes.
///
/// # Errors
/// `NotFound`, `Invalid` for what is no directory or is on the network and not allowed.
pub fn watch(path: &Path, recursive: bool, allow_network: bool) -> Result<Watch, FsError> {
    let metadata = std::fs::metadata(path)
        .map_err(|error| FsError::new(&format!("path {} not found", path.display()), "reading path", &error))?;
    if !metadata.is_dir() {
        return Err(FsError::Invalid(format!("path {} not a directory", path.display())));
    }
    if !allow_network && is_network(path) {
        let text = format!("cannot watch path on network filesystem: {}", path.display());
        return Err(FsError::Invalid(text));
    }
    Watch::new(path, recursive).map_err(|error| FsError::internal("creating watcher", &error))
}

fn is_network(path: &Path) -> bool {
    statfs(path).is_ok_and(|stat| {
        let FsType(kind) = stat.filesystem_type();
        NETWORK.contains(&kind)
    })
}

/// A descriptor of a watch, registered with the runtime.
///
/// # Errors
/// The process is out of descriptors.
pub fn readiness(watch: &Watch) -> io::Result<AsyncFd<std::os::fd::OwnedFd>> {
    sys::readiness_of(watch.readiness()?)
}

/// A watch and what it has seen since it was last asked.
struct Polled {
    watch: Watch,
    seen: Vec<Change>,
    include_entry: bool,
}

impl Polled {
    fn look(&mut self) {
        if let Err(error) = self.watch.changes(&mut self.seen) {
            tracing::warn!(%error, "a watcher lost events");
        }
    }
}

struct Watcher {
    polled: Arc<Mutex<Polled>>,
    root: std::path::PathBuf,
    _reader: DropGuard,
}

/// What a watcher has seen.
pub struct Seen {
    pub root: std::path::PathBuf,
    pub changes: Vec<Change>,
    pub include_entry: bool,
}

/// The polled watchers by id.
#[derive(Default)]
pub struct Watchers {
    by_id: Mutex<HashMap<String, Watcher>>,
}

impl Watchers {
    /// Takes a watch in; returns its id. It is read as changes come, so that the kernel's queue does not overflow.
    ///
    /// # Errors
    /// The process is out of descriptors.
    pub fn add(&self, watch: Watch, root: &Path, include_entry: bool, tasks: &TaskTracker) -> io::Result<String> {
        let ready = readiness(&watch)?;
        let polled = Arc::new(Mutex::new(Polled { watch, seen: Vec::new(), include_entry }));
        let stop = CancellationToken::new();
        let (reading, stopped) = (Arc::clone(&polled), stop.clone());
        tasks.spawn(async move {
            while let Some(Ok(mut ready)) = stopped.run_until_cancelled(ready.readable()).await {
                ready.clear_ready();
                lock(&reading).look();
            }
        });
        let id = format!("w{}", uuid::Uuid::new_v4().simple());
        let watcher = Watcher { polled, root: root.to_owned(), _reader: stop.drop_guard() };
        lock(&self.by_id).insert(id.clone(), watcher);
        Ok(id)
    }

    /// What a watcher has seen since it was last asked, up to this moment.
    ///
    /// # Errors
    /// `NotFound`.
    pub fn take(&self, id: &str) -> Result<Seen, FsError> {
        let (polled, root) = {
            let watchers = lock(&self.by_id);
            let watcher = watchers.get(id).ok_or_else(|| not_found(id))?;
            (Arc::clone(&watcher.polled), watcher.root.clone())
        };
        let mut polled = lock(&polled);
        polled.look();
        Ok(Seen { root, changes: std::mem::take(&mut polled.seen), include_entry: polled.include_entry })
    }

    /// Ends a watcher.
    ///
    /// # Errors
    /// `NotFound`.
    pub fn remove(&self, id: &str) -> Result<(), FsError> {
        lock(&self.by_id).remove(id).map(drop).ok_or_else(|| not_found(id))
    }
}

fn not_found(id: &str) -> FsError {
    FsError::NotFound(format!("watcher with id {id} not found"))
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
