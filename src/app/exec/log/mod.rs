//! The output of one command: a window of bytes between the one task that reads it and those who look on.
//!
//! Whoever looks on holds a [`Viewer`], a place in the log. With viewers attached the reader waits when the foremost is a
//! window behind; without any it never waits, and the oldest output is dropped. A log that is [kept](Keeping) in the
//! database too drops first what was stored, and holds more than its window, within limits, while storing lags behind.

mod state;
mod viewer;

use std::sync::{
    Arc, Mutex, MutexGuard, PoisonError,
    atomic::{AtomicU64, Ordering},
};

use bytes::Bytes;
use tokio::sync::Notify;

use self::state::State;
pub use self::viewer::{Look, Viewer};
use crate::domain::exec::{Cursor, Exit, FIRST, GapReason, STARTED, Segment, Stream};

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
    /// Whose counting the places are of.
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

/// What all logs together may hold beyond their windows. Clones share it.
#[derive(Clone, Debug)]
pub struct Budget(Arc<Spent>);

#[derive(Debug)]
struct Spent {
    bytes: AtomicU64,
    max: u64,
}

impl Budget {
    #[must_use]
    pub fn new(max: u64) -> Self {
        Self(Arc::new(Spent { bytes: AtomicU64::new(0), max }))
    }

    fn is_spent(&self) -> bool {
        self.0.bytes.load(Ordering::Relaxed) >= self.0.max
    }

    fn change(&self, from: u64, to: u64) {
        if to >= from {
            self.0.bytes.fetch_add(to - from, Ordering::Relaxed);
        } else {
            self.0.bytes.fetch_sub(from - to, Ordering::Relaxed);
        }
    }
}

/// That a log is stored in the database too.
#[derive(Clone, Debug)]
pub struct Keeping {
    /// Bytes held at most while storing lags behind.
    pub most: usize,
    pub budget: Budget,
}

/// The log of one command.
pub struct Log {
    state: Mutex<State>,
    window: usize,
    max_entries: usize,
    keeping: Option<Keeping>,
    /// Something was added.
    added: Notify,
    /// The foremost viewer moved on, or the last one left.
    taken: Notify,
}

impl Log {
    /// `first`: the place of the first byte to come. `window`: bytes held at most, and how far the foremost viewer may be behind.
    #[must_use]
    pub fn new(epoch: u32, first: u64, window: usize, keeping: Option<Keeping>) -> Self {
        let window = window.max(1);
        let most = keeping.as_ref().map_or(window, |keeping| keeping.most.max(window));
        Self {
            state: Mutex::new(State::new(epoch, first)),
            window,
            max_entries: (most / BYTES_PER_ENTRY).max(MIN_ENTRIES),
            keeping,
            added: Notify::new(),
            taken: Notify::new(),
        }
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

    /// Whether it is stored too.
    #[must_use]
    pub fn is_kept(&self) -> bool {
        self.keeping.is_some()
    }

    /// The place of the first byte that is held.
    #[must_use]
    pub fn start(&self) -> u64 {
        self.state().start
    }

    /// The place after the last byte.
    #[must_use]
    pub fn end(&self) -> u64 {
        self.state().end
    }

    /// Bytes held.
    #[must_use]
    pub fn held(&self) -> usize {
        self.state().held()
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
        self.change(|state| state.push(stream, data));
    }

    /// States that output is missing here.
    pub fn append_gap(&self, reason: GapReason) {
        self.change(|state| state.push_gap(reason));
    }

    fn change(&self, add: impl FnOnce(&mut State)) {
        {
            let mut state = self.state();
            add(&mut state);
            self.trim(&mut state);
        }
        self.added.notify_waiters();
    }

    fn trim(&self, state: &mut State) {
        let Some(keeping) = &self.keeping else {
            return state.drop_oldest(self.window, self.window, self.max_entries);
        };
        let most = if keeping.budget.is_spent() { self.window } else { keeping.most.max(self.window) };
        state.drop_oldest(self.window, most, self.max_entries);
        let beyond = state.held().saturating_sub(self.window) as u64;
        keeping.budget.change(std::mem::replace(&mut state.beyond, beyond), beyond);
    }

    /// The process has ended; nothing is added any more.
    pub fn finish(&self, exit: Arc<Exit>) {
        self.state().exit = Some(exit);
        self.added.notify_waiters();
    }

    /// Sends everybody away, without an end: they can resume where the command is followed now.
    pub fn cut(&self) {
        self.state().cut = true;
        self.added.notify_waiters();
        self.taken.notify_one();
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
    /// A cursor of an owner before this one is the beginning here.
    #[must_use]
    pub fn attach(self: &Arc<Self>, after: Option<&Cursor>) -> Viewer {
        let mut state = self.state();
        let (place, unknown) = match after {
            None => (STARTED, false),
            Some(cursor) if state.knows(cursor) => (cursor.position, false),
            Some(cursor) if self.keeping.is_some() && cursor.epoch < state.epoch => (FIRST, false),
            Some(_) => (state.start, true),
        };
        let id = state.admit(place);
        Viewer::new(Arc::clone(self), id, place, unknown)
    }

    /// Waits until at least `enough` bytes are to be stored, or the process has ended and some are. False when it has ended
    /// and all is stored.
    pub async fn to_store(&self, enough: u64) -> bool {
        loop {
            let added = self.added.notified();
            {
                let state = self.state();
                let left = state.end - state.stored;
                if left >= enough.max(1) || state.exit.is_some() || state.cut {
                    return left > 0;
                }
            }
            added.await;
        }
    }

    /// Copies the oldest output that is held and not stored, up to `max` bytes.
    #[must_use]
    pub fn segment(&self, max: usize) -> Option<Segment> {
        self.state().segment(max)
    }

    /// All before `place` is stored.
    pub fn stored(&self, place: u64) {
        let mut state = self.state();
        state.stored = state.stored.max(place);
        self.trim(&mut state);
    }
}

impl Drop for Log {
    fn drop(&mut self) {
        if let Some(keeping) = &self.keeping {
            let beyond = self.state.get_mut().unwrap_or_else(PoisonError::into_inner).beyond;
            keeping.budget.change(beyond, 0);
        }
    }
}

#[cfg(test)]
mod tests;
