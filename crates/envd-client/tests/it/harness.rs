//! Servers on a loopback port, and clients that reach them by another name.

use std::future::Future;
use std::net::SocketAddr;
use std::time::Duration;

use axum::Router;
use envd_client::{Endpoint, EnvdClient, Transport, TransportSettings};
use http::uri::{Authority, Scheme};
use secrecy::SecretString;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::task::JoinSet;

pub const INSTANCE: &str = "ins-1";
pub const TOKEN: &str = "tok_envd";
/// For what ought to happen at once.
pub const SOON: Duration = Duration::from_secs(10);

/// Stops when it is dropped.
pub struct Server {
    pub addr: SocketAddr,
    _tasks: JoinSet<()>,
}

impl Server {
    pub async fn start(router: Router) -> Self {
        let (listener, addr) = listen().await;
        let mut tasks = JoinSet::new();
        tasks.spawn(async move { axum::serve(listener, router).await.unwrap() });
        Self { addr, _tasks: tasks }
    }

    /// Reads a request's head, sends `reply` as it is and hangs up.
    pub async fn canned(reply: impl Into<Vec<u8>>) -> Self {
        let reply = reply.into();
        Self::raw(move |mut socket| {
            let reply = reply.clone();
            async move {
                read_head(&mut socket).await;
                socket.write_all(&reply).await.unwrap();
            }
        })
        .await
    }

    /// One connection after the other.
    pub async fn raw<F, T>(serve: F) -> Self
    where
        F: Fn(TcpStream) -> T + Send + 'static,
        T: Future<Output = ()> + Send,
    {
        let (listener, addr) = listen().await;
        Self::serving(addr, async move {
            loop {
                let (socket, _) = listener.accept().await.unwrap();
                serve(socket).await;
            }
        })
    }

    /// What `serve` does at `addr`.
    pub fn serving(addr: SocketAddr, serve: impl Future<Output = ()> + Send + 'static) -> Self {
        let mut tasks = JoinSet::new();
        tasks.spawn(serve);
        Self { addr, _tasks: tasks }
    }

    pub fn endpoint(&self) -> Endpoint {
        let mut endpoint = Endpoint::new(Scheme::HTTP, Authority::from_static("region.example"));
        endpoint.connect_to = Some(self.addr.to_string().parse().unwrap());
        endpoint
    }

    pub fn client(&self) -> EnvdClient {
        self.client_with(TransportSettings::default())
    }

    pub fn client_with(&self, settings: TransportSettings) -> EnvdClient {
        let transport = Transport::new(self.endpoint(), settings).unwrap();
        EnvdClient::new(transport, INSTANCE, Some(&SecretString::from(TOKEN))).unwrap()
    }
}

pub async fn listen() -> (TcpListener, SocketAddr) {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let addr = listener.local_addr().unwrap();
    (listener, addr)
}

/// Everything up to the blank line, and whatever of the body came with it.
pub async fn read_head(socket: &mut TcpStream) -> String {
    let mut head = Vec::new();
    while !head.windows(4).any(|w| w == b"\r\n\r\n") {
        assert_ne!(socket.read_buf(&mut head).await.unwrap(), 0, "a request ends before its head does");
    }
    String::from_utf8_lossy(&head).into_owned()
}

/// Fails the test if `step` takes longer than anything here should.
pub async fn soon<T>(step: impl Future<Output = T>) -> T {
    tokio::time::timeout(SOON, step).await.expect("it takes too long")
}
