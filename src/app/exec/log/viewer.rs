//! Looking on.

use std::sync::Arc;

use super::{Batch, Gap, Log, state::State};
use crate::domain::exec::{FIRST, GapReason, STARTED};

/// What there was to see.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Look {
    /// Something: it is in the batch.
    Taken,
    /// Nothing yet.
    Nothing,
    /// What comes next is not in memory any more: it was stored.
    Behind,
    /// All was taken, the end included.
    Finished,
    /// The command is followed elsewhere now: resume there.
    Cut,
}

/// One who looks on. Dropping it detaches.
pub struct Viewer {
    log: Arc<Log>,
    id: u64,
    place: u64,
    unknown: bool,
    /// What is behind is not to be had: tell it as a gap.
    skips: bool,
    finished: bool,
}

impl Viewer {
    pub(super) fn new(log: Arc<Log>, id: u64, place: u64, unknown: bool) -> Self {
        Self { log, id, place, unknown, skips: false, finished: false }
    }

    /// Waits until there is something and takes up to `max` bytes of output. Never [`Look::Nothing`].
    pub async fn next(&mut self, max: usize, batch: &mut Batch) -> Look {
        let log = Arc::clone(&self.log);
        loop {
            let added = log.added.notified();
            match self.take(max, batch) {
                Look::Nothing => added.await,
                look => return look,
            }
        }
    }

    /// Takes what there is, up to `max` bytes of output, without waiting.
    pub fn take(&mut self, max: usize, batch: &mut Batch) -> Look {
        batch.clear();
        if self.finished {
            return Look::Finished;
        }
        let log = Arc::clone(&self.log);
        let mut state = log.state();
        batch.epoch = state.epoch;
        if state.cut {
            return Look::Cut;
        }
        let Some(pid) = state.pid else {
            // It never ran: there is nothing to wait for.
            self.finished = state.exit.is_some();
            return if self.finished { Look::Finished } else { Look::Nothing };
        };
        if self.place == STARTED {
            batch.started = Some(pid);
            self.place = FIRST;
        }
        if !self.skip_gap(&state, batch) {
            return if batch.is_empty() { Look::Behind } else { Look::Taken };
        }
        if self.place < state.end {
            self.place = state.read(self.place, max, &mut batch.gap, &mut batch.chunks);
        }
        self.take_exit(&state, batch);
        self.report(&mut state);
        match (batch.is_empty(), self.finished) {
            (false, _) => Look::Taken,
            (true, true) => Look::Finished,
            (true, false) => Look::Nothing,
        }
    }

    /// False: what comes next was stored and is not skipped.
    fn skip_gap(&mut self, state: &State, batch: &mut Batch) -> bool {
        if std::mem::take(&mut self.unknown) {
            batch.gap = Some(Gap { bytes: None, reason: GapReason::UnknownCursor, end: state.start });
            self.place = state.start;
        } else if self.place < state.start {
            if self.log.keeping.is_some() && !self.skips {
                return false;
            }
            let bytes = Some(state.start - self.place);
            batch.gap = Some(Gap { bytes, reason: GapReason::Window, end: state.start });
            self.place = state.start;
        }
        self.skips = false;
        true
    }

    fn take_exit(&mut self, state: &State, batch: &mut Batch) {
        let Some(exit) = &state.exit else { return };
        if self.place == state.end {
            self.place += 1;
            batch.exit = Some((Arc::clone(exit), self.place));
        }
        self.finished = self.place > state.end;
    }

    fn report(&self, state: &mut State) {
        state.viewers.insert(self.id, self.place);
        state.foremost = state.foremost.max(Some(self.place));
        if std::mem::take(&mut state.reader_waits) {
            self.log.taken.notify_one();
        }
    }

    /// Its place, that of the next byte.
    #[must_use]
    pub fn place(&self) -> u64 {
        self.place
    }

    /// Goes on from `place`, which it has read up to elsewhere.
    pub fn move_to(&mut self, place: u64) {
        self.place = place;
        let log = Arc::clone(&self.log);
        self.report(&mut log.state());
    }

    /// What was behind is not to be had: the next look tells how much, and goes on with what is held.
    pub fn skip(&mut self) {
        self.skips = true;
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
