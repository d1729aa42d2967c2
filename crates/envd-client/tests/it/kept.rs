//! Connections that the task which asks drives itself.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use envd_client::{Bodiless, EnvdError, EnvdErrorKind, Fetched, Transport, TransportSettings};
use http::{HeaderMap, Method, Response};
use http_body_util::BodyExt;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::sync::mpsc;
use tokio::task::JoinSet;

use crate::harness::{INSTANCE, Server, listen, read_head, soon};

const OK: &[u8] = b"HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\nok";

/// A server that answers every request on a connection with `reply`, and tells of each connection that ends.
struct Answering {
    server: Server,
    opened: Arc<AtomicUsize>,
    ended: mpsc::UnboundedReceiver<()>,
}

impl Answering {
    async fn with(reply: &[u8]) -> Self {
        let (listener, addr) = listen().await;
        let (tell, ended) = mpsc::unbounded_channel();
        let opened = Arc::new(AtomicUsize::new(0));
        let (count, reply) = (Arc::clone(&opened), reply.to_vec());
        let server = Server::serving(addr, async move {
            let mut connections = JoinSet::new();
            loop {
                let (socket, _) = listener.accept().await.unwrap();
                count.fetch_add(1, Ordering::SeqCst);
                let (reply, tell) = (reply.clone(), tell.clone());
                connections.spawn(async move {
                    answer_all(socket, &reply).await;
                    tell.send(()).unwrap();
                });
            }
        });
        Self { server, opened, ended }
    }

    fn transport(&self, settings: TransportSettings) -> Transport {
        Transport::new(self.server.endpoint(), settings).unwrap()
    }

    fn opened(&self) -> usize {
        self.opened.load(Ordering::SeqCst)
    }
}

/// Until the client has gone.
async fn answer_all(mut socket: TcpStream, reply: &[u8]) {
    let mut seen = Vec::new();
    while socket.read_buf(&mut seen).await.is_ok_and(|read| read > 0) {
        if seen.ends_with(b"\r\n\r\n") {
            seen.clear();
            if socket.write_all(reply).await.is_err() {
                return;
            }
        }
    }
}

fn request(method: Method) -> Bodiless {
    Bodiless { method, target: "/a?b=c".parse().unwrap(), headers: HeaderMap::new() }
}

async fn get(transport: &Transport) -> Result<Response<Fetched>, EnvdError> {
    soon(transport.fetch(INSTANCE, 8080, &request(Method::GET))).await
}

async fn text(response: Response<Fetched>) -> String {
    let bytes = soon(response.into_body().collect()).await.unwrap().to_bytes();
    String::from_utf8(bytes.to_vec()).unwrap()
}

#[tokio::test]
async fn a_host_is_asked_in_origin_form_by_its_own_name() {
    let server = Server::raw(|mut socket| async move {
        let head = read_head(&mut socket).await;
        socket
            .write_all(format!("HTTP/1.1 200 OK\r\ncontent-length: {}\r\n\r\n{head}", head.len()).as_bytes())
            .await
            .unwrap();
    })
    .await;
    let transport = Transport::new(server.endpoint(), TransportSettings::default()).unwrap();
    let mut asked = request(Method::GET);
    asked.headers.insert("x-own", "1".parse().unwrap());
    let head = text(soon(transport.fetch(INSTANCE, 8080, &asked)).await.unwrap()).await;
    assert_eq!(head, "GET /a?b=c HTTP/1.1\r\nhost: 8080-ins-1.region.example\r\nx-own: 1\r\n\r\n");
    let error = transport.fetch("evil.example/", 80, &request(Method::GET)).await.map(|_| ()).unwrap_err();
    assert_eq!(error.kind(), EnvdErrorKind::InvalidArgument);
}

#[tokio::test]
async fn one_connection_serves_request_after_request_however_answers_end() {
    for (method, reply, body) in [
        (Method::GET, OK, "ok"),
        (Method::HEAD, b"HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\n".as_slice(), ""),
        (Method::DELETE, b"HTTP/1.1 204 No Content\r\n\r\n", ""),
        (
            Method::GET,
            b"HTTP/1.1 103 Early Hints\r\nlink: </a>\r\n\r\nHTTP/1.1 200 OK\r\ncontent-length: 0\r\n\r\n",
            "",
        ),
        (
            Method::GET,
            b"HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n1\r\no\r\n1;x=y\r\nk\r\n0\r\nx-t: 1\r\n\r\n",
            "ok",
        ),
    ] {
        let server = Answering::with(reply).await;
        let transport = server.transport(TransportSettings::default());
        for _ in 0..20 {
            let response = soon(transport.fetch(INSTANCE, 80, &request(method.clone()))).await.unwrap();
            assert_eq!(text(response).await, body);
        }
        assert_eq!(server.opened(), 1, "{}", String::from_utf8_lossy(reply));
    }
}

#[tokio::test]
async fn trailers_come_with_the_body() {
    let reply =
        b"HTTP/1.1 200 OK\r\ntrailer: x-sum\r\ntransfer-encoding: chunked\r\n\r\n2\r\nok\r\n0\r\nx-sum: 7\r\n\r\n";
    let server = Answering::with(reply).await;
    let answer = get(&server.transport(TransportSettings::default())).await.unwrap();
    let whole = soon(answer.into_body().collect()).await.unwrap();
    assert_eq!(whole.trailers().unwrap()["x-sum"], "7");
}

#[tokio::test]
async fn a_large_answer_comes_whole() {
    const LENGTH: usize = 9 << 20;
    let mut reply = format!("HTTP/1.1 200 OK\r\ncontent-length: {LENGTH}\r\n\r\n").into_bytes();
    reply.extend((0..LENGTH).map(|at| b'a' + (at % 23) as u8));
    let server = Answering::with(&reply).await;
    let transport = server.transport(TransportSettings::default());
    for _ in 0..2 {
        let body = text(get(&transport).await.unwrap()).await;
        assert!(body.as_bytes() == &reply[reply.len() - LENGTH..], "{} bytes", body.len());
    }
    assert_eq!(server.opened(), 1);
}

#[tokio::test]
async fn an_answer_that_is_dropped_closes_its_connection_and_one_that_was_read_does_not() {
    let mut server = Answering::with(b"HTTP/1.1 200 OK\r\ncontent-length: 3\r\n\r\nok").await;
    let transport = server.transport(TransportSettings::default());
    drop(get(&transport).await.unwrap());
    soon(server.ended.recv()).await.unwrap();
    let mut answer = get(&transport).await.unwrap().into_body();
    assert_eq!(soon(answer.frame()).await.unwrap().unwrap().into_data().unwrap(), "ok");
    drop(answer);
    soon(server.ended.recv()).await.unwrap();
    assert_eq!(server.opened(), 2);
}

#[tokio::test]
async fn what_the_server_closed_or_spoke_out_of_turn_on_is_not_used_again() {
    for tail in [b"".as_slice(), b"HTTP/1.1 200 OK\r\n\r\nfor nobody"] {
        let (told, mut hung_up) = mpsc::unbounded_channel();
        let tail = tail.to_vec();
        let server = Server::raw(move |mut socket| {
            let (told, tail) = (told.clone(), tail.clone());
            async move {
                read_head(&mut socket).await;
                socket.write_all(&[OK, &tail].concat()).await.unwrap();
                drop(socket);
                told.send(()).unwrap();
            }
        })
        .await;
        let transport = Transport::new(server.endpoint(), TransportSettings::default()).unwrap();
        for _ in 0..20 {
            assert_eq!(text(get(&transport).await.unwrap()).await, "ok");
            soon(hung_up.recv()).await.unwrap();
        }
    }
}

#[tokio::test]
async fn a_connection_that_breaks_before_its_answer_may_have_had_an_effect() {
    for reply in ["", "HTTP/1.1 2", "nonsense\r\n\r\n"] {
        let server = Server::canned(reply).await;
        let error = get(&Transport::new(server.endpoint(), TransportSettings::default()).unwrap()).await;
        let error = error.map(|_| ()).unwrap_err();
        assert_eq!(error.kind(), EnvdErrorKind::Unavailable);
        assert!(error.outcome_unknown(), "{reply:?}");
    }
}

#[tokio::test]
async fn an_answer_that_breaks_off_is_an_error_and_no_end() {
    for reply in [
        "HTTP/1.1 200 OK\r\ncontent-length: 3\r\n\r\nok",
        "HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n2\r\nok\r\n",
    ] {
        let server = Server::canned(reply).await;
        let transport = Transport::new(server.endpoint(), TransportSettings::default()).unwrap();
        let answer = get(&transport).await.unwrap();
        assert!(soon(answer.into_body().collect()).await.is_err(), "{reply}");
    }
}

#[tokio::test]
async fn nothing_listening_is_safe_to_retry() {
    let server = Server::canned("").await;
    let mut endpoint = server.endpoint();
    drop(server);
    let (listener, addr) = listen().await;
    drop(listener);
    endpoint.connect_to = Some(addr.to_string().parse().unwrap());
    let error = get(&Transport::new(endpoint, TransportSettings::default()).unwrap()).await.map(|_| ()).unwrap_err();
    assert_eq!((error.kind(), error.outcome_unknown()), (EnvdErrorKind::Unavailable, false));
}

#[tokio::test]
async fn what_is_idle_for_too_long_or_too_much_is_closed() {
    let settings = TransportSettings { pool_idle_timeout: Duration::from_millis(40), ..Default::default() };
    let mut server = Answering::with(OK).await;
    let transport = server.transport(settings);
    assert_eq!(text(get(&transport).await.unwrap()).await, "ok");
    soon(server.ended.recv()).await.unwrap();

    let settings = TransportSettings { pool_max_idle: 1, ..Default::default() };
    let mut server = Answering::with(OK).await;
    let transport = server.transport(settings);
    let (one, two) = tokio::join!(get(&transport), get(&transport));
    for answer in [one, two] {
        assert_eq!(text(answer.unwrap()).await, "ok");
    }
    soon(server.ended.recv()).await.unwrap();
    assert_eq!(text(get(&transport).await.unwrap()).await, "ok");
    assert_eq!(server.opened(), 2);
    drop(transport);
    soon(server.ended.recv()).await.unwrap();
}
