//! Names, connections and TLS.

use std::sync::Arc;
use std::time::Duration;

use axum::Router;
use axum::extract::Request as Incoming;
use envd_client::{Endpoint, EnvdClient, EnvdErrorKind, Transport, TransportSettings, empty, full};
use http::uri::{Authority, Scheme};
use http::{HeaderValue, Request};
use http_body_util::BodyExt;
use hyper_util::rt::TokioIo;
use rcgen::{CertifiedKey, generate_simple_self_signed};
use secrecy::SecretString;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::task::JoinSet;
use tokio_rustls::TlsAcceptor;

use crate::harness::{INSTANCE, SOON, Server, listen, read_head, soon};

async fn text(response: http::Response<hyper::body::Incoming>) -> String {
    String::from_utf8(response.into_body().collect().await.unwrap().to_bytes().to_vec()).unwrap()
}

#[tokio::test]
async fn any_port_is_reached_by_its_own_name() {
    let echo = |request: Incoming| async move {
        let host = request.headers()["host"].to_str().unwrap().to_owned();
        let head = format!("{} {} {host}", request.method(), request.uri());
        let body = request.into_body().collect().await.unwrap().to_bytes();
        format!("{head} {}", String::from_utf8_lossy(&body))
    };
    let server = Server::start(Router::new().fallback(echo)).await;
    let transport = Transport::new(server.endpoint(), TransportSettings::default()).unwrap();

    let mut request = Request::put("http://elsewhere.example/a?b=c").body(full("content")).unwrap();
    request.headers_mut().insert("host", HeaderValue::from_static("elsewhere.example"));
    let response = transport.request(INSTANCE, 8080, request).await.unwrap();
    assert_eq!(text(response).await, "PUT /a?b=c 8080-ins-1.region.example content");

    let response = transport.request(INSTANCE, 80, Request::new(empty())).await.unwrap();
    assert_eq!(text(response).await, "GET / 80-ins-1.region.example ");

    let error = transport.request("evil.example/", 80, Request::new(empty())).await.unwrap_err();
    assert_eq!(error.kind(), EnvdErrorKind::InvalidArgument);
}

#[tokio::test]
async fn an_upgraded_connection_is_a_tunnel() {
    let server = Server::raw(|mut socket| async move {
        assert!(read_head(&mut socket).await.to_ascii_lowercase().contains("upgrade: echo"));
        socket
            .write_all(b"HTTP/1.1 101 Switching Protocols\r\nconnection: upgrade\r\nupgrade: echo\r\n\r\n")
            .await
            .unwrap();
        let mut ping = [0; 4];
        socket.read_exact(&mut ping).await.unwrap();
        socket.write_all(&ping).await.unwrap();
    })
    .await;
    let transport = Transport::new(server.endpoint(), TransportSettings::default()).unwrap();
    let request = Request::get("/ws").header("connection", "upgrade").header("upgrade", "echo").body(empty()).unwrap();
    let response = soon(transport.request(INSTANCE, 80, request)).await.unwrap();
    assert_eq!(response.status(), 101);
    let mut tunnel = TokioIo::new(hyper::upgrade::on(response).await.unwrap());
    tunnel.write_all(b"ping").await.unwrap();
    let mut pong = [0; 4];
    soon(tunnel.read_exact(&mut pong)).await.unwrap();
    assert_eq!(&pong, b"ping");
}

#[tokio::test]
async fn a_refused_connection_is_safe_to_retry() {
    let (listener, addr) = listen().await;
    drop(listener);
    let mut endpoint = Endpoint::new(Scheme::HTTP, Authority::from_static("region.example"));
    endpoint.connect_to = Some(addr.to_string().parse().unwrap());
    let transport = Transport::new(endpoint, TransportSettings::default()).unwrap();
    let error = EnvdClient::new(transport, INSTANCE, None).unwrap().health(SOON).await.unwrap_err();
    assert_eq!(error.kind(), EnvdErrorKind::Unavailable);
    assert!(error.retryable());
}

#[tokio::test]
async fn a_connection_that_breaks_before_its_answer_may_have_had_an_effect() {
    let server = Server::canned("").await;
    let error = soon(server.client().health(SOON)).await.unwrap_err();
    assert_eq!(error.kind(), EnvdErrorKind::Unavailable);
    assert!(error.outcome_unknown() && !error.retryable());
}

#[tokio::test]
async fn connecting_has_its_own_limit() {
    // Accepts, and then says nothing to a TLS greeting.
    let (listener, addr) = listen().await;
    let settings = TransportSettings { connect_timeout: Duration::from_millis(50), ..Default::default() };
    let error = soon(client(tls_endpoint(addr, true), settings).health(SOON)).await.unwrap_err();
    assert_eq!(error.kind(), EnvdErrorKind::Unavailable);
    assert!(error.retryable());
    drop(listener);
}

fn tls_endpoint(addr: std::net::SocketAddr, skip_ssl_verify: bool) -> Endpoint {
    let mut endpoint = Endpoint::new(Scheme::HTTPS, Authority::from_static("region.example"));
    endpoint.connect_to = Some(addr.to_string().parse().unwrap());
    endpoint.skip_ssl_verify = skip_ssl_verify;
    endpoint
}

fn client(endpoint: Endpoint, settings: TransportSettings) -> EnvdClient {
    EnvdClient::new(Transport::new(endpoint, settings).unwrap(), INSTANCE, None).unwrap()
}

#[tokio::test]
async fn tls_greets_the_instance_by_name_and_distrusts_strangers() {
    let CertifiedKey { cert, signing_key } = generate_simple_self_signed(["region.example".to_owned()]).unwrap();
    let key = rustls::pki_types::PrivatePkcs8KeyDer::from(signing_key.serialize_der());
    let config = rustls::ServerConfig::builder_with_provider(Arc::new(rustls::crypto::ring::default_provider()))
        .with_safe_default_protocol_versions()
        .unwrap()
        .with_no_client_auth()
        .with_single_cert(vec![cert.der().clone()], key.into())
        .unwrap();
    let acceptor = TlsAcceptor::from(Arc::new(config));
    let (listener, addr) = listen().await;
    let (names, mut greeted) = tokio::sync::mpsc::unbounded_channel();
    let mut tasks = JoinSet::new();
    tasks.spawn(async move {
        loop {
            let (socket, _) = listener.accept().await.unwrap();
            let Ok(mut tls) = acceptor.accept(socket).await else { continue };
            names.send(tls.get_ref().1.server_name().map(str::to_owned)).unwrap();
            let mut head = Vec::new();
            while !head.ends_with(b"\r\n\r\n") {
                tls.read_buf(&mut head).await.unwrap();
            }
            tls.write_all(b"HTTP/1.1 204 No Content\r\n\r\n").await.unwrap();
        }
    });

    let error = soon(client(tls_endpoint(addr, false), TransportSettings::default()).health(SOON)).await.unwrap_err();
    assert_eq!(error.kind(), EnvdErrorKind::Unavailable);

    soon(client(tls_endpoint(addr, true), TransportSettings::default()).health(SOON)).await.unwrap();
    assert_eq!(greeted.recv().await.unwrap().as_deref(), Some("49983-ins-1.region.example"));
}

#[tokio::test]
async fn a_token_is_never_shown() {
    let endpoint = Endpoint::new(Scheme::HTTP, Authority::from_static("region.example"));
    let transport = Transport::new(endpoint, TransportSettings::default()).unwrap();
    let token = SecretString::from("tok_secret");
    let client = EnvdClient::new(transport.clone(), INSTANCE, Some(&token)).unwrap();
    let shown = format!("{client:?}");
    assert!(shown.contains("[redacted]") && !shown.contains("tok_secret"), "{shown}");

    let bad = SecretString::from("tok_secret\n");
    let error = EnvdClient::new(transport, INSTANCE, Some(&bad)).unwrap_err();
    assert_eq!(error.kind(), EnvdErrorKind::InvalidArgument);
    assert!(!format!("{error:?} {error}").contains("tok_secret"));
}
