//! Connections that leave HTTP behind.

use bytes::Bytes;
use futures_util::{SinkExt, StreamExt};
use http::{Request, header};
use http_body_util::Empty;
use hyper_util::rt::{TokioExecutor, TokioIo};
use tokio::io::{AsyncBufReadExt, AsyncReadExt, AsyncWriteExt, BufReader};
use tokio_tungstenite::{
    WebSocketStream, client_async,
    tungstenite::{
        Error, Message,
        client::IntoClientRequest,
        protocol::{CloseFrame, Role, frame::coding::CloseCode},
    },
};

use super::web::Web;
use crate::harness;

type Socket = WebSocketStream<tokio::net::TcpStream>;

async fn open(web: &Web, url: &str) -> Socket {
    let mut request = url.replacen("http", "ws", 1).into_client_request().unwrap();
    let headers = request.headers_mut();
    headers.insert(header::AUTHORIZATION, format!("Bearer {}", web.stack.key).parse().unwrap());
    headers.insert(header::SEC_WEBSOCKET_PROTOCOL, "chat, superchat".parse().unwrap());
    let (socket, answer) = client_async(request, web.connect().await).await.unwrap();
    assert_eq!(answer.headers()["sec-websocket-protocol"], "chat");
    socket
}

#[test]
fn frames_and_close_codes_go_through_untouched() {
    harness::run(async {
        let web = Web::start().await;
        for url in [web.at("/ws"), web.api().url(&web.url("/ws"))] {
            let mut socket = open(&web, &url).await;
            for message in [Message::text("hello"), Message::binary(vec![0, 255, 7]), Message::text("x".repeat(60_000))]
            {
                socket.send(message.clone()).await.unwrap();
                assert_eq!(socket.next().await.unwrap().unwrap(), message);
            }
            // The server's close code is the client's.
            socket.send(Message::text("close 4007")).await.unwrap();
            let Message::Close(Some(frame)) = socket.next().await.unwrap().unwrap() else { panic!("no close frame") };
            assert_eq!((u16::from(frame.code), frame.reason.as_str()), (4007, "as you wish"));
            // The client's is the server's: it echoes.
            let mut socket = open(&web, &url).await;
            let sent = CloseFrame { code: CloseCode::Library(4321), reason: "done".into() };
            socket.close(Some(sent.clone())).await.unwrap();
            let Message::Close(Some(frame)) = socket.next().await.unwrap().unwrap() else { panic!("no close frame") };
            assert_eq!(frame, sent);
        }
    });
}

#[test]
fn each_half_of_a_tunnel_ends_by_itself() {
    harness::run(async {
        let web = Web::start().await;
        let mut stream = BufReader::new(web.connect().await);
        let asked = "GET /raw HTTP/1.1\nHost: HOST\nAuthorization: KEY\nConnection: Upgrade\nUpgrade: shout/1\n\n";
        stream.write_all(web.fill(asked).as_bytes()).await.unwrap();
        let mut head = String::new();
        while !head.ends_with("\r\n\r\n") {
            assert_ne!(stream.read_line(&mut head).await.unwrap(), 0, "{head}");
        }
        let head = head.to_ascii_lowercase();
        assert!(head.starts_with("http/1.1 101") && head.contains("\r\nupgrade: shout/1\r\n"), "{head}");
        stream.write_all(b"bytes").await.unwrap();
        let mut echoed = [0_u8; 5];
        stream.read_exact(&mut echoed).await.unwrap();
        assert_eq!(&echoed, b"bytes");
        // This half is over; the answer to that still comes.
        stream.shutdown().await.unwrap();
        let mut rest = String::new();
        stream.read_to_string(&mut rest).await.unwrap();
        assert_eq!(rest, "end:5");
    });
}

#[test]
fn http2_opens_web_sockets_with_extended_connect() {
    harness::run(async {
        let web = Web::start().await;
        let io = TokioIo::new(web.connect().await);
        let (mut sender, connection) =
            hyper::client::conn::http2::handshake::<_, _, Empty<Bytes>>(TokioExecutor::new(), io).await.unwrap();
        let driver = web.stack.app.lifecycle.spawn("test-h2", connection);
        let request = Request::connect(web.at("/ws"))
            .extension(hyper::ext::Protocol::from_static("websocket"))
            .header(header::AUTHORIZATION, format!("Bearer {}", web.stack.key))
            .header(header::SEC_WEBSOCKET_VERSION, "13")
            .body(Empty::new())
            .unwrap();
        // The server's settings must have come before it may be asked.
        sender.ready().await.unwrap();
        let answer = sender.send_request(request).await.unwrap();
        assert_eq!(answer.status(), 200);
        let upgraded = TokioIo::new(hyper::upgrade::on(answer).await.unwrap());
        let mut socket = WebSocketStream::from_raw_socket(upgraded, Role::Client, None).await;
        socket.send(Message::text("over h2")).await.unwrap();
        assert_eq!(socket.next().await.unwrap().unwrap(), Message::text("over h2"));
        drop(socket);
        driver.abort();
    });
}

#[test]
fn this_is_no_open_proxy() {
    harness::run(async {
        let web = Web::start().await;
        let asked = "CONNECT HOST HTTP/1.1\nHost: HOST\nAuthorization: KEY\nConnection: close\n\n";
        let answer = web.wire(asked).await;
        assert!(answer.starts_with("HTTP/1.1 405"), "{answer}");
        let asked = "GET http://example.com/ HTTP/1.1\nHost: HOST\nAuthorization: KEY\nConnection: close\n\n";
        let answer = web.wire(asked).await;
        assert!(answer.starts_with("HTTP/1.1 400"), "{answer}");
        // An offer of HTTP/2 on this connection is not the server's business.
        let asked = "GET /x HTTP/1.1\nHost: HOST\nAuthorization: KEY\nConnection: Upgrade, HTTP2-Settings, close\nUpgrade: h2c\n\
                     HTTP2-Settings: AAA\n\n";
        let answer = web.wire(asked).await;
        assert!(answer.starts_with("HTTP/1.1 200") && !answer.contains("AAA"), "{answer}");
    });
}

#[test]
fn a_tunnel_is_cut_when_its_instance_stops() {
    harness::run(async {
        let web = Web::start().await;
        let mut socket = open(&web, &web.at("/ws")).await;
        web.api().delete(&format!("/v1/instances/{}", web.id)).await.expect(204);
        let cut = socket.next().await;
        assert!(matches!(cut, None | Some(Err(Error::Protocol(_) | Error::Io(_)))), "{cut:?}");
    });
}
