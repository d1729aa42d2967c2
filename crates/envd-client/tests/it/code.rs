//! The code interpreter's client.

use std::sync::{Arc, Mutex};
use std::time::Duration;

use axum::Router;
use axum::body::Body;
use axum::extract::{Path, Request};
use axum::routing::{delete, get, post};
use bytes::Bytes;
use envd_client::{CodeClient, CodeEvent, CodeRun, EnvdErrorKind, TrafficToken, Transport, TransportSettings};
use futures_util::StreamExt;
use http::{HeaderMap, StatusCode};
use http_body_util::BodyExt;
use secrecy::SecretString;
use serde_json::{Value, json};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::sync::mpsc;

use crate::harness::{INSTANCE, SOON, Server, TOKEN, read_head, soon};

const HEADER: &str = "e2b-traffic-access-token";
const TRAFFIC: &str = "tok_traffic";

fn client(server: &Server) -> CodeClient {
    client_with(server, TransportSettings::default())
}

fn client_with(server: &Server, settings: TransportSettings) -> CodeClient {
    let transport = Transport::new(server.endpoint(), settings).unwrap();
    let traffic = SecretString::from(TRAFFIC);
    let traffic = TrafficToken { header: HEADER, token: &traffic };
    CodeClient::new(transport, INSTANCE, Some(&SecretString::from(TOKEN)), Some(traffic)).unwrap()
}

fn run(code: &str) -> CodeRun {
    CodeRun { code: code.into(), ..CodeRun::default() }
}

/// Answers every execution with these pieces.
async fn server_of(pieces: &'static [&'static str]) -> Server {
    let answer = move || async move {
        Body::from_stream(futures_util::stream::iter(pieces.iter().map(|piece| Ok::<_, std::io::Error>(*piece))))
    };
    Server::start(Router::new().route("/execute", post(answer))).await
}

async fn events(server: &Server) -> Vec<Result<CodeEvent, EnvdErrorKind>> {
    let stream = soon(client(server).execute(&run("1"))).await.unwrap();
    soon(stream.map(|event| event.map_err(|error| error.kind())).collect()).await
}

#[tokio::test]
async fn a_request_carries_both_tokens_and_what_to_run() {
    let seen = Arc::new(Mutex::new(None));
    let notes = Arc::clone(&seen);
    let answer = move |request: Request| {
        let notes = Arc::clone(&notes);
        async move {
            let (head, body) = request.into_parts();
            let body: Value = serde_json::from_slice(&body.collect().await.unwrap().to_bytes()).unwrap();
            *notes.lock().unwrap() = Some((head.headers, body));
            "{\"type\":\"end_of_execution\"}\n"
        }
    };
    let server = Server::start(Router::new().route("/execute", post(answer))).await;
    let mut request = run("x");
    request.context_id = Some("c".into());
    request.env_vars.insert("A".into(), "1".into());
    let stream = soon(client(&server).execute(&request)).await.unwrap();
    assert_eq!(soon(stream.count()).await, 1);
    let (headers, body): (HeaderMap, Value) = seen.lock().unwrap().take().unwrap();
    assert_eq!(headers["x-access-token"], TOKEN);
    assert_eq!(headers[HEADER], TRAFFIC);
    assert_eq!(headers["host"], format!("49999-{INSTANCE}.region.example"));
    assert_eq!(body, json!({"code": "x", "context_id": "c", "env_vars": {"A": "1"}}));
    assert!(!format!("{:?}", client(&server)).contains(TRAFFIC));
}

#[tokio::test]
async fn events_come_however_the_lines_are_cut() {
    let server = server_of(&[
        "{\"type\":\"number_of_exe",
        "cutions\",\"execution_count\":2}\n{\"type\":\"std",
        "out\",\"text\":\"a\"}\n\n{\"type\":\"keepalive\"}\n{\"type\":\"novelty\",\"x\":1}\n",
        "{\"type\":\"end_of_execution\"}\n",
    ])
    .await;
    let expected = [
        CodeEvent::Started { execution_count: 2 },
        CodeEvent::Stdout("a".into()),
        CodeEvent::Keepalive,
        CodeEvent::Unknown { kind: "novelty".into() },
        CodeEvent::End,
    ];
    assert_eq!(events(&server).await, expected.map(Ok));
}

#[tokio::test]
async fn an_execution_that_stops_short_is_an_error() {
    let cut = server_of(&["{\"type\":\"stdout\",\"text\":\"a\"}\n"]).await;
    assert_eq!(events(&cut).await, [Ok(CodeEvent::Stdout("a".into())), Err(EnvdErrorKind::Unavailable)]);
    let garbled = server_of(&["<html>\n{\"type\":\"end_of_execution\"}\n"]).await;
    assert_eq!(events(&garbled).await, [Err(EnvdErrorKind::Protocol)]);
}

#[tokio::test]
async fn no_line_is_longer_than_allowed() {
    let server =
        server_of(&["{\"type\":\"stdout\",\"text\":\"aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa"]).await;
    let settings = TransportSettings { max_message: 50, ..TransportSettings::default() };
    let mut stream = soon(client_with(&server, settings).execute(&run("1"))).await.unwrap();
    let error = soon(stream.next()).await.unwrap().unwrap_err();
    assert_eq!(error.kind(), EnvdErrorKind::ResourceExhausted);
}

#[tokio::test]
async fn whoever_drops_the_events_closes_the_request_at_once() {
    let (closed, mut seen) = mpsc::channel(1);
    let server = Server::raw(move |mut socket| {
        let closed = closed.clone();
        async move {
            read_head(&mut socket).await;
            let line = "{\"type\":\"keepalive\"}\n";
            let head = "HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n";
            let chunk = format!("{:x}\r\n{line}\r\n", line.len());
            socket.write_all(format!("{head}{chunk}").as_bytes()).await.unwrap();
            while socket.read(&mut [0; 1024]).await.is_ok_and(|length| length > 0) {}
            closed.send(()).await.unwrap();
        }
    })
    .await;
    let mut stream = soon(client(&server).execute(&run("1"))).await.unwrap();
    assert_eq!(soon(stream.next()).await.unwrap().unwrap(), CodeEvent::Keepalive);
    drop(stream);
    soon(seen.recv()).await.unwrap();
}

#[tokio::test]
async fn silence_ends_it() {
    let quiet = || async { Body::from_stream(futures_util::stream::pending::<Result<Bytes, std::io::Error>>()) };
    let server = Server::start(Router::new().route("/execute", post(quiet))).await;
    let settings = TransportSettings { idle_timeout: Some(Duration::from_millis(50)), ..TransportSettings::default() };
    let mut stream = soon(client_with(&server, settings).execute(&run("1"))).await.unwrap();
    assert_eq!(soon(stream.next()).await.unwrap().unwrap_err().kind(), EnvdErrorKind::Unavailable);
}

#[tokio::test]
async fn contexts_are_made_listed_restarted_and_ended() {
    let context = r#"{"id":"c 1","language":"python","cwd":"/tmp"}"#;
    let created = move |body: String| async move {
        assert_eq!(body, r#"{"cwd":"/tmp"}"#);
        context
    };
    let router = Router::new()
        .route("/contexts", get(move || async move { format!("[{context}]") }).post(created))
        .route(
            "/contexts/{id}/restart",
            post(|Path(id): Path<String>| async move {
                assert_eq!(id, "c 1");
                "null"
            }),
        )
        .route("/contexts/{id}", delete(|| async { (StatusCode::NOT_FOUND, "Context c 1 not found") }));
    let server = Server::start(router).await;
    let client = client(&server);
    let made = soon(client.create_context(None, Some("/tmp"), SOON)).await.unwrap();
    assert_eq!((made.id.as_str(), made.language.as_str(), made.cwd.as_str()), ("c 1", "python", "/tmp"));
    assert_eq!(soon(client.contexts(SOON)).await.unwrap(), [made]);
    soon(client.restart_context("c 1", SOON)).await.unwrap();
    let error = soon(client.delete_context("c 1", SOON)).await.unwrap_err();
    assert_eq!((error.kind(), error.daemon_message()), (EnvdErrorKind::NotFound, Some("Context c 1 not found")));
}
