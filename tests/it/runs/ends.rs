//! Runs that end otherwise than by their command.

use ags_gateway::jobs::prune::prune_batch;
use futures_util::StreamExt;
use http::Method;
use serde_json::{Value, json};

use super::bench::Bench;
use crate::harness::{eventually, run};

const WAITS: &str = "touch /tmp/begun; until [ -e /tmp/go ]; do sleep 0.02; done; echo went";

#[test]
fn it_goes_on_when_the_client_hangs_up() {
    run(async {
        let bench = Bench::start().await;
        let body = json!({"tool": "shell", "cmd": WAITS});
        for accept in ["application/json", "application/x-ndjson"] {
            let request = bench.api.request(Method::POST, "/v1/runs").header("accept", accept).json(&body).send();
            let begun = eventually(async || {
                let listed = bench.api.get("/v1/runs?status=executing").await.expect(200);
                listed["items"].get(0).cloned()
            });
            let leave = async {
                match request.await {
                    // A stream is read until somebody leaves.
                    Ok(response) if accept != "application/json" => response.bytes_stream().collect::<Vec<_>>().await,
                    other => panic!("{other:?}"),
                }
            };
            let run = tokio::select! {
                _ = leave => panic!("it cannot have ended"),
                run = begun => run,
            };
            bench.inside(&run, "touch /tmp/go").await;
            let done = bench.ended(run["id"].as_str().unwrap()).await;
            assert_eq!((&done["status"], &done["stdout"]), (&json!("done"), &json!("went\n")));
            bench.assert_nothing_is_left();
        }
    });
}

#[test]
fn a_cancelled_run_fails_and_is_gone() {
    run(async {
        let bench = Bench::start().await;
        let id = bench.begin(json!({"cmd": WAITS})).await;
        bench.until_file(&bench.until(&id, "executing").await, "/tmp/begun").await;
        bench.api.delete(&format!("/v1/runs/{id}")).await.expect(204);
        let failed = bench.get(&id).await;
        assert_eq!(
            (&failed["status"], &failed["error"]["code"]),
            (&json!("failed"), &json!("cancelled")),
            "{failed:#}"
        );
        bench.assert_nothing_is_left();
        bench.assert_input_is_forgotten().await;
        // Again, and of one that is done: nothing changes.
        bench.api.delete(&format!("/v1/runs/{id}")).await.expect(204);
        assert_eq!(bench.get(&id).await, failed);
        let done = bench.run(json!({"cmd": "true"})).await;
        bench.api.delete(&format!("/v1/runs/{}", done["id"].as_str().unwrap())).await.expect(204);
        assert_eq!(bench.get(done["id"].as_str().unwrap()).await, done);
    });
}

#[test]
fn a_run_is_cancelled_at_another_gateway_while_it_starts() {
    run(async {
        let bench = Bench::start().await;
        let (_app, url) = bench.stack.replica().await;
        bench
            .stack
            .fault(json!({"match": {"action": "StartSandboxInstance"}, "kind": "delay_response", "ms": 600_000}));
        let id = bench.begin(json!({"cmd": "true"})).await;
        eventually(async || (!bench.stack.upstream_instances().is_empty()).then_some(())).await;
        let there = bench.api.at(&url);
        bench.stack.no_faults();
        there.delete(&format!("/v1/runs/{id}")).await.expect(204);
        let failed = bench.ended(&id).await;
        assert_eq!(failed["error"]["code"], "cancelled", "{failed:#}");
        eventually(async || {
            let live = bench.stack.upstream_states().into_iter().any(|state| state != "STOPPED");
            (!live).then_some(())
        })
        .await;
    });
}

#[test]
fn what_ends_the_instance_or_the_key_ends_the_run() {
    run(async {
        let bench = Bench::start().await;
        let id = bench.begin(json!({"cmd": WAITS})).await;
        let running = bench.until(&id, "executing").await;
        bench.until_file(&running, "/tmp/begun").await;
        bench.api.delete(&format!("/v1/instances/{}", running["instance_id"].as_str().unwrap())).await.expect(204);
        let failed = bench.ended(&id).await;
        assert_eq!(
            (&failed["status"], &failed["error"]["code"]),
            (&json!("failed"), &json!("command_lost")),
            "{failed:#}"
        );
        assert!(failed["error"]["detail"].as_str().unwrap().contains("STOP"), "{failed:#}");

        let scopes = json!(["exec", "instances:write"]);
        let key = bench.api.post("/v1/keys", &json!({"name": "k", "scopes": scopes})).await.expect(201);
        let id = super::bench::begin(&bench.api.bearing(key["secret"].as_str().unwrap()), json!({"cmd": WAITS})).await;
        bench.until_file(&bench.until(&id, "executing").await, "/tmp/begun").await;
        bench.api.delete(&format!("/v1/keys/{}", key["id"].as_str().unwrap())).await.expect(204);
        let failed = bench.ended(&id).await;
        assert_eq!(failed["error"]["code"], "unauthenticated", "{failed:#}");
        bench.assert_nothing_is_left();
    });
}

#[test]
fn a_start_or_an_upload_that_fails_is_the_runs_failure() {
    run(async {
        let bench = Bench::start().await;
        bench.stack.fault(json!({"match": {"action": "StartSandboxInstance"}, "kind": "fail_instance", "times": 1}));
        let failed = bench.run(json!({"cmd": "true"})).await;
        assert_eq!((&failed["status"], &failed["error"]["code"]), (&json!("failed"), &json!("instance_start_failed")));
        let files = json!([{"path": "/etc", "content": ""}]);
        let failed = bench.run(json!({"cmd": "true", "files": files})).await;
        assert_eq!((&failed["status"], &failed["error"]["code"]), (&json!("failed"), &json!("is_a_directory")));
        assert!(failed["error"]["detail"].as_str().unwrap().starts_with("\"/etc\""), "{failed:#}");
        let failed = bench.run(json!({"cmd": "true", "cwd": "/nowhere"})).await;
        assert_eq!((&failed["status"], &failed["error"]["code"]), (&json!("failed"), &json!("validation_failed")));
        assert_eq!((&failed["exit_code"], &failed["stdout"]), (&Value::Null, &Value::Null));
        bench.assert_nothing_is_left();
    });
}

#[test]
fn what_may_pass_is_tried_again() {
    run(async {
        let bench = Bench::start().await;
        for path in ["/files", "/filesystem.Filesystem/Stat"] {
            bench
                .stack
                .fault(json!({"match": {"plane": "data", "path": path}, "kind": "http", "status": 503, "times": 2}));
        }
        let files = json!([{"path": "a", "content": "x"}]);
        let done = bench.run(json!({"cmd": "cat a", "files": files, "collect": ["a"]})).await;
        assert_eq!(
            (&done["status"], &done["stdout"], &done["files"][0]["content"]),
            (&json!("done"), &json!("x"), &json!("x")),
            "{done:#}"
        );
        bench.assert_nothing_is_left();
    });
}

#[test]
fn ended_runs_are_removed_after_their_time() {
    run(async {
        let bench = Bench::start().await;
        let done = bench.run(json!({"cmd": "true"})).await;
        let path = format!("/v1/runs/{}", done["id"].as_str().unwrap());
        prune_batch(&bench.stack.app).await.unwrap();
        bench.api.get(&path).await.expect(200);
        bench.stack.sql("UPDATE runs SET ended_at = now() - interval '25h'").await;
        prune_batch(&bench.stack.app).await.unwrap();
        bench.api.get(&path).await.problem(404, "not_found");
    });
}
