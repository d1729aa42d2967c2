//! Streams under stress: hung up, unread, silent, cut.

use std::sync::atomic::Ordering;
use std::time::Duration;

use envd_client::{EnvdErrorKind, ProcessEvent, StartSpec, TransportSettings};
use futures_util::{FutureExt, StreamExt};
use tokio::io::AsyncWriteExt;
use tokio::sync::mpsc;

use crate::daemon::{CHUNK, Daemon, FLOOD_CHUNKS, Seen};
use crate::harness::{Server, read_head, soon};

fn spec(cmd: &str) -> StartSpec {
    StartSpec { cmd: cmd.into(), ..Default::default() }
}

fn impatient() -> TransportSettings {
    TransportSettings { idle_timeout: Some(Duration::from_millis(50)), ..Default::default() }
}

#[tokio::test]
async fn dropping_the_events_hangs_up() {
    let (daemon, mut seen) = Daemon::new();
    let server = Server::start(daemon.router()).await;
    let mut events = server.client().start(spec("hang")).await.unwrap();
    assert_eq!(events.next().await.unwrap().unwrap(), ProcessEvent::Started { pid: 7 });
    assert!(matches!(seen.recv().await, Some(Seen::Start(..))));
    assert!(seen.recv().now_or_never().is_none());

    drop(events);
    assert!(matches!(soon(seen.recv()).await, Some(Seen::HungUp("start"))));
}

#[tokio::test]
async fn giving_up_on_a_start_hangs_up() {
    let (daemon, mut seen) = Daemon::new();
    let server = Server::start(daemon.router()).await;
    let client = server.client();
    let mut start = Box::pin(client.start(spec("never-answered")));
    tokio::select! {
        _ = &mut start => panic!("there is no answer"),
        start = seen.recv() => assert!(matches!(start, Some(Seen::Start(..)))),
    }
    drop(start);
    assert!(matches!(soon(seen.recv()).await, Some(Seen::HungUp("head"))));
}

#[tokio::test]
async fn a_reader_that_stops_stops_the_process() {
    let (daemon, _seen) = Daemon::new();
    let server = Server::start(daemon.router()).await;
    let mut events = server.client().start(spec("flood")).await.unwrap();
    assert_eq!(events.next().await.unwrap().unwrap(), ProcessEvent::Started { pid: 7 });

    let produced = soon(standstill(&daemon)).await;
    assert!(produced < FLOOD_CHUNKS / 4, "{produced} chunks were produced for a reader that reads none");

    let mut received = 0;
    while let Some(event) = soon(events.next()).await {
        if let ProcessEvent::Stdout(bytes) = event.unwrap() {
            received += bytes.len();
        }
    }
    assert_eq!(received, FLOOD_CHUNKS * CHUNK);
}

/// How much has been produced once that no longer changes.
async fn standstill(daemon: &Daemon) -> usize {
    let mut last = 0;
    let mut tick = tokio::time::interval(Duration::from_millis(200));
    loop {
        tick.tick().await;
        let produced = daemon.produced.load(Ordering::SeqCst);
        if produced > 0 && produced == last {
            return produced;
        }
        last = produced;
    }
}

#[tokio::test]
async fn a_slow_reader_is_not_a_silent_server() {
    let (daemon, _seen) = Daemon::new();
    let server = Server::start(daemon.router()).await;
    let mut events = server.client_with(impatient()).start(spec("flood")).await.unwrap();
    soon(standstill(&daemon)).await;
    for _ in 0..10 {
        soon(events.next()).await.unwrap().unwrap();
    }
}

#[tokio::test]
async fn silence_has_a_limit() {
    let (daemon, mut seen) = Daemon::new();
    let server = Server::start(daemon.router()).await;
    let client = server.client_with(impatient());

    let mut events = client.start(spec("hang")).await.unwrap();
    assert_eq!(events.next().await.unwrap().unwrap(), ProcessEvent::Started { pid: 7 });
    let error = soon(events.next()).await.unwrap().unwrap_err();
    assert_eq!(error.kind(), EnvdErrorKind::Unavailable);
    assert!(error.outcome_unknown() && !error.retryable());
    assert!(events.next().await.is_none());
    drop(events);
    assert!(matches!(soon(seen.recv()).await, Some(Seen::Start(..))));
    assert!(matches!(soon(seen.recv()).await, Some(Seen::HungUp("start"))));

    let error = soon(client.start(spec("never-answered"))).await.unwrap_err();
    assert_eq!(error.kind(), EnvdErrorKind::Unavailable);
}

#[tokio::test]
async fn an_outcome_that_is_known_is_not_waited_for() {
    let (daemon, mut seen) = Daemon::new();
    let server = Server::start(daemon.router()).await;
    let events = server.client().start(spec("end-then-hang")).await.unwrap();
    let events: Vec<_> = soon(events.map(Result::unwrap).collect()).await;
    assert!(matches!(events[1], ProcessEvent::End { exit_code: 3, .. }));
    assert_eq!(events.len(), 2);
    assert!(matches!(soon(seen.recv()).await, Some(Seen::Start(..))));
    assert!(matches!(soon(seen.recv()).await, Some(Seen::HungUp("start"))));
}

/// A stream response whose body is `chunks`, cut off or closed properly.
fn stream_reply(chunks: &[&[u8]], closed: bool) -> Vec<u8> {
    let mut reply =
        b"HTTP/1.1 200 OK\r\ncontent-type: application/connect+proto\r\ntransfer-encoding: chunked\r\n\r\n".to_vec();
    for chunk in chunks {
        reply.extend(format!("{:x}\r\n", chunk.len()).bytes());
        reply.extend_from_slice(chunk);
        reply.extend(b"\r\n");
    }
    if closed {
        reply.extend(b"0\r\n\r\n");
    }
    reply
}

const LAST: &[u8] = b"\x02\0\0\0\x02{}";
/// event { start { pid: 7 } }, in its envelope.
const STARTED: &[u8] = &[0, 0, 0, 0, 6, 0x0a, 4, 0x0a, 2, 8, 7];

#[tokio::test]
async fn frames_may_be_cut_anywhere() {
    let reply = stream_reply(&[&STARTED[..3], &STARTED[3..7], &STARTED[7..], &LAST[..5], &LAST[5..]], true);
    let server = Server::canned(reply).await;
    let events = server.client().start(spec("x")).await.unwrap();
    let events: Vec<_> = soon(events.map(Result::unwrap).collect()).await;
    assert_eq!(events, [ProcessEvent::Started { pid: 7 }]);
}

#[tokio::test]
async fn a_stream_that_is_read_to_its_end_keeps_its_connection() {
    let (verdict, mut kept) = mpsc::unbounded_channel();
    let server = Server::raw(move |mut socket| {
        let verdict = verdict.clone();
        async move {
            read_head(&mut socket).await;
            socket.write_all(&stream_reply(&[STARTED, LAST], false)).await.unwrap();
            // The end of the body travels on its own, behind the last frame.
            tokio::time::sleep(Duration::from_millis(20)).await;
            let _ = socket.write_all(b"0\r\n\r\n").await;
            let hung_up = tokio::time::timeout(Duration::from_millis(100), socket.peek(&mut [0])).await;
            verdict.send(hung_up.is_err()).unwrap();
        }
    })
    .await;
    let client = server.client();
    let events: Vec<_> = client.start(spec("x")).await.unwrap().map(Result::unwrap).collect().await;
    assert_eq!(events, [ProcessEvent::Started { pid: 7 }]);
    assert!(soon(kept.recv()).await.unwrap(), "the client hung up");
}

#[tokio::test]
async fn a_stream_that_breaks_off_is_no_success() {
    for (chunks, closed) in [(&[STARTED][..], false), (&[STARTED][..], true), (&[STARTED, &STARTED[..7]][..], true)] {
        let server = Server::canned(stream_reply(chunks, closed)).await;
        let mut events = server.client().start(spec("x")).await.unwrap();
        assert_eq!(soon(events.next()).await.unwrap().unwrap(), ProcessEvent::Started { pid: 7 });
        let error = soon(events.next()).await.unwrap().unwrap_err();
        assert_eq!(error.kind(), EnvdErrorKind::Unavailable, "{error}");
        assert!(error.outcome_unknown());
        assert!(events.next().await.is_none());
    }
}

#[tokio::test]
async fn nonsense_is_a_protocol_error() {
    let frames: [&[u8]; 4] = [
        &[1, 0, 0, 0, 0],             // compressed
        &[0, 0xff, 0xff, 0xff, 0xff], // 4 GiB
        &[0, 0, 0, 0, 1, 0xff],       // no protobuf
        &[2, 0, 0, 0, 1, b'x'],       // no JSON
    ];
    for frame in frames {
        let server = Server::canned(stream_reply(&[frame], true)).await;
        let mut events = server.client().start(spec("x")).await.unwrap();
        let error = soon(events.next()).await.unwrap().unwrap_err();
        assert_eq!(error.kind(), EnvdErrorKind::Protocol, "{frame:?}");
    }

    for head in ["content-type: text/html", "content-type: application/connect+proto\r\ncontent-encoding: gzip"] {
        let server = Server::canned(format!("HTTP/1.1 200 OK\r\n{head}\r\ncontent-length: 0\r\n\r\n")).await;
        let error = soon(server.client().start(spec("x"))).await.unwrap_err();
        assert_eq!(error.kind(), EnvdErrorKind::Protocol, "{head}");
    }
}
