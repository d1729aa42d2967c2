//! Output that is not in memory any more: what was stored of it, owner by owner.

use bytes::Bytes;

use super::{
    durable,
    log::{Batch, Chunk, Gap},
};
use crate::{
    app::App,
    domain::exec::{Exec, FIRST, GapReason, Run},
    error::Result,
    storage::exec_output::{self, Stored},
};

/// Pieces are as large as the daemon's, so that no frame is larger than those of what is in memory.
const MAX_CHUNK: usize = 32 << 10;

/// A place in one owner's counting.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct At {
    pub(super) epoch: u32,
    pub(super) position: u64,
}

/// A reader of stored output.
pub(super) struct History {
    at: At,
    held: Option<Held>,
}

/// A piece that is being read.
struct Held {
    stored: Stored,
    /// `None`: it is not to be had any more.
    data: Option<Bytes>,
}

impl Held {
    async fn of(app: &App, exec: &Exec, mut stored: Stored) -> Result<Self> {
        let data = match stored.left_at {
            Some(at) => durable::left(app, exec, &stored.segment, at).await?,
            None => Some(std::mem::take(&mut stored.segment.data).into()),
        };
        Ok(Self { stored, data })
    }
}

impl History {
    pub(super) fn new(at: At) -> Self {
        Self { at, held: None }
    }

    pub(super) fn at(&self) -> At {
        self.at
    }

    /// Takes what was stored next and lies before `until`, up to about `max` bytes. False when there is no more.
    ///
    /// # Errors
    /// When the database fails.
    pub(super) async fn next(
        &mut self,
        app: &App,
        exec: &Exec,
        until: Option<At>,
        max: usize,
        batch: &mut Batch,
    ) -> Result<bool> {
        batch.clear();
        let Some(held) = self.piece(app, exec).await? else { return Ok(false) };
        let start = At { epoch: held.stored.epoch, position: held.stored.segment.position };
        if until.is_some_and(|until| start.max(self.at) >= until) {
            return Ok(false);
        }
        if start.epoch != self.at.epoch && !exec.durable {
            batch.gap = Some(Gap { bytes: None, reason: GapReason::OwnerChanged, end: start.position });
            self.at = start;
        } else if start.position > self.at.position {
            let bytes = Some(start.position - self.at.position);
            batch.gap = Some(Gap { bytes, reason: GapReason::Window, end: start.position });
            self.at = start;
        }
        self.at.epoch = start.epoch;
        batch.epoch = self.at.epoch;
        self.read(max, batch);
        Ok(true)
    }

    async fn piece(&mut self, app: &App, exec: &Exec) -> Result<Option<&Held>> {
        let covers = |held: &Held| held.stored.epoch == self.at.epoch && held.stored.segment.end() > self.at.position;
        if !self.held.as_ref().is_some_and(covers) {
            let mut connection = app.pool.acquire().await?;
            let At { epoch, position } = self.at;
            let next = exec_output::next(&mut connection, &exec.team_id, &exec.id, epoch, position).await?;
            drop(connection);
            self.held = match next {
                Some(stored) => Some(Held::of(app, exec, stored).await?),
                None => None,
            };
        }
        Ok(self.held.as_ref())
    }

    /// Reads on in the piece at hand, up to a gap that is not the first thing there.
    fn read(&mut self, max: usize, batch: &mut Batch) {
        let Some(held) = &self.held else { return };
        let Some(data) = &held.data else {
            let end = held.stored.segment.end();
            batch.gap = Some(Gap { bytes: Some(end - self.at.position), reason: GapReason::Expired, end });
            self.at.position = end;
            return;
        };
        let (mut place, mut offset, mut left) = (held.stored.segment.position, 0_usize, max);
        for run in &held.stored.segment.runs {
            let (start, end) = (place, place + run.places());
            place = end;
            let from = offset;
            if let Run::Output(_, len) = run {
                offset += *len as usize;
            }
            if end <= self.at.position {
                continue;
            }
            match run {
                Run::Gap(_) if batch.gap.is_some() || !batch.chunks.is_empty() => return,
                Run::Gap(reason) => batch.gap = Some(Gap { bytes: None, reason: *reason, end }),
                Run::Output(stream, len) => {
                    let skipped = (self.at.position.max(start) - start) as usize;
                    let until = (*len as usize).min(skipped.saturating_add(left));
                    left -= until - skipped;
                    for piece in (skipped..until).step_by(MAX_CHUNK) {
                        let end = until.min(piece + MAX_CHUNK);
                        self.at.position = start + end as u64;
                        let data = data.slice(from + piece..from + end);
                        batch.chunks.push(Chunk { stream: *stream, data, end: self.at.position });
                    }
                    if left == 0 {
                        return;
                    }
                    continue;
                }
            }
            self.at.position = end;
        }
    }

    /// Goes on at the beginning of a later owner's counting, of whose predecessor no more is stored.
    pub(super) fn move_to_epoch(&mut self, epoch: u32, batch: &mut Batch) {
        batch.clear();
        self.at = At { epoch, position: FIRST };
        batch.epoch = epoch;
        batch.gap = Some(Gap { bytes: None, reason: GapReason::OwnerChanged, end: FIRST });
    }
}
