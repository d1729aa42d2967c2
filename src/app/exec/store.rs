//! Storing the output of commands that outlive their viewers, while they run.

use std::{sync::Arc, time::Duration};

use tokio::time::{Instant, sleep, timeout};

use super::session::Session;
use crate::{
    app::App,
    domain::exec::Segment,
    error::Result,
    storage::exec_output::{self, Piece, Place},
};

/// Output is stored after this time at the latest, and at once when there is this much.
const GATHER_FOR: Duration = Duration::from_millis(250);
const GATHER: u64 = 256 << 10;
/// Stored in one go: a sixteenth of the window, within these bounds.
const MIN_SEGMENT: u64 = 64 << 10;
const MAX_SEGMENT: u64 = 1 << 20;
/// A command that prints more than this per second, for longer than its window lasts, has what is stored thinned out: what
/// it prints is worth more to those who look on than to the database.
const BYTES_PER_SECOND: u64 = 8 << 20;
const RETRY: Duration = Duration::from_millis(500);

/// Stores what a command prints until it has ended and all is stored, or another replica follows it.
pub(super) async fn keep(app: &App, session: &Arc<Session>) {
    let allowance = Allowance::new(app.config.exec.stored_window);
    let mut keeper = Keeper { app, session, kept: Kept::default(), allowance };
    tokio::select! {
        () = keeper.run() => {}
        () = session.released.cancelled() => {}
    }
}

/// Stores what is left, before the command is left to another replica. The database may be away: then that is lost.
pub(super) async fn flush(app: &App, session: &Session) -> Result<()> {
    while let Some(segment) = session.log.segment(segment_size(app)) {
        if !append(app, session, &whole(&segment)).await? {
            return Ok(());
        }
        session.log.stored(segment.end());
    }
    Ok(())
}

fn segment_size(app: &App) -> usize {
    let size = (app.config.exec.stored_window / 16).clamp(MIN_SEGMENT, MAX_SEGMENT);
    usize::try_from(size).unwrap_or(usize::MAX)
}

fn whole(segment: &Segment) -> Piece<'_> {
    Piece { segment, offsets: None, left: false }
}

/// Stores a piece of output. False when another replica follows the command.
async fn append(app: &App, session: &Session, piece: &Piece<'_>) -> Result<bool> {
    let place = Place { exec: &session.exec.id, epoch: session.exec.epoch, owner: app.execs.replica() };
    let mut connection = app.pool.acquire().await?;
    Ok(exec_output::system_append(&mut connection, &place, piece).await?)
}

/// Bytes stored since what is beyond the window was dropped.
#[derive(Default)]
pub(super) struct Kept(u64);

impl Kept {
    /// A segment was stored. What is beyond the window is dropped, or left to the sandbox's files, some number at once.
    pub(super) async fn add(&mut self, app: &App, session: &Session, segment: &Segment) {
        self.0 += segment.data.len() as u64;
        let window = app.config.exec.stored_window;
        if self.0 <= window + window / 8 + MIN_SEGMENT {
            return;
        }
        let trimmed = async {
            let mut connection = app.pool.acquire().await?;
            let id = &session.exec.id;
            if session.exec.durable {
                return exec_output::system_leave(&mut connection, id, window).await;
            }
            exec_output::system_trim(&mut connection, id, window).await
        };
        match trimmed.await {
            Ok(left) => self.0 = left,
            // The next segment brings the next chance.
            Err(error) => tracing::warn!(exec = %session.exec.id, %error, "stored output was not trimmed"),
        }
    }
}

/// Stores a piece of output, however long the database is away. False when another replica follows the command, to which
/// it is left then.
pub(super) async fn persist(app: &App, session: &Session, piece: &Piece<'_>, kept: &mut Kept) -> bool {
    loop {
        match append(app, session, piece).await {
            Ok(true) => {
                if !piece.left {
                    kept.add(app, session, piece.segment).await;
                }
                return true;
            }
            Ok(false) => {
                session.release();
                return false;
            }
            Err(error) => {
                tracing::warn!(exec = %session.exec.id, %error, "output could not be stored, trying again");
                sleep(RETRY).await;
            }
        }
    }
}

struct Keeper<'a> {
    app: &'a App,
    session: &'a Session,
    kept: Kept,
    allowance: Allowance,
}

impl Keeper<'_> {
    async fn run(&mut self) {
        let log = &self.session.log;
        while log.to_store(1).await {
            let gathered = timeout(GATHER_FOR, log.to_store(GATHER)).await;
            // Those who wait get the last of it sooner.
            let ended = gathered.is_ok() && log.exit().is_some();
            while let Some(segment) = log.segment(segment_size(self.app)) {
                if !ended {
                    self.allowance.spend(segment.data.len() as u64).await;
                }
                if !persist(self.app, self.session, &whole(&segment), &mut self.kept).await {
                    return;
                }
                log.stored(segment.end());
                if (segment.data.len() as u64) < GATHER {
                    break;
                }
            }
        }
    }
}

/// So many bytes at once, and so many per second after that.
pub(super) struct Allowance {
    left: f64,
    most: f64,
    since: Instant,
}

impl Allowance {
    pub(super) fn new(most: u64) -> Self {
        Self { left: most as f64, most: most as f64, since: Instant::now() }
    }

    pub(super) async fn spend(&mut self, bytes: u64) {
        let now = Instant::now();
        let earned = now.duration_since(self.since).as_secs_f64() * BYTES_PER_SECOND as f64;
        self.left = (self.left + earned).min(self.most) - bytes as f64;
        self.since = now;
        if self.left < 0.0 {
            sleep(Duration::from_secs_f64(-self.left / BYTES_PER_SECOND as f64)).await;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test(start_paused = true)]
    async fn a_burst_is_free_and_what_follows_is_paced() {
        let mut allowance = Allowance::new(16 << 20);
        let start = Instant::now();
        allowance.spend(16 << 20).await;
        assert_eq!(start.elapsed(), Duration::ZERO);
        allowance.spend(8 << 20).await;
        assert_eq!(start.elapsed().as_millis(), 1000);
        tokio::time::advance(Duration::from_secs(60)).await;
        allowance.spend(16 << 20).await;
        assert_eq!(start.elapsed().as_millis(), 61_000);
    }
}
