//! Watching a directory.
//!
//! One task reads the sandbox at full speed, as a kernel queue overflows there when nobody does, into a queue of fixed
//! length. A viewer that is too slow loses events, and is told how many.

use envd_client::{ChangeKind, EnvdClient, EnvdError, WatchEvent, WatchSpec, WatchStream};
use futures_util::{Stream, StreamExt};
use tokio::sync::mpsc::{self, error::TrySendError};
use tokio_util::sync::CancellationToken;

use super::Files;
use crate::{
    domain::file::{FileInfo, FilePath, join},
    error::{Code, Error, Result},
};

/// Events that wait for their viewer.
const QUEUE: usize = 1024;
/// The watched directory itself, in the daemon's words.
const ITSELF: &str = ".";

/// How an entry has changed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Change {
    Create,
    Write,
    Remove,
    /// It left this name.
    Rename,
    /// Mode, owner or times.
    Chmod,
}

/// Why a watch has ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum WatchEnd {
    /// The watched directory is no more.
    Removed,
    /// The gateway is about to end: watch again.
    Draining,
    /// More happened in the sandbox than its kernel could queue: look at what there is and watch again.
    Overflow,
    /// The sandbox ended, or cannot be reached.
    Unreachable,
}

/// What a watch tells.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Seen {
    Change {
        /// Relative to the watched directory, which is `.` itself.
        name: String,
        change: Change,
        /// As it was just after, where the sandbox's daemon tells.
        entry: Option<Box<FileInfo>>,
    },
    /// So many events were not kept, as the viewer was too slow.
    Gap(u64),
    /// Comes last.
    End(WatchEnd),
}

/// An armed watch. Dropping it ends the request to the sandbox.
pub struct Watch {
    /// The directory, absolute.
    pub path: String,
    events: mpsc::Receiver<Seen>,
}

impl Watch {
    /// The next event; `None` after the last.
    pub async fn next(&mut self) -> Option<Seen> {
        self.events.recv().await
    }

    /// Where an entry is that was named relative to the directory.
    #[must_use]
    pub fn path_of(&self, name: &str) -> String {
        if name == ITSELF { self.path.clone() } else { join(&self.path, name) }
    }
}

impl Files {
    /// Watches a directory, or everything below it. Armed when this returns: what happens from then on is told.
    ///
    /// # Errors
    /// `not_found`; `not_a_directory`; `unsupported_file_system` for one that does not tell its changes.
    pub async fn watch(&self, path: &FilePath, recursive: bool) -> Result<Watch> {
        let (named, _) = self.directory(path).await?;
        let spec = WatchSpec {
            path: named.path.clone(),
            recursive,
            include_entry: true,
            allow_network_mounts: false,
            user: Some(self.user.to_string()),
        };
        let stream = self.call(|envd| armed(envd, spec.clone())).await.map_err(unsupported)?;
        let (sender, events) = mpsc::channel(QUEUE);
        let draining = self.app.lifecycle.draining();
        self.app.lifecycle.spawn("watch", pump(stream, sender, draining));
        Ok(Watch { path: named.path, events })
    }
}

async fn armed(envd: EnvdClient, spec: WatchSpec) -> Result<WatchStream, EnvdError> {
    let mut stream = envd.watch_dir(spec).await?;
    // Its errors come as its first item, too.
    stream.next().await.transpose()?;
    Ok(stream)
}

/// The daemon calls it an invalid argument, and has words of its own for it.
fn unsupported(error: Error) -> Error {
    if error.code() == Code::ValidationFailed && error.detail().contains("network filesystem") {
        let detail = "This is a network file system, which does not tell its changes. List it from time to time.";
        return Error::new(Code::UnsupportedFileSystem, detail).with_source(error);
    }
    error
}

/// Reads the sandbox until it ends, the viewer leaves, or the gateway drains.
async fn pump(
    mut stream: impl Stream<Item = Result<WatchEvent, EnvdError>> + Unpin,
    viewer: mpsc::Sender<Seen>,
    draining: CancellationToken,
) {
    let mut lost = 0_u64;
    let end = loop {
        let event = tokio::select! {
            biased;
            () = viewer.closed() => return,
            () = draining.cancelled() => break WatchEnd::Draining,
            Ok(place) = viewer.reserve(), if lost > 0 => {
                place.send(Seen::Gap(std::mem::take(&mut lost)));
                continue;
            }
            event = stream.next() => event,
        };
        let seen = match event {
            Some(Ok(WatchEvent::Change { name, kind, entry })) => {
                let Some(change) = change(kind) else { continue };
                Seen::Change { name, change, entry: entry.map(|entry| Box::new((*entry).into())) }
            }
            Some(Ok(WatchEvent::Started | WatchEvent::Keepalive)) => continue,
            Some(Err(error)) => break ended_by(&error),
            None => break WatchEnd::Unreachable,
        };
        let last = matches!(&seen, Seen::Change { name, change: Change::Remove, .. } if name == ITSELF);
        // While something is owed the queue is kept free for saying so: what comes is in the gap.
        if lost > 0 || matches!(viewer.try_send(seen), Err(TrySendError::Full(_))) {
            lost += 1;
        }
        if last {
            break WatchEnd::Removed;
        }
    };
    // A viewer that does not come for the last words leaves in the end, which ends this.
    if lost > 0 && viewer.send(Seen::Gap(lost)).await.is_err() {
        return;
    }
    let _left = viewer.send(Seen::End(end)).await;
}

fn ended_by(error: &EnvdError) -> WatchEnd {
    tracing::info!(%error, "a watch was ended by the sandbox");
    if error.daemon_message().is_some_and(|said| said.contains("overflow")) {
        WatchEnd::Overflow
    } else {
        WatchEnd::Unreachable
    }
}

/// `None` for what a newer daemon may tell.
fn change(kind: ChangeKind) -> Option<Change> {
    Some(match kind {
        ChangeKind::Create => Change::Create,
        ChangeKind::Write => Change::Write,
        ChangeKind::Remove => Change::Remove,
        ChangeKind::Rename => Change::Rename,
        ChangeKind::Chmod => Change::Chmod,
        ChangeKind::Unknown(_) => return None,
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use futures_util::stream;

    fn wrote(number: usize) -> Result<WatchEvent, EnvdError> {
        Ok(WatchEvent::Change { name: number.to_string(), kind: ChangeKind::Write, entry: None })
    }

    fn removed(name: &str) -> Result<WatchEvent, EnvdError> {
        Ok(WatchEvent::Change { name: name.into(), kind: ChangeKind::Remove, entry: None })
    }

    /// Everything that a viewer is told who looks when all has happened.
    async fn told(events: Vec<Result<WatchEvent, EnvdError>>, queue: usize) -> Vec<Seen> {
        let (sender, mut events_seen) = mpsc::channel(queue);
        let lifecycle = crate::lifecycle::Lifecycle::default();
        let (all_read, read) = tokio::sync::oneshot::channel::<()>();
        let end = stream::once(async move {
            drop(all_read);
            Ok(WatchEvent::Keepalive)
        });
        let events = Box::pin(stream::iter(events).chain(end));
        let pump = lifecycle.spawn("pump", pump(events, sender, CancellationToken::new()));
        let _ = read.await;
        let mut told = Vec::new();
        while let Some(seen) = events_seen.recv().await {
            told.push(seen);
        }
        pump.await.unwrap();
        told
    }

    fn count(told: &[Seen]) -> u64 {
        let count = |seen: &Seen| match seen {
            Seen::Change { .. } => 1,
            Seen::Gap(lost) => *lost,
            Seen::End(_) => 0,
        };
        told.iter().map(count).sum()
    }

    #[tokio::test]
    async fn a_slow_viewer_is_told_how_much_it_missed() {
        let told = told((0..1000).map(wrote).collect(), 10).await;
        assert_eq!(count(&told), 1000, "every event is told or counted");
        assert_eq!(told.len(), 12);
        assert_eq!(told[10..], [Seen::Gap(990), Seen::End(WatchEnd::Unreachable)]);
    }

    #[tokio::test]
    async fn the_end_of_the_directory_is_the_end_of_the_watch() {
        let told = told(vec![removed("a"), removed("."), wrote(1)], 10).await;
        assert_eq!(told.len(), 3);
        assert_eq!(told[2], Seen::End(WatchEnd::Removed));
    }

    #[tokio::test]
    async fn a_viewer_that_has_left_ends_the_request() {
        let (sender, events) = mpsc::channel(1);
        drop(events);
        pump(stream::pending(), sender, CancellationToken::new()).await;
    }

    #[tokio::test]
    async fn the_drain_is_said() {
        let (sender, mut events) = mpsc::channel(1);
        let draining = CancellationToken::new();
        draining.cancel();
        pump(stream::pending(), sender, draining).await;
        assert_eq!(events.recv().await, Some(Seen::End(WatchEnd::Draining)));
    }
}
