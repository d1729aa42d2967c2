//! Something that is being done: whatever becomes of it, the history is told.

use std::time::Instant;

use super::{History, runs::milliseconds};
use crate::{app::App, auth::Trail, domain::audit::CLIENT_LEFT};

/// Dropped before it is finished, it tells that the client left.
pub struct Attempt {
    history: History,
    trail: Trail,
    began: Instant,
    command: Option<String>,
    pub(super) runs: bool,
    finished: bool,
}

impl Attempt {
    /// `command`: what is written down of a command line.
    #[must_use]
    pub fn new(app: &App, trail: &Trail, command: Option<String>) -> Self {
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
            command: self.command.take(),
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
