//! What one viewer sees of a command: what was stored, then what is in memory, then the end.

use std::sync::Arc;

use super::{
    history::{At, History},
    log::{Batch, Gap, Look, Viewer},
    session::Session,
};
use crate::{
    app::App,
    domain::exec::{Cursor, Exec, Exit, FIRST, GapReason, Kept, STARTED, Stream},
    error::Result,
};

/// Output taken from the log at once.
const MAX_GATHERED: usize = 256 << 10;

/// What was kept of a command's output. A terminal's is in `stdout`.
#[derive(Default)]
pub struct Gathered {
    pub stdout: Kept,
    pub stderr: Kept,
}

/// One's hold on a command's output. Dropping it detaches, and ends the command if it lives as long as this request.
pub struct Source {
    app: App,
    exec: Exec,
    live: Option<(Arc<Session>, Viewer)>,
    history: Option<History>,
    /// The cursor to begin at was none of this command's: says so first.
    unknown: bool,
    /// Tells the beginning first.
    tells_start: bool,
    /// How it ended, of one that is not in memory.
    exit: Option<Arc<Exit>>,
    owns: bool,
}

impl Source {
    /// Looks on at a command that is followed here. `owns`: it ends with this.
    pub(super) fn live(app: &App, session: Arc<Session>, after: Option<&Cursor>, owns: bool) -> Self {
        let mut viewer = session.log.attach(after);
        let epoch = session.log.epoch();
        let earlier = session.log.is_kept() && after.map_or(epoch > 1, |cursor| cursor.epoch < epoch);
        let (history, tells_start) = if earlier { (Some(begin(after)), starts(after)) } else { (None, false) };
        if earlier {
            viewer.move_to(FIRST);
        }
        metrics::gauge!("ags_gateway_exec_viewers").increment(1.0);
        let exec = session.exec.clone();
        Self {
            app: app.clone(),
            exec,
            live: Some((session, viewer)),
            history,
            unknown: false,
            tells_start,
            exit: None,
            owns,
        }
    }

    /// Looks on at a command that is not followed here: at what was stored, and its end if that is known.
    pub(super) fn stored(app: &App, exec: Exec, after: Option<&Cursor>) -> Self {
        metrics::gauge!("ags_gateway_exec_viewers").increment(1.0);
        let told = exec.exit().map_or(u64::MAX, |_| exec.output_end.unwrap_or(FIRST) + 1);
        let the_end = At { epoch: exec.epoch, position: told };
        let place = |cursor: &Cursor| At { epoch: cursor.epoch, position: cursor.position };
        let unknown = after.map(place) > Some(the_end);
        let exit = exec.exit().map(Arc::new).filter(|_| after.map(place) != Some(the_end));
        let history = (exit.is_some() || exec.exit().is_none()).then(|| begin(after.filter(|_| !unknown)));
        let tells_start = starts(after) && exec.pid.is_some();
        Self { app: app.clone(), exec, live: None, history, unknown, tells_start, exit, owns: false }
    }

    /// What is known of the command now.
    #[must_use]
    pub fn snapshot(&self) -> Exec {
        match &self.live {
            Some((session, _)) => session.snapshot(),
            None => self.exec.clone(),
        }
    }

    /// The command, as it was when this began.
    #[must_use]
    pub fn exec(&self) -> &Exec {
        &self.exec
    }

    /// The command, if it is followed here.
    #[must_use]
    pub fn session(&self) -> Option<&Arc<Session>> {
        self.live.as_ref().map(|(session, _)| session)
    }

    /// Where the output that there is now ends, of a command that is followed here.
    #[must_use]
    pub fn present(&self) -> Option<Cursor> {
        let log = &self.session()?.log;
        Some(Cursor { epoch: log.epoch(), position: log.end(), ..Cursor::default() })
    }

    /// Waits until there is something and takes up to about `max` bytes of output. Never [`Look::Nothing`] nor
    /// [`Look::Behind`]; [`Look::Cut`] also for a command that runs and that nobody follows for the moment.
    ///
    /// # Errors
    /// When the database fails; the place is kept.
    pub async fn next(&mut self, max: usize, batch: &mut Batch) -> Result<Look> {
        self.step(max, batch, true).await
    }

    /// Takes what there is, without waiting for more.
    ///
    /// # Errors
    /// When the database fails; the place is kept.
    pub async fn take(&mut self, max: usize, batch: &mut Batch) -> Result<Look> {
        self.step(max, batch, false).await
    }

    /// Waits for the end and keeps what was printed: the first `limit` bytes of each stream.
    ///
    /// # Errors
    /// When what was printed cannot be read.
    pub async fn gather(&mut self, limit: usize) -> Result<Gathered> {
        let (mut batch, mut gathered) = (Batch::default(), Gathered::default());
        while self.next(MAX_GATHERED, &mut batch).await? == Look::Taken {
            for chunk in &batch.chunks {
                let Gathered { stdout, stderr } = &mut gathered;
                let kept = if chunk.stream == Stream::Stderr { stderr } else { stdout };
                kept.add(&chunk.data, limit);
            }
        }
        Ok(gathered)
    }

    async fn step(&mut self, max: usize, batch: &mut Batch, wait: bool) -> Result<Look> {
        loop {
            if self.history.is_some() {
                if self.read_history(max, batch).await? {
                    return Ok(Look::Taken);
                }
                continue;
            }
            let Some((_, viewer)) = &mut self.live else { return Ok(self.take_end(batch)) };
            let look = if wait { viewer.next(max, batch).await } else { viewer.take(max, batch) };
            match look {
                Look::Behind => {
                    let at = At { epoch: batch.epoch, position: viewer.place() };
                    self.history = Some(History::new(at));
                }
                look => return Ok(look),
            }
        }
    }

    /// False when there is no more to be had from what was stored: then there is no history any more.
    async fn read_history(&mut self, max: usize, batch: &mut Batch) -> Result<bool> {
        let Some(history) = &mut self.history else { return Ok(false) };
        if std::mem::take(&mut self.unknown) {
            let At { epoch, position } = history.at();
            batch.clear();
            batch.epoch = epoch;
            batch.gap = Some(Gap { bytes: None, reason: GapReason::UnknownCursor, end: position });
            return Ok(true);
        }
        if self.tells_start {
            self.tells_start = false;
            batch.clear();
            batch.epoch = history.at().epoch;
            batch.started = self.live.as_ref().map_or(self.exec.pid, |(session, _)| session.log.pid());
            return Ok(batch.started.is_some());
        }
        let until =
            self.live.as_ref().map(|(session, _)| At { epoch: session.log.epoch(), position: session.log.start() });
        // Boxed: those who only look on at what comes are many, and have no use for its room.
        if Box::pin(history.next(&self.app, &self.exec, until, max, batch)).await? {
            return Ok(true);
        }
        let at = history.at();
        if let Some((session, viewer)) = &mut self.live {
            let epoch = session.log.epoch();
            if at.epoch < epoch && !self.exec.durable {
                history.move_to_epoch(epoch, batch);
                return Ok(true);
            }
            viewer.move_to(at.position);
            // It was dropped from memory before it was looked for among what is stored: so it is lost.
            if until.is_some_and(|until| at < until) {
                viewer.skip();
            }
            self.history = None;
            return Ok(false);
        }
        self.history = None;
        batch.clear();
        let end = At { epoch: self.exec.epoch, position: self.exec.output_end.unwrap_or_default() };
        let counted_on = at.epoch == end.epoch || self.exec.durable;
        let missing = if counted_on { at.position < end.position } else { at < end };
        if self.exit.is_some() && missing {
            let bytes = counted_on.then(|| end.position - at.position);
            let reason = if counted_on { GapReason::Expired } else { GapReason::OwnerChanged };
            batch.epoch = end.epoch;
            batch.gap = Some(Gap { bytes, reason, end: end.position });
            return Ok(true);
        }
        Ok(false)
    }

    fn take_end(&mut self, batch: &mut Batch) -> Look {
        batch.clear();
        if self.exec.exit().is_none() {
            return Look::Cut;
        }
        let Some(exit) = self.exit.take() else { return Look::Finished };
        batch.epoch = self.exec.epoch;
        batch.exit = Some((exit, self.exec.output_end.unwrap_or(FIRST) + 1));
        Look::Taken
    }
}

fn begin(after: Option<&Cursor>) -> History {
    let cursor = after.copied().unwrap_or(Cursor { epoch: 1, ..Cursor::default() });
    History::new(At { epoch: cursor.epoch, position: cursor.position.max(FIRST) })
}

fn starts(after: Option<&Cursor>) -> bool {
    after.is_none_or(|cursor| cursor.epoch <= 1 && cursor.position == STARTED)
}

impl Drop for Source {
    fn drop(&mut self) {
        metrics::gauge!("ags_gateway_exec_viewers").decrement(1.0);
        if let Some((session, _)) = &self.live
            && self.owns
        {
            session.stop();
        }
    }
}
