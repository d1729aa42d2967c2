//! The output of one command: a window of bytes between the one task that reads it and those who look on.
//!
//! Whoever looks on holds a [`Viewer`], a place in the log. With viewers attached the reader waits when the foremost is a
//! window behind; without any it never waits, and the oldest output is dropped.

use std::{
    collections::{HashMap, VecDeque},
    sync::{Arc, Mutex, MutexGuard, PoisonError},
};

use bytes::{Buf, Bytes, BytesMut};
use tokio::sync::Notify;

use crate::domain::exec::{Cursor, Exit, Stream};

/// Place of `started`; output begins after it.
const STARTED: u64 = 0;
const FIRST: u64 = 1;
/// Small writes are gathered up to this size, so that a chatty process costs no entry for each byte.
const GATHER: usize = 4096;
/// One entry per this many bytes of the window: the price of a switch between the streams.
const BYTES_PER_ENTRY: usize = 64;
const MIN_ENTRIES: usize = 1024;

/// A piece of output, and the place right after it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Chunk {
    pub stream: Stream,
    pub data: Bytes,
    pub end: u64,
}

/// Why output is missing.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum GapReason {
    /// It fell out of the window before this viewer read it.
    Window,
    /// The cursor is of another owner, or beyond what there is.
    UnknownCursor,
}

impl GapReason {
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Window => "window",
            Self::UnknownCursor => "unknown_cursor",
        }
    }
}

/// Output that this viewer will not see.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Gap {
    pub bytes: Option<u64>,
    pub reason: GapReason,
    /// Where it ends.
    pub end: u64,
}

/// What a viewer took at once, in this order.
#[derive(Clone, Debug, Default)]
pub struct Batch {
    pub epoch: u32,
    /// The process id, once.
    pub started: Option<u32>,
    pub gap: Option<Gap>,
    pub chunks: Vec<Chunk>,
    /// The end, and its place.
    pub exit: Option<(Arc<Exit>, u64)>,
}

impl Batch {
    pub fn clear(&mut self) {
        self.started = None;
        self.gap = None;
        self.chunks.clear();
        self.exit = None;
    }

    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.started.is_none() && self.gap.is_none() && self.chunks.is_empty() && self.exit.is_none()
    }
}

struct Entry {
    stream: Stream,
    at: u64,
    data: Bytes,
}

impl Entry {
    fn end(&self) -> u64 {
        self.at + self.data.len() as u64
    }
}

/// Small writes in a row, of one stream.
struct Gathering {
    stream: Stream,
    at: u64,
    data: BytesMut,
}

struct State {
    epoch: u32,
    pid: Option<u32>,
    entries: VecDeque<Entry>,
    gathering: Option<Gathering>,
    /// Places of the first byte that is held, and after the last.
    start: u64,
    end: u64,
    exit: Option<Arc<Exit>>,
    viewers: HashMap<u64, u64>,
    next_viewer: u64,
    /// The foremost viewer's place.
    foremost: Option<u64>,
    reader_waits: bool,
}

/// The log of one command.
pub struct Log {
    state: Mutex<State>,
    window: usize,
    max_entries: usize,
    /// Something was added.
    added: Notify,
    /// The foremost viewer moved on, or the last one left.
    taken: Notify,
}

impl Log {
    /// `window`: bytes held at most, and how far the foremost viewer may be behind.
    #[must_use]
    pub fn new(epoch: u32, window: usize) -> Self {
        let state = State {
            epoch,
            pid: None,
            entries: VecDeque::new(),
            gathering: None,
            start: FIRST,
            end: FIRST,
            exit: None,
            viewers: HashMap::new(),
            next_viewer: 0,
            foremost: None,
            reader_waits: false,
        };
        let window = window.max(1);
        let max_entries = (window / BYTES_PER_ENTRY).max(MIN_ENTRIES);
        Self { state: Mutex::new(state), window, max_entries, added: Notify::new(), taken: Notify::new() }
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The process runs.
    pub fn started(&self, pid: u32) {
        self.state().pid = Some(pid);
        self.added.notify_waiters();
    }

    #[must_use]
    pub fn pid(&self) -> Option<u32> {
        self.state().pid
    }

    #[must_use]
    pub fn exit(&self) -> Option<Arc<Exit>> {
        self.state().exit.clone()
    }

    #[must_use]
    pub fn epoch(&self) -> u32 {
        self.state().epoch
    }

    /// Bytes held.
    #[must_use]
    pub fn held(&self) -> usize {
        let state = self.state();
        usize::try_from(state.end - state.start).unwrap_or(usize::MAX)
    }

    /// Bytes that were ever added.
    #[must_use]
    pub fn total(&self) -> u64 {
        self.state().end - FIRST
    }

    #[must_use]
    pub fn viewers(&self) -> usize {
        self.state().viewers.len()
    }

    /// Waits until `len` more bytes would push nothing out that the foremost viewer has yet to read.
    pub async fn room(&self, len: usize) {
        loop {
            let taken = self.taken.notified();
            {
                let mut state = self.state();
                state.reader_waits = !state.has_room(len, self.window, self.max_entries);
                if !state.reader_waits {
                    return;
                }
            }
            taken.await;
        }
    }

    /// Adds output; what no longer fits the window is dropped, oldest first.
    pub fn append(&self, stream: Stream, data: Bytes) {
        if data.is_empty() {
            return;
        }
        {
            let mut state = self.state();
            state.push(stream, data);
            state.drop_oldest(self.window, self.max_entries);
        }
        self.added.notify_waiters();
    }

    /// The process has ended; nothing is added any more.
    pub fn finish(&self, exit: Arc<Exit>) {
        self.state().exit = Some(exit);
        self.added.notify_waiters();
    }

    /// Waits for the end.
    pub async fn finished(&self) -> Arc<Exit> {
        loop {
            let added = self.added.notified();
            if let Some(exit) = self.exit() {
                return exit;
            }
            added.await;
        }
    }

    /// Looks on from `after`, or from the beginning. From this moment on the viewer misses nothing that it is fast enough for.
    #[must_use]
    pub fn attach(self: &Arc<Self>, after: Option<&Cursor>) -> Viewer {
        let mut state = self.state();
        let (place, unknown) = match after {
            None => (STARTED, false),
            Some(cursor) if state.knows(cursor) => (cursor.position, false),
            Some(_) => (state.start, true),
        };
        let id = state.next_viewer;
        state.next_viewer += 1;
        state.viewers.insert(id, place);
        state.foremost = state.foremost.max(Some(place));
        Viewer { log: Arc::clone(self), id, place, unknown, finished: false }
    }
}

impl State {
    fn knows(&self, cursor: &Cursor) -> bool {
        cursor.epoch == self.epoch && cursor.position <= self.end + u64::from(self.exit.is_some())
    }

    fn has_room(&self, len: usize, window: usize, max_entries: usize) -> bool {
        let Some(foremost) = self.foremost else { return true };
        let foremost = foremost.max(FIRST);
        let oldest_unread = self.gathering.as_ref().map_or(self.end, |gathering| gathering.at);
        let oldest = self.entries.front().map_or(oldest_unread, Entry::end);
        let fits = self.end.saturating_sub(foremost) as usize + len <= window;
        foremost >= self.end || (fits && (self.entries.len() < max_entries || oldest <= foremost))
    }

    fn push(&mut self, stream: Stream, data: Bytes) {
        let len = data.len();
        match &mut self.gathering {
            Some(gathering) if gathering.stream == stream && gathering.data.len() + len <= GATHER => {
                gathering.data.extend_from_slice(&data);
            }
            _ => {
                self.settle();
                if len < GATHER / 2 {
                    self.gathering = Some(Gathering { stream, at: self.end, data: BytesMut::from(&data[..]) });
                } else {
                    self.entries.push_back(Entry { stream, at: self.end, data });
                }
            }
        }
        self.end += len as u64;
    }

    /// Makes an entry of what was gathered, no larger than it is.
    fn settle(&mut self) {
        let Some(Gathering { stream, at, data }) = self.gathering.take() else { return };
        let data = if data.capacity() > data.len() * 2 { Bytes::copy_from_slice(&data) } else { data.freeze() };
        self.entries.push_back(Entry { stream, at, data });
    }

    fn drop_oldest(&mut self, window: usize, max_entries: usize) {
        let held = |state: &Self| (state.end - state.start) as usize;
        if held(self) > window && self.entries.is_empty() {
            self.settle();
        }
        loop {
            let excess = held(self).saturating_sub(window);
            let too_many = self.entries.len() > max_entries;
            let Some(front) = self.entries.front_mut() else { return };
            if excess >= front.data.len() || too_many {
                self.start = front.end();
                self.entries.pop_front();
            } else {
                front.at += excess as u64;
                front.data.advance(excess);
                self.start = front.at;
                return;
            }
        }
    }

    /// Copies up to `max` bytes from `place` on.
    fn read(&self, mut place: u64, max: usize, chunks: &mut Vec<Chunk>) -> u64 {
        let mut left = max;
        let first = self.entries.partition_point(|entry| entry.end() <= place);
        for entry in self.entries.range(first..) {
            if left == 0 {
                return place;
            }
            let skipped = (place - entry.at) as usize;
            let until = entry.data.len().min(skipped.saturating_add(left));
            let data = entry.data.slice(skipped..until);
            left -= data.len();
            place += data.len() as u64;
            chunks.push(Chunk { stream: entry.stream, data, end: place });
        }
        if let Some(gathering) = &self.gathering
            && left > 0
            && place < self.end
        {
            let skipped = (place - gathering.at) as usize;
            let until = gathering.data.len().min(skipped.saturating_add(left));
            let data = Bytes::copy_from_slice(&gathering.data[skipped..until]);
            place += data.len() as u64;
            chunks.push(Chunk { stream: gathering.stream, data, end: place });
        }
        place
    }
}

/// One who looks on. Dropping it detaches.
pub struct Viewer {
    log: Arc<Log>,
    id: u64,
    place: u64,
    unknown: bool,
    finished: bool,
}

impl Viewer {
    /// Waits until there is something and takes up to `max` bytes of output. False when all was taken, the end included.
    pub async fn next(&mut self, max: usize, batch: &mut Batch) -> bool {
        let log = Arc::clone(&self.log);
        while !self.finished {
            let added = log.added.notified();
            if self.take(max, batch) {
                return true;
            }
            if !self.finished {
                added.await;
            }
        }
        false
    }

    /// Takes what there is, up to `max` bytes of output, without waiting. False when there is nothing.
    pub fn take(&mut self, max: usize, batch: &mut Batch) -> bool {
        batch.clear();
        let mut state = self.log.state();
        batch.epoch = state.epoch;
        let Some(pid) = state.pid else {
            // It never ran: there is nothing to wait for.
            self.finished = state.exit.is_some();
            return false;
        };
        if self.place == STARTED {
            batch.started = Some(pid);
            self.place = FIRST;
        }
        if std::mem::take(&mut self.unknown) {
            batch.gap = Some(Gap { bytes: None, reason: GapReason::UnknownCursor, end: state.start });
            self.place = state.start;
        } else if self.place < state.start {
            let bytes = Some(state.start - self.place);
            batch.gap = Some(Gap { bytes, reason: GapReason::Window, end: state.start });
            self.place = state.start;
        }
        if self.place < state.end {
            self.place = state.read(self.place, max, &mut batch.chunks);
        }
        if let Some(exit) = &state.exit
            && self.place >= state.end
        {
            self.finished = true;
            if self.place == state.end {
                self.place += 1;
                batch.exit = Some((Arc::clone(exit), self.place));
            }
        }
        let place = self.place;
        state.viewers.insert(self.id, place);
        state.foremost = state.foremost.max(Some(place));
        if std::mem::take(&mut state.reader_waits) {
            self.log.taken.notify_one();
        }
        !batch.is_empty()
    }

    /// Whether the end was taken.
    #[must_use]
    pub fn is_finished(&self) -> bool {
        self.finished
    }
}

impl Drop for Viewer {
    fn drop(&mut self) {
        let mut state = self.log.state();
        state.viewers.remove(&self.id);
        state.foremost = state.viewers.values().copied().max();
        if std::mem::take(&mut state.reader_waits) {
            self.log.taken.notify_one();
        }
    }
}

#[cfg(test)]
mod tests;
