//! Connections: HTTP/1.1 and HTTP/2 on one port, plain or under TLS. Without TLS, HTTP/2 is by prior knowledge.

use std::{convert::Infallible, io, net::SocketAddr, pin::pin, time::Duration};

use bytes::Bytes;
use hyper::service::service_fn;
use hyper_util::{
    rt::{TokioExecutor, TokioIo, TokioTimer},
    server::conn::auto,
};
use tokio::{
    io::{AsyncRead, AsyncWrite, AsyncWriteExt},
    net::{TcpListener, TcpStream},
};
use tokio_rustls::TlsAcceptor;
use tokio_util::sync::CancellationToken;

use super::{
    client_io::{ClientIo, Ends, Patience, SendingSide},
    front::{Answer, Peer, with_peer},
    lane::{Lane, Left},
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
    accept(listener, Door { tls, answer, header_timeout: config.header_timeout, patience, draining, lifecycle, clock })
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
        return connection(stream, Peer { address, tls: false }, door).await;
    };
    let shaken = tokio::time::timeout(door.header_timeout, acceptor.accept(stream));
    match door.draining.run_until_cancelled(shaken).await {
        // Boxed: plain connections are not to be larger for it.
        Some(Ok(Ok(stream))) => {
            Box::pin(connection(ReadAhead::new(Bytes::new(), stream), Peer { address, tls: true }, door)).await
        }
        Some(Ok(Err(error))) => tracing::debug!(%error, peer = %address, "a TLS handshake failed"),
        Some(Err(_)) => tracing::debug!(peer = %address, "a TLS handshake took too long"),
        None => {}
    }
}

async fn connection<A: Answer>(
    stream: impl AsyncRead + AsyncWrite + Ends + Unpin + Send + 'static,
    peer: Peer,
    door: Door<A>,
) {
    let side = SendingSide::default();
    let mut stream = ClientIo::new(stream, door.patience, side.clone());
    let first = match by_lane(&mut stream, peer, &side, &door).await {
        Ok(Left::Over(first)) => first,
        Ok(Left::Closed) => return,
        Err(error) => return tracing::trace!(%error, "a connection ended early"),
    };
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
    let served = match door.draining.run_until_cancelled(connection.as_mut()).await {
        Some(served) => served,
        None => {
            connection.as_mut().graceful_shutdown();
            connection.await
        }
    };
    if let Err(error) = served {
        tracing::trace!(%error, "a connection ended early");
    }
}

/// Answers what is simple enough.
async fn by_lane<A: Answer>(
    stream: &mut (impl AsyncRead + AsyncWrite + Unpin + Send),
    peer: Peer,
    side: &SendingSide,
    door: &Door<A>,
) -> io::Result<Left> {
    let (patience, draining, clock) = (door.header_timeout, &door.draining, &*door.clock);
    let lane = Lane { answer: &door.answer, peer, side, patience, draining, clock };
    // Boxed: what follows on the connection is not to be larger for it.
    let left = Box::pin(lane.run(stream)).await?;
    if matches!(left, Left::Closed) {
        stream.shutdown().await?;
    }
    Ok(left)
}
