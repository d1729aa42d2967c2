//! Acting on the process of a command: input, signals, the end. It is found by the tag that the gateway gave it.

use std::time::Duration;

use bytes::Bytes;
use envd_client::{
    EnvdClient, EnvdError, EnvdErrorKind, Input, ProcessEvent, PtySize as WireSize, Selector, StartSpec,
};
use futures_util::StreamExt;

use crate::{
    app::instances::Target,
    domain::exec::{PtySize, Signal},
    error::{Code, Error, Result},
    ids::ExecId,
};

/// For calls that the daemon answers at once.
const CALL_LIMIT: Duration = Duration::from_secs(10);
/// For a write to a process that does not read.
const INPUT_LIMIT: Duration = Duration::from_secs(30);
const HELPER_LIMIT: Duration = Duration::from_secs(5);
const SUPERUSER: &str = "root";

/// Kills the tree below a process, then what else is in the group it leads. Each is stopped before its children are
/// looked for, so that none can have more meanwhile.
const KILL_TREE: &str = r#"
end() {
  kill -STOP "$1"
  for child in $(cat /proc/"$1"/task/*/children); do end "$child"; done
  kill -KILL "$1"
}
end "$1" 2>/dev/null
kill -KILL -- -"$1" 2>/dev/null
exit 0
"#;

/// Signals the group that a process leads, else the process alone.
const SIGNAL: &str = r#"kill -s "$2" -- -"$1" 2>/dev/null || kill -s "$2" "$1""#;

/// The name by which the daemon finds the process.
pub(super) fn selector(id: &ExecId) -> Selector {
    Selector::Tag(id.to_string())
}

/// The process of a command that runs.
pub(super) struct Process<'a> {
    pub(super) target: &'a Target,
    pub(super) id: &'a ExecId,
    pub(super) pid: Option<u32>,
}

impl Process<'_> {
    /// Writes to its input: to the terminal if it has one.
    ///
    /// # Errors
    /// `invalid_state` when it has ended, or takes no input (any more).
    pub(super) async fn write(&self, data: Bytes, pty: bool) -> Result<()> {
        let make = |data| if pty { Input::Pty(data) } else { Input::Stdin(data) };
        self.call(|envd, selector| {
            let input = make(data.clone());
            async move { envd.send_input(&selector, input, INPUT_LIMIT).await }
        })
        .await
    }

    /// # Errors
    /// `invalid_state` when it has ended, or has a terminal.
    pub(super) async fn close_stdin(&self) -> Result<()> {
        self.call(|envd, selector| async move { envd.close_stdin(&selector, CALL_LIMIT).await }).await
    }

    /// # Errors
    /// `invalid_state` when it has ended, or has no terminal.
    pub(super) async fn resize(&self, size: PtySize) -> Result<()> {
        let size = WireSize { cols: size.cols, rows: size.rows };
        self.call(|envd, selector| async move { envd.update(&selector, size, CALL_LIMIT).await }).await
    }

    /// Signals it: SIGTERM and SIGKILL through the daemon, which knows no others; those by `kill` in the sandbox.
    ///
    /// # Errors
    /// `invalid_state` when it has ended.
    pub(super) async fn signal(&self, signal: Signal, user: &str) -> Result<()> {
        let known = match signal {
            Signal::TERM => Some(envd_client::Signal::Terminate),
            Signal::KILL => Some(envd_client::Signal::Kill),
            _ => None,
        };
        if let Some(signal) = known {
            return self.call(|envd, tag| async move { envd.send_signal(&tag, signal, CALL_LIMIT).await }).await;
        }
        let pid = self.pid.ok_or_else(|| ended(self.id))?;
        match self.help(SIGNAL, &[&pid.to_string(), signal.short()], user).await? {
            0 => Ok(()),
            _ => Err(ended(self.id)),
        }
    }

    /// Kills it with all that it has started, as far as it can be found.
    ///
    /// # Errors
    /// When the sandbox cannot be reached.
    pub(super) async fn kill_tree(&self) -> Result<()> {
        match self.pid {
            Some(pid) if pid > 1 => self.help(KILL_TREE, &[&pid.to_string()], SUPERUSER).await.map(drop),
            _ => Ok(()),
        }
    }

    /// Kills the process itself, and lets the daemon stop waiting for whoever holds its output open. Once it has ended
    /// this does nothing.
    ///
    /// # Errors
    /// When the sandbox cannot be reached.
    pub(super) async fn kill(&self) -> Result<()> {
        match self.signal(Signal::KILL, SUPERUSER).await {
            Err(error) if error.code() == Code::InvalidState => Ok(()),
            other => other,
        }
    }

    async fn call<F>(&self, make: impl Fn(EnvdClient, Selector) -> F) -> Result<()>
    where
        F: Future<Output = Result<(), EnvdError>>,
    {
        // What the daemon refuses it refuses for the state the process is in.
        let outcome = self.target.call(|envd| {
            let call = make(envd, selector(self.id));
            async move {
                match call.await {
                    Ok(()) => Ok(None),
                    Err(error) if error.kind() == EnvdErrorKind::NotFound => Ok(Some(None)),
                    Err(error) => match error.daemon_message().map(str::to_owned) {
                        Some(said) if refuses(error.kind()) => Ok(Some(Some(said))),
                        _ => Err(error),
                    },
                }
            }
        });
        match outcome.await? {
            None => Ok(()),
            Some(None) => Err(ended(self.id)),
            Some(Some(said)) => Err(Error::new(Code::InvalidState, format!("The command does not take this: {said}."))),
        }
    }

    /// Runs a few lines of shell in the sandbox; answers their exit code.
    async fn help(&self, script: &str, arguments: &[&str], user: &str) -> Result<i32> {
        let fixed = ["-c", script, "sh"].into_iter().chain(arguments.iter().copied());
        let spec = StartSpec {
            cmd: "/bin/sh".to_owned(),
            args: fixed.map(str::to_owned).collect(),
            cwd: Some("/".to_owned()),
            user: Some(user.to_owned()),
            deadline: Some(HELPER_LIMIT),
            ..StartSpec::default()
        };
        let run = self.target.call(|envd| {
            let spec = spec.clone();
            async move {
                let mut events = envd.start(spec).await?;
                let mut code = None;
                while let Some(event) = events.next().await {
                    if let ProcessEvent::End { exit_code, .. } = event? {
                        code = Some(exit_code);
                    }
                }
                Ok(code.unwrap_or(-1))
            }
        });
        match tokio::time::timeout(HELPER_LIMIT, run).await {
            Ok(code) => code,
            Err(_) => Err(Error::new(Code::UpstreamTimeout, "The sandbox did not answer in time.")),
        }
    }
}

fn refuses(kind: EnvdErrorKind) -> bool {
    use EnvdErrorKind as Kind;
    matches!(kind, Kind::Internal | Kind::FailedPrecondition | Kind::InvalidArgument | Kind::Unimplemented)
}

fn ended(id: &ExecId) -> Error {
    Error::new(Code::InvalidState, format!("The command {id} has ended."))
}
