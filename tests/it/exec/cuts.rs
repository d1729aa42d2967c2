//! Output that is read over broken connections is complete, in order, or says what is missing.

use std::sync::Arc;

use futures_util::StreamExt;
use http::Method;
use rand::{RngExt, SeedableRng, rngs::SmallRng};
use serde_json::{Value, json};

use super::{Sandbox, background::id_of};
use crate::harness::{Api, eventually, run};

const LINES: &str = "application/x-ndjson";

/// Checks that numbers come one after the other, but for stated gaps.
#[derive(Default)]
pub struct Counter {
    line: String,
    /// The line was begun before a gap, or after one: it is no whole number.
    torn: bool,
    pub last: u64,
    /// Numbers since the last gap.
    since_gap: u64,
    pub gaps: Vec<Value>,
    pub exit: Option<Value>,
    pub cursor: Option<String>,
}

impl Counter {
    pub fn see(&mut self, event: Value) {
        if let Some(cursor) = event["cursor"].as_str() {
            self.cursor = Some(cursor.to_owned());
        }
        match event["type"].as_str().expect("a type") {
            "stdout" => self.read(event["data"].as_str().expect("text")),
            "gap" => {
                self.line.clear();
                self.torn = true;
                self.since_gap = 0;
                self.gaps.push(event);
            }
            "exit" => self.exit = Some(event),
            _ => {}
        }
    }

    fn read(&mut self, text: &str) {
        for part in text.split_inclusive('\n') {
            self.line.push_str(part);
            if !part.ends_with('\n') {
                continue;
            }
            let line = std::mem::take(&mut self.line);
            // After a gap the first line may have lost its beginning, and numbers may be missing.
            if std::mem::take(&mut self.torn) {
                self.last = 0;
                continue;
            }
            let number: u64 = line.trim_end().parse().expect("a number");
            assert!(self.last == 0 || number == self.last + 1, "{number} after {}", self.last);
            self.last = number;
            self.since_gap += 1;
        }
    }
}

/// Follows from the counter's cursor, and hangs up after `bytes`, or at the end of the stream.
pub async fn follow_for(api: &Api, path: &str, counter: &mut Counter, bytes: usize) {
    follow_until(api, path, counter, bytes, |_| false).await;
}

/// As [`follow_for`], and hangs up when there is `enough`.
pub async fn follow_until(
    api: &Api,
    path: &str,
    counter: &mut Counter,
    bytes: usize,
    enough: impl Fn(&Counter) -> bool,
) {
    let after = counter.cursor.as_ref().map(|cursor| format!("&after={cursor}")).unwrap_or_default();
    let request = api.request(Method::GET, &format!("{path}/output?follow=true{after}")).header("accept", LINES);
    let Ok(response) = request.send().await else { return };
    if response.status() != 200 {
        assert_eq!(response.status(), 503, "{}", response.text().await.unwrap_or_default());
        return;
    }
    let (mut body, mut read, mut rest) = (response.bytes_stream(), 0, Vec::new());
    while read < bytes
        && !enough(counter)
        && let Some(Ok(piece)) = body.next().await
    {
        let piece = &piece[..piece.len().min(bytes - read)];
        read += piece.len();
        rest.extend_from_slice(piece);
        while let Some(end) = rest.iter().position(|byte| *byte == b'\n') {
            counter.see(serde_json::from_slice(&rest[..end]).expect("a line of JSON"));
            rest.drain(..=end);
        }
    }
}

#[test]
fn hundreds_of_hang_ups_lose_no_byte() {
    run(async {
        let sandbox = Sandbox::start().await;
        let exec = sandbox.background(json!({"cmd": "seq 1 1000000"})).await;
        let path = sandbox.path(&format!("execs/{}", id_of(&exec)));
        let (mut counter, mut rng, mut cuts) = (Counter::default(), SmallRng::seed_from_u64(7), 0);
        while counter.exit.is_none() {
            follow_for(&sandbox.api, &path, &mut counter, rng.random_range(0..150_000)).await;
            cuts += 1;
        }
        assert_eq!((counter.last, &counter.gaps[..]), (1_000_000, &[][..]));
        assert_eq!(counter.exit.unwrap()["exit_code"], 0);
        assert!(cuts > 100, "{cuts}");
    });
}

#[test]
fn what_the_way_to_the_sandbox_loses_is_a_stated_gap() {
    run(async {
        let sandbox = Sandbox::start().await;
        let rule = |path: &str| json!({"match": {"plane": "data", "path": path}, "kind": "cut_stream_after_bytes", "bytes": 2000, "times": 20});
        sandbox.stack.fault(rule("/process.Process/Start"));
        sandbox.stack.fault(rule("/process.Process/Connect"));
        let cmd = "i=0; while ! read -t 0.001 go; do i=$((i+1)); echo $i; done; echo $((i+1)); exit 3";
        let exec = sandbox.background(json!({"cmd": cmd, "stdin": true})).await;
        let path = sandbox.path(&format!("execs/{}", id_of(&exec)));
        let mut counter = Counter::default();
        // Every cut but the first is of a connection that was made anew.
        while counter.gaps.len() < 10 {
            follow_for(&sandbox.api, &path, &mut counter, 10_000).await;
        }
        sandbox.stack.no_faults();
        // More than a connection that is to be cut lets through: the end will be seen.
        follow_until(&sandbox.api, &path, &mut counter, usize::MAX, |counter| counter.since_gap > 1000).await;
        sandbox.post_bytes(&format!("execs/{}/stdin", id_of(&exec)), "go\n").await.expect(204);
        while counter.exit.is_none() {
            follow_for(&sandbox.api, &path, &mut counter, usize::MAX).await;
        }
        assert!(counter.gaps.iter().all(|gap| gap["reason"] == "reattached"), "{:?}", counter.gaps);
        assert_eq!(counter.exit.unwrap()["exit_code"], 3);
    });
}

/// A gateway that is killed without a word.
pub async fn doomed(sandbox: &Arc<Sandbox>) -> (tokio::runtime::Runtime, String) {
    let runtime = tokio::runtime::Runtime::new().expect("a runtime");
    let there = Arc::clone(sandbox);
    let (_, url) = runtime.spawn(async move { there.stack.replica().await }).await.expect("a replica");
    (runtime, url)
}

#[test]
fn a_command_outlives_a_gateway_that_is_killed() {
    run(async {
        let sandbox = Arc::new(Sandbox::start().await);
        let (runtime, url) = doomed(&sandbox).await;
        let there = sandbox.api.at(&url);
        let cmd = "i=0; while ! read -t 0.005 go; do i=$((i+1)); echo $i; done; exit 3";
        let spec = json!({"cmd": cmd, "stdin": true, "background": true});
        let id = id_of(&there.post(&sandbox.path("exec"), &spec).await.expect(202));
        let path = sandbox.path(&format!("execs/{id}"));
        let mut counter = Counter::default();
        follow_for(&there, &path, &mut counter, 20_000).await;
        assert!(counter.last > 10);
        runtime.shutdown_background();
        while counter.gaps.is_empty() {
            follow_for(&sandbox.api, &path, &mut counter, 20_000).await;
        }
        assert_eq!((counter.gaps.len(), &counter.gaps[0]["reason"]), (1, &json!("owner_changed")));
        sandbox.post_bytes(&format!("execs/{id}/stdin"), "go\n").await.expect(204);
        while counter.exit.is_none() {
            follow_for(&sandbox.api, &path, &mut counter, usize::MAX).await;
        }
        assert_eq!((counter.gaps.len(), &counter.exit.unwrap()["exit_code"]), (1, &json!(3)));
        // From the beginning it tells the same: the start once, what was stored, the gap, the rest.
        let mut again = Counter::default();
        follow_for(&sandbox.api, &path, &mut again, usize::MAX).await;
        assert_eq!((again.gaps.len(), again.exit.unwrap()["exit_code"].clone()), (1, json!(3)));
    });
}

#[test]
fn a_foreground_command_ends_with_the_gateway_that_is_killed() {
    run(async {
        let sandbox = Arc::new(Sandbox::start().await);
        let (runtime, url) = doomed(&sandbox).await;
        let request = sandbox.api.at(&url).request(Method::POST, &sandbox.path("exec"));
        let spec = json!({"cmd": "sleep 4831 & sleep 4832", "timeout": "10m"});
        let response = request.header("accept", LINES).json(&spec).send().await.unwrap();
        assert_eq!(response.status(), 200);
        sandbox.until_runs("sleep 4831", true).await;
        runtime.shutdown_background();
        eventually(async || (!sandbox.runs("sleep 483").await).then_some(())).await;
        let lost = eventually(async || {
            let listed = sandbox.get("execs?status=lost").await.expect(200);
            listed["items"].get(0).cloned()
        });
        assert_eq!(lost.await["reason"], "lost");
    });
}

#[test]
fn a_gateway_that_is_told_to_stop_hands_over_at_once() {
    run(async {
        let sandbox = Sandbox::start().await;
        let (app, url) = sandbox.stack.replica().await;
        let there = sandbox.api.at(&url);
        let spec = json!({"cmd": "echo 1; read go; echo 2; exit 3", "stdin": true, "background": true});
        let id = id_of(&there.post(&sandbox.path("exec"), &spec).await.expect(202));
        let path = sandbox.path(&format!("execs/{id}"));
        let mut counter = Counter::default();
        follow_until(&there, &path, &mut counter, usize::MAX, |counter| counter.last == 1).await;
        app.lifecycle.drain();
        sandbox.post_bytes(&format!("execs/{id}/stdin"), "go\n").await.expect(204);
        while counter.exit.is_none() {
            follow_for(&sandbox.api, &path, &mut counter, usize::MAX).await;
        }
        let exit = counter.exit.take().unwrap();
        // The line may have come while nobody followed; then that is said.
        assert!(counter.last == 2 || !counter.gaps.is_empty());
        assert!(exit["exit_code"] == 3 || exit["reason"] == "lost", "{exit}");
    });
}
