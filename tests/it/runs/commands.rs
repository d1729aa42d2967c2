//! Runs of commands: what goes in and what comes out.

use serde_json::{Value, json};

use super::bench::{Bench, events, statuses};
use crate::harness::run;

const LINES: &str = "application/x-ndjson";

#[test]
fn files_go_in_and_come_out_and_nothing_is_left() {
    run(async {
        let bench = Bench::start().await;
        let done = bench
            .run(json!({
                "files": [
                    {"path": "in.txt", "content": "b\na\n"},
                    {"path": "/data/deep/raw", "content": "AAEC/w==", "encoding": "base64"},
                ],
                "cmd": "sort in.txt > out.txt; cp /data/deep/raw raw; echo \"$GREETING\"; echo oops >&2",
                "env": {"GREETING": "hello"},
                "collect": ["out.txt", "raw", "nowhere.txt", "/data"],
            }))
            .await;
        assert_eq!((&done["status"], &done["exit_code"]), (&json!("done"), &json!(0)), "{done:#}");
        assert_eq!((&done["stdout"], &done["stderr"]), (&json!("hello\n"), &json!("oops\n")));
        assert_eq!(
            (&done["reason"], &done["timed_out"], &done["error"]),
            (&json!("exited"), &json!(false), &Value::Null)
        );
        assert_eq!(done["files"][0], json!({"path": "out.txt", "content": "a\nb\n", "encoding": "utf8"}));
        assert_eq!(done["files"][1], json!({"path": "raw", "content": "AAEC/w==", "encoding": "base64"}));
        for (index, code) in [(2, "not_found"), (3, "is_a_directory")] {
            let file = &done["files"][index];
            assert_eq!((&file["content"], &file["error"]["code"]), (&Value::Null, &json!(code)), "{file:#}");
        }
        bench.assert_nothing_is_left();
        bench.assert_input_is_forgotten().await;
        let id = done["id"].as_str().unwrap();
        assert_eq!(bench.get(id).await, done);
        let listed = bench.api.get("/v1/runs?status=done").await.expect(200);
        assert_eq!((&listed["items"][0]["id"], &listed["items"][0]["files"]), (&done["id"], &Value::Null));
        assert_eq!(bench.api.get("/v1/runs?status=failed,starting").await.expect(200)["items"], json!([]));
        let instance = bench.api.get(&format!("/v1/instances/{}", done["instance_id"].as_str().unwrap())).await;
        assert_eq!(instance.expect(200)["status"], "STOPPED");
    });
}

#[test]
fn a_command_that_fails_is_a_run_that_is_done() {
    run(async {
        let bench = Bench::start().await;
        let failing = bench.run(json!({"cmd": ["sh", "-c", "echo kept > f; exit 3"], "collect": ["f"]})).await;
        assert_eq!((&failing["status"], &failing["exit_code"]), (&json!("done"), &json!(3)));
        assert_eq!(failing["files"][0]["content"], "kept\n");
        let late = bench.run(json!({"cmd": "echo begun; sleep 4911", "timeout": "1s"})).await;
        assert_eq!((&late["status"], &late["timed_out"]), (&json!("done"), &json!(true)), "{late:#}");
        assert_eq!((&late["exit_code"], &late["stdout"]), (&Value::Null, &json!("begun\n")));
        let cut = bench.run(json!({"cmd": "printf 'a\\0bcdef'", "output_limit": 4})).await;
        assert_eq!((&cut["stdout"], &cut["truncated"]), (&json!("a\u{0}bc"), &json!(true)));
        bench.assert_nothing_is_left();
    });
}

#[test]
fn a_run_is_followed_as_it_goes() {
    run(async {
        let bench = Bench::start().await;
        let body = json!({"tool": "shell", "cmd": "echo one; echo two >&2; exit 4", "collect": ["/etc/hostname"]});
        let told = events(&bench.stream(&body, LINES).await.text().await.unwrap());
        let expected = ["starting", "uploading", "executing", "collecting", "stopping", "done"];
        let seen = statuses(&told);
        // Steps that are over at once may be told as one.
        let mut order = expected.iter();
        assert!(seen.iter().all(|status| order.any(|expected| expected == status)), "{seen:?}");
        assert_eq!((seen.first(), seen.last()), (Some(&"starting"), Some(&"done")));
        let of = |kind: &str| told.iter().filter(|event| event["type"] == kind).collect::<Vec<_>>();
        assert_eq!((of("started").len(), of("exit").len()), (1, 1));
        assert_eq!((&of("stdout")[0]["data"], &of("stderr")[0]["data"]), (&json!("one\n"), &json!("two\n")));
        assert_eq!(of("exit")[0]["exit_code"], 4);
        let last = told.last().unwrap();
        assert_eq!((&last["exit_code"], &last["stdout"]), (&json!(4), &Value::Null));
        assert!(last["files"][0]["content"].is_string());
        bench.assert_nothing_is_left();
        let sse = bench.stream(&body, "text/event-stream").await.text().await.unwrap();
        assert!(sse.starts_with("event: run\ndata: {") && sse.contains("event: exit\n"), "{sse}");
    });
}

#[test]
fn a_run_in_the_background_is_read_later() {
    run(async {
        let bench = Bench::start().await;
        let id = bench.begin(json!({"cmd": "until [ -e /tmp/go ]; do sleep 0.02; done; echo went"})).await;
        let running = bench.until(&id, "executing").await;
        assert_eq!((&running["stdout"], &running["ended_at"]), (&Value::Null, &Value::Null));
        bench.inside(&running, "touch /tmp/go").await;
        let done = bench.ended(&id).await;
        assert_eq!((&done["status"], &done["stdout"]), (&json!("done"), &json!("went\n")));
        bench.assert_nothing_is_left();
        bench.api.get("/v1/runs/run00000000000000000000000000").await.problem(404, "not_found");
        bench.stack.team("other").await.get(&format!("/v1/runs/{id}")).await.problem(404, "not_found");
    });
}

#[test]
fn a_repeated_call_runs_nothing_again() {
    run(async {
        let bench = Bench::start().await;
        let body = json!({"tool": "shell", "cmd": "date +%s%N; exit 2"});
        let first = bench.keyed("once", &body).await.expect(200);
        let again = bench.keyed("once", &body).await;
        assert_eq!(again.headers["idempotency-replayed"], "true");
        assert_eq!(again.expect(200), first);
        bench.keyed("once", &json!({"tool": "shell", "cmd": "true"})).await.problem(422, "idempotency_key_reused");
        // Its call died after it was begun.
        bench.stack.sql("UPDATE idempotency_keys SET status = NULL, body = NULL, locked_until = now()").await;
        assert_eq!(bench.keyed("once", &body).await.expect(200), first);
        assert_eq!(bench.stack.calls("StartSandboxInstance"), 1);
    });
}

#[test]
fn the_history_tells_who_ran_what_but_no_secret() {
    run(async {
        let bench = Bench::start().await;
        let secret = "hunter2-of-the-run";
        let body = json!({"tool": "shell", "cmd": "echo $TOKEN | wc -c", "env": {"TOKEN": secret},
            "files": [{"path": "secret.txt", "content": secret}]});
        let request = bench.api.request(http::Method::POST, "/v1/runs").header("x-on-behalf-of", "u-42").json(&body);
        let done = crate::harness::read(request).await.expect(200);
        assert_eq!(done["stdout"], format!("{}\n", secret.len() + 1));
        let of = async |action: &str| {
            crate::harness::eventually(async || {
                let listed = bench.api.get(&format!("/v1/audit?action={action}")).await.expect(200);
                listed["items"].get(0).filter(|item| item["outcome"].is_string()).cloned()
            })
            .await
        };
        let (created, executed) = (of("create_run").await, of("exec_command").await);
        for event in [&created, &executed] {
            assert_eq!((&event["on_behalf_of"], &event["target_id"]), (&json!("u-42"), &done["id"]), "{event:#}");
            assert_eq!((&event["instance_id"], &event["outcome"]), (&done["instance_id"], &json!("ok")));
        }
        assert_eq!(executed["request_id"], created["request_id"]);
        assert_eq!(executed["command"], "echo $TOKEN | wc -c");
        let everything: String = sqlx::query_scalar(
            "SELECT (SELECT string_agg(r::text, '') FROM runs r) || (SELECT string_agg(a::text, '') FROM audit_events a)",
        )
        .fetch_one(&bench.stack.app.pool)
        .await
        .unwrap();
        assert!(!everything.contains(secret), "{everything}");
        let usage = bench.api.get("/v1/usage?group_by=tool").await.expect(200);
        assert_eq!((&usage["items"][0]["instances"], &usage["items"][0]["execs"]), (&json!(1), &json!(1)), "{usage:#}");
    });
}
