//! Commands over WebSocket.

use futures_util::{SinkExt, StreamExt};
use serde_json::{Value, json};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::TcpStream,
};
use tokio_tungstenite::{
    MaybeTlsStream, WebSocketStream, connect_async,
    tungstenite::{Error, Message, client::IntoClientRequest},
};

use crate::harness::{self, Api, Options, Stack};

pub type Socket = WebSocketStream<MaybeTlsStream<TcpStream>>;

const ORIGIN: &str = "http://app.example.com";

async fn instance(api: &Api) -> String {
    let tool = json!({"name": "t", "type": "custom"});
    api.post("/v1/tools?wait=30s", &tool).await.expect(201);
    let created = api.post("/v1/instances", &json!({"tool": "t"})).await.expect(201);
    created["id"].as_str().unwrap().to_owned()
}

/// Opens a socket with these headers; the status of a refusal.
pub async fn open(api: &Api, path: &str, headers: &[(&'static str, String)]) -> Result<Socket, u16> {
    let mut request = api.url(path).replacen("http", "ws", 1).into_client_request().unwrap();
    for (name, value) in headers {
        request.headers_mut().insert(*name, value.parse().unwrap());
    }
    match connect_async(request).await {
        Ok((socket, _)) => Ok(socket),
        Err(Error::Http(response)) => Err(response.status().as_u16()),
        Err(error) => panic!("{error}"),
    }
}

pub async fn open_with_key(api: &Api, path: &str, protocol: &str) -> Socket {
    let key = format!("Bearer {}", api.key());
    open(api, path, &[("authorization", key), ("sec-websocket-protocol", protocol.into())]).await.unwrap()
}

pub async fn say(socket: &mut Socket, frame: &Value) {
    socket.send(Message::text(frame.to_string())).await.unwrap();
}

/// The next event, or the code when the socket closes.
pub async fn hear_any(socket: &mut Socket) -> Result<Value, u16> {
    loop {
        match socket.next().await.expect("a close frame").unwrap() {
            Message::Text(text) => return Ok(serde_json::from_str(&text).unwrap()),
            Message::Close(frame) => return Err(frame.expect("a code").code.into()),
            _ => {}
        }
    }
}

/// The next event that is no keepalive, or the code when the socket closes.
pub async fn hear(socket: &mut Socket) -> Result<Value, u16> {
    loop {
        let event = hear_any(socket).await?;
        if event["type"] != "keepalive" {
            return Ok(event);
        }
    }
}

pub async fn hear_all(socket: &mut Socket) -> (Vec<Value>, u16) {
    let mut events = Vec::new();
    loop {
        match hear(socket).await {
            Ok(event) => events.push(event),
            Err(code) => return (events, code),
        }
    }
}

fn text_of(events: &[Value], stream: &str) -> String {
    events.iter().filter(|event| event["type"] == stream).map(|event| event["data"].as_str().unwrap()).collect()
}

#[test]
fn a_command_runs_with_input_signals_and_an_exit() {
    harness::run(async {
        let stack = Stack::start().await;
        let api = stack.api();
        let id = instance(&api).await;
        let path = format!("/v1/instances/{id}/exec/ws");
        let mut socket = open_with_key(&api, &path, "ags.exec.v1").await;
        say(&mut socket, &json!({"type": "start", "cmd": "read line; echo got $line; cat; exit 7", "stdin": true}))
            .await;
        assert_eq!(hear(&mut socket).await.unwrap()["type"], "started");
        say(&mut socket, &json!({"type": "stdin", "data": "héllo\n"})).await;
        say(&mut socket, &json!({"type": "stdin", "data": "bW9yZQ==", "encoding": "base64"})).await;
        say(&mut socket, &json!({"type": "close_stdin"})).await;
        let (events, code) = hear_all(&mut socket).await;
        assert_eq!(text_of(&events, "stdout"), "got héllo\nmore");
        assert_eq!(events.last().unwrap()["exit_code"], 7);
        assert_eq!(code, 1000);

        let mut socket = open_with_key(&api, &path, "ags.exec.v1").await;
        say(&mut socket, &json!({"type": "start", "cmd": ["sleep", "300"]})).await;
        hear(&mut socket).await.unwrap();
        say(&mut socket, &json!({"type": "signal", "signal": "SIGINT"})).await;
        let (events, _) = hear_all(&mut socket).await;
        assert_eq!(events.last().unwrap()["signal"], "SIGINT", "{events:?}");
        assert_eq!(events.last().unwrap()["reason"], "signalled");
    });
}

#[test]
fn a_dropped_socket_is_taken_up_where_it_was_left() {
    harness::run(async {
        let stack = Stack::start().await;
        let api = stack.api();
        let id = instance(&api).await;
        let mut socket = open_with_key(&api, &format!("/v1/instances/{id}/exec/ws"), "ags.exec.v1").await;
        let cmd = "echo one; read line; echo two";
        say(&mut socket, &json!({"type": "start", "cmd": cmd, "stdin": true})).await;
        let exec = hear(&mut socket).await.unwrap()["exec_id"].as_str().unwrap().to_owned();
        let first = hear(&mut socket).await.unwrap();
        assert_eq!(first["data"], "one\n");
        drop(socket);
        let after = first["cursor"].as_str().unwrap();
        let path = format!("/v1/instances/{id}/execs/{exec}/ws?after={after}&role=writer");
        let mut again = open_with_key(&api, &path, "ags.exec.v1.bin").await;
        say(&mut again, &json!({"type": "stdin", "data": "\n"})).await;
        let frame = loop {
            match again.next().await.unwrap().unwrap() {
                Message::Binary(frame) => break frame,
                Message::Text(text) => assert!(text.contains("keepalive"), "{text}"),
                _ => {}
            }
        };
        let cursor = usize::from(frame[1]);
        assert_eq!((frame[0], &frame[2 + cursor..]), (1, &b"two\n"[..]));
        let (events, code) = hear_all(&mut again).await;
        assert_eq!(events.last().unwrap()["exit_code"], 0);
        assert_eq!(code, 1000);
    });
}

#[test]
fn a_ticket_opens_one_socket_of_a_configured_page() {
    harness::run(async {
        let stack = Stack::with(Options::default().with("SERVER__WEBSOCKET_ORIGINS", ORIGIN)).await;
        let api = stack.api();
        let id = instance(&api).await;
        let path = format!("/v1/instances/{id}/exec/ws");
        let ticket = api.post("/v1/tickets", &json!({"instance_id": id})).await.expect(201);
        let protocol = format!("ags.exec.v1, ticket.{}", ticket["ticket"].as_str().unwrap());
        let headers = |origin: &str| [("sec-websocket-protocol", protocol.clone()), ("origin", origin.to_owned())];
        assert_eq!(open(&api, &path, &headers("http://evil.example.com")).await.unwrap_err(), 403);
        let mut socket = open(&api, &path, &headers(ORIGIN)).await.unwrap();
        assert_eq!(open(&api, &path, &headers(ORIGIN)).await.unwrap_err(), 401, "a ticket is for one use");
        say(&mut socket, &json!({"type": "start", "cmd": "true"})).await;
        assert_eq!(hear_all(&mut socket).await.1, 1000);
        assert_eq!(open(&api, &path, &[]).await.unwrap_err(), 401);
        let foreign = stack.team("other").await;
        foreign.post("/v1/tickets", &json!({"instance_id": id})).await.problem(404, "not_found");
    });
}

#[test]
fn what_is_wrong_is_told_and_closes_with_its_code() {
    harness::run(async {
        let stack = Stack::start().await;
        let api = stack.api();
        let id = instance(&api).await;
        let path = format!("/v1/instances/{id}/exec/ws");
        for (frame, field) in [
            (json!({"type": "stdin", "data": "x"}), "type"),
            (json!({"type": "start"}), "cmd"),
            (json!({"type": "start", "cmd": "true", "colour": 1}), "colour"),
            (json!({"type": "start", "cmd": "a\u{0}b"}), "cmd"),
        ] {
            let mut socket = open_with_key(&api, &path, "ags.exec.v1").await;
            say(&mut socket, &frame).await;
            let (events, code) = hear_all(&mut socket).await;
            assert_eq!(events[0]["type"], "error");
            assert_eq!(events[0]["errors"][0]["field"], field, "{events:?}");
            assert_eq!(code, 1008);
        }
        api.get(&path).await.problem(400, "invalid_request");
    });
}

#[test]
fn what_is_gone_closes_with_its_code() {
    harness::run(async {
        let stack = Stack::with(Options::simulated().with("TOOLS__SHARED", "base")).await;
        let api = stack.api();
        let instance = api.post("/v1/instances", &json!({"tool": "base"})).await.expect(201);
        let path = format!("/v1/instances/{}", instance["id"].as_str().unwrap());
        let unknown = format!("{path}/execs/exec{}/ws", "0".repeat(26));
        let told = async |path: &str| {
            let mut socket = open_with_key(&api, path, "ags.exec.v1").await;
            let (events, code) = hear_all(&mut socket).await;
            assert_eq!((events.len(), &events[0]["type"], code), (1, &json!("error"), 4004), "{events:?}");
            assert!(!events[0]["request_id"].as_str().unwrap().is_empty());
            events[0]["code"].clone()
        };
        assert_eq!(told(&unknown).await, "not_found");
        api.delete(&path).await.expect(204);
        assert_eq!(told(&format!("{path}/exec/ws")).await, "invalid_state");
        assert_eq!(told(&format!("{path}/code/ws")).await, "invalid_state");
        // What is no socket gets an answer.
        api.get(&unknown).await.problem(404, "not_found");
    });
}

#[test]
fn a_frame_that_is_too_big_closes_with_its_code() {
    harness::run(async {
        let stack = Stack::start().await;
        let api = stack.api();
        let id = instance(&api).await;
        let address = stack.url.trim_start_matches("http://");
        let mut connection = TcpStream::connect(address).await.unwrap();
        let upgrade = format!(
            "GET /v1/instances/{id}/exec/ws HTTP/1.1\r\nhost: {address}\r\nauthorization: Bearer {}\r\nconnection: upgrade\r\n\
             upgrade: websocket\r\nsec-websocket-version: 13\r\nsec-websocket-key: dGhlIHNhbXBsZSBub25jZQ==\r\n\r\n",
            api.key()
        );
        connection.write_all(upgrade.as_bytes()).await.unwrap();
        // The head of a masked text frame of 2 MiB: the rest need not come.
        let mut head = vec![0x81, 0xff];
        head.extend_from_slice(&(2_u64 << 20).to_be_bytes());
        head.extend_from_slice(&[0; 4]);
        connection.write_all(&head).await.unwrap();
        let mut answer = Vec::new();
        while !answer.windows(4).any(|bytes| bytes[0] == 0x88 && bytes[2..] == 1009_u16.to_be_bytes()) {
            assert_ne!(connection.read_buf(&mut answer).await.unwrap(), 0, "{}", String::from_utf8_lossy(&answer));
        }
    });
}
