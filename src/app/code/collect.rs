//! What is kept of a run of code for an answer.

use std::time::Duration;

use crate::domain::{
    code::{CodeError, CodeEvent, CodeExit, CodeReason, Shown},
    exec::Kept,
};

/// Gathers events up to limits.
pub struct Collector {
    /// Bytes of each stream.
    output_limit: usize,
    /// Bytes of the results that may still come, as JSON.
    room: usize,
    stdout: Kept,
    stderr: Kept,
    results: Vec<Shown>,
    results_cut: bool,
    error: Option<CodeError>,
    exit: Option<CodeExit>,
}

/// All of it, when it has ended.
pub struct Collected {
    pub stdout: Kept,
    pub stderr: Kept,
    pub results: Vec<Shown>,
    /// What the code raised, or that it was cut short.
    pub error: Option<CodeError>,
    pub exit: CodeExit,
    /// Something was beyond the limits.
    pub truncated: bool,
}

impl Collector {
    /// `output_limit`: bytes of each stream; `result_limit`: of all results together.
    #[must_use]
    pub fn new(output_limit: usize, result_limit: usize) -> Self {
        Self {
            output_limit,
            room: result_limit,
            stdout: Kept::default(),
            stderr: Kept::default(),
            results: Vec::new(),
            results_cut: false,
            error: None,
            exit: None,
        }
    }

    pub fn add(&mut self, event: CodeEvent) {
        match event {
            CodeEvent::Started { .. } => {}
            CodeEvent::Stdout(text) => self.stdout.add(text.as_bytes(), self.output_limit),
            CodeEvent::Stderr(text) => self.stderr.add(text.as_bytes(), self.output_limit),
            CodeEvent::Result(shown) => self.add_result(shown),
            CodeEvent::Error(raised) => self.error = Some(raised),
            CodeEvent::Exit(ended) => self.exit = Some(ended),
        }
    }

    fn add_result(&mut self, shown: Shown) {
        let size = serde_json::to_vec(&shown.formats).map_or(0, |json| json.len());
        match self.room.checked_sub(size) {
            Some(room) => {
                self.room = room;
                self.results.push(shown);
            }
            None => self.results_cut = true,
        }
    }

    /// Without an exit among the events it is lost.
    #[must_use]
    pub fn finish(self) -> Collected {
        let exit = self.exit.unwrap_or_else(lost);
        Collected {
            truncated: self.stdout.cut() || self.stderr.cut() || self.results_cut,
            stdout: self.stdout,
            stderr: self.stderr,
            results: self.results,
            error: self.error.or_else(|| unfinished(&exit)),
            exit,
        }
    }
}

fn lost() -> CodeExit {
    let error = Some("The gateway is shutting down.".to_owned());
    CodeExit { execution_count: None, reason: CodeReason::Lost, error, duration: Duration::ZERO }
}

/// Whoever looks for an error only must not take code that was cut short for a success.
fn unfinished(exit: &CodeExit) -> Option<CodeError> {
    let name = match exit.reason {
        CodeReason::Finished => return None,
        CodeReason::Timeout => "Timeout",
        CodeReason::Interrupted => "Interrupted",
        CodeReason::Lost => "Lost",
    };
    Some(CodeError { name: name.into(), value: exit.error.clone().unwrap_or_default(), traceback: String::new() })
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn results_beyond_the_limit_are_left_out_and_said_to_be() {
        let of = |size| {
            let formats = [("text".to_owned(), json!("x".repeat(size)))].into_iter().collect();
            CodeEvent::Result(Shown { is_main_result: true, formats })
        };
        let mut collector = Collector::new(10, 200);
        for size in [100, 100, 1] {
            collector.add(of(size));
        }
        let collected = collector.finish();
        assert_eq!((collected.results.len(), collected.truncated), (2, true));
        assert_eq!(collected.exit.reason, CodeReason::Lost);
        assert_eq!(collected.error.map(|error| error.name).as_deref(), Some("Lost"));
    }
}
