//! Between the wire's messages and our own types.

use buffa::MessageField;
use connectrpc::ConnectError;
use envd_proto::process::process_event::{self, data_event};
use envd_proto::process::{
    ConnectResponse, PTY, ProcessConfig, ProcessEvent, ProcessInfo, ProcessSelector, StartResponse, process_selector,
};

use super::exit::Exit;
use super::hub::{Event, Output};
use super::spawn::Size;
use super::table::{Config, Process, Selector};

/// Messages that carry an event, which `Start` and `Connect` have each their own of.
pub trait Carrier: Send + 'static {
    fn carry(event: process_event::Event) -> Self;
}

impl Carrier for StartResponse {
    fn carry(event: process_event::Event) -> Self {
        Self { event: MessageField::some(ProcessEvent { event: Some(event) }) }
    }
}

impl Carrier for ConnectResponse {
    fn carry(event: process_event::Event) -> Self {
        Self { event: MessageField::some(ProcessEvent { event: Some(event) }) }
    }
}

/// The first event of every stream.
pub fn started(pid: u32) -> process_event::Event {
    process_event::Event::Start(process_event::StartEvent { pid })
}

/// What is sent after a time of silence.
pub fn keepalive() -> process_event::Event {
    process_event::Event::Keepalive(process_event::KeepAlive::default())
}

/// An event of the hub on the wire.
pub fn event(event: Event) -> process_event::Event {
    match event {
        Event::Output(output) => {
            let output = match output {
                Output::Stdout(bytes) => data_event::Output::Stdout(bytes),
                Output::Stderr(bytes) => data_event::Output::Stderr(bytes),
                Output::Pty(bytes) => data_event::Output::Pty(bytes),
            };
            process_event::Event::Data(process_event::DataEvent { output: Some(output) })
        }
        Event::End(exit) => ended(exit),
    }
}

/// The last event of every stream.
pub fn ended(exit: Exit) -> process_event::Event {
    process_event::Event::End(process_event::EndEvent {
        exit_code: exit.code,
        exited: exit.exited,
        status: exit.status,
        error: exit.error,
    })
}

/// The selector of a request.
///
/// # Errors
/// `invalid_argument`: it selects nothing.
pub fn selector(selector: Option<&ProcessSelector>) -> Result<Selector, ConnectError> {
    match selector.and_then(|selector| selector.selector.as_ref()) {
        Some(process_selector::Selector::Pid(pid)) => Ok(Selector::Pid(*pid)),
        Some(process_selector::Selector::Tag(tag)) => Ok(Selector::Tag(tag.clone())),
        None => Err(ConnectError::invalid_argument("a process selector is required")),
    }
}

/// `not_found` for a selector.
pub fn not_found(selector: &Selector) -> ConnectError {
    ConnectError::not_found(match selector {
        Selector::Pid(pid) => format!("process with pid {pid} not found"),
        Selector::Tag(tag) => format!("process with tag {tag} not found"),
    })
}

/// The size of a terminal; sizes that no terminal has are cut.
pub fn size(pty: &PTY) -> Option<Size> {
    let size = pty.size.as_option()?;
    let cut = |cells: u32| u16::try_from(cells).unwrap_or(u16::MAX);
    Some(Size { cols: cut(size.cols), rows: cut(size.rows) })
}

/// An entry of `List`.
pub fn info(process: &Process) -> ProcessInfo {
    ProcessInfo { config: MessageField::some(wire_config(&process.config)), pid: process.pid, tag: process.tag.clone() }
}

fn wire_config(config: &Config) -> ProcessConfig {
    ProcessConfig {
        cmd: config.command.clone(),
        args: config.args.clone(),
        envs: config.envs.clone().into_iter().collect(),
        cwd: config.cwd.clone(),
    }
}
