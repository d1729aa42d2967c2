//! Processes and terminals of an instance (PROTOCOLS D.5).

use std::collections::HashMap;
use std::fmt;
use std::pin::Pin;
use std::task::{Context, Poll};
use std::time::Duration;

use buffa::{Message, MessageField};
use bytes::Bytes;
use envd_proto::process as proto;
use envd_proto::process::process_event::data_event::Output;
use envd_proto::process::process_event::{EndEvent, Event};
use futures_util::stream::{self, BoxStream, Stream, StreamExt};

use crate::client::EnvdClient;
use crate::error::EnvdError;
use crate::rpc::{Call, LAST_FRAME_GRACE, Messages, decode};

/// A running process: by number, or by the tag it was started with.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum Selector {
    Pid(u32),
    Tag(String),
}

/// Size of a terminal in character cells.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct PtySize {
    pub cols: u16,
    pub rows: u16,
}

/// What to start, and how.
#[derive(Clone, Default, PartialEq, Eq)]
pub struct StartSpec {
    pub cmd: String,
    pub args: Vec<String>,
    /// Added to the instance's own environment, overriding it.
    pub envs: HashMap<String, String>,
    /// Absolute, `~`, or relative to the user's home. `None`: the instance's default.
    pub cwd: Option<String>,
    /// `None`: the daemon's default user.
    pub user: Option<String>,
    /// A name to select the process by later.
    pub tag: Option<String>,
    /// A pipe that takes input when true, `/dev/null` when false. Without meaning for a terminal.
    pub stdin: bool,
    /// Run it in a terminal of this size.
    pub pty: Option<PtySize>,
    /// The daemon kills the process after this time and ends the stream with `Deadline`.
    pub deadline: Option<Duration>,
}

/// Environment and arguments may hold secrets: only their number is shown.
impl fmt::Debug for StartSpec {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("StartSpec")
            .field("cmd", &self.cmd)
            .field("args", &self.args.len())
            .field("envs", &self.envs.len())
            .field("cwd", &self.cwd)
            .field("user", &self.user)
            .field("tag", &self.tag)
            .field("stdin", &self.stdin)
            .field("pty", &self.pty)
            .field("deadline", &self.deadline)
            .finish()
    }
}

/// What happens to a process. Output is raw: a chunk may end in the middle of a character.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum ProcessEvent {
    Started {
        pid: u32,
    },
    Stdout(Bytes),
    Stderr(Bytes),
    Pty(Bytes),
    /// The last event.
    End {
        /// -1 when a signal ended the process.
        exit_code: i32,
        /// False when a signal ended the process.
        exited: bool,
        /// `exit status 1`, `signal: killed`
        status: String,
        /// Set unless the process exited with 0.
        error: Option<String>,
    },
    /// A sign of life, about every 30 s of silence.
    Keepalive,
}

/// The events of one process, from the moment of subscription on.
///
/// - Dropping it closes the request at once. The process lives on.
/// - While it is not polled nothing is read, and before long the daemon stops reading the process.
/// - It ends (`None`) after `End`; read on to that `None` and the connection can be used again.
/// - Any `Err` is final: `Deadline` if the process outlived its deadline, `Unavailable` if the
///   connection broke or was silent for the transport's `idle_timeout`, which includes an instance that was killed.
pub struct EventStream(BoxStream<'static, Result<ProcessEvent, EnvdError>>);

impl Stream for EventStream {
    type Item = Result<ProcessEvent, EnvdError>;

    fn poll_next(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Self::Item>> {
        self.0.poll_next_unpin(cx)
    }
}

impl fmt::Debug for EventStream {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("EventStream").finish_non_exhaustive()
    }
}

/// A live process that was started through the daemon.
#[derive(Clone, PartialEq, Eq)]
pub struct ProcessInfo {
    pub pid: u32,
    pub tag: Option<String>,
    pub cmd: String,
    pub args: Vec<String>,
    pub envs: HashMap<String, String>,
    pub cwd: Option<String>,
}

/// Environment and arguments may hold secrets: only their number is shown.
impl fmt::Debug for ProcessInfo {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ProcessInfo")
            .field("pid", &self.pid)
            .field("tag", &self.tag)
            .field("cmd", &self.cmd)
            .field("args", &self.args.len())
            .field("envs", &self.envs.len())
            .field("cwd", &self.cwd)
            .finish()
    }
}

/// Bytes for a process.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Input {
    Stdin(Bytes),
    Pty(Bytes),
}

/// The signals the daemon can send.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Signal {
    Terminate,
    Kill,
}

impl EnvdClient {
    /// Starts a process and follows it. Resolves when the daemon accepts the request, which may be
    /// with the first event or before.
    ///
    /// # Errors
    /// Here or as the first item: `InvalidArgument` (no such directory or command), `InvalidUser`.
    pub async fn start(&self, spec: StartSpec) -> Result<EventStream, EnvdError> {
        let call = Call { method: "/process.Process/Start", user: spec.user.as_deref() };
        let request = proto::StartRequest {
            process: MessageField::some(proto::ProcessConfig {
                cmd: spec.cmd,
                args: spec.args,
                envs: spec.envs.into_iter().collect(),
                cwd: spec.cwd,
            }),
            pty: spec.pty.map(terminal).into(),
            tag: spec.tag,
            stdin: spec.pty.is_none().then_some(spec.stdin),
        };
        let messages = self.server_stream(call, spec.deadline, &request).await?;
        Ok(self.events(messages, |reply: proto::StartResponse| reply.event.into_option()))
    }

    /// Follows a running process: `Started`, then what is new. Nothing is replayed.
    ///
    /// # Errors
    /// Here or as the first item: `NotFound`.
    pub async fn connect(&self, selector: &Selector) -> Result<EventStream, EnvdError> {
        let call = Call { method: "/process.Process/Connect", user: None };
        let request = proto::ConnectRequest { process: MessageField::some(select(selector)) };
        let messages = self.server_stream(call, None, &request).await?;
        Ok(self.events(messages, |reply: proto::ConnectResponse| reply.event.into_option()))
    }

    fn events<M: Message + 'static>(
        &self,
        messages: Messages,
        event_of: fn(M) -> Option<proto::ProcessEvent>,
    ) -> EventStream {
        let reader = Reader {
            messages,
            event_of,
            max_message: self.transport.settings().max_message,
            done: false,
            end_seen: false,
        };
        EventStream(stream::unfold(reader, Reader::step).boxed())
    }

    /// Processes started through the daemon and still alive.
    pub async fn list(&self, deadline: Duration) -> Result<Vec<ProcessInfo>, EnvdError> {
        let call = Call { method: "/process.Process/List", user: None };
        let reply: proto::ListResponse = self.unary(call, deadline, &proto::ListRequest {}).await?;
        Ok(reply.processes.into_iter().map(process_info).collect())
    }

    /// Writes to stdin or to the terminal. Returns once the daemon has written all of it, so a
    /// process that does not read holds the call up to `deadline`.
    ///
    /// # Errors
    /// `NotFound`; `Internal` if the process has no such input, or has closed it.
    pub async fn send_input(&self, selector: &Selector, input: Input, deadline: Duration) -> Result<(), EnvdError> {
        use proto::process_input::Input as Wire;
        let call = Call { method: "/process.Process/SendInput", user: None };
        let input = match input {
            Input::Stdin(bytes) => Wire::Stdin(bytes),
            Input::Pty(bytes) => Wire::Pty(bytes),
        };
        let request = proto::SendInputRequest {
            process: MessageField::some(select(selector)),
            input: MessageField::some(proto::ProcessInput { input: Some(input) }),
        };
        let _: proto::SendInputResponse = self.unary(call, deadline, &request).await?;
        Ok(())
    }

    /// # Errors
    /// `NotFound` once the process has ended.
    pub async fn send_signal(&self, selector: &Selector, signal: Signal, deadline: Duration) -> Result<(), EnvdError> {
        let call = Call { method: "/process.Process/SendSignal", user: None };
        let signal = match signal {
            Signal::Terminate => proto::Signal::SIGNAL_SIGTERM,
            Signal::Kill => proto::Signal::SIGNAL_SIGKILL,
        };
        let request = proto::SendSignalRequest { process: MessageField::some(select(selector)), signal: signal.into() };
        let _: proto::SendSignalResponse = self.unary(call, deadline, &request).await?;
        Ok(())
    }

    /// Resizes a terminal.
    ///
    /// # Errors
    /// `NotFound`; `Internal` for a process without a terminal.
    pub async fn update(&self, selector: &Selector, size: PtySize, deadline: Duration) -> Result<(), EnvdError> {
        let call = Call { method: "/process.Process/Update", user: None };
        let request = proto::UpdateRequest {
            process: MessageField::some(select(selector)),
            pty: MessageField::some(terminal(size)),
        };
        let _: proto::UpdateResponse = self.unary(call, deadline, &request).await?;
        Ok(())
    }

    /// End of file on stdin. Repeating it is fine.
    ///
    /// # Errors
    /// `NotFound`; `Internal` for a terminal, which takes Ctrl+D (0x04) as input instead.
    pub async fn close_stdin(&self, selector: &Selector, deadline: Duration) -> Result<(), EnvdError> {
        let call = Call { method: "/process.Process/CloseStdin", user: None };
        let request = proto::CloseStdinRequest { process: MessageField::some(select(selector)) };
        let _: proto::CloseStdinResponse = self.unary(call, deadline, &request).await?;
        Ok(())
    }
}

/// Turns messages into events until one of them is the last.
struct Reader<M> {
    messages: Messages,
    event_of: fn(M) -> Option<proto::ProcessEvent>,
    max_message: usize,
    done: bool,
    end_seen: bool,
}

impl<M: Message> Reader<M> {
    async fn step(mut self) -> Option<(Result<ProcessEvent, EnvdError>, Self)> {
        if self.done {
            return None;
        }
        if self.end_seen {
            // The outcome is known: how the stream closes no longer matters.
            let _ = tokio::time::timeout(LAST_FRAME_GRACE, self.messages.next()).await;
            return None;
        }
        let item = self.next_event().await.transpose()?;
        self.done = item.is_err();
        self.end_seen = matches!(item, Ok(ProcessEvent::End { .. }));
        Some((item, self))
    }

    async fn next_event(&mut self) -> Result<Option<ProcessEvent>, EnvdError> {
        while let Some(payload) = self.messages.next().await? {
            // From a slice, so that output is copied: what keeps a chunk then keeps nothing else alive.
            let message = decode(&payload, self.max_message)?;
            let event = (self.event_of)(message).and_then(|e| e.event);
            if let Some(event) = event.and_then(event_of_wire) {
                return Ok(Some(event));
            }
        }
        Ok(None)
    }
}

/// `None` for output on a channel that is not known yet.
fn event_of_wire(event: Event) -> Option<ProcessEvent> {
    Some(match event {
        Event::Start(start) => ProcessEvent::Started { pid: start.pid },
        Event::Data(data) => match data.output? {
            Output::Stdout(bytes) => ProcessEvent::Stdout(bytes),
            Output::Stderr(bytes) => ProcessEvent::Stderr(bytes),
            Output::Pty(bytes) => ProcessEvent::Pty(bytes),
        },
        Event::End(EndEvent { exit_code, exited, status, error }) => {
            ProcessEvent::End { exit_code, exited, status, error }
        }
        Event::Keepalive(_) => ProcessEvent::Keepalive,
    })
}

fn process_info(info: proto::ProcessInfo) -> ProcessInfo {
    let config = info.config.into_option().unwrap_or_default();
    ProcessInfo {
        pid: info.pid,
        tag: info.tag,
        cmd: config.cmd,
        args: config.args,
        envs: config.envs.into_iter().collect(),
        cwd: config.cwd,
    }
}

fn select(selector: &Selector) -> proto::ProcessSelector {
    use proto::process_selector::Selector as Wire;
    let selector = match selector {
        Selector::Pid(pid) => Wire::Pid(*pid),
        Selector::Tag(tag) => Wire::Tag(tag.clone()),
    };
    proto::ProcessSelector { selector: Some(selector) }
}

fn terminal(size: PtySize) -> proto::PTY {
    proto::PTY { size: MessageField::some(proto::pty::Size { cols: size.cols.into(), rows: size.rows.into() }) }
}
