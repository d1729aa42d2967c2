//! What a log holds.

use std::{
    collections::{HashMap, VecDeque},
    sync::Arc,
};

use bytes::{Buf, Bytes, BytesMut};

use super::{Chunk, Gap};
use crate::domain::exec::{Cursor, Exit, FIRST, GapReason, Run, Segment, Stream};

/// Small writes are gathered up to this size, so that a chatty process costs no entry for each byte.
const GATHER: usize = 4096;

enum Content {
    Output(Stream, Bytes),
    /// Takes one place.
    Gap(GapReason),
}

pub(super) struct Entry {
    at: u64,
    content: Content,
}

impl Entry {
    fn len(&self) -> usize {
        match &self.content {
            Content::Output(_, data) => data.len(),
            Content::Gap(_) => 1,
        }
    }

    fn end(&self) -> u64 {
        self.at + self.len() as u64
    }
}

/// Small writes in a row, of one stream.
struct Gathering {
    stream: Stream,
    at: u64,
    data: BytesMut,
}

pub(super) struct State {
    pub(super) epoch: u32,
    pub(super) pid: Option<u32>,
    pub(super) entries: VecDeque<Entry>,
    gathering: Option<Gathering>,
    /// Places of the first byte that is held, and after the last.
    pub(super) start: u64,
    pub(super) end: u64,
    /// Place up to which it is stored.
    pub(super) stored: u64,
    /// Bytes held beyond the window, as the budget was told.
    pub(super) beyond: u64,
    pub(super) exit: Option<Arc<Exit>>,
    /// It is followed elsewhere now.
    pub(super) cut: bool,
    pub(super) viewers: HashMap<u64, u64>,
    next_viewer: u64,
    /// The foremost viewer's place.
    pub(super) foremost: Option<u64>,
    pub(super) reader_waits: bool,
}

impl State {
    pub(super) fn new(epoch: u32, first: u64) -> Self {
        Self {
            epoch,
            pid: None,
            entries: VecDeque::new(),
            gathering: None,
            start: first,
            end: first,
            stored: first,
            beyond: 0,
            exit: None,
            cut: false,
            viewers: HashMap::new(),
            next_viewer: 0,
            foremost: None,
            reader_waits: false,
        }
    }

    pub(super) fn admit(&mut self, place: u64) -> u64 {
        let id = self.next_viewer;
        self.next_viewer += 1;
        self.viewers.insert(id, place);
        self.foremost = self.foremost.max(Some(place));
        id
    }

    pub(super) fn held(&self) -> usize {
        usize::try_from(self.end - self.start).unwrap_or(usize::MAX)
    }

    pub(super) fn knows(&self, cursor: &Cursor) -> bool {
        cursor.epoch == self.epoch && cursor.position <= self.end + u64::from(self.exit.is_some())
    }

    pub(super) fn has_room(&self, len: usize, window: usize, max_entries: usize) -> bool {
        let Some(foremost) = self.foremost.filter(|_| !self.cut) else { return true };
        let foremost = foremost.max(FIRST);
        let oldest_unread = self.gathering.as_ref().map_or(self.end, |gathering| gathering.at);
        let oldest = self.entries.front().map_or(oldest_unread, Entry::end);
        let fits = self.end.saturating_sub(foremost) as usize + len <= window;
        foremost >= self.end || (fits && (self.entries.len() < max_entries || oldest <= foremost))
    }

    pub(super) fn push(&mut self, stream: Stream, data: Bytes) {
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
                    self.entries.push_back(Entry { at: self.end, content: Content::Output(stream, data) });
                }
            }
        }
        self.end += len as u64;
    }

    pub(super) fn push_gap(&mut self, reason: GapReason) {
        self.settle();
        self.entries.push_back(Entry { at: self.end, content: Content::Gap(reason) });
        self.end += 1;
    }

    /// Makes an entry of what was gathered, no larger than it is.
    fn settle(&mut self) {
        let Some(Gathering { stream, at, data }) = self.gathering.take() else { return };
        let data = if data.capacity() > data.len() * 2 { Bytes::copy_from_slice(&data) } else { data.freeze() };
        self.entries.push_back(Entry { at, content: Content::Output(stream, data) });
    }

    /// Drops what is held beyond `window` and stored, and what is held beyond `most` in any case.
    pub(super) fn drop_oldest(&mut self, window: usize, most: usize, max_entries: usize) {
        if self.held() > window && self.entries.is_empty() {
            self.settle();
        }
        loop {
            let stored = usize::try_from(self.stored.saturating_sub(self.start)).unwrap_or(usize::MAX);
            let held = self.held();
            let excess = held.saturating_sub(window).min(stored).max(held.saturating_sub(most));
            let too_many = self.entries.len() > max_entries;
            let Some(front) = self.entries.front_mut() else { return };
            if excess >= front.len() || too_many {
                self.start = front.end();
                self.entries.pop_front();
                continue;
            }
            if let Content::Output(_, data) = &mut front.content {
                data.advance(excess);
                front.at += excess as u64;
                self.start = front.at;
            }
            return;
        }
    }

    /// Copies up to `max` bytes from `place` on, up to a gap that is not the first thing there.
    pub(super) fn read(&self, mut place: u64, max: usize, gap: &mut Option<Gap>, chunks: &mut Vec<Chunk>) -> u64 {
        let mut left = max;
        let first = self.entries.partition_point(|entry| entry.end() <= place);
        for entry in self.entries.range(first..) {
            if left == 0 {
                return place;
            }
            match &entry.content {
                Content::Gap(_) if gap.is_some() || !chunks.is_empty() => return place,
                Content::Gap(reason) => {
                    place = entry.end();
                    *gap = Some(Gap { bytes: None, reason: *reason, end: place });
                }
                Content::Output(stream, data) => {
                    let skipped = (place - entry.at) as usize;
                    let until = data.len().min(skipped.saturating_add(left));
                    let data = data.slice(skipped..until);
                    left -= data.len();
                    place += data.len() as u64;
                    chunks.push(Chunk { stream: *stream, data, end: place });
                }
            }
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

    pub(super) fn segment(&self, max: usize) -> Option<Segment> {
        let position = self.stored.max(self.start);
        let mut segment = Segment { position, runs: Vec::new(), data: Vec::new() };
        let mut place = position;
        while place < self.end && segment.data.len() < max {
            let (mut gap, mut chunks) = (None, Vec::new());
            place = self.read(place, max - segment.data.len(), &mut gap, &mut chunks);
            segment.runs.extend(gap.map(|gap: Gap| Run::Gap(gap.reason)));
            for chunk in chunks {
                segment.push(chunk.stream, &chunk.data);
            }
        }
        (place > position).then_some(segment)
    }
}
