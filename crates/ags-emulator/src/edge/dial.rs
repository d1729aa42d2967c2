//! An HTTP client whose connections end inside instances.

use std::io;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};

use futures_util::future::BoxFuture;
use http::Uri;
use hyper::rt::{Read, ReadBufCursor, Write};
use hyper_util::client::legacy::Client;
use hyper_util::client::legacy::connect::{Connected, Connection};
use hyper_util::rt::{TokioExecutor, TokioIo, TokioTimer};

use crate::body::Body;
use crate::control::Cloud;
use crate::instance::BoxIo;

/// Idle connections kept per port.
const IDLE_PER_PORT: usize = 32;

/// Requests to `http://{instance}:{port}/…` reach that port of that instance.
pub type InstanceClient = Client<Dialler, Body>;

pub fn client(cloud: Arc<Cloud>) -> InstanceClient {
    Client::builder(TokioExecutor::new())
        .pool_timer(TokioTimer::new())
        .pool_max_idle_per_host(IDLE_PER_PORT)
        .build(Dialler { cloud })
}

/// The address under which an instance's port is reached.
pub fn address(instance: &str, port: u16, path_and_query: &str) -> Result<Uri, http::Error> {
    Uri::builder().scheme("http").authority(format!("{instance}:{port}")).path_and_query(path_and_query).build()
}

#[derive(Clone)]
pub struct Dialler {
    cloud: Arc<Cloud>,
}

impl tower::Service<Uri> for Dialler {
    type Response = Link;
    type Error = io::Error;
    type Future = BoxFuture<'static, io::Result<Link>>;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, uri: Uri) -> Self::Future {
        let instance = uri.host().unwrap_or_default();
        let handle =
            self.cloud.with_state(|state| state.instances.get(instance).and_then(|record| record.handle.clone()));
        Box::pin(async move {
            let gone = || io::Error::new(io::ErrorKind::NotConnected, "the instance is gone");
            let (handle, port) = handle.zip(uri.port_u16()).ok_or_else(gone)?;
            Ok(Link(TokioIo::new(handle.dial(port).await?)))
        })
    }
}

/// A connection into an instance.
pub struct Link(TokioIo<BoxIo>);

impl Connection for Link {
    fn connected(&self) -> Connected {
        Connected::new()
    }
}

impl Read for Link {
    fn poll_read(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: ReadBufCursor<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.0).poll_read(cx, buf)
    }
}

impl Write for Link {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &[u8]) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.0).poll_write(cx, buf)
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.0).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.0).poll_shutdown(cx)
    }

    fn is_write_vectored(&self) -> bool {
        self.0.is_write_vectored()
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bufs: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.0).poll_write_vectored(cx, bufs)
    }
}
