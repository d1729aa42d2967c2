//! Events as they happen.

use futures_util::StreamExt;
use serde_json::{Value, json};

use super::{
    Interpreter,
    sandbox::{events, text_of},
};
use crate::harness::{Options, run};

const LINES: &str = "application/x-ndjson";
const SSE: &str = "text/event-stream";

#[test]
fn lines_tell_the_start_what_happens_and_the_end() {
    run(async {
        let sandbox = Interpreter::start().await;
        let code = "import sys\nprint('out')\ndisplay('on the way')\nprint('err', file=sys.stderr)\n1 + 1";
        let response = sandbox.stream(&json!({"code": code}), LINES).await;
        assert_eq!(response.headers()["content-type"], "application/x-ndjson");
        assert_eq!(response.headers()["x-accel-buffering"], "no");
        let events = events(&response.text().await.unwrap());
        assert_eq!(events[0], json!({"type": "started", "execution_count": 1}));
        assert_eq!((text_of(&events, "stdout"), text_of(&events, "stderr")), ("out\n".into(), "err\n".into()));
        // What is printed after a value was shown comes over another pipe, and may be faster.
        let results: Vec<&Value> = events.iter().filter(|event| event["type"] == "result").collect();
        assert_eq!(*results[0], json!({"type": "result", "text": "on the way", "is_main_result": false}));
        assert_eq!(*results[1], json!({"type": "result", "text": "2", "is_main_result": true}));
        let exit = events.last().unwrap();
        assert_eq!((events.len(), &exit["type"]), (6, &json!("exit")), "{events:#?}");
        assert_eq!((&exit["execution_count"], &exit["reason"]), (&json!(1), &json!("finished")));
        assert!(exit["duration_ms"].is_u64() && exit["error"].is_null());
    });
}

#[test]
fn sse_names_its_events() {
    run(async {
        let sandbox = Interpreter::start().await;
        let text = sandbox.stream(&json!({"code": "1 / 0"}), SSE).await.text().await.unwrap();
        let blocks: Vec<Vec<&str>> = text.split_terminator("\n\n").map(|block| block.lines().collect()).collect();
        let names: Vec<&str> = blocks.iter().map(|block| block[0]).collect();
        assert_eq!(names, ["event: started", "event: error", "event: exit"]);
        let error: Value = serde_json::from_str(blocks[1][1].strip_prefix("data: ").unwrap()).unwrap();
        assert_eq!((&error["type"], &error["name"]), (&json!("error"), &json!("ZeroDivisionError")));
        assert!(blocks.iter().all(|block| block.len() == 2), "there is no place to resume from");
    });
}

#[test]
fn output_arrives_while_the_code_runs() {
    run(async {
        let sandbox = Interpreter::start().await;
        let code = "import os, time\nprint('begun')\nprint('half', end='')\nwhile not os.path.exists('go'):\n    time.sleep(0.02)\nprint(' done')";
        let mut stream = sandbox.stream(&json!({"code": code}), LINES).await.bytes_stream();
        let mut seen = String::new();
        while !seen.contains("half") {
            seen.push_str(std::str::from_utf8(&stream.next().await.unwrap().unwrap()).unwrap());
        }
        sandbox.shell("touch go").await;
        while let Some(chunk) = stream.next().await {
            seen.push_str(std::str::from_utf8(&chunk.unwrap()).unwrap());
        }
        assert_eq!(text_of(&events(&seen), "stdout"), "begun\nhalf done\n");
    });
}

#[test]
fn a_silent_run_shows_signs_of_life() {
    run(async {
        let sandbox = Interpreter::with(Options::default().with("EXEC__KEEPALIVE", "200ms"), json!({})).await;
        let mut stream = sandbox.stream(&json!({"code": "import time\ntime.sleep(60)"}), LINES).await.bytes_stream();
        let mut seen = String::new();
        while seen.matches(r#"{"type":"keepalive"}"#).count() < 2 {
            seen.push_str(std::str::from_utf8(&stream.next().await.unwrap().unwrap()).unwrap());
        }
    });
}

#[test]
fn much_output_comes_whole() {
    run(async {
        let sandbox = Interpreter::start().await;
        let code = "for i in range(200000): print(f'line {i}')";
        let events = events(&sandbox.stream(&json!({"code": code}), LINES).await.text().await.unwrap());
        let expected: String = (0..200_000).map(|i| format!("line {i}\n")).collect();
        assert!(text_of(&events, "stdout") == expected, "lines are lost or changed");
    });
}
