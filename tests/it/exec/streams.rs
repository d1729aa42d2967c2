//! Commands whose output streams, and what becomes of them.

use futures_util::StreamExt;
use serde_json::{Value, json};

use super::{
    Sandbox,
    sandbox::{events, text_of},
};
use crate::harness::{Program, run};

const LINES: &str = "application/x-ndjson";
const SSE: &str = "text/event-stream";

#[test]
fn lines_tell_the_start_the_output_and_the_end() {
    run(async {
        let sandbox = Sandbox::start().await;
        let spec = json!({"cmd": "echo out; sleep 0.1; echo err >&2; exit 2"});
        let response = sandbox.stream(&spec, LINES).await;
        assert_eq!(response.headers()["x-accel-buffering"], "no");
        assert_eq!(response.headers()["cache-control"], "no-store");
        let events = events(&response.text().await.unwrap());
        assert_eq!(events[0]["type"], "started");
        assert!(events[0]["exec_id"].as_str().unwrap().starts_with("exec"));
        assert_eq!((text_of(&events, "stdout"), text_of(&events, "stderr")), ("out\n".into(), "err\n".into()));
        let exit = events.last().unwrap();
        assert_eq!((&exit["type"], &exit["exit_code"], &exit["reason"]), (&json!("exit"), &json!(2), &json!("exited")));
        assert!(events.iter().all(|event| event["cursor"].is_string()));
    });
}

#[test]
fn sse_names_events_and_places() {
    run(async {
        let sandbox = Sandbox::start().await;
        let text = sandbox.stream(&json!({"cmd": "printf ab"}), SSE).await.text().await.unwrap();
        let blocks: Vec<Vec<&str>> = text.split_terminator("\n\n").map(|block| block.lines().collect()).collect();
        let names: Vec<&str> = blocks.iter().map(|block| block[0]).collect();
        assert_eq!(names, ["event: started", "event: stdout", "event: exit"]);
        for block in blocks {
            let data: Value = serde_json::from_str(block[1].strip_prefix("data: ").unwrap()).unwrap();
            assert_eq!(block[2].strip_prefix("id: ").unwrap(), data["cursor"]);
        }
    });
}

#[test]
fn a_character_split_over_two_writes_stays_whole() {
    run(async {
        let sandbox = Sandbox::start().await;
        let line = r"printf 'a\xe2\x82'; sleep 0.3; printf '\xacb'; sleep 0.3; printf '\xff'";
        let events = events(&sandbox.stream(&json!({"cmd": line}), LINES).await.text().await.unwrap());
        let text: Vec<&Value> = events.iter().filter(|event| event["encoding"].is_null()).collect();
        let text: String = text.iter().filter_map(|event| event["data"].as_str()).collect();
        assert_eq!(text, "a€b");
        let binary = events.iter().find(|event| event["encoding"] == "base64").unwrap();
        assert_eq!(binary["data"], "/w==");
    });
}

#[test]
fn whoever_hangs_up_ends_a_foreground_command() {
    run(async {
        let sandbox = Sandbox::start().await;
        let mut stream = sandbox.stream(&json!({"cmd": "echo begun; sleep 4721"}), LINES).await.bytes_stream();
        stream.next().await.unwrap().unwrap();
        sandbox.until_runs("sleep 4721", true).await;
        drop(stream);
        sandbox.until_runs("sleep 4721", false).await;
        let spec = json!({"cmd": "sleep 4722"});
        let waiting = sandbox.exec(&spec);
        tokio::select! {
            answer = waiting => panic!("it ended: {answer:?}"),
            () = sandbox.until_runs("sleep 4722", true) => {}
        }
        sandbox.until_runs("sleep 4722", false).await;
        let listed = sandbox.get("execs?status=exited").await.expect(200);
        let killed = listed["items"].as_array().unwrap().iter().filter(|exec| exec["reason"] == "killed").count();
        assert_eq!(killed, 2, "{listed:#}");
    });
}

#[test]
fn two_hundred_mebibytes_stream_through_whole_and_flat() {
    const SIZE: u64 = 200 << 20;
    run(async {
        let mut sandbox = Sandbox::start().await;
        // A process of its own: its memory is what the kernel says.
        let program = Program::start(&sandbox.stack).await;
        sandbox.api = sandbox.api.at(&program.url);
        let spec = json!({"cmd": format!("yes 0123456789abcde | head -c {SIZE}"), "timeout": "5m"});
        let mut stream = sandbox.stream(&spec, LINES).await.bytes_stream();
        let before = program.peak_kib();
        let (mut received, mut rest) = (0_u64, Vec::new());
        let mut last = Value::Null;
        while let Some(chunk) = stream.next().await {
            rest.extend_from_slice(&chunk.unwrap());
            while let Some(end) = rest.iter().position(|byte| *byte == b'\n') {
                last = serde_json::from_slice(&rest[..end]).unwrap();
                rest.drain(..=end);
                received += last["data"].as_str().map_or(0, |data| data.len() as u64);
            }
        }
        assert_eq!((received, &last["exit_code"]), (SIZE, &json!(0)));
        let growth = program.peak_kib().saturating_sub(before);
        assert!(growth < 64 << 10, "the gateway grew by {growth} KiB");
    });
}
