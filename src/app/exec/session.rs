//! A command that is followed here.

use std::{
    sync::{Arc, atomic::AtomicBool},
    time::Duration,
};

use chrono::{DateTime, Utc};
use tokio::{sync::watch, time::Instant};
use tokio_util::sync::CancellationToken;

use super::{
    durable::tail::Fate,
    log::Log,
    process::{Process, selector},
};
use crate::{
    app::instances::Target,
    domain::exec::{Exec, Exit, Offsets},
};

/// The first owner of an exec's output. A later one, after a restart, counts on from the row.
pub(super) const FIRST_EPOCH: u32 = 1;

/// What a command lives as long as.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Lifetime {
    /// The request that started it: a waiting or streaming POST.
    Request,
    /// Nothing but itself: background, or started over a WebSocket.
    Own,
}

/// Whether output flows from the sandbox.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Flow {
    Open,
    /// The instance is about to be paused: close the stream.
    Closing,
    /// It is closed, until the instance runs again.
    Closed,
}

/// A command that is followed here: its log, and the way to its process.
pub struct Session {
    /// What was known of it when it began to be followed here.
    pub exec: Exec,
    pub log: Arc<Log>,
    pub(super) target: Target,
    pub(super) began: Instant,
    /// Somebody asked for its end.
    pub(super) stop: CancellationToken,
    /// Another replica follows it now, or will: it is left alone.
    pub(super) released: CancellationToken,
    pub(super) flow: watch::Sender<Flow>,
    /// Its row is written: from then on it has an owner.
    pub(super) noted: AtomicBool,
    /// Writes to its input are one after the other.
    pub(super) input: tokio::sync::Mutex<()>,
    /// Of a durable command: where in its files this owner goes on.
    pub(super) from: Offsets,
    /// Of a durable command: what is known of its process.
    pub(super) fate: watch::Sender<Fate>,
    /// Of a durable command that has ended: all of its files was read.
    pub(super) read_out: CancellationToken,
}

impl Session {
    /// `from`: where in its files a durable command's output goes on that the log does not have.
    pub(super) fn new(exec: Exec, log: Log, from: Offsets, target: Target, now: DateTime<Utc>) -> Self {
        let age = (now - exec.started_at).to_std().unwrap_or_default();
        Self {
            exec,
            log: Arc::new(log),
            target,
            began: Instant::now().checked_sub(age).unwrap_or_else(Instant::now),
            stop: CancellationToken::new(),
            released: CancellationToken::new(),
            flow: watch::channel(Flow::Open).0,
            noted: AtomicBool::new(false),
            input: tokio::sync::Mutex::new(()),
            from,
            fate: watch::channel(Fate::Runs).0,
            read_out: CancellationToken::new(),
        }
    }

    pub(super) fn process(&self) -> Process<'_> {
        Process {
            target: &self.target,
            exec: &self.exec.id,
            selector: selector(&self.exec),
            pid: self.log.pid(),
            durable: self.exec.durable,
        }
    }

    /// Has it killed, processes of its own included. Without effect once it has ended.
    pub fn stop(&self) {
        self.stop.cancel();
    }

    /// Leaves it to another replica: viewers are sent away.
    pub(super) fn release(&self) {
        self.released.cancel();
    }

    /// Closes the stream from the sandbox, and waits until that is done; it is opened again when the instance runs.
    pub(super) async fn suspend(&self) {
        self.flow.send_if_modified(|flow| {
            let open = *flow == Flow::Open;
            if open {
                *flow = Flow::Closing;
            }
            open
        });
        let mut flow = self.flow.subscribe();
        tokio::select! {
            _ = flow.wait_for(|flow| *flow == Flow::Closed) => {}
            _ = self.log.finished() => {}
            () = self.released.cancelled() => {}
        }
    }

    /// When it is to be killed.
    pub(super) fn deadline(&self) -> Option<Instant> {
        let limit = (self.exec.expires_at? - self.exec.started_at).to_std().unwrap_or(Duration::ZERO);
        Some(self.began + limit)
    }

    /// An end without an exit code of its own.
    pub(super) fn lost(&self, error: &str) -> Exit {
        Exit::lost(error, self.began.elapsed())
    }

    /// What is known of it now.
    #[must_use]
    pub fn snapshot(&self) -> Exec {
        let exec = Exec { pid: self.log.pid(), ..self.exec.clone() };
        match self.log.exit() {
            None => exec,
            Some(exit) => exec.ended(&exit),
        }
    }
}
