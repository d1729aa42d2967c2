//! Connections that left HTTP behind (WebSockets): bytes both ways, each way ended by itself.

use std::{
    io,
    pin::Pin,
    sync::Arc,
    task::{Context, Poll, ready},
};

use axum::body::Body;
use http::{HeaderValue, Response, StatusCode, header};
use hyper::upgrade::{OnUpgrade, Upgraded};
use hyper_util::rt::TokioIo;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};

use super::{body::Flow, request::Upgrade, verdict::Answer};
use crate::{
    app::{
        App,
        ports::{Hold, Meters, Passage},
    },
    error::{Code, Error, Result},
    telemetry::request::carried,
};

/// Answers the client's wish, and carries bytes once both sides are ready.
///
/// # Errors
/// An internal error when the sandbox's connection cannot be taken over.
pub fn open(
    app: &App,
    upgrade: Upgrade,
    protocol: Option<HeaderValue>,
    mut answer: Response<Answer>,
    passage: &Passage,
    flow: Arc<Flow>,
) -> Result<Response<Body>> {
    let sandbox = hyper::upgrade::on(&mut answer);
    let tunnel = Tunnel { flow, hold: passage.hold_later().hold(), meters: app.ports.meters.clone() };
    app.lifecycle.spawn("port-tunnel", carried(tunnel.carry(upgrade.client, sandbox)));
    let mut response = answer.map(|_| Body::empty());
    if upgrade.extended_connect {
        *response.status_mut() = StatusCode::OK;
        response.headers_mut().remove(header::SEC_WEBSOCKET_ACCEPT);
        return Ok(response);
    }
    if let Some(side) = &upgrade.side {
        side.becomes_tunnel();
    }
    let protocol =
        protocol.ok_or_else(|| Error::new(Code::UpstreamError, "The server on the port switched to nothing."))?;
    response.headers_mut().insert(header::CONNECTION, HeaderValue::from_static("upgrade"));
    response.headers_mut().insert(header::UPGRADE, protocol);
    Ok(response)
}

struct Tunnel {
    flow: Arc<Flow>,
    hold: Arc<Hold>,
    meters: Meters,
}

impl Tunnel {
    async fn carry(self, client: OnUpgrade, sandbox: OnUpgrade) {
        let Ok((client, sandbox)) = tokio::try_join!(client, sandbox) else { return };
        self.meters.tunnels.increment(1);
        let mut client = Counted { io: TokioIo::new(client), flow: Arc::clone(&self.flow), read: Flow::to_sandbox };
        let mut sandbox = Counted { io: TokioIo::new(sandbox), flow: Arc::clone(&self.flow), read: Flow::to_client };
        let copied = tokio::io::copy_bidirectional(&mut client, &mut sandbox);
        let ended = self.hold.ended().cancelled();
        tokio::select! {
            result = self.flow.within(copied) => match result {
                Some(Ok(_)) => {}
                Some(Err(error)) => tracing::debug!(%error, "a tunnel broke off"),
                None => tracing::info!("a tunnel was silent for too long and is cut"),
            },
            () = ended => {}
        }
        self.meters.tunnels.decrement(1);
    }
}

/// One end of a tunnel: what is read from it counts.
struct Counted {
    io: TokioIo<Upgraded>,
    flow: Arc<Flow>,
    read: fn(&Flow, usize),
}

impl AsyncRead for Counted {
    fn poll_read(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        let before = buf.filled().len();
        ready!(Pin::new(&mut self.io).poll_read(cx, buf))?;
        (self.read)(&self.flow, buf.filled().len() - before);
        Poll::Ready(Ok(()))
    }
}

impl AsyncWrite for Counted {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &[u8]) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.io).poll_write(cx, buf)
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.io).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.io).poll_shutdown(cx)
    }
}
