//! A daemon that runs nothing: the command says what its stream shall look like.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use axum::Router;
use buffa::MessageField;
use bytes::Bytes;
use connectrpc::{ConnectError, InboundStream, RequestContext, Response, ServiceRequest, ServiceResult, ServiceStream};
use envd_proto::filesystem::{self as fs, FileType};
use envd_proto::process::process_event::data_event::Output;
use envd_proto::process::process_event::{DataEvent, EndEvent, Event, KeepAlive, StartEvent};
use envd_proto::process::*;
use futures_util::stream::{self, BoxStream, StreamExt};
use http::HeaderMap;
use tokio::sync::mpsc;

pub const CHUNK: usize = 32 * 1024;
/// Chunks of a `flood`: more than every buffer between the two ends can hold.
pub const FLOOD_CHUNKS: usize = 4096;

/// What the daemon saw.
#[derive(Debug)]
pub enum Seen {
    Start(HeaderMap, Box<StartRequest>),
    Unary(String),
    /// A stream or a call was dropped before its end.
    HungUp(&'static str),
}

#[derive(Clone)]
pub struct Daemon {
    seen: mpsc::UnboundedSender<Seen>,
    /// Chunks of a flood taken off the process so far.
    pub produced: Arc<AtomicUsize>,
}

impl Daemon {
    pub fn new() -> (Self, mpsc::UnboundedReceiver<Seen>) {
        let (seen, receiver) = mpsc::unbounded_channel();
        (Self { seen, produced: Arc::default() }, receiver)
    }

    pub fn router(&self) -> Router {
        let router = connectrpc::Router::new()
            .add_service::<Self, ProcessRegisterMarker>(Arc::new(self.clone()))
            .add_service::<Self, fs::FilesystemRegisterMarker>(Arc::new(self.clone()));
        Router::new().fallback_service(envd_proto::service(router))
    }

    fn note(&self, seen: Seen) {
        // A test that is over has stopped listening.
        let _ = self.seen.send(seen);
    }

    fn unary(&self, call: impl std::fmt::Debug) {
        self.note(Seen::Unary(format!("{call:?}")));
    }

    fn tripwire(&self, name: &'static str) -> Tripwire {
        Tripwire { seen: self.seen.clone(), name }
    }

    fn script(&self, request: &StartRequest) -> BoxStream<'static, Result<Event, ConnectError>> {
        let started = stream::iter([Ok(Event::Start(StartEvent { pid: 7 }))]);
        let hang = || {
            let tripwire = self.tripwire("start");
            stream::once(async move {
                let _tripwire = tripwire;
                std::future::pending().await
            })
        };
        match request.process.cmd.as_str() {
            "echo" => started.chain(stream::iter([Ok(stdout(request.process.args.join(" "))), Ok(exit(0))])).boxed(),
            "every-channel" => started.chain(stream::iter(every_channel().map(Ok))).boxed(),
            "hang" => started.chain(hang()).boxed(),
            "end-then-hang" => started.chain(stream::iter([Ok(exit(3))])).chain(hang()).boxed(),
            "outlive-deadline" => {
                let error = Err(ConnectError::deadline_exceeded("context deadline exceeded"));
                started.chain(stream::iter([error])).boxed()
            }
            "flood" => {
                let produced = Arc::clone(&self.produced);
                let chunks = stream::iter(0..FLOOD_CHUNKS).map(move |_| {
                    produced.fetch_add(1, Ordering::SeqCst);
                    Ok(stdout(vec![b'x'; CHUNK]))
                });
                started.chain(chunks).chain(stream::iter([Ok(exit(0))])).boxed()
            }
            other => panic!("no script for {other}"),
        }
    }
}

struct Tripwire {
    seen: mpsc::UnboundedSender<Seen>,
    name: &'static str,
}

impl Drop for Tripwire {
    fn drop(&mut self) {
        let _ = self.seen.send(Seen::HungUp(self.name));
    }
}

fn data(output: Output) -> Event {
    Event::Data(DataEvent { output: Some(output) })
}

fn stdout(bytes: impl Into<Bytes>) -> Event {
    data(Output::Stdout(bytes.into()))
}

fn exit(exit_code: i32) -> Event {
    Event::End(EndEvent {
        exit_code,
        exited: true,
        status: format!("exit status {exit_code}"),
        error: (exit_code != 0).then(|| format!("exit status {exit_code}")),
    })
}

fn every_channel() -> [Event; 5] {
    [
        stdout(&b"\xff\x00out"[..]),
        data(Output::Stderr(Bytes::from_static(b"err"))),
        Event::Keepalive(KeepAlive {}),
        data(Output::Pty(Bytes::from_static(b"tty"))),
        Event::End(EndEvent {
            exit_code: -1,
            exited: false,
            status: "signal: killed".into(),
            error: Some("signal: killed".into()),
        }),
    ]
}

fn wrap(event: Event) -> MessageField<ProcessEvent, buffa::Inline<ProcessEvent>> {
    MessageField::some(ProcessEvent { event: Some(event) })
}

impl Process for Daemon {
    async fn start(
        &self,
        ctx: RequestContext,
        request: ServiceRequest<'_, StartRequest>,
    ) -> ServiceResult<ServiceStream<StartResponse>> {
        let request = request.to_owned_message();
        self.note(Seen::Start(ctx.headers().clone(), Box::new(request.clone())));
        match request.process.cmd.as_str() {
            "refused" => Err(ConnectError::invalid_argument("cwd '/x' does not exist")),
            "never-answered" => {
                let _tripwire = self.tripwire("head");
                std::future::pending().await
            }
            _ => Response::stream_ok(self.script(&request).map(|e| e.map(|e| StartResponse { event: wrap(e) }))),
        }
    }

    async fn connect(
        &self,
        _: RequestContext,
        request: ServiceRequest<'_, ConnectRequest>,
    ) -> ServiceResult<ServiceStream<ConnectResponse>> {
        let request = request.to_owned_message();
        match request.process.selector {
            Some(process_selector::Selector::Pid(7)) => {
                let events = [Event::Start(StartEvent { pid: 7 }), exit(0)];
                Response::stream_ok(stream::iter(events.map(|e| Ok(ConnectResponse { event: wrap(e) }))))
            }
            _ => Err(ConnectError::not_found("process with tag t not found")),
        }
    }

    async fn list(&self, _: RequestContext, _: ServiceRequest<'_, ListRequest>) -> ServiceResult<ListResponse> {
        let config = ProcessConfig {
            cmd: "/bin/bash".into(),
            args: vec!["-l".into()],
            envs: [("K".into(), "v".into())].into_iter().collect(),
            cwd: Some("/tmp".into()),
        };
        let info = ProcessInfo { config: MessageField::some(config), pid: 7, tag: Some("t".into()) };
        Response::ok(ListResponse { processes: vec![info] })
    }

    async fn update(
        &self,
        _: RequestContext,
        request: ServiceRequest<'_, UpdateRequest>,
    ) -> ServiceResult<UpdateResponse> {
        self.unary(request.to_owned_message());
        Response::ok(UpdateResponse {})
    }

    async fn stream_input(
        &self,
        _: RequestContext,
        _: InboundStream<StreamInputRequest>,
    ) -> ServiceResult<StreamInputResponse> {
        Err(ConnectError::unimplemented("not part of these tests"))
    }

    async fn send_input(
        &self,
        _: RequestContext,
        request: ServiceRequest<'_, SendInputRequest>,
    ) -> ServiceResult<SendInputResponse> {
        self.unary(request.to_owned_message());
        Response::ok(SendInputResponse {})
    }

    async fn send_signal(
        &self,
        _: RequestContext,
        request: ServiceRequest<'_, SendSignalRequest>,
    ) -> ServiceResult<SendSignalResponse> {
        self.unary(request.to_owned_message());
        Err(ConnectError::not_found("process with pid 7 not found"))
    }

    /// Never answers.
    async fn close_stdin(
        &self,
        _: RequestContext,
        _: ServiceRequest<'_, CloseStdinRequest>,
    ) -> ServiceResult<CloseStdinResponse> {
        let _tripwire = self.tripwire("close_stdin");
        std::future::pending().await
    }
}

pub fn entry(path: &str, r#type: FileType) -> fs::EntryInfo {
    fs::EntryInfo {
        name: path.rsplit('/').next().unwrap_or_default().to_owned(),
        r#type: r#type.into(),
        path: path.to_owned(),
        size: 5,
        mode: 0o644,
        permissions: "-rw-r--r--".into(),
        owner: "user".into(),
        group: "1000".into(),
        ..Default::default()
    }
}

fn watched(event: fs::watch_dir_response::Event) -> Result<fs::WatchDirResponse, ConnectError> {
    Ok(fs::WatchDirResponse { event: Some(event) })
}

fn watch_events() -> Vec<Result<fs::WatchDirResponse, ConnectError>> {
    let kinds = [
        fs::EventType::Create,
        fs::EventType::Write,
        fs::EventType::Remove,
        fs::EventType::Rename,
        fs::EventType::Chmod,
    ];
    let change = |kind: fs::EventType| {
        let described = kind == fs::EventType::Create;
        let entry = described.then(|| entry("/events/a", FileType::FILE_TYPE_FILE));
        fs::FilesystemEvent { name: "a".into(), r#type: kind.into(), entry: entry.into() }
    };
    let mut events: Vec<_> =
        kinds.map(|kind| watched(fs::watch_dir_response::Event::Filesystem(change(kind).into()))).into();
    events.push(watched(fs::watch_dir_response::Event::Keepalive(Default::default())));
    events.push(Err(ConnectError::internal("watcher error: overflow")));
    events
}

impl fs::Filesystem for Daemon {
    async fn stat(
        &self,
        ctx: RequestContext,
        request: ServiceRequest<'_, fs::StatRequest>,
    ) -> ServiceResult<fs::StatResponse> {
        let basic = ctx.header("authorization").map(|v| v.to_str().unwrap().to_owned());
        self.unary((basic, request.path));
        if request.path == "/missing" {
            return Err(ConnectError::not_found("file not found: /missing"));
        }
        let mut entry = entry(request.path, FileType::FILE_TYPE_SYMLINK);
        entry.symlink_target = Some("/target".into());
        Response::ok(fs::StatResponse { entry: MessageField::some(entry) })
    }

    /// As many entries as `depth` says.
    async fn list_dir(
        &self,
        _: RequestContext,
        request: ServiceRequest<'_, fs::ListDirRequest>,
    ) -> ServiceResult<fs::ListDirResponse> {
        let path = |i| format!("{}/{i:0200}", request.path);
        let entries = (0..request.depth).map(|i| entry(&path(i), FileType::FILE_TYPE_FILE)).collect();
        Response::ok(fs::ListDirResponse { entries })
    }

    async fn make_dir(
        &self,
        _: RequestContext,
        request: ServiceRequest<'_, fs::MakeDirRequest>,
    ) -> ServiceResult<fs::MakeDirResponse> {
        if request.path == "/there" {
            return Err(ConnectError::already_exists("directory already exists: /there"));
        }
        let entry = entry(request.path, FileType::FILE_TYPE_DIRECTORY);
        Response::ok(fs::MakeDirResponse { entry: MessageField::some(entry) })
    }

    async fn r#move(
        &self,
        _: RequestContext,
        request: ServiceRequest<'_, fs::MoveRequest>,
    ) -> ServiceResult<fs::MoveResponse> {
        self.unary((request.source, request.destination));
        let entry = entry(request.destination, FileType::FILE_TYPE_FILE);
        Response::ok(fs::MoveResponse { entry: MessageField::some(entry) })
    }

    /// Forgets the content of its reply, where there is one to forget.
    async fn remove(
        &self,
        _: RequestContext,
        request: ServiceRequest<'_, fs::RemoveRequest>,
    ) -> ServiceResult<fs::RemoveResponse> {
        self.unary(request.path);
        Response::ok(fs::RemoveResponse {})
    }

    /// Every kind of event for `/events`, silence for `/silent`, an error for what is missing.
    async fn watch_dir(
        &self,
        ctx: RequestContext,
        request: ServiceRequest<'_, fs::WatchDirRequest>,
    ) -> ServiceResult<ServiceStream<fs::WatchDirResponse>> {
        let request = request.to_owned_message();
        let basic = ctx.header("authorization").map(|v| v.to_str().unwrap().to_owned());
        let keepalive = ctx.header("keepalive-ping-interval").map(|v| v.to_str().unwrap().to_owned());
        self.unary((basic, keepalive, request.recursive, request.include_entry, request.allow_network_mounts));
        let started = stream::iter([watched(fs::watch_dir_response::Event::Start(Default::default()))]);
        match request.path.as_str() {
            "/events" => Response::stream_ok(started.chain(stream::iter(watch_events()))),
            "/silent" => {
                let tripwire = self.tripwire("watch");
                Response::stream_ok(started.chain(stream::once(async move {
                    let _tripwire = tripwire;
                    std::future::pending().await
                })))
            }
            path => Err(ConnectError::not_found(format!("path {path} not found: stat {path}"))),
        }
    }

    async fn create_watcher(
        &self,
        _: RequestContext,
        _: ServiceRequest<'_, fs::CreateWatcherRequest>,
    ) -> ServiceResult<fs::CreateWatcherResponse> {
        Err::<Response<fs::CreateWatcherResponse>, _>(ConnectError::unimplemented("not part of these tests"))
    }

    async fn get_watcher_events(
        &self,
        _: RequestContext,
        _: ServiceRequest<'_, fs::GetWatcherEventsRequest>,
    ) -> ServiceResult<fs::GetWatcherEventsResponse> {
        Err::<Response<fs::GetWatcherEventsResponse>, _>(ConnectError::unimplemented("not part of these tests"))
    }

    async fn remove_watcher(
        &self,
        _: RequestContext,
        _: ServiceRequest<'_, fs::RemoveWatcherRequest>,
    ) -> ServiceResult<fs::RemoveWatcherResponse> {
        Err::<Response<fs::RemoveWatcherResponse>, _>(ConnectError::unimplemented("not part of these tests"))
    }
}
