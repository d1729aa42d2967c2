//! The RPC methods.

#![allow(refining_impl_trait)] // the traits promise less than what is returned

use std::sync::Arc;
use std::time::Duration;

use connectrpc::{
    ConnectError, InboundStream, RequestContext, Response, ServiceRequest, ServiceResult, ServiceStream, StreamMessage,
};
use envd_proto::process as wire;
use envd_proto::process::process_event;
use futures_util::StreamExt as _;
use nix::errno::Errno;
use nix::sys::signal::Signal;
use tokio::sync::mpsc;
use tokio::time::Instant;

use super::hub::Event;
use super::messages::{self, Carrier};
use super::spawn::{self, Size, Spec, Wanted};
use super::table::{Config, InputError, Process, Selector, until};
use crate::envd::daemon::Daemon;
use crate::envd::keepalive;
use crate::envd::users::User;

/// What a terminal is when the caller gives none of its measures.
const TERMINAL: Size = Size { cols: 80, rows: 24 };

/// `process.Process`.
pub struct ProcessService {
    daemon: Arc<Daemon>,
}

impl ProcessService {
    #[must_use]
    pub fn new(daemon: Arc<Daemon>) -> Self {
        Self { daemon }
    }

    fn find(&self, selector: &Selector) -> Result<Arc<Process>, ConnectError> {
        self.daemon.processes.find(selector).ok_or_else(|| messages::not_found(selector))
    }

    fn selected(&self, selector: Option<&wire::ProcessSelector>) -> Result<Arc<Process>, ConnectError> {
        self.find(&messages::selector(selector)?)
    }

    /// What to start, and how `List` will show it.
    fn spec(&self, user: User, request: &wire::StartRequest) -> Result<(Spec, Config), ConnectError> {
        let config =
            request.process.as_option().ok_or_else(|| ConnectError::invalid_argument("a process is required"))?;
        let given = config.cwd.clone().unwrap_or_default();
        let cwd =
            self.daemon.resolve(&given, &user).map_err(|error| ConnectError::invalid_argument(error.to_string()))?;
        if !cwd.exists() {
            return Err(ConnectError::invalid_argument(format!("cwd '{}' does not exist", cwd.display())));
        }
        let stdio = match request.pty.as_option() {
            Some(pty) => Wanted::Terminal(messages::size(pty).unwrap_or(TERMINAL)),
            None => Wanted::Pipes { stdin: request.stdin.unwrap_or(true) },
        };
        let spec = Spec {
            command: config.cmd.clone(),
            args: config.args.clone(),
            envs: self.daemon.environment(&user, &config.envs),
            cwd,
            user,
            stdio,
        };
        let shown = Config {
            command: config.cmd.clone(),
            args: config.args.clone(),
            envs: config.envs.clone().into_iter().collect(),
            cwd: config.cwd.clone(),
        };
        Ok((spec, shown))
    }

    async fn write(&self, process: &Process, input: Option<&wire::ProcessInput>) -> Result<(), ConnectError> {
        let result = match input.and_then(|input| input.input.as_ref()) {
            Some(wire::process_input::Input::Stdin(data)) => ("stdin", process.write_stdin(data).await),
            Some(wire::process_input::Input::Pty(data)) => ("tty", process.write_terminal(data).await),
            None => return Err(ConnectError::invalid_argument("an input is required")),
        };
        let (target, result) = result;
        result.map_err(|error| ConnectError::internal(format!("error writing to {target}: {error}")))
    }
}

impl wire::Process for ProcessService {
    async fn list(
        &self,
        _ctx: RequestContext,
        _request: ServiceRequest<'_, wire::ListRequest>,
    ) -> ServiceResult<wire::ListResponse> {
        let processes = self.daemon.processes.list();
        Response::ok(wire::ListResponse {
            processes: processes.iter().map(|process| messages::info(process)).collect(),
        })
    }

    async fn start(
        &self,
        ctx: RequestContext,
        request: ServiceRequest<'_, wire::StartRequest>,
    ) -> ServiceResult<ServiceStream<wire::StartResponse>> {
        let request = request.to_owned_message();
        let user = self.daemon.caller(ctx.headers())?;
        let (spec, config) = self.spec(user, &request)?;
        let terminal = matches!(spec.stdio, Wanted::Terminal(_));
        let spawned = spawn::spawn(spec).map_err(|error| refused(&config, terminal, &error))?;
        let pid = spawned.pid;
        let deadline = ctx.time_remaining().map(|remaining| Instant::now() + remaining);
        let events =
            self.daemon.processes.adopt(spawned, config, request.tag, deadline, |process| process.hub.follow());
        Response::ok(follow(pid, events, keepalive::interval(ctx.headers()), deadline))
    }

    async fn connect(
        &self,
        ctx: RequestContext,
        request: ServiceRequest<'_, wire::ConnectRequest>,
    ) -> ServiceResult<ServiceStream<wire::ConnectResponse>> {
        let request = request.to_owned_message();
        let selector = messages::selector(request.process.as_option())?;
        let deadline = ctx.time_remaining().map(|remaining| Instant::now() + remaining);
        let Some(process) = self.daemon.processes.find(&selector) else {
            let (pid, exit) =
                self.daemon.processes.find_late(&selector).ok_or_else(|| messages::not_found(&selector))?;
            let events = [messages::started(pid), messages::ended(exit)];
            let events = futures_util::stream::iter(events.map(|event| Ok(Carrier::carry(event))));
            return Response::stream_ok(events);
        };
        let events = process.hub.follow();
        Response::ok(follow(process.pid, events, keepalive::interval(ctx.headers()), deadline))
    }

    async fn update(
        &self,
        _ctx: RequestContext,
        request: ServiceRequest<'_, wire::UpdateRequest>,
    ) -> ServiceResult<wire::UpdateResponse> {
        let request = request.to_owned_message();
        let process = self.selected(request.process.as_option())?;
        if let Some(size) = request.pty.as_option().and_then(messages::size) {
            let resized = process.resize(size).await;
            resized.map_err(|error| ConnectError::internal(format!("error resizing tty: {error}")))?;
        }
        Response::ok(wire::UpdateResponse::default())
    }

    async fn stream_input(
        &self,
        _ctx: RequestContext,
        mut requests: InboundStream<wire::StreamInputRequest>,
    ) -> ServiceResult<wire::StreamInputResponse> {
        use wire::stream_input_request::Event as Input;
        let mut process = None;
        while let Some(request) = requests.next().await {
            let request: StreamMessage<wire::StreamInputRequest> = request?;
            match request.to_owned_message().event {
                Some(Input::Start(start)) => process = Some(self.selected(start.process.as_option())?),
                Some(Input::Data(data)) => {
                    let process = process
                        .as_ref()
                        .ok_or_else(|| ConnectError::invalid_argument("the first message has to name a process"))?;
                    self.write(process, data.input.as_option()).await?;
                }
                Some(Input::Keepalive(_)) | None => {}
            }
        }
        Response::ok(wire::StreamInputResponse::default())
    }

    async fn send_input(
        &self,
        _ctx: RequestContext,
        request: ServiceRequest<'_, wire::SendInputRequest>,
    ) -> ServiceResult<wire::SendInputResponse> {
        let request = request.to_owned_message();
        let process = self.selected(request.process.as_option())?;
        self.write(&process, request.input.as_option()).await?;
        Response::ok(wire::SendInputResponse::default())
    }

    async fn send_signal(
        &self,
        _ctx: RequestContext,
        request: ServiceRequest<'_, wire::SendSignalRequest>,
    ) -> ServiceResult<wire::SendSignalResponse> {
        let request = request.to_owned_message();
        let selector = messages::selector(request.process.as_option())?;
        let process = self.find(&selector)?;
        let signal = match request.signal.as_known() {
            Some(wire::Signal::SIGNAL_SIGKILL) => Signal::SIGKILL,
            Some(wire::Signal::SIGNAL_SIGTERM) => Signal::SIGTERM,
            _ => {
                let number = request.signal.to_i32();
                return Err(ConnectError::unimplemented(format!("invalid signal: {number}")));
            }
        };
        match process.signal(signal) {
            Ok(()) => Response::ok(wire::SendSignalResponse::default()),
            // It has ended, and the table is about to hear of it.
            Err(Errno::ESRCH) => Err(messages::not_found(&selector)),
            Err(error) => Err(ConnectError::internal(format!("error sending signal: {error}"))),
        }
    }

    async fn close_stdin(
        &self,
        _ctx: RequestContext,
        request: ServiceRequest<'_, wire::CloseStdinRequest>,
    ) -> ServiceResult<wire::CloseStdinResponse> {
        let request = request.to_owned_message();
        let process = self.selected(request.process.as_option())?;
        process.close_stdin().await.map_err(|error| match error {
            InputError::IsTerminal => {
                ConnectError::failed_precondition("a terminal has no stdin to close: send Ctrl+D (0x04) instead")
            }
            other => ConnectError::internal(format!("error closing stdin: {other}")),
        })?;
        Response::ok(wire::CloseStdinResponse::default())
    }
}

fn refused(config: &Config, terminal: bool, error: &std::io::Error) -> ConnectError {
    let what = if terminal { "error starting pty with command" } else { "error starting process" };
    ConnectError::invalid_argument(format!("{what} '{}': {error}", config.command))
}

/// The stream of one follower: start, what happens, end. The deadline ends the stream with an error.
fn follow<M: Carrier>(
    pid: u32,
    mut events: mpsc::Receiver<Event>,
    keepalive: Duration,
    deadline: Option<Instant>,
) -> ServiceStream<M> {
    let carry = |event: process_event::Event| M::carry(event);
    Box::pin(async_stream::stream! {
        yield Ok(carry(messages::started(pid)));
        loop {
            tokio::select! {
                biased;
                () = until(deadline) => {
                    yield Err(ConnectError::deadline_exceeded("context deadline exceeded"));
                    return;
                }
                event = events.recv() => match event {
                    Some(event) => yield Ok(carry(messages::event(event))),
                    None => return,
                },
                () = tokio::time::sleep(keepalive) => yield Ok(carry(messages::keepalive())),
            }
        }
    })
}
