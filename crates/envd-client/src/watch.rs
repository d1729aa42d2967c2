//! Changes under a directory of an instance (PROTOCOLS D.6, `WatchDir`).

use std::fmt;
use std::pin::Pin;
use std::task::{Context, Poll};

use envd_proto::filesystem as proto;
use envd_proto::filesystem::watch_dir_response::Event;
use futures_util::stream::{self, BoxStream, Stream, StreamExt};

use crate::client::EnvdClient;
use crate::error::EnvdError;
use crate::filesystem::{EntryInfo, entry_info};
use crate::rpc::{Call, Messages, decode};

/// What to watch, and how.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct WatchSpec {
    /// A directory.
    pub path: String,
    /// Everything below as well, directories made later included.
    pub recursive: bool,
    /// Describe what was created, written or changed, where the daemon can (0.6.3 and newer; others ignore it).
    pub include_entry: bool,
    /// Watch network file systems, of which the kernel does not tell all changes (0.6.4 and newer).
    pub allow_network_mounts: bool,
    /// Under whose home a relative path is. `None`: the daemon's default user.
    pub user: Option<String>,
}

/// How an entry has changed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum ChangeKind {
    Create,
    Write,
    Remove,
    /// It left this name; what appears under another one is a `Create`.
    Rename,
    /// Mode, owner or times.
    Chmod,
    /// A kind this crate does not know, by its number.
    Unknown(i32),
}

/// What a watch tells.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum WatchEvent {
    /// The watch is armed: what happens from here on is told. Comes first.
    Started,
    Change {
        /// Relative to the watched directory, which is `.` itself.
        name: String,
        kind: ChangeKind,
        /// As it was when the daemon looked, if it did and there was something.
        entry: Option<Box<EntryInfo>>,
    },
    /// A sign of life, about every 30 s of silence.
    Keepalive,
}

/// The changes under one directory, in order.
///
/// Dropping it ends the request, and with it the watch. While it is not polled nothing is read, and before long the kernel's
/// own queue in the instance overflows: read on and keep what is needed. Any `Err` is final.
pub struct WatchStream(BoxStream<'static, Result<WatchEvent, EnvdError>>);

impl Stream for WatchStream {
    type Item = Result<WatchEvent, EnvdError>;

    fn poll_next(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Self::Item>> {
        self.0.poll_next_unpin(cx)
    }
}

impl fmt::Debug for WatchStream {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("WatchStream").finish_non_exhaustive()
    }
}

impl EnvdClient {
    /// Watches a directory until the stream is dropped. Resolves when the daemon accepts the request.
    ///
    /// # Errors
    /// Here or as the first item: `NotFound`; `InvalidArgument` for what is no directory, or is on a network file system
    /// that is not allowed.
    pub async fn watch_dir(&self, spec: WatchSpec) -> Result<WatchStream, EnvdError> {
        let call = Call { method: "/filesystem.Filesystem/WatchDir", user: spec.user.as_deref() };
        let request = proto::WatchDirRequest {
            path: spec.path,
            recursive: spec.recursive,
            include_entry: spec.include_entry,
            allow_network_mounts: spec.allow_network_mounts,
        };
        let messages = self.server_stream(call, None, &request).await?;
        let reader = Reader { messages, max_message: self.transport.settings().max_message };
        Ok(WatchStream(stream::try_unfold(reader, Reader::step).boxed()))
    }
}

struct Reader {
    messages: Messages,
    max_message: usize,
}

impl Reader {
    async fn step(mut self) -> Result<Option<(WatchEvent, Self)>, EnvdError> {
        while let Some(payload) = self.messages.next().await? {
            let message: proto::WatchDirResponse = decode(&payload, self.max_message)?;
            if let Some(event) = message.event {
                return Ok(Some((event_of_wire(event), self)));
            }
        }
        Ok(None)
    }
}

fn event_of_wire(event: Event) -> WatchEvent {
    match event {
        Event::Start(_) => WatchEvent::Started,
        Event::Keepalive(_) => WatchEvent::Keepalive,
        Event::Filesystem(change) => {
            let change = *change;
            WatchEvent::Change {
                name: change.name,
                kind: kind(change.r#type.to_i32()),
                entry: change.entry.into_option().map(|entry| Box::new(entry_info(entry))),
            }
        }
    }
}

fn kind(number: i32) -> ChangeKind {
    match number {
        1 => ChangeKind::Create,
        2 => ChangeKind::Write,
        3 => ChangeKind::Remove,
        4 => ChangeKind::Rename,
        5 => ChangeKind::Chmod,
        other => ChangeKind::Unknown(other),
    }
}
