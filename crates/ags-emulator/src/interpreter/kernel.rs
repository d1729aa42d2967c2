//! A kernel: the process that runs the cells of one context.

use std::collections::{BTreeMap, VecDeque};
use std::io;
use std::os::unix::fs::PermissionsExt as _;
use std::os::unix::net::UnixStream as StdUnixStream;
use std::path::Path;
use std::process::Stdio;
use std::time::Duration;

use nix::sys::signal::{Signal, killpg};
use nix::unistd::Pid;
use serde::Deserialize;
use serde_json::{Map, Value, json};
use tokio::io::AsyncWriteExt as _;
use tokio::net::UnixStream;
use tokio::net::unix::{OwnedReadHalf, OwnedWriteHalf};
use tokio::process::{Child, ChildStderr, ChildStdout, Command};

use super::language::{Protocol, Recipe, recipe};
use super::lines::Lines;
use super::output::Output;
use super::wire::Event;
use crate::envd::{Daemon, User};
use crate::sys;

/// For a kernel to say that it is ready.
const START_LIMIT: Duration = Duration::from_secs(60);

/// What a cell is run with.
pub struct Cell<'a> {
    pub code: &'a str,
    /// Variables to set.
    pub env: BTreeMap<String, String>,
    /// What variables are set back to afterwards; `None`: they are removed.
    pub restore: BTreeMap<String, Option<String>>,
}

/// What comes out of a cell that runs.
#[derive(Debug, PartialEq)]
pub enum Step {
    Event(Event),
    /// The cell has ended.
    Done,
    /// The kernel has.
    Dead,
}

/// A kernel's process. Dropping it kills it with what it has started, as far as that has stayed in its group.
pub struct Kernel {
    protocol: Protocol,
    child: Child,
    group: Pid,
    requests: OwnedWriteHalf,
    replies: OwnedReadHalf,
    lines: Lines,
    stdout: Output<ChildStdout>,
    stderr: Output<ChildStderr>,
    steps: VecDeque<Step>,
}

/// A kernel's word.
#[derive(Deserialize)]
#[serde(tag = "type", rename_all = "lowercase")]
enum Reply {
    Ready,
    Failed { reason: String },
    Result { main: bool, data: Map<String, Value> },
    Error { name: String, value: String, traceback: String },
    Done,
}

impl Kernel {
    /// Starts a kernel of a normalised language and waits until it is ready.
    ///
    /// # Errors
    /// Why there is none, for the caller to read.
    pub async fn start(daemon: &Daemon, language: &str, user: &User, cwd: &Path) -> Result<Self, String> {
        let recipe = recipe(language).ok_or_else(|| format!("No such kernel: {language}"))?;
        if !cwd.is_dir() {
            return Err(format!("{} is not a directory", cwd.display()));
        }
        let place = driver_file(&recipe).map_err(|error| format!("the driver cannot be written: {error}"))?;
        let driver = place.path().join(recipe.driver.0);
        let kernel = Self::spawn(daemon, &recipe, &driver, user, cwd).map_err(|error| match error.kind() {
            io::ErrorKind::NotFound => format!("{} is not installed", recipe.program),
            _ => format!("{} cannot be started: {error}", recipe.program),
        });
        let mut kernel = kernel?;
        let ready = tokio::time::timeout(START_LIMIT, kernel.become_ready()).await;
        ready.unwrap_or_else(|_| Err("the kernel did not become ready in time".into()))?;
        Ok(kernel)
    }

    fn spawn(daemon: &Daemon, recipe: &Recipe, driver: &Path, user: &User, cwd: &Path) -> io::Result<Self> {
        let (ours, theirs) = StdUnixStream::pair()?;
        let mut command = Command::new(recipe.program);
        command.args(recipe.arguments.0).arg(driver).args(recipe.arguments.1);
        command.env_clear().envs(daemon.base_environment(user)).current_dir(cwd);
        command.stdin(Stdio::from(std::os::fd::OwnedFd::from(theirs))).stdout(Stdio::piped()).stderr(Stdio::piped());
        sys::isolate_child(&mut command, user.identity(), false);
        let mut child = command.spawn()?;
        let pid = child.id().and_then(|pid| i32::try_from(pid).ok()).ok_or(io::ErrorKind::NotFound)?;
        ours.set_nonblocking(true)?;
        let (replies, requests) = UnixStream::from_std(ours)?.into_split();
        Ok(Self {
            protocol: recipe.protocol,
            stdout: Output::new(child.stdout.take().ok_or(io::ErrorKind::BrokenPipe)?),
            stderr: Output::new(child.stderr.take().ok_or(io::ErrorKind::BrokenPipe)?),
            child,
            group: Pid::from_raw(pid),
            requests,
            replies,
            lines: Lines::default(),
            steps: VecDeque::new(),
        })
    }

    /// What it prints until then is its own, not a cell's.
    async fn become_ready(&mut self) -> Result<(), String> {
        let mut said = String::new();
        loop {
            match self.next().await {
                Step::Done => return Ok(()),
                Step::Event(Event::Stderr(text)) => said += &text,
                Step::Event(Event::Error { value, .. }) => return Err(value),
                Step::Event(_) => {}
                Step::Dead => {
                    let last = said.lines().rev().find(|line| !line.trim().is_empty());
                    return Err(format!("the kernel ended while starting: {}", last.unwrap_or("it said nothing")));
                }
            }
        }
    }

    /// Hands a cell over. [`next`](Self::next) then tells what comes of it. One at a time.
    pub async fn begin(&mut self, cell: &Cell<'_>) {
        let request = match self.protocol {
            Protocol::Json => json_request(cell),
            Protocol::Strings => strings_request(cell),
            Protocol::Shell => shell_request(cell),
        };
        // A kernel that is gone says so in `next`.
        let _gone = self.requests.write_all(&request).await;
    }

    /// Waits for what happens next. May be dropped at any point.
    pub async fn next(&mut self) -> Step {
        loop {
            if let Some(step) = self.steps.pop_front() {
                return step;
            }
            tokio::select! {
                biased;
                text = self.stdout.next() => self.printed(text, String::new()),
                text = self.stderr.next() => self.printed(String::new(), text),
                line = self.lines.next(&mut self.replies) => match line {
                    Ok(Some(line)) => self.heard(&line),
                    _ => self.ended(),
                },
                // A process of its own may hold the socket open.
                _ = self.child.wait() => self.ended(),
            }
        }
    }

    /// What was printed before a reply comes before it.
    fn heard(&mut self, line: &[u8]) {
        let (stdout, stderr) = (self.stdout.drain(), self.stderr.drain());
        self.printed(stdout, stderr);
        if self.protocol == Protocol::Shell {
            let status = String::from_utf8_lossy(line).trim().to_owned();
            if status != "0" {
                self.steps.push_back(Step::Event(Event::trouble("", &status)));
            }
            return self.steps.push_back(Step::Done);
        }
        match serde_json::from_slice(line) {
            Ok(reply) => self.steps.push_back(step_of(reply)),
            Err(error) => tracing::warn!(%error, "a kernel's reply makes no sense"),
        }
    }

    fn ended(&mut self) {
        let (stdout, stderr) = (self.stdout.finish(), self.stderr.finish());
        self.printed(stdout, stderr);
        self.steps.push_back(Step::Dead);
    }

    fn printed(&mut self, stdout: String, stderr: String) {
        for event in [Event::Stdout(stdout), Event::Stderr(stderr)] {
            if !event.is_empty() {
                self.steps.push_back(Step::Event(event));
            }
        }
    }

    /// Interrupts what runs, as Ctrl-C in a terminal does.
    pub fn interrupt(&self) {
        let _may_have_ended = killpg(self.group, Signal::SIGINT);
    }
}

impl Drop for Kernel {
    fn drop(&mut self) {
        let _may_have_ended = killpg(self.group, Signal::SIGKILL);
    }
}

fn step_of(reply: Reply) -> Step {
    match reply {
        Reply::Ready | Reply::Done => Step::Done,
        Reply::Failed { reason } => Step::Event(Event::trouble("", &reason)),
        Reply::Result { main, data } => Step::Event(Event::Result { main, data }),
        Reply::Error { name, value, traceback } => Step::Event(Event::Error { name, value, traceback }),
    }
}

/// The driver in a directory of its own, which lasts until the kernel has read it.
fn driver_file(recipe: &Recipe) -> io::Result<tempfile::TempDir> {
    let place = tempfile::Builder::new().prefix(".kernel-").tempdir()?;
    std::fs::set_permissions(place.path(), std::fs::Permissions::from_mode(0o755))?;
    std::fs::write(place.path().join(recipe.driver.0), recipe.driver.1)?;
    Ok(place)
}

fn json_request(cell: &Cell<'_>) -> Vec<u8> {
    let request = json!({"code": cell.code, "env": cell.env, "restore": cell.restore});
    format!("{request}\n").into_bytes()
}

/// Properties as `name=value` or, to remove them, `name`, with NUL characters between them.
fn strings_request(cell: &Cell<'_>) -> Vec<u8> {
    let removed = cell.restore.iter().filter(|(name, value)| value.is_none() && !cell.env.contains_key(*name));
    let removed = removed.map(|(name, _)| format!("{name}\0"));
    let properties: String = cell.env.iter().map(|(name, value)| format!("{name}={value}\0")).chain(removed).collect();
    let mut request = Vec::new();
    for text in [properties.as_str(), cell.code] {
        request.extend_from_slice(&u32::try_from(text.len()).unwrap_or_default().to_be_bytes());
        request.extend_from_slice(text.as_bytes());
    }
    request
}

fn shell_request(cell: &Cell<'_>) -> Vec<u8> {
    let named = |name: &&String| name.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'_');
    let export = |name: &String, value: &str| format!("export {name}={}; ", quoted(value));
    let set: String =
        cell.env.iter().filter(|(name, _)| named(name)).map(|(name, value)| export(name, value)).collect();
    let restore = cell.restore.iter().filter(|(name, _)| named(name)).map(|(name, value)| match value {
        Some(value) => export(name, value),
        None => format!("unset {name}; "),
    });
    let restore = quoted(&restore.collect::<String>());
    format!("__restore={restore}; {set}eval {} </dev/null\n", quoted(cell.code)).into_bytes()
}

/// A text as one word of a shell, which knows no NUL characters.
fn quoted(text: &str) -> String {
    format!("'{}'", text.replace('\0', "").replace('\'', r"'\''"))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn cell(code: &str) -> Cell<'_> {
        Cell { code, env: BTreeMap::new(), restore: BTreeMap::new() }
    }

    #[test]
    fn a_shell_gets_one_command() {
        let mut cell = cell("echo 'a'\nb");
        cell.env.insert("A".into(), "it's".into());
        cell.env.insert("not a name; rm".into(), "x".into());
        cell.restore.insert("A".into(), None);
        let request = String::from_utf8(shell_request(&cell)).unwrap();
        assert_eq!(request, "__restore='unset A; '; export A='it'\\''s'; eval 'echo '\\''a'\\''\nb' </dev/null\n");
    }

    #[test]
    fn strings_carry_their_lengths() {
        let mut cell = cell("é");
        cell.env.insert("A".into(), "1".into());
        assert_eq!(strings_request(&cell), b"\0\0\0\x04A=1\0\0\0\0\x02\xc3\xa9");
    }
}
