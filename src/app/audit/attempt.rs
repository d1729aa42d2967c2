//! Something that is being done: whatever becomes of it, the history is told.

use std::time::Instant;

use super::{History, runs::milliseconds};
use crate::{
    app::App,
    auth::Trail,
    domain::{audit::CLIENT_LEFT, redaction::Excerpt},
};

/// Dropped before it is finished, it tells that the client left.
pub struct Attempt {
    history: History,
    trail: Trail,
    began: Instant,
    command: Option<Excerpt>,
    pub(super) runs: bool,
    finished: bool,
}

impl Attempt {
    /// `command`: of what is started, unless nothing of it is written down.
    #[must_use]
    pub fn new(app: &App, trail: &Trail, command: Option<Excerpt>) -> Self {
        let (history, trail) = (app.history.clone(), trail.clone());
        Self { history, trail, began: Instant::now(), command, runs: false, finished: false }
    }

    /// Tells the outcome: a word of [`audit`](crate::domain::audit), or an error's code.
    pub fn finish(mut self, outcome: &str, status: Option<u16>, upstream_request_id: Option<String>) {
        self.tell(outcome, status, upstream_request_id);
    }

    /// Tells nothing: what was begun tells of itself, or there is nothing to tell.
    pub fn forget(mut self) {
        self.finished = true;
    }

    fn tell(&mut self, outcome: &str, status: Option<u16>, upstream_request_id: Option<String>) {
        self.finished = true;
        let Some(event) = self.trail.event().filter(|_| self.runs || !self.trail.is_handed_over()) else { return };
        self.history.record(crate::domain::audit::AuditEvent {
            runs: self.runs,
            command: self.command.take().map(|command| command.written()),
            outcome: Some(outcome.to_owned()),
            status: status.map(i32::from),
            upstream_request_id,
            duration_ms: Some(milliseconds(self.began.elapsed())),
            ..event
        });
    }
}

impl Drop for Attempt {
    fn drop(&mut self) {
        if !self.finished {
            self.tell(CLIENT_LEFT, None, None);
        }
    }
}
