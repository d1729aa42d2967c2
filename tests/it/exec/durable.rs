//! Durable commands: their output and their end are in files in the sandbox, and nothing of them is lost.

use std::sync::Arc;

use ags_gateway::{
    domain::exec::{Offsets, Run, Segment, Stream},
    storage::exec_output::{self, Piece, Place},
};
use serde_json::{Value, json};

use super::{
    Sandbox,
    background::{follow, id_of},
    cuts::{Counter, doomed, follow_for, follow_until},
    sandbox::{events, text_of},
};
use crate::harness::{Options, eventually, run};

const LINES: &str = "application/x-ndjson";
/// Prints numbers until it is told to stop, by a line of input.
const COUNT: &str = "i=0; while ! read -t 0.002 go; do i=$((i+1)); echo $i; done; exit 3";

/// Follows to the end, however often the stream ends before; then nothing is missing.
async fn follow_whole(sandbox: &Sandbox, path: &str, counter: &mut Counter) -> Value {
    while counter.exit.is_none() {
        follow_for(&sandbox.api, path, counter, usize::MAX).await;
    }
    assert_eq!(counter.gaps, [] as [Value; 0]);
    counter.exit.clone().unwrap()
}

async fn ended(sandbox: &Sandbox, id: &str) -> Value {
    eventually(async || {
        let exec = sandbox.get(&format!("execs/{id}")).await.expect(200);
        (exec["status"] != "running").then_some(exec)
    })
    .await
}

#[test]
fn a_durable_command_is_as_any_other() {
    run(async {
        let sandbox = Sandbox::start().await;
        let spec = json!({"cmd": "echo out; echo err >&2; echo $HERE $PWD; exit 7", "durable": true, "cwd": "/var",
            "env": {"HERE": "here"}});
        let result = sandbox.exec(&spec).await.expect(200);
        assert_eq!((&result["stdout"], &result["stderr"]), (&json!("out\nhere /var\n"), &json!("err\n")));
        assert_eq!((&result["exit_code"], &result["reason"]), (&json!(7), &json!("exited")));
        // To open a stream anew must not empty the file that it goes to.
        let anew = "echo 1; echo 2 > /proc/self/fd/1; echo 3 >&2; echo 4 > /proc/self/fd/2; echo 5; echo 6 >&2";
        let result = sandbox.exec(&json!({"cmd": anew, "durable": true})).await.expect(200);
        assert_eq!((&result["stdout"], &result["stderr"]), (&json!("1\n2\n5\n"), &json!("3\n4\n6\n")));
        let argv = json!({"cmd": ["printf", "%s|", "a b", "$c"], "durable": true});
        let streamed = sandbox.stream(&argv, LINES).await.text().await.unwrap();
        assert_eq!(text_of(&events(&streamed), "stdout"), "a b|$c|");
        let late = sandbox.exec(&json!({"cmd": "sleep 4851", "durable": true, "timeout": "1s"})).await.expect(200);
        assert_eq!((&late["timed_out"], &late["exit_code"]), (&json!(true), &Value::Null));
        sandbox.until_runs("sleep 4851", false).await;
        // Nothing stays behind of what was stored whole.
        eventually(async || {
            (sandbox.run("ls -d /tmp/.ags-exec-* 2>/dev/null | wc -l").await["stdout"] == "0\n").then_some(())
        })
        .await;
    });
}

#[test]
fn a_durable_command_takes_input_and_signals() {
    run(async {
        let sandbox = Sandbox::start().await;
        let cmd = "trap 'echo hup; exit 4' HUP; read line; echo \"$line\"; while :; do sleep 0.05; done";
        let id = id_of(&sandbox.background(json!({"cmd": cmd, "durable": true, "stdin": true})).await);
        sandbox.post_bytes(&format!("execs/{id}/stdin"), "hello\n").await.expect(204);
        let path = sandbox.path(&format!("execs/{id}"));
        let mut seen = String::new();
        while seen != "hello\n" {
            let output = sandbox.get(&format!("execs/{id}/output")).await.expect(200);
            seen = text_of(output["events"].as_array().unwrap(), "stdout");
        }
        sandbox.api.post(&format!("{path}/signal"), &json!({"signal": "SIGHUP"})).await.expect(204);
        assert_eq!(ended(&sandbox, &id).await["exit_code"], 4);
        assert_eq!(text_of(&follow(&sandbox, &id, None).await, "stdout"), "hello\nhup\n");

        let id = id_of(&sandbox.background(json!({"cmd": ["sleep", "4861"], "durable": true})).await);
        let path = sandbox.path(&format!("execs/{id}"));
        sandbox.api.post(&format!("{path}/signal"), &json!({"signal": "SIGTERM"})).await.expect(204);
        // As shells tell it.
        assert_eq!(ended(&sandbox, &id).await["exit_code"], 128 + 15);

        let id = id_of(&sandbox.background(json!({"cmd": "sleep 4862 & sleep 4863", "durable": true})).await);
        sandbox.until_runs("sleep 4863", true).await;
        sandbox.api.delete(&sandbox.path(&format!("execs/{id}"))).await.expect(204);
        assert_eq!(ended(&sandbox, &id).await["reason"], "killed");
        sandbox.until_runs("sleep 486", false).await;
    });
}

#[test]
fn broken_connections_to_the_sandbox_lose_nothing() {
    run(async {
        let sandbox = Sandbox::start().await;
        for path in ["/process.Process/Start", "/process.Process/Connect", "/files"] {
            let rule = json!({"match": {"plane": "data", "path": path}, "kind": "cut_stream_after_bytes", "bytes": 300, "times": 20});
            sandbox.stack.fault(rule);
        }
        let exec = sandbox.background(json!({"cmd": "seq 1 20000; exit 3", "durable": true})).await;
        let path = sandbox.path(&format!("execs/{}", id_of(&exec)));
        let mut counter = Counter::default();
        assert_eq!(follow_whole(&sandbox, &path, &mut counter).await["exit_code"], 3);
        assert_eq!(counter.last, 20_000);
    });
}

#[test]
fn a_pause_loses_nothing() {
    run(async {
        let sandbox = Sandbox::start().await;
        let id = id_of(&sandbox.background(json!({"cmd": COUNT, "stdin": true, "durable": true})).await);
        let path = sandbox.path(&format!("execs/{id}"));
        let mut counter = Counter::default();
        follow_until(&sandbox.api, &path, &mut counter, usize::MAX, |counter| counter.last > 10).await;
        let instance = format!("/v1/instances/{}", sandbox.id);
        assert_eq!(sandbox.api.post(&format!("{instance}/pause"), &json!({})).await.expect(200)["status"], "PAUSED");
        assert_eq!(sandbox.api.post(&format!("{instance}/resume"), &json!({})).await.expect(200)["status"], "RUNNING");
        let before = counter.last;
        while counter.last == before {
            follow_until(&sandbox.api, &path, &mut counter, usize::MAX, |counter| counter.last > before).await;
        }
        sandbox.post_bytes(&format!("execs/{id}/stdin"), "go\n").await.expect(204);
        assert_eq!(follow_whole(&sandbox, &path, &mut counter).await["exit_code"], 3);
    });
}

#[test]
fn a_killed_gateway_loses_nothing() {
    run(async {
        let sandbox = Arc::new(Sandbox::start().await);
        let (runtime, url) = doomed(&sandbox).await;
        let there = sandbox.api.at(&url);
        let spec = json!({"cmd": COUNT, "stdin": true, "background": true, "durable": true});
        let id = id_of(&there.post(&sandbox.path("exec"), &spec).await.expect(202));
        let path = sandbox.path(&format!("execs/{id}"));
        let mut counter = Counter::default();
        follow_until(&there, &path, &mut counter, usize::MAX, |counter| counter.last > 100).await;
        runtime.shutdown_background();
        let before = counter.last;
        while counter.last == before {
            follow_until(&sandbox.api, &path, &mut counter, usize::MAX, |counter| counter.last > before).await;
        }
        sandbox.post_bytes(&format!("execs/{id}/stdin"), "go\n").await.expect(204);
        assert_eq!(follow_whole(&sandbox, &path, &mut counter).await["exit_code"], 3);
        // From the beginning it is the same, whoever followed when.
        let mut again = Counter::default();
        follow_whole(&sandbox, &path, &mut again).await;
        assert_eq!(again.last, counter.last);
    });
}

#[test]
fn an_end_that_nobody_followed_is_known() {
    run(async {
        let sandbox = Sandbox::start().await;
        let (app, url) = sandbox.stack.replica().await;
        let spec =
            json!({"cmd": "echo 1; read go; echo 2; exit 9", "stdin": true, "background": true, "durable": true});
        let started = sandbox.api.at(&url).post(&sandbox.path("exec"), &spec).await.expect(202);
        let id = id_of(&started);
        // Nobody can look for it until it is gone.
        sandbox.stack.fault(json!({"match": {"path": "/process.Process/Connect"}, "kind": "refuse"}));
        app.lifecycle.drain();
        sandbox.post_bytes(&format!("execs/{id}/stdin"), "go\n").await.expect(204);
        let files = format!("test -e /tmp/.ags-exec-{id}/exit");
        eventually(async || (sandbox.run(&files).await["exit_code"] == 0).then_some(())).await;
        sandbox.until_runs(&id, false).await;
        sandbox.stack.no_faults();
        let exec = ended(&sandbox, &id).await;
        assert_eq!(
            (&exec["status"], &exec["exit_code"], &exec["reason"]),
            (&json!("exited"), &json!(9), &json!("exited"))
        );
        let mut counter = Counter::default();
        follow_whole(&sandbox, &sandbox.path(&format!("execs/{id}")), &mut counter).await;
        assert_eq!(counter.last, 2);
    });
}

#[test]
fn what_is_beyond_the_window_is_read_from_the_sandbox_while_there_is_one() {
    run(async {
        let options = Options::default().with("EXEC__MEMORY_WINDOW", "64KiB").with("EXEC__STORED_WINDOW", "64KiB");
        let sandbox = Sandbox::with(options, json!({})).await;
        let id = id_of(&sandbox.background(json!({"cmd": "seq 1 200000; exit 3", "durable": true})).await);
        let path = sandbox.path(&format!("execs/{id}"));
        ended(&sandbox, &id).await;
        let mut counter = Counter::default();
        assert_eq!(follow_whole(&sandbox, &path, &mut counter).await["exit_code"], 3);
        assert_eq!(counter.last, 200_000);
        sandbox.api.delete(&format!("/v1/instances/{}", sandbox.id)).await.expect(204);
        let told = follow(&sandbox, &id, None).await;
        let missing: u64 = told.iter().filter_map(|event| event["bytes"].as_u64()).sum();
        let kept = text_of(&told, "stdout");
        assert!(told.iter().all(|event| event["type"] != "gap" || event["reason"] == "expired"));
        assert!(kept.ends_with("\n200000\n"), "{}", kept.len());
        let whole: usize = (1..=200_000_u32).map(|number| number.to_string().len() + 1).sum();
        assert_eq!(missing + kept.len() as u64, whole as u64);
        assert_eq!(told.last().unwrap()["exit_code"], 3);
    });
}

#[test]
fn a_piece_that_is_stored_twice_is_there_once() {
    run(async {
        let sandbox = Sandbox::start().await.at_one_gateway();
        let id = id_of(&sandbox.background(json!({"cmd": "sleep 4871"})).await);
        let app = &sandbox.stack.app;
        let (exec, owner) = (id.parse().unwrap(), app.execs.replica());
        let place = Place { exec: &exec, epoch: 1, owner };
        let mut connection = app.pool.acquire().await.unwrap();
        let segment = |position, text: &str| {
            let mut segment = Segment { position, ..Segment::default() };
            segment.push(Stream::Stdout, text.as_bytes());
            segment
        };
        // The answer to a write may be lost: then it is written again.
        for (position, text) in [(1, "one"), (1, "one"), (4, "two"), (4, "two"), (7, "three")] {
            let segment = segment(position, text);
            let piece = Piece { segment: &segment, offsets: Some(Offsets::default()), left: false };
            assert!(exec_output::system_append(&mut connection, &place, &piece).await.unwrap());
        }
        let stranger = Place { owner: "somebody else", ..place };
        let (late, offsets) = (segment(12, "late"), None);
        let piece = Piece { segment: &late, offsets, left: false };
        assert!(!exec_output::system_append(&mut connection, &stranger, &piece).await.unwrap());
        let (mut position, mut text) = (1, String::new());
        let me = sandbox.api.get("/v1/me").await.expect(200);
        let team = me["team"]["id"].as_str().unwrap().parse().unwrap();
        while let Some(stored) = exec_output::next(&mut connection, &team, &exec, 1, position).await.unwrap() {
            assert!(stored.segment.runs.iter().all(|run| matches!(run, Run::Output(Stream::Stdout, _))));
            let skipped = usize::try_from(position - stored.segment.position).unwrap();
            text.push_str(std::str::from_utf8(&stored.segment.data[skipped..]).unwrap());
            position = stored.segment.end();
        }
        assert_eq!((text.as_str(), position), ("onetwothree", 12));
    });
}
