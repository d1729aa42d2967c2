//! Connections: HTTP/1.1 and, with prior knowledge, HTTP/2 on one port.

use std::{convert::Infallible, net::SocketAddr, pin::pin, time::Duration};

use hyper::service::service_fn;
use hyper_util::{
    rt::{TokioExecutor, TokioIo, TokioTimer},
    server::conn::auto,
};
use tokio::net::{TcpListener, TcpStream};
use tokio_util::sync::CancellationToken;

use super::{
    client_io::{ClientIo, Patience, SendingSide},
    front::{Answer, with_peer},
};
use crate::{app::App, lifecycle::Lifecycle};

/// Pause after a failed accept: out of descriptors, most likely, and others need time to close theirs.
const RELIEF: Duration = Duration::from_millis(100);

/// Takes connections until the drain. Those that are open then finish their requests; the lifecycle waits for them.
pub fn serve(listener: TcpListener, answer: impl Answer, app: &App) -> impl Future<Output = ()> + Send + 'static {
    let config = &app.config.server;
    let patience = Patience { write: config.write_timeout, half_closed: config.half_closed_timeout };
    accept(listener, answer, config.header_timeout, patience, app.lifecycle.clone())
}

async fn accept(
    listener: TcpListener,
    answer: impl Answer,
    header_timeout: Duration,
    patience: Patience,
    lifecycle: Lifecycle,
) {
    let draining = lifecycle.draining();
    while let Some(accepted) = draining.run_until_cancelled(listener.accept()).await {
        match accepted {
            Ok((stream, peer)) => {
                let connection = connection(stream, peer, answer.clone(), header_timeout, patience, draining.clone());
                lifecycle.spawn("connection", connection);
            }
            Err(error) => {
                tracing::warn!(%error, "accept failed");
                tokio::time::sleep(RELIEF).await;
            }
        }
    }
}

async fn connection(
    stream: TcpStream,
    peer: SocketAddr,
    answer: impl Answer,
    header_timeout: Duration,
    patience: Patience,
    draining: CancellationToken,
) {
    if let Err(error) = stream.set_nodelay(true) {
        tracing::debug!(%error, "TCP_NODELAY refused");
    }
    let side = SendingSide::default();
    let stream = ClientIo::new(stream, patience, side.clone());
    let service = service_fn(move |request| {
        let answered = answer.clone().answer(with_peer(request, peer, &side));
        async move { Ok::<_, Infallible>(answered.await) }
    });
    let mut builder = auto::Builder::new(TokioExecutor::new());
    // Whether a client that has sent all is still there is judged by `ClientIo`.
    builder.http1().timer(TokioTimer::new()).header_read_timeout(header_timeout).half_close(true);
    // Extended CONNECT: WebSockets over HTTP/2 (RFC 8441).
    builder.http2().timer(TokioTimer::new()).enable_connect_protocol();
    let mut connection = pin!(builder.serve_connection_with_upgrades(TokioIo::new(stream), service));
    let served = match draining.run_until_cancelled(connection.as_mut()).await {
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
