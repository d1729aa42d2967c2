//! A process in the sandbox that packs or unpacks.

use bytes::Bytes;
use envd_client::{EnvdClient, EnvdError, EventStream, Input, ProcessEvent, Selector, Signal, StartSpec};
use futures_util::StreamExt;

use super::PROGRAM;
use crate::{
    app::files::Files,
    error::{Code, Error, Result},
    upstream::error::by_system_error,
};

/// Kept of what it says on stderr: the beginning, which has the cause.
const MAX_SAID: usize = 16 << 10;
/// What a shell answers for a program that is not there.
const NOT_FOUND: i32 = 127;
/// The stream ended without a word of how.
const UNKNOWN: i32 = -1;
/// Said of a tree that changes while it is packed; the archive is a good one.
const HARMLESS: [&str; 2] = ["file changed as we read it", "File removed before we read it"];
const CUT_SHORT: &str = ": Wrote only ";

/// A running `tar`. Dropping it kills it.
pub struct Helper {
    files: Files,
    pid: u32,
    events: EventStream,
    said: Vec<u8>,
    ended: bool,
}

/// How it ended.
#[derive(Debug)]
pub struct Outcome {
    pub exit_code: i32,
    said: String,
}

/// What a process does next.
pub enum Step {
    Output(Bytes),
    Ended(Outcome),
}

impl Helper {
    /// Starts `tar` as a user.
    ///
    /// # Errors
    /// `program_missing` where the sandbox has none and says so at once.
    pub async fn start(files: &Files, user: &str, arguments: &[&str], stdin: bool) -> Result<Self> {
        let spec = StartSpec {
            cmd: PROGRAM.to_owned(),
            args: arguments.iter().map(|argument| (*argument).to_owned()).collect(),
            // Messages are looked at.
            envs: [("LC_ALL".to_owned(), "C".to_owned())].into(),
            user: Some(user.to_owned()),
            stdin,
            ..StartSpec::default()
        };
        let started = files.call(|envd| started(envd, spec.clone())).await;
        let started = started.map_err(|error| match error.code() {
            Code::ValidationFailed if error.inner().fields.is_empty() => missing().with_source(error),
            _ => error,
        });
        let silent = || Error::new(Code::UpstreamError, "The sandbox did not say whether `tar` was started.");
        let (pid, events) = started?.ok_or_else(silent)?;
        Ok(Self { files: files.clone(), pid, events, said: Vec::new(), ended: false })
    }

    /// What it prints next, or how it ended.
    ///
    /// # Errors
    /// The sandbox cannot be reached any more.
    pub async fn next(&mut self) -> Result<Step> {
        loop {
            let Some(event) = self.events.next().await else { return Ok(self.ended_with(UNKNOWN)) };
            match event.map_err(|error| self.files.target.error(error))? {
                ProcessEvent::Stdout(bytes) => return Ok(Step::Output(bytes)),
                ProcessEvent::Stderr(bytes) => {
                    let room = MAX_SAID.saturating_sub(self.said.len());
                    self.said.extend_from_slice(&bytes[..bytes.len().min(room)]);
                }
                ProcessEvent::End { exit_code, .. } => return Ok(self.ended_with(exit_code)),
                ProcessEvent::Started { .. } | ProcessEvent::Pty(_) | ProcessEvent::Keepalive => {}
            }
        }
    }

    fn ended_with(&mut self, exit_code: i32) -> Step {
        self.ended = true;
        Step::Ended(Outcome { exit_code, said: String::from_utf8_lossy(&self.said).into_owned() })
    }

    /// Runs to its end, whatever it prints.
    ///
    /// # Errors
    /// As [`next`](Self::next).
    pub async fn ended(mut self) -> Result<Outcome> {
        loop {
            if let Step::Ended(outcome) = self.next().await? {
                return Ok(outcome);
            }
        }
    }

    /// A way to feed it while it is waited for.
    pub fn stdin(&self) -> Stdin {
        Stdin { files: self.files.clone(), process: Selector::Pid(self.pid) }
    }
}

/// The input of a helper.
pub struct Stdin {
    files: Files,
    process: Selector,
}

impl Stdin {
    /// Writes all of it; answers when the process has taken it.
    ///
    /// # Errors
    /// The process has ended, or takes nothing for too long.
    pub async fn write(&self, bytes: Bytes) -> Result<()> {
        let (process, patience) = (&self.process, self.files.patience());
        let send = |envd: EnvdClient| {
            let input = Input::Stdin(bytes.clone());
            async move { envd.send_input(process, input, patience).await }
        };
        self.files.call(send).await
    }

    /// # Errors
    /// The process has ended.
    pub async fn close(&self) -> Result<()> {
        let (process, patience) = (&self.process, self.files.patience());
        self.files.call(|envd| async move { envd.close_stdin(process, patience).await }).await
    }
}

impl Drop for Helper {
    fn drop(&mut self) {
        if self.ended {
            return;
        }
        let (files, process) = (self.files.clone(), Selector::Pid(self.pid));
        let lifecycle = files.app.lifecycle.clone();
        lifecycle.spawn("kill helper", async move {
            let (process, patience) = (&process, files.patience());
            let killed =
                files.call(|envd| async move { envd.send_signal(process, Signal::Kill, patience).await }).await;
            if let Err(error) = killed.or_else(|error| if error.code() == Code::NotFound { Ok(()) } else { Err(error) })
            {
                tracing::info!(instance = %files.target.instance.id, %error, "a helper may still run in the sandbox");
            }
        });
    }
}

async fn started(envd: EnvdClient, spec: StartSpec) -> Result<Option<(u32, EventStream)>, EnvdError> {
    let mut events = envd.start(spec).await?;
    while let Some(event) = events.next().await {
        if let ProcessEvent::Started { pid } = event? {
            return Ok(Some((pid, events)));
        }
    }
    Ok(None)
}

impl Outcome {
    /// Whether an archive that was packed is a good one.
    #[must_use]
    pub fn packed(&self) -> bool {
        let harmless = |line: &str| line.is_empty() || HARMLESS.iter().any(|end| line.ends_with(end));
        self.exit_code == 0 || (self.exit_code == 1 && !self.said.is_empty() && self.said.lines().all(harmless))
    }

    /// What its failure means.
    #[must_use]
    pub fn error(&self) -> Error {
        if self.exit_code == NOT_FOUND {
            return missing();
        }
        let lines = || self.said.lines().map(|line| line.strip_prefix("tar: ").unwrap_or(line));
        // Of a file that ends where the disk did, GNU's says no more than that.
        let code = |line: &str| if line.contains(CUT_SHORT) { Some(Code::NoSpace) } else { by_system_error(line) };
        let known = lines().find_map(|line| code(line).map(|code| (code, line)));
        match known {
            Some((Code::NoSpace, _)) => {
                Error::new(Code::NoSpace, "The sandbox's disk is full. Remove files and try again.")
            }
            Some((code, line)) => Error::new(code, format!("In the sandbox: {line}.")),
            None => {
                let said = lines().next().unwrap_or("nothing was said");
                Error::new(Code::UpstreamError, format!("`tar` failed in the sandbox: {said}."))
            }
        }
    }
}

fn missing() -> Error {
    let detail = "The sandbox's image has no `tar`: add it to the image, or transfer the files one by one.";
    Error::new(Code::ProgramMissing, detail)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn outcome(exit_code: i32, said: &str) -> Outcome {
        Outcome { exit_code, said: said.into() }
    }

    #[test]
    fn a_tree_that_changes_makes_a_good_archive() {
        assert!(outcome(0, "tar: ./socket: socket ignored\n").packed());
        assert!(outcome(1, "tar: ./log: file changed as we read it\n").packed());
        assert!(!outcome(1, "tar: ./log: File shrank by 3 bytes; padding with zeros\n").packed());
        assert!(!outcome(2, "tar: ./log: file changed as we read it\n").packed());
        assert!(!outcome(1, "").packed());
        assert!(!outcome(-1, "").packed());
    }

    #[test]
    fn a_failure_has_the_code_of_its_cause() {
        let code = |exit, said| outcome(exit, said).error().code();
        assert_eq!(code(127, "sh: 1: exec: tar: not found\n"), Code::ProgramMissing);
        assert_eq!(code(2, "tar: a: Cannot write: No space left on device\ntar: b: Cannot open\n"), Code::NoSpace);
        assert_eq!(code(2, "tar: a: Wrote only 1536 of 10240 bytes\n"), Code::NoSpace);
        let denied = outcome(2, "tar: a/b: Cannot open: Permission denied\n").error();
        assert_eq!(denied.code(), Code::PermissionDenied);
        assert!(denied.detail().contains("a/b"), "{denied}");
        assert_eq!(code(2, "tar: it exploded\n"), Code::UpstreamError);
        assert_eq!(code(1, ""), Code::UpstreamError);
    }
}
