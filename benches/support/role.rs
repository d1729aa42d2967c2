//! Other parts that a bench's own program plays, as processes of their own.

use std::{
    convert::Infallible,
    io::{BufRead, BufReader},
    net::SocketAddr,
    process::{Child, Command, Stdio},
};

use anyhow::{Context, Result};
use bytes::Bytes;
use http::{HeaderMap, HeaderName, HeaderValue, Request, Response, Uri};
use http_body_util::{BodyExt, Full, combinators::BoxBody};
use hyper::{body::Incoming, service::service_fn};
use hyper_util::{
    client::legacy::{Client, connect::HttpConnector},
    rt::{TokioExecutor, TokioIo, TokioTimer},
    server::conn::auto,
};
use tokio::net::TcpListener;

use crate::measure::Process;

/// As the gateway has it.
#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

pub type Body = BoxBody<Bytes, hyper::Error>;

/// A child process that is ended with this one.
pub struct Running {
    pub child: Child,
    pub address: SocketAddr,
}

impl Running {
    /// This program with other arguments. It says on its stdout where it listens.
    pub fn role(arguments: &[&str]) -> Result<Self> {
        let mut child = Command::new(std::env::current_exe()?).args(arguments).stdout(Stdio::piped()).spawn()?;
        let mut line = String::new();
        BufReader::new(child.stdout.take().context("stdout")?).read_line(&mut line)?;
        Ok(Self { address: line.trim().parse()?, child })
    }

    pub fn process(&self) -> Process {
        Process::new(self.child.id())
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        let pid = nix::unistd::Pid::from_raw(self.child.id().cast_signed());
        // It ends its own children first; one that has ended already is fine.
        let _sent = nix::sys::signal::kill(pid, nix::sys::signal::Signal::SIGTERM);
        let _status = self.child.wait();
    }
}

/// Serves on any free port, and says which on stdout.
pub async fn listen<F, R>(answer: F) -> Result<()>
where
    F: Fn(Request<Incoming>) -> R + Clone + Send + 'static,
    R: Future<Output = Response<Body>> + Send + 'static,
{
    let listener = TcpListener::bind("127.0.0.1:0").await?;
    println!("{}", listener.local_addr()?);
    let tasks = tokio_util::task::TaskTracker::new();
    loop {
        let (stream, _) = listener.accept().await?;
        stream.set_nodelay(true)?;
        let answer = answer.clone();
        let service = service_fn(move |request| {
            let answer = answer(request);
            async move { Ok::<_, Infallible>(answer.await) }
        });
        tasks.spawn(async move {
            let builder = auto::Builder::new(TokioExecutor::new());
            // A client that hangs up is the end of its connection and no news.
            let _ended = builder.serve_connection_with_upgrades(TokioIo::new(stream), service).await;
        });
    }
}

pub fn full(content: impl Into<Bytes>) -> Body {
    Full::new(content.into()).map_err(|never| match never {}).boxed()
}

/// The least that a proxy can do: another address, the same bytes. `arguments`: the address, then pairs of a header's
/// name and its value that every request gets.
pub async fn bare(arguments: &[String]) -> Result<()> {
    let (target, pairs) = arguments.split_first().context("an address")?;
    let (target, headers) = (target.parse::<SocketAddr>()?, headers(pairs)?);
    let mut connector = HttpConnector::new();
    connector.set_nodelay(true);
    let client = Client::builder(TokioExecutor::new()).pool_timer(TokioTimer::new()).build(connector);
    listen(move |request| pass(client.clone(), target, headers.clone(), request)).await
}

fn headers(pairs: &[String]) -> Result<HeaderMap> {
    let header =
        |pair: &[String]| -> Result<_> { Ok((pair[0].parse::<HeaderName>()?, HeaderValue::from_str(&pair[1])?)) };
    pairs.chunks_exact(2).map(header).collect()
}

async fn pass(
    client: Client<HttpConnector, Incoming>,
    target: SocketAddr,
    headers: HeaderMap,
    mut request: Request<Incoming>,
) -> Response<Body> {
    let path = request.uri().path_and_query().map_or("/", |path| path.as_str());
    let address: Result<Uri, _> = format!("http://{target}{path}").parse();
    let Ok(address) = address else { return Response::new(full("address")) };
    *request.uri_mut() = address;
    for (name, value) in &headers {
        request.headers_mut().insert(name, value.clone());
    }
    match client.request(request).await {
        Ok(answer) => answer.map(BodyExt::boxed),
        Err(error) => Response::new(full(error.to_string())),
    }
}
