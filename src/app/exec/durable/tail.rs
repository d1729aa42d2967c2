//! Reading a durable command's files while they grow.
//!
//! Output is told only once it is stored: whoever follows the command next goes on exactly there, without a gap.

use std::{sync::Arc, time::Duration};

use bytes::{Bytes, BytesMut};
use envd_client::DownloadBody;
use futures_util::StreamExt;
use tokio::{
    sync::watch,
    time::{Instant, sleep},
};

use super::Files;
use crate::{
    app::{
        App,
        exec::{
            follow::patience,
            session::{Flow, Session},
            store::{Allowance, Kept, persist},
        },
    },
    domain::exec::{GapReason, Offsets, Run, Segment, Stream},
    error::Result,
    storage::exec_output::Piece,
};

/// Between two looks: while something comes, while nothing does and somebody looks on, and while nobody does.
const SOON: Duration = Duration::from_millis(20);
const QUIET: Duration = Duration::from_millis(250);
const UNSEEN: Duration = Duration::from_secs(1);
/// Told, and stored, in one go.
const PIECE: usize = 256 << 10;

/// What the one that follows the process knows of its end.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(in crate::app::exec) enum Fate {
    Runs,
    /// It has ended: read the rest.
    Ended,
    /// Neither it nor its end was found: read what there is, if that can be had at once.
    Lost,
}

/// What a look at the files gave.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Progress {
    Some,
    Nothing,
    /// There are no files.
    Gone,
}

/// Fills the log from the files, until all of them is read of a command that has ended or another replica follows it.
pub(in crate::app::exec) async fn keep(app: &App, session: &Arc<Session>) {
    let mut tail = Tail {
        app,
        session,
        files: Files::of(&session.target, &session.exec.id),
        at: session.from,
        sizes: session.from,
        open: None,
        allowance: Allowance::new(app.config.exec.stored_window),
        kept: Kept::default(),
    };
    tokio::select! {
        biased;
        () = session.released.cancelled() => {}
        // It never ran.
        _ = session.log.finished() => {}
        () = tail.run() => {}
    }
    session.read_out.cancel();
}

struct Tail<'a> {
    app: &'a App,
    session: &'a Session,
    files: Files<'a>,
    /// What was read.
    at: Offsets,
    /// What was written when it was last looked.
    sizes: Offsets,
    open: Option<Open>,
    allowance: Allowance,
    kept: Kept,
}

/// A part of a file that is being read.
struct Open {
    stream: Stream,
    body: DownloadBody,
    until: u64,
}

impl Tail<'_> {
    async fn run(&mut self) {
        let (mut flow, mut fate) = (self.session.flow.subscribe(), self.session.fate.subscribe());
        let (mut pause, mut failing_since) = (SOON, None);
        loop {
            let known = *fate.borrow_and_update();
            let is_open = *flow.borrow_and_update() == Flow::Open;
            if is_open || known != Fate::Runs {
                match self.pass(&mut flow, known).await {
                    Ok(Progress::Gone) if known != Fate::Runs => return self.give_up().await,
                    // Files that are shorter than they were are somebody's doing in there.
                    Ok(Progress::Nothing) if known != Fate::Runs && self.behind() > 0 => return self.give_up().await,
                    Ok(Progress::Nothing) if known != Fate::Runs => return,
                    Ok(progress) => {
                        failing_since = None;
                        let longest = if self.session.log.viewers() > 0 { QUIET } else { UNSEEN };
                        pause = if progress == Progress::Some { SOON } else { (pause * 2).min(longest) };
                    }
                    Err(error) => {
                        tracing::info!(exec = %self.session.exec.id, %error, "the files of the command cannot be read");
                        let since = *failing_since.get_or_insert_with(Instant::now);
                        if known == Fate::Lost || (known == Fate::Ended && since.elapsed() > patience(&error)) {
                            return self.give_up().await;
                        }
                        pause = (pause * 2).min(UNSEEN);
                    }
                }
            }
            tokio::select! {
                () = sleep(pause), if is_open => {}
                () = sleep(UNSEEN), if !is_open => {}
                _ = flow.changed() => {}
                _ = fate.changed() => {}
            }
        }
    }

    /// Reads what there is.
    async fn pass(&mut self, flow: &mut watch::Receiver<Flow>, fate: Fate) -> Result<Progress> {
        let Some(written) = self.files.look().await? else { return Ok(Progress::Gone) };
        self.sizes = written.sizes;
        let mut progress = Progress::Nothing;
        loop {
            let piece = tokio::select! {
                biased;
                // The connection is closed before a pause. What was read and not told is read again.
                _ = flow.wait_for(|flow| *flow == Flow::Closing), if fate == Fate::Runs => {
                    self.open = None;
                    return Ok(progress);
                }
                piece = self.next() => piece,
            };
            match piece {
                Ok(Some((stream, data))) => self.tell(stream, data).await,
                Ok(None) => return Ok(progress),
                Err(error) => {
                    self.open = None;
                    return Err(error);
                }
            }
            progress = Progress::Some;
        }
    }

    /// The next piece of what was written when it was last looked.
    async fn next(&mut self) -> Result<Option<(Stream, Bytes)>> {
        for stream in [Stream::Stdout, Stream::Stderr] {
            let (from, until) = (self.at.of(stream), self.sizes.of(stream));
            if from >= until {
                continue;
            }
            let open = match self.open.take_if(|open| open.stream == stream && open.until > from) {
                Some(open) => open,
                None => match self.files.open(stream, from, until).await? {
                    Some(body) => Open { stream, body, until },
                    None => continue,
                },
            };
            let open = self.open.insert(open);
            let mut data = BytesMut::new();
            while data.len() < PIECE
                && let Some(piece) = open.body.next().await
            {
                data.extend_from_slice(&piece.map_err(|error| self.session.target.error(error))?);
            }
            if data.is_empty() {
                // It was cut short by whoever wrote it: look again.
                self.open = None;
                continue;
            }
            return Ok(Some((stream, data.freeze())));
        }
        Ok(None)
    }

    async fn tell(&mut self, stream: Stream, data: Bytes) {
        let len = data.len() as u64;
        let log = &self.session.log;
        if log.is_kept() {
            let mut segment = Segment { position: log.end(), ..Segment::default() };
            segment.push(stream, &data);
            // What lies so far back would be left to the files soon anyway.
            let left = self.behind().saturating_sub(len) >= self.app.config.exec.stored_window;
            if !left {
                self.allowance.spend(len).await;
            }
            if !self.store(&segment, left).await {
                return;
            }
        } else {
            log.room(data.len()).await;
        }
        log.append(stream, data);
        log.stored(log.end());
        self.at.advance(stream, len);
    }

    /// Bytes that were written and not told, as far as is known. Whoever runs there may have cut the files short.
    fn behind(&self) -> u64 {
        let of = |stream| self.sizes.of(stream).saturating_sub(self.at.of(stream));
        of(Stream::Stdout) + of(Stream::Stderr)
    }

    /// False when another replica follows the command.
    async fn store(&mut self, segment: &Segment, left: bool) -> bool {
        let piece = Piece { segment, offsets: Some(self.at), left };
        persist(self.app, self.session, &piece, &mut self.kept).await
    }

    /// There may be more that cannot be read any more: that is said.
    async fn give_up(&mut self) {
        let log = &self.session.log;
        let gap = vec![Run::Gap(GapReason::Reattached)];
        let segment = Segment { position: log.end(), runs: gap, data: Vec::new() };
        if !log.is_kept() || self.store(&segment, false).await {
            log.append_gap(GapReason::Reattached);
            log.stored(log.end());
        }
    }
}
