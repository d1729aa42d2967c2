//! Acting on the process of a command: input, signals, the end. It is found by the tag that the gateway gave it, never by its number alone unless somebody else started it.

use std::time::Duration;

use bytes::Bytes;
use envd_client::{
    EnvdClient, EnvdError, EnvdErrorKind, EventStream, Input, ProcessEvent, PtySize as WireSize, Selector, StartSpec,
};
use futures_util::StreamExt;

use super::durable::directory;
use crate::{
    app::instances::Target,
    domain::exec::{Exec, PtySize, Signal},
    error::{Code, Error, Result},
    ids::ExecId,
};

/// For calls that the daemon answers at once.
pub(super) const CALL_LIMIT: Duration = Duration::from_secs(10);
/// For a write to a process that does not read.
const INPUT_LIMIT: Duration = Duration::from_secs(30);
const HELPER_LIMIT: Duration = Duration::from_secs(5);
pub(super) const SUPERUSER: &str = "root";

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

/// Signals a durable command, whose process id is in its directory soon after its start. Its parent, which leads the group if
/// anything does, notes how it ended: so it is spared what it cannot trap.
const SIGNAL_DURABLE: &str = r#"
waited=0
while [ ! -s "$1/pid" ] && [ $waited -lt 20 ]; do
  sleep 0.1 || sleep 1
  waited=$((waited + 1))
done
pid=$(cat "$1/pid") && kill -s "$2" "$pid"
"#;

/// How the daemon finds the process: by the tag that the gateway gave it, unless somebody else started it.
pub(super) fn selector(exec: &Exec) -> Selector {
    match exec.pid {
        Some(pid) if exec.attached => Selector::Pid(pid),
        _ => Selector::Tag(exec.id.to_string()),
    }
}

/// The process of a command that runs.
pub(super) struct Process<'a> {
    pub(super) target: &'a Target,
    pub(super) exec: &'a ExecId,
    pub(super) selector: Selector,
    pub(super) pid: Option<u32>,
    pub(super) durable: bool,
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
        if self.durable {
            return self.ask(SIGNAL_DURABLE, &directory(self.exec), signal, user).await;
        }
        let known = match signal {
            Signal::TERM => Some(envd_client::Signal::Terminate),
            Signal::KILL => Some(envd_client::Signal::Kill),
            _ => None,
        };
        if let Some(signal) = known {
            return self.send(signal).await;
        }
        let pid = self.pid.ok_or_else(|| ended(self.exec))?;
        self.ask(SIGNAL, &pid.to_string(), signal, user).await
    }

    async fn ask(&self, script: &str, whom: &str, signal: Signal, user: &str) -> Result<()> {
        match self.help(script, &[whom, signal.short()], user).await? {
            0 => Ok(()),
            _ => Err(ended(self.exec)),
        }
    }

    async fn send(&self, signal: envd_client::Signal) -> Result<()> {
        self.call(|envd, tag| async move { envd.send_signal(&tag, signal, CALL_LIMIT).await }).await
    }

    /// Follows it, from now on; with its process id. `None` when it does not run (any more).
    ///
    /// # Errors
    /// When the sandbox cannot be reached.
    pub(super) async fn connect(&self) -> Result<Option<(EventStream, u32)>> {
        let connected = self.target.call(|envd| async move {
            match first_event(envd.connect(&self.selector).await?).await {
                Err(error) if error.kind() == EnvdErrorKind::NotFound => Ok(None),
                other => other,
            }
        });
        tokio::time::timeout(CALL_LIMIT, connected).await.unwrap_or_else(|_| Err(late()))
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
        match self.send(envd_client::Signal::Kill).await {
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
            let call = make(envd, self.selector.clone());
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
            Some(None) => Err(ended(self.exec)),
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
            Err(_) => Err(late()),
        }
    }
}

pub(super) fn late() -> Error {
    Error::new(Code::UpstreamTimeout, "The sandbox did not answer in time.")
}

/// Waits for the event that says that a process runs; `None` when the stream ends without.
pub(super) async fn first_event(mut events: EventStream) -> Result<Option<(EventStream, u32)>, EnvdError> {
    loop {
        match events.next().await {
            Some(Ok(ProcessEvent::Started { pid })) => return Ok(Some((events, pid))),
            Some(Ok(ProcessEvent::Keepalive)) => {}
            Some(Err(error)) => return Err(error),
            Some(Ok(_)) | None => return Ok(None),
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
