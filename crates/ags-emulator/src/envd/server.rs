//! Brings the daemon up and serves its connections: from the emulator over the control link, from processes inside
//! over the ports.

use std::collections::HashMap;
use std::io;
use std::os::fd::OwnedFd;
use std::sync::Arc;

use anyhow::Context as _;
use axum::Router;
use hyper_util::rt::{TokioExecutor, TokioIo};
use hyper_util::server::conn::auto;
use hyper_util::service::TowerToHyperService;
use tokio::net::{TcpListener, TcpStream, UnixStream};
use tokio_util::task::TaskTracker;

use super::daemon::{self, Daemon};
use super::{PORT, main_process, rest};
use crate::instance::inside::{Inside, Isolation};
use crate::instance::link::{DaemonLink, Dial, Family, Reply};
use crate::interpreter;

/// Threads of the daemon: one that reads output and one that writes it out keep a chatty process going.
const WORKERS: usize = 2;

/// Serves until the emulator is gone.
///
/// # Errors
/// The runtime or a listener could not be set up.
pub fn serve(inside: Box<Inside>) -> anyhow::Result<()> {
    tokio::runtime::Builder::new_multi_thread()
        .worker_threads(WORKERS)
        .enable_all()
        .build()
        .context("runtime")?
        .block_on(run(inside))
}

async fn run(inside: Box<Inside>) -> anyhow::Result<()> {
    let daemon = Arc::new(Daemon::new(&inside.plan, daemon::search_path(&inside.plan)));
    let tasks = daemon.tasks.clone();
    let mut routers = HashMap::from([(PORT, rest::router(Arc::clone(&daemon)))]);
    if inside.plan.code_interpreter {
        routers.insert(interpreter::PORT, interpreter::router(Arc::clone(&daemon)));
    }
    let server = Arc::new(Server { routers, tasks: tasks.clone() });
    if inside.plan.isolation != Isolation::None {
        for &port in server.routers.keys() {
            listen(&server, port).await.with_context(|| format!("port {port} inside"))?;
        }
    }
    main_process::start(&daemon, &inside.plan.command, &inside.main_log).context("the tool's command")?;
    let link = Arc::new(DaemonLink::new(inside.control).context("control link")?);
    link.reply(&Reply::Ready(inside.report), None).await.context("control link")?;
    while let Some(dial) = link.next().await.context("control link")? {
        let (server, link) = (Arc::clone(&server), Arc::clone(&link));
        tasks.spawn(async move { server.answer(dial, &link).await });
    }
    Ok(())
}

struct Server {
    /// What is served here, by port.
    routers: HashMap<u16, Router>,
    tasks: TaskTracker,
}

impl Server {
    async fn answer(&self, dial: Dial, link: &DaemonLink) {
        let result = match self.routers.get(&dial.port) {
            Some(router) => self.connect_here(router).map(|fd| (Family::Unix, fd)),
            None => connect(dial.port).await.map(|fd| (Family::Tcp, fd)),
        };
        let sent = match result {
            Ok((family, fd)) => link.reply(&Reply::Connected(dial.id, family), Some(&fd)).await,
            Err(error) => {
                let errno = error.raw_os_error().unwrap_or(libc::ECONNREFUSED);
                link.reply(&Reply::Failed(dial.id, errno), None).await
            }
        };
        if let Err(error) = sent {
            tracing::warn!(%error, "the emulator did not take an answer");
        }
    }

    /// A connection to the daemon itself needs no port.
    fn connect_here(&self, router: &Router) -> io::Result<OwnedFd> {
        let (ours, theirs) = std::os::unix::net::UnixStream::pair()?;
        ours.set_nonblocking(true)?;
        self.serve_connection(router, UnixStream::from_std(ours)?);
        Ok(theirs.into())
    }

    fn serve_connection<S>(&self, router: &Router, stream: S)
    where
        S: tokio::io::AsyncRead + tokio::io::AsyncWrite + Unpin + Send + 'static,
    {
        let service = TowerToHyperService::new(router.clone());
        self.tasks.spawn(async move {
            let builder = auto::Builder::new(TokioExecutor::new());
            let connection = builder.serve_connection_with_upgrades(TokioIo::new(stream), service);
            if let Err(error) = connection.await {
                tracing::debug!(error, "a connection ended early");
            }
        });
    }
}

async fn listen(server: &Arc<Server>, port: u16) -> io::Result<()> {
    let v4 = TcpListener::bind(("0.0.0.0", port)).await?;
    // Without IPv6 the other listener is enough: `localhost` falls back to it.
    let v6 = TcpListener::bind(("::1", port)).await.ok();
    for listener in [Some(v4), v6].into_iter().flatten() {
        let (accepting, router) = (Arc::clone(server), server.routers.get(&port).cloned().unwrap_or_default());
        server.tasks.spawn(async move { accept(&accepting, &router, &listener).await });
    }
    Ok(())
}

async fn accept(server: &Server, router: &Router, listener: &TcpListener) {
    loop {
        match listener.accept().await {
            Ok((stream, _)) => {
                let _only_slower = stream.set_nodelay(true);
                server.serve_connection(router, stream);
            }
            Err(error) => {
                tracing::warn!(%error, "a connection could not be accepted");
                tokio::time::sleep(std::time::Duration::from_millis(100)).await;
            }
        }
    }
}

/// Programs listen on one address of loopback or the other.
async fn connect(port: u16) -> io::Result<OwnedFd> {
    let stream = match TcpStream::connect(("127.0.0.1", port)).await {
        Err(error) if error.kind() == io::ErrorKind::ConnectionRefused => {
            TcpStream::connect(("::1", port)).await.map_err(|_| error)?
        }
        result => result?,
    };
    Ok(stream.into_std()?.into())
}
