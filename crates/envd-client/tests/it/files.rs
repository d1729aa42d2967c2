//! File contents in both directions.

use std::convert::Infallible;
use std::io;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use axum::Router;
use axum::body::Body;
use axum::extract::{Request, State};
use axum::response::{IntoResponse, Response};
use axum::routing::{get, post};
use bytes::Bytes;
use envd_client::{EnvdErrorKind, TransportSettings};
use futures_util::{Stream, StreamExt, stream};
use http::{HeaderMap, HeaderValue, StatusCode};
use http_body_util::{BodyExt, StreamBody};
use hyper::body::Frame;
use tokio::sync::mpsc;

use crate::harness::{SOON, Server, soon};

const RECEIPT: &str = r#"[{"path":"/home/user/a.txt","name":"a.txt","type":"file"}]"#;

fn channel_stream<T>(receiver: mpsc::UnboundedReceiver<T>) -> impl Stream<Item = T> {
    stream::unfold(receiver, |mut r| async move { Some((r.recv().await?, r)) })
}

fn body_of<E>(chunks: impl Stream<Item = Result<Bytes, E>>) -> impl http_body::Body<Data = Bytes, Error = E> {
    StreamBody::new(chunks.map(|c| c.map(Frame::data)))
}

#[tokio::test]
async fn a_download_is_described_and_asks_for_no_more_than_it_may() {
    async fn serve(request: Request) -> Response {
        let shown = format!("{} {:?}", request.uri(), {
            let mut names: Vec<_> = request.headers().keys().map(|k| k.as_str()).collect();
            names.sort_unstable();
            names
        });
        let headers = [
            ("content-type", "text/plain"),
            ("content-range", "bytes 0-9/100"),
            ("etag", "\"e\""),
            ("last-modified", "Sat, 21 Nov 2026 00:00:00 GMT"),
            ("set-cookie", "not yours"),
        ];
        (StatusCode::PARTIAL_CONTENT, headers, shown).into_response()
    }
    let server = Server::start(Router::new().route("/files", get(serve))).await;
    let mut asked = HeaderMap::new();
    for (name, value) in [("range", "bytes=0-9"), ("if-range", "\"e\""), ("cookie", "mine"), ("authorization", "mine")]
    {
        asked.insert(name, HeaderValue::from_static(value));
    }

    let download = server.client().download("/a b", Some("root"), &asked).await.unwrap();
    assert_eq!(download.status, StatusCode::PARTIAL_CONTENT);
    assert_eq!(download.headers["content-range"], "bytes 0-9/100");
    assert_eq!(download.headers["etag"], "\"e\"");
    assert!(download.headers.contains_key("content-length") && !download.headers.contains_key("set-cookie"));
    let body = BodyExt::collect(download.body).await.unwrap().to_bytes().to_vec();
    assert_eq!(
        String::from_utf8(body).unwrap(),
        r#"/files?path=%2Fa%20b&username=root ["accept-encoding", "host", "if-range", "range", "user-agent", "x-access-token"]"#
    );
}

#[tokio::test]
async fn statuses_that_describe_a_file_are_no_errors() {
    for status in [StatusCode::OK, StatusCode::NOT_MODIFIED, StatusCode::RANGE_NOT_SATISFIABLE] {
        let server = Server::start(Router::new().route("/files", get(move || async move { status }))).await;
        let download = server.client().download("/x", None, &HeaderMap::new()).await.unwrap();
        assert_eq!(download.status, status);
    }
    let missing = || async { (StatusCode::NOT_FOUND, r#"{"code":404,"message":"path '/x' does not exist"}"#) };
    let server = Server::start(Router::new().route("/files", get(missing))).await;
    let error = server.client().download("/x", None, &HeaderMap::new()).await.unwrap_err();
    assert_eq!(error.kind(), EnvdErrorKind::NotFound);
    assert_eq!(error.daemon_message(), Some("path '/x' does not exist"));
}

#[tokio::test]
async fn a_download_arrives_as_it_is_sent_and_ends_when_dropped() {
    let (sender, receiver) = mpsc::unbounded_channel::<Result<Bytes, Infallible>>();
    let body = Body::from_stream(channel_stream(receiver));
    let body = Arc::new(Mutex::new(Some(body)));
    let serve = move || std::future::ready(body.lock().unwrap().take().unwrap());
    let server = Server::start(Router::new().route("/files", get(serve))).await;

    let client = server.client();
    sender.send(Ok("one".into())).unwrap();
    let mut download = client.download("/x", None, &HeaderMap::new()).await.unwrap();
    assert_eq!(soon(download.body.next()).await.unwrap().unwrap(), "one");
    sender.send(Ok("two".into())).unwrap();
    let frame = soon(download.body.frame()).await.unwrap().unwrap();
    assert_eq!(frame.into_data().unwrap(), "two");

    drop(download);
    soon(sender.closed()).await;
}

#[tokio::test]
async fn a_download_that_falls_short_or_silent_fails() {
    let server = Server::canned("HTTP/1.1 200 OK\r\ncontent-length: 10\r\n\r\nshort").await;
    let mut download = server.client().download("/x", None, &HeaderMap::new()).await.unwrap();
    assert_eq!(soon(download.body.next()).await.unwrap().unwrap(), "short");
    let error = soon(download.body.next()).await.unwrap().unwrap_err();
    assert_eq!(error.kind(), EnvdErrorKind::Unavailable);
    assert!(download.body.next().await.is_none());

    let serve = || std::future::ready(Body::from_stream(stream::pending::<Result<Bytes, Infallible>>()));
    let server = Server::start(Router::new().route("/files", get(serve))).await;
    let settings = TransportSettings { idle_timeout: Some(Duration::from_millis(50)), ..Default::default() };
    let mut download = server.client_with(settings).download("/x", None, &HeaderMap::new()).await.unwrap();
    let error = soon(download.body.next()).await.unwrap().unwrap_err();
    assert_eq!(error.kind(), EnvdErrorKind::Unavailable);
}

type Chunks = mpsc::UnboundedSender<Result<Bytes, String>>;

/// Passes on what it receives, then gives a receipt.
async fn receive(State(chunks): State<Chunks>, request: Request) -> Response {
    let described = format!(
        "{} {:?} {:?}",
        request.uri(),
        request.headers().get("content-type"),
        request.headers().get("content-length")
    );
    chunks.send(Ok(described.into())).unwrap();
    let mut body = request.into_body().into_data_stream();
    while let Some(chunk) = body.next().await {
        let broken = chunk.is_err();
        chunks.send(chunk.map_err(|e| e.to_string())).unwrap();
        if broken {
            return StatusCode::INTERNAL_SERVER_ERROR.into_response();
        }
    }
    RECEIPT.into_response()
}

async fn receiver() -> (Server, mpsc::UnboundedReceiver<Result<Bytes, String>>) {
    let (chunks, received) = mpsc::unbounded_channel();
    (Server::start(Router::new().route("/files", post(receive)).with_state(chunks)).await, received)
}

#[tokio::test]
async fn an_upload_is_sent_as_it_comes() {
    let (server, mut received) = receiver().await;
    let client = server.client();
    let (source, chunks) = mpsc::unbounded_channel::<Result<Bytes, Infallible>>();
    let upload = client.upload("/a b", Some("root"), body_of(channel_stream(chunks)));
    let feed = async {
        let described = received.recv().await.unwrap().unwrap();
        assert_eq!(described, r#"/files?path=%2Fa%20b&username=root Some("application/octet-stream") None"#);
        source.send(Ok("one".into())).unwrap();
        assert_eq!(received.recv().await.unwrap().unwrap(), "one");
        source.send(Ok("two".into())).unwrap();
        assert_eq!(received.recv().await.unwrap().unwrap(), "two");
        drop(source);
    };
    let (file, ()) = soon(async { tokio::join!(upload, feed) }).await;
    let file = file.unwrap();
    assert_eq!((file.path.as_str(), file.name.as_str(), file.kind.as_str()), ("/home/user/a.txt", "a.txt", "file"));
}

#[tokio::test]
async fn an_upload_of_known_length_says_so() {
    let (server, mut received) = receiver().await;
    server.client().upload("x", None, envd_client::full("12345")).await.unwrap();
    assert_eq!(received.recv().await.unwrap().unwrap(), r#"/files?path=x Some("application/octet-stream") Some("5")"#);
}

#[tokio::test]
async fn an_upload_that_breaks_off_at_its_source_breaks_off_at_the_daemon() {
    let (server, mut received) = receiver().await;
    let client = server.client();
    let (source, chunks) = mpsc::unbounded_channel();
    let upload = client.upload("x", None, body_of(channel_stream(chunks)));
    let feed = async {
        source.send(Ok(Bytes::from("one"))).unwrap();
        received.recv().await.unwrap().unwrap();
        assert_eq!(received.recv().await.unwrap().unwrap(), "one");
        source.send(Err(io::Error::other("the caller hung up"))).unwrap();
        received.recv().await.unwrap().expect_err("the daemon must not take it for a whole file");
    };
    let (uploaded, ()) = soon(async { tokio::join!(upload, feed) }).await;
    let error = uploaded.unwrap_err();
    assert_eq!(error.kind(), EnvdErrorKind::Cancelled);
    assert!(error.outcome_unknown());
}

#[tokio::test]
async fn a_full_disk_is_told_while_the_upload_is_under_way() {
    let full =
        || async { (StatusCode::INSUFFICIENT_STORAGE, r#"{"code":507,"message":"not enough disk space available"}"#) };
    let server = Server::start(Router::new().route("/files", post(full))).await;
    let endless = stream::once(async { Ok::<_, Infallible>(Bytes::from(vec![0; 64 * 1024])) }).chain(stream::pending());
    let error = soon(server.client().upload("x", None, body_of(endless))).await.unwrap_err();
    assert_eq!(error.kind(), EnvdErrorKind::NoSpace);
    assert_eq!(error.daemon_message(), Some("not enough disk space available"));
}

#[tokio::test]
async fn an_upload_that_stands_still_is_given_up() {
    let (server, mut received) = receiver().await;
    let settings = TransportSettings { idle_timeout: Some(Duration::from_millis(50)), ..Default::default() };
    let stuck = stream::once(async { Ok::<_, Infallible>(Bytes::from("one")) }).chain(stream::pending());
    let error = soon(server.client_with(settings).upload("x", None, body_of(stuck))).await.unwrap_err();
    assert_eq!(error.kind(), EnvdErrorKind::Unavailable);
    while soon(received.recv()).await.expect("the daemon sees it break off").is_ok() {}
}

#[tokio::test]
async fn health_is_204() {
    let healthy = || async { StatusCode::NO_CONTENT };
    let server = Server::start(Router::new().route("/health", get(healthy))).await;
    server.client().health(SOON).await.unwrap();
}
