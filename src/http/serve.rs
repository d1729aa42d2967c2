//! Connections: HTTP/1.1 and HTTP/2 on one port, plain or under TLS. Without TLS, HTTP/2 is by prior knowledge.

use std::{convert::Infallible, error::Error, io, net::SocketAddr, pin::pin, sync::Arc, time::Duration};

use bytes::Bytes;
use hyper::service::service_fn;
use hyper_util::{
    rt::{TokioExecutor, TokioIo, TokioTimer},
    server::conn::auto,
};
use tokio::{
    io::{AsyncRead, AsyncWrite, AsyncWriteExt},
    net::{TcpListener, TcpStream},
    runtime::Handle,
};
use tokio_rustls::TlsAcceptor;
use tokio_util::sync::CancellationToken;

use super::{
    client_io::{ClientIo, Ends, Patience, SendingSide},
    front::{Answer, Peer, with_peer},
    lane::{Lane, Left, Seat, State, Threads},
    read_ahead::ReadAhead,
};
use crate::{app::App, clock::SharedClock, lifecycle::Lifecycle};

/// Pause after a failed accept: out of descriptors, most likely, and others need time to close theirs.
const RELIEF: Duration = Duration::from_millis(100);

/// Takes connections until the drain, under TLS where there is an acceptor. Those that are open then finish their requests;
/// the lifecycle waits for them.
pub fn serve(
    listener: TcpListener,
    tls: Option<TlsAcceptor>,
    answer: impl Answer,
    app: &App,
) -> impl Future<Output = ()> + Send + 'static {
    let config = &app.config.server;
    let patience = Patience { write: config.write_timeout, half_closed: config.half_closed_timeout };
    let draining = app.lifecycle.draining();
    let (lifecycle, clock) = (app.lifecycle.clone(), app.clock.clone());
    let threads = Arc::new(Threads::new(&lifecycle));
    let header_timeout = config.header_timeout;
    accept(listener, Door { tls, answer, header_timeout, patience, draining, lifecycle, clock, threads })
}

/// What all connections of a listener have in common.
#[derive(Clone)]
struct Door<A> {
    tls: Option<TlsAcceptor>,
    answer: A,
    header_timeout: Duration,
    patience: Patience,
    draining: CancellationToken,
    lifecycle: Lifecycle,
    clock: SharedClock,
    threads: Arc<Threads>,
}

async fn accept<A: Answer>(listener: TcpListener, door: Door<A>) {
    while let Some(accepted) = door.draining.run_until_cancelled(listener.accept()).await {
        match accepted {
            Ok((stream, peer)) => {
                door.lifecycle.spawn("connection", open(stream, peer, door.clone()));
            }
            Err(error) => {
                tracing::warn!(%error, "accept failed");
                tokio::time::sleep(RELIEF).await;
            }
        }
    }
}

async fn open<A: Answer>(stream: TcpStream, address: SocketAddr, mut door: Door<A>) {
    if let Err(error) = stream.set_nodelay(true) {
        tracing::debug!(%error, "TCP_NODELAY refused");
    }
    let Some(acceptor) = door.tls.take() else {
        let connection = Connection::new(stream, Peer { address, tls: false }, door);
        return tell(connection.serve_plain().await);
    };
    let shaken = tokio::time::timeout(door.header_timeout, acceptor.accept(stream));
    match door.draining.run_until_cancelled(shaken).await {
        // Boxed: plain connections are not to be larger for it.
        Some(Ok(Ok(stream))) => {
            let stream = ReadAhead::new(Bytes::new(), stream);
            let connection = Connection::new(stream, Peer { address, tls: true }, door);
            tell(Box::pin(connection.serve()).await);
        }
        Some(Ok(Err(error))) => tracing::debug!(%error, peer = %address, "a TLS handshake failed"),
        Some(Err(_)) => tracing::debug!(peer = %address, "a TLS handshake took too long"),
        None => {}
    }
}

fn tell(ended: Served) {
    if let Err(error) = ended {
        tracing::trace!(%error, "a connection ended early");
    }
}

/// A connection, and what is to be known of it.
struct Connection<S, A> {
    stream: ClientIo<S>,
    peer: Peer,
    side: SendingSide,
    state: State,
    door: Door<A>,
}

type Served = Result<(), Box<dyn Error + Send + Sync>>;

impl<S: AsyncRead + AsyncWrite + Ends + Unpin + Send + 'static, A: Answer> Connection<S, A> {
    fn new(stream: S, peer: Peer, door: Door<A>) -> Self {
        let side = SendingSide::default();
        let stream = ClientIo::new(stream, door.patience, side.clone());
        Self { stream, peer, side, state: State::default(), door }
    }

    async fn serve(mut self) -> Served {
        let left = self.by_lane(Seat::Here).await?;
        self.go_on(left).await
    }

    /// Answers what is simple enough.
    async fn by_lane(&mut self, seat: Seat<'_>) -> io::Result<Left> {
        let Self { stream, peer, side, state, door } = self;
        let (patience, draining, clock) = (door.header_timeout, &door.draining, &*door.clock);
        let lane = Lane { seat, answer: &door.answer, peer: *peer, side, patience, draining, clock };
        // Boxed: what follows on the connection is not to be larger for it.
        let left = Box::pin(lane.run(stream, state)).await?;
        if matches!(left, Left::Closed) {
            stream.shutdown().await?;
        }
        Ok(left)
    }

    /// Has the HTTP library answer the rest.
    async fn go_on(self, left: Left) -> Served {
        let Left::Over(first) = left else { return Ok(()) };
        let Self { stream, peer, side, state, door } = self;
        drop(state);
        let stream = ReadAhead::new(first, stream);
        let (answer, lifecycle) = (door.answer, door.lifecycle);
        let service = service_fn(move |request| {
            let answered = answer.clone().answer(with_peer(request, peer, &side, &lifecycle));
            async move { Ok::<_, Infallible>(answered.await) }
        });
        let mut builder = auto::Builder::new(TokioExecutor::new());
        // Whether a client that has sent all is still there is judged by `ClientIo`.
        builder.http1().timer(TokioTimer::new()).header_read_timeout(door.header_timeout).half_close(true);
        // Extended CONNECT: WebSockets over HTTP/2 (RFC 8441).
        builder.http2().timer(TokioTimer::new()).enable_connect_protocol();
        let mut connection = pin!(builder.serve_connection_with_upgrades(TokioIo::new(stream), service));
        if let Some(served) = door.draining.run_until_cancelled(connection.as_mut()).await {
            return served;
        }
        connection.as_mut().graceful_shutdown();
        connection.await
    }
}

impl<A: Answer> Connection<TcpStream, A> {
    /// As [`serve`](Self::serve). Requests that repeat each other are answered on a thread of their own: what is under TLS cannot
    /// be moved there.
    async fn serve_plain(mut self) -> Served {
        match self.by_lane(Seat::UntilRepeated).await? {
            // Boxed: connections that do not poll are not to be larger for it.
            Left::Repeats => match Arc::clone(&self.door.threads).next() {
                Some(thread) => Box::pin(self.elsewhere(thread)).await,
                None => Box::pin(self.serve()).await,
            },
            left => self.go_on(left).await,
        }
    }

    async fn elsewhere(self, thread: &Handle) -> Served {
        let Self { stream, peer, side, state, door } = self;
        let (threads, here, patience) = (Arc::clone(&door.threads), Handle::current(), door.patience);
        let stream = stream.into_inner().into_std()?;
        let there = async move {
            let stream = ClientIo::new(TcpStream::from_std(stream)?, patience, side.clone());
            let mut connection = Self { stream, peer, side, state, door };
            let lifecycle = connection.door.lifecycle.clone();
            let left = connection.by_lane(Seat::Apart(&here, &lifecycle)).await?;
            let Self { stream, peer, side, state, door } = connection;
            io::Result::Ok((stream.into_inner().into_std()?, peer, side, state, door, left))
        };
        let Some(came_back) = threads.run(thread, "connection", there).await else { return Ok(()) };
        let (stream, peer, side, state, door, left) = came_back?;
        let stream = ClientIo::new(TcpStream::from_std(stream)?, patience, side.clone());
        Self { stream, peer, side, state, door }.go_on(left).await
    }
}
