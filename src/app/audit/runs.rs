//! Commands and code in the history: one event for each start, whatever transport it came by, and its end with it.

use std::time::Duration;

use super::{Attempt, Note};
use crate::{
    app::App,
    auth::{Caller, Trail},
    domain::{
        audit::{OK, RunEnd, Used, UsedBy},
        exec::{Exec, Exit},
        redaction::Excerpt,
    },
    error::{Error, Result},
    ids::{ExecId, InstanceId, ToolId},
};

/// A start that is under way.
pub struct Run<'a> {
    attempt: Attempt,
    caller: &'a Caller,
}

/// Begins a start. `command` is asked for what is written down of it, unless nothing shall be.
#[must_use]
pub fn begin<'a>(app: &App, caller: &'a Caller, instance: &InstanceId, command: impl FnOnce() -> Excerpt) -> Run<'a> {
    caller.trail.note_instance(instance);
    caller.trail.hand_over();
    let mut attempt = Attempt::new(app, &caller.trail, app.history.commands.then(command));
    attempt.runs = true;
    Run { attempt, caller }
}

impl Run<'_> {
    /// Hands the event over with what has become of the start, and the outcome back.
    ///
    /// # Errors
    /// The start's own.
    pub fn told<T>(self, outcome: Result<T>, exec: impl FnOnce(&T) -> Option<ExecId>) -> Result<T> {
        if let Some(exec) = outcome.as_ref().ok().and_then(exec) {
            self.caller.trail.note_exec(&exec);
        }
        let code = outcome.as_ref().map_or_else(|error: &Error| error.code().as_str(), |_| OK);
        let status = outcome.as_ref().err().map(|error| error.code().status());
        self.attempt.finish(code, status, None);
        outcome
    }
}

/// Counts a command, or code, that runs.
pub fn count_run(app: &App, caller: &Caller, tool: &ToolId) {
    let by = used_by(caller, tool);
    app.history.send(Note::Used(Box::new((by, Used { execs: 1, ..Used::default() }))));
}

fn used_by(caller: &Caller, tool: &ToolId) -> UsedBy {
    UsedBy { team_id: caller.team_id().clone(), tool_id: tool.clone(), key_id: caller.key_id.clone() }
}

/// Tells how a command ended, and counts its time and its output. `tool`: `None` when its instance is not known any more.
pub fn exec_ended(app: &App, exec: &Exec, tool: Option<&ToolId>, exit: &Exit, bytes: u64) {
    let duration_ms = milliseconds(exit.duration);
    let end = RunEnd {
        id: None,
        exec_id: Some(exec.id.clone()),
        reason: exit.reason.as_str().to_owned(),
        exit_code: exit.exit_code,
        duration_ms,
    };
    app.history.send(Note::End(Box::new(end)));
    if let Some(tool) = tool {
        let by = UsedBy { team_id: exec.team_id.clone(), tool_id: tool.clone(), key_id: exec.created_by.clone() };
        let used = Used { execs: 0, exec_ms: duration_ms, bytes: i64::try_from(bytes).unwrap_or(i64::MAX) };
        app.history.send(Note::Used(Box::new((by, used))));
    }
}

/// Code that runs: to be told of its end.
pub struct CodeRun {
    trail: Trail,
    by: UsedBy,
}

impl CodeRun {
    #[must_use]
    pub fn new(caller: &Caller, tool: &ToolId) -> Self {
        Self { trail: caller.trail.clone(), by: used_by(caller, tool) }
    }

    /// Tells how it ended, and counts its time.
    pub fn ended(self, app: &App, reason: &str, duration: Duration) {
        let duration_ms = milliseconds(duration);
        if let Some(event) = self.trail.event() {
            let end =
                RunEnd { id: Some(event.id), exec_id: None, reason: reason.to_owned(), exit_code: None, duration_ms };
            app.history.send(Note::End(Box::new(end)));
        }
        app.history.send(Note::Used(Box::new((self.by, Used { execs: 0, exec_ms: duration_ms, bytes: 0 }))));
    }
}

pub(super) fn milliseconds(duration: Duration) -> i64 {
    i64::try_from(duration.as_millis()).unwrap_or(i64::MAX)
}
