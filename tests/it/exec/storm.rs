//! Cuts by the thousand: of viewers, of the way to the sandbox, and of gateways. `AGS_TEST_CLIENT_CUTS`,
//! `AGS_TEST_UPSTREAM_CUTS` and `AGS_TEST_GATEWAY_KILLS` say how many, `AGS_TEST_SEED` which.

use std::net::SocketAddr;

use futures_util::{StreamExt, future::join_all};
use http::Method;
use nix::sys::signal::Signal;
use rand::{RngExt, SeedableRng, rngs::SmallRng};
use serde_json::{Value, json};
use tokio_tungstenite::{
    connect_async,
    tungstenite::{Message, client::IntoClientRequest},
};

use super::{
    Sandbox,
    background::id_of,
    tape::{COUNTER, Tape},
};
use crate::harness::{Api, Cutter, Program, eventually, run, setting};

/// How a viewer looks on.
#[derive(Clone, Copy, Debug)]
enum View {
    Lines,
    Sse,
    Text,
    Binary,
}

const VIEWS: [View; 4] = [View::Lines, View::Sse, View::Text, View::Binary];

/// What a run of cuts is made from; printed, so that a failure shows it.
fn seed() -> u64 {
    let seed = setting("AGS_TEST_SEED", 7);
    println!("AGS_TEST_SEED={seed}");
    seed
}

/// Looks on from where the tape ends until the connection breaks, `most` bytes were read, or the command has ended.
async fn look(api: &Api, path: &str, view: View, tape: &mut Tape, most: usize) {
    match view {
        View::Lines | View::Sse => stream(api, path, view, tape, most).await,
        View::Text => socket(api, path, "ags.exec.v1", tape, most).await,
        View::Binary => socket(api, path, "ags.exec.v1.bin", tape, most).await,
    }
}

async fn stream(api: &Api, path: &str, view: View, tape: &mut Tape, most: usize) {
    let after = tape.cursor.as_deref().filter(|_| !matches!(view, View::Sse));
    let after = after.map(|cursor| format!("&after={cursor}")).unwrap_or_default();
    let mut request = api.request(Method::GET, &format!("{path}/output?follow=true{after}"));
    let (accept, end) = match view {
        View::Sse => ("text/event-stream", &b"\n\n"[..]),
        _ => ("application/x-ndjson", &b"\n"[..]),
    };
    if let (Some(cursor), View::Sse) = (&tape.cursor, view) {
        request = request.header("last-event-id", cursor);
    }
    let Ok(response) = request.header("accept", accept).send().await else { return };
    if response.status() != 200 {
        let status = response.status();
        // One whose way is cut is told as little as one whose gateway is busy taking over.
        assert!(matches!(status.as_u16(), 502 | 503), "{status}: {}", response.text().await.unwrap_or_default());
        return;
    }
    let (mut body, mut read, mut rest) = (response.bytes_stream(), 0, Vec::new());
    while read < most
        && let Some(Ok(piece)) = body.next().await
    {
        read += piece.len();
        rest.extend_from_slice(&piece);
        let mut seen = 0;
        while let Some(length) = rest[seen..].windows(end.len()).position(|window| window == end) {
            tape.see(parse(view, &rest[seen..seen + length]));
            seen += length + end.len();
        }
        rest.drain(..seen);
    }
}

fn parse(view: View, event: &[u8]) -> Value {
    let json = match view {
        View::Sse => {
            let text = std::str::from_utf8(event).expect("text");
            text.lines().find_map(|line| line.strip_prefix("data: ")).expect("data").as_bytes()
        }
        _ => event,
    };
    serde_json::from_slice(json).expect("JSON")
}

async fn socket(api: &Api, path: &str, protocol: &'static str, tape: &mut Tape, most: usize) {
    let after = tape.cursor.as_ref().map(|cursor| format!("?after={cursor}")).unwrap_or_default();
    let url = api.url(&format!("{path}/ws{after}")).replacen("http", "ws", 1);
    let mut request = url.into_client_request().expect("a URL");
    let key = format!("Bearer {}", api.key()).parse().expect("a header");
    request.headers_mut().insert("authorization", key);
    request.headers_mut().insert("sec-websocket-protocol", protocol.parse().expect("a header"));
    let Ok((mut socket, _)) = connect_async(request).await else { return };
    let mut read = 0;
    while read < most
        && let Some(Ok(message)) = socket.next().await
    {
        read += message.len();
        match message {
            Message::Text(text) => tape.see(serde_json::from_str(&text).expect("JSON")),
            Message::Binary(frame) => tape.see_frame(&frame),
            _ => {}
        }
    }
}

/// A counter that runs in the background.
struct Count {
    exec: String,
    path: String,
    file: String,
}

impl Count {
    async fn start(sandbox: &Sandbox, api: &Api, number: u64) -> Self {
        let file = format!("/tmp/counted-{number}");
        let spec = json!({"cmd": ["python3", "-c", COUNTER, file], "stdin": true, "background": true});
        let exec = id_of(&api.post(&sandbox.path("exec"), &spec).await.expect(202));
        Self { path: sandbox.path(&format!("execs/{exec}")), exec, file }
    }

    /// Ends it; answers how many lines it printed.
    async fn end(&self, sandbox: &Sandbox) -> u64 {
        sandbox.post_bytes(&format!("execs/{}/stdin", self.exec), "end\n").await.expect(204);
        let read = format!("cat {}", self.file);
        eventually(async || sandbox.run(&read).await["stdout"].as_str().expect("text").parse().ok()).await
    }
}

/// Looks on to the end.
async fn finish(api: &Api, path: &str, view: View, tape: &mut Tape) {
    while tape.exit.is_none() {
        look(api, path, view, tape, usize::MAX).await;
    }
}

#[test]
fn viewers_that_are_cut_off_thousands_of_times_miss_nothing() {
    run(async {
        let (cuts, seed) = (setting("AGS_TEST_CLIENT_CUTS", 2000), seed());
        let sandbox = Sandbox::start().await;
        let address: SocketAddr = sandbox.stack.url.trim_start_matches("http://").parse().unwrap();
        let cutter = Cutter::start(&sandbox.stack.app.lifecycle, address, seed).await;
        let there = sandbox.api.at(&cutter.url());
        let count = Count::start(&sandbox, &sandbox.api, 0).await;
        cutter.cut_within(8_000);
        let mut tapes: Vec<Tape> = VIEWS.iter().map(|_| Tape::default()).collect();
        let (api, path, cutting) = (&there, &count.path, || cutter.cuts() < cuts);
        join_all(VIEWS.into_iter().zip(&mut tapes).map(|(view, tape)| async move {
            while cutting() {
                look(api, path, view, tape, usize::MAX).await;
            }
        }))
        .await;
        let lines = count.end(&sandbox).await;
        cutter.cut_within(0);
        for (view, tape) in VIEWS.iter().zip(&mut tapes) {
            finish(&there, &count.path, *view, tape).await;
            tape.check_end(lines);
            assert!(tape.gaps.is_empty(), "{view:?}: {:?}", tape.gaps);
        }
        println!("{} connections of viewers were cut over {lines} lines; nothing is missing", cutter.cuts());
    });
}

#[test]
fn what_hundreds_of_cuts_on_the_way_to_the_sandbox_lose_is_stated() {
    run(async {
        let (cuts, seed) = (setting("AGS_TEST_UPSTREAM_CUTS", 300), seed());
        let sandbox = Sandbox::start().await;
        let cutter = Cutter::start(&sandbox.stack.app.lifecycle, sandbox.stack.emulator.address(), seed).await;
        let way = cutter.address().to_string();
        let (app, url) = sandbox.stack.replica_with("UPSTREAM_DEFAULTS__CONNECT_TO", &way).await;
        let there = sandbox.api.at(&url);
        let counts = join_all((0..4).map(|number| Count::start(&sandbox, &there, number))).await;
        cutter.cut_within(20_000);
        let mut tapes: Vec<Tape> = VIEWS.iter().map(|_| Tape::default()).collect();
        let viewed: Vec<_> = VIEWS.into_iter().zip(&counts).collect();
        let (api, cutting) = (&there, || cutter.cuts() < cuts);
        join_all(viewed.iter().zip(&mut tapes).map(|((view, count), tape)| async move {
            while cutting() {
                look(api, &count.path, *view, tape, 10_000).await;
            }
        }))
        .await;
        cutter.cut_within(0);
        for ((view, count), tape) in viewed.iter().zip(&mut tapes) {
            let lines = count.end(&sandbox).await;
            finish(&there, &count.path, *view, tape).await;
            tape.check_end(lines);
            assert_eq!(tape.reasons(), ["reattached"], "{view:?}");
        }
        let gaps: usize = tapes.iter().map(|tape| tape.gaps.len()).sum();
        println!("{} connections to the sandbox were cut; {gaps} gaps were stated", cutter.cuts());
        app.lifecycle.drain();
    });
}

/// A gateway of its own that is killed while it follows a counter, which others follow to its end.
async fn kill_one(sandbox: &Sandbox, number: u64, random: &mut SmallRng) -> Tape {
    let program = Program::start(&sandbox.stack).await;
    let there = sandbox.api.at(&program.url);
    let count = Count::start(sandbox, &there, number).await;
    let (mut tape, view) = (Tape::default(), VIEWS[usize::try_from(number).unwrap() % VIEWS.len()]);
    // By the doomed one itself, or forwarded to it by another.
    let api = if random.random() { &there } else { &sandbox.api };
    look(api, &count.path, view, &mut tape, random.random_range(1..100_000)).await;
    let (killed, ()) = tokio::join!(
        program.child.stop(Signal::SIGKILL, std::time::Duration::from_secs(60)),
        look(api, &count.path, view, &mut tape, random.random_range(0..100_000))
    );
    assert!(!killed.success());
    while tape.gaps.is_empty() {
        look(&sandbox.api, &count.path, view, &mut tape, 20_000).await;
    }
    let lines = count.end(sandbox).await;
    finish(&sandbox.api, &count.path, view, &mut tape).await;
    tape.check_end(lines);
    tape
}

#[test]
fn what_killed_gateways_lose_is_stated() {
    run(async {
        let (kills, seed) = (setting("AGS_TEST_GATEWAY_KILLS", 8), seed());
        let sandbox = Sandbox::start().await;
        let there = &sandbox;
        let tapes = join_all((0..kills).map(|number| async move {
            let mut random = SmallRng::seed_from_u64(seed + number);
            kill_one(there, number, &mut random).await
        }))
        .await;
        for tape in &tapes {
            assert_eq!((tape.gaps.len(), tape.reasons()), (1, vec!["owner_changed"]), "{:?}", tape.gaps);
        }
        println!("{kills} gateways were killed; each left one gap");
    });
}
