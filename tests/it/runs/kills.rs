//! Gateways that are killed, or told to stop, at each step of a run.

use std::sync::Arc;

use serde_json::{Value, json};

use super::bench::{Bench, begin, doomed};
use crate::harness::{eventually, run};

/// Appends to a file each time it runs, so that it can be told how often it did.
const ONCE: &str = "echo x >> /tmp/count; touch /tmp/begun; until [ -e /tmp/go ]; do sleep 0.02; done; echo went";

fn body() -> Value {
    json!({"cmd": ONCE, "files": [{"path": "/tmp/go", "content": ""}], "collect": ["/tmp/count"]})
}

/// A run whose gateway is killed as soon as it is at `status`, where `fault` holds it up.
async fn killed_at(status: &str, fault: Value, body: Value) -> (Arc<Bench>, Value) {
    let bench = Bench::hasty().await;
    let (runtime, there) = doomed(&bench).await;
    bench.stack.fault(fault);
    let id = begin(&there, body).await;
    bench.until(&id, status).await;
    runtime.shutdown_background();
    bench.stack.no_faults();
    let run = bench.ended(&id).await;
    (bench, run)
}

/// It ran once, and nothing is left.
fn assert_done(bench: &Bench, run: &Value) {
    assert_eq!((&run["status"], &run["stdout"]), (&json!("done"), &json!("went\n")), "{run:#}");
    assert_eq!(run["files"][0]["content"], "x\n");
    bench.assert_nothing_is_left();
}

#[test]
fn killed_while_it_starts_without_an_answer() {
    run(async {
        let fault = json!({"match": {"action": "StartSandboxInstance"}, "kind": "delay_response", "ms": 600_000});
        let (bench, run) = killed_at("starting", fault, body()).await;
        assert_done(&bench, &run);
        assert!(bench.stack.upstream_instances().len() <= 1);
    });
}

#[test]
fn killed_while_it_uploads() {
    run(async {
        let fault =
            json!({"match": {"plane": "data", "path": "/files", "method": "POST"}, "kind": "latency", "ms": 600_000});
        let (bench, run) = killed_at("uploading", fault, body()).await;
        assert_done(&bench, &run);
    });
}

#[test]
fn killed_while_the_command_runs() {
    run(async {
        let bench = Bench::hasty().await;
        let (runtime, there) = doomed(&bench).await;
        let id = begin(&there, json!({"cmd": ONCE, "collect": ["/tmp/count"]})).await;
        let running = bench.until(&id, "executing").await;
        bench.until_file(&running, "/tmp/begun").await;
        runtime.shutdown_background();
        bench.inside(&running, "touch /tmp/go").await;
        assert_done(&bench, &bench.ended(&id).await);
    });
}

#[test]
fn killed_while_the_command_is_being_started() {
    run(async {
        let fault =
            json!({"match": {"plane": "data", "path": "/process.Process/Start"}, "kind": "latency", "ms": 600_000});
        let bench = Bench::hasty().await;
        let (runtime, there) = doomed(&bench).await;
        bench.stack.fault(fault);
        let id = begin(&there, body()).await;
        bench.until(&id, "executing").await;
        let started = "SELECT count(*) FROM execs";
        eventually(async || {
            let count: i64 = sqlx::query_scalar(started).fetch_one(&bench.stack.app.pool).await.unwrap();
            (count == 1).then_some(())
        })
        .await;
        runtime.shutdown_background();
        bench.stack.no_faults();
        let run = bench.ended(&id).await;
        // Whether it ran is not known: it is not run again, and that is said.
        assert_eq!((&run["status"], &run["error"]["code"]), (&json!("failed"), &json!("command_lost")), "{run:#}");
        bench.assert_nothing_is_left();
    });
}

#[test]
fn killed_while_it_collects() {
    run(async {
        let stat = json!({"plane": "data", "path": "/filesystem.Filesystem/Stat"});
        let fault = json!({"match": stat, "kind": "latency", "ms": 600_000});
        let body = json!({"cmd": "echo x >> /tmp/count; echo went", "collect": ["/tmp/count"]});
        let (bench, run) = killed_at("collecting", fault, body).await;
        assert_done(&bench, &run);
    });
}

#[test]
fn killed_while_it_stops() {
    run(async {
        let fault = json!({"match": {"action": "StopSandboxInstance"}, "kind": "latency", "ms": 600_000});
        let (bench, run) = killed_at("stopping", fault, body()).await;
        assert_done(&bench, &run);
    });
}

#[test]
fn code_whose_gateway_is_killed_is_not_run_again() {
    run(async {
        let bench = Bench::hasty().await;
        let (runtime, there) = doomed(&bench).await;
        let code = "open('/tmp/begun', 'w').close()\nimport time\ntime.sleep(4921)";
        let body = json!({"tool": "ci", "code": code, "timeout": "2h", "background": true});
        let run = there.post("/v1/runs", &body).await.expect(202);
        let id = run["id"].as_str().unwrap();
        bench.until_file(&bench.until(id, "executing").await, "/tmp/begun").await;
        runtime.shutdown_background();
        let failed = bench.ended(id).await;
        assert_eq!(
            (&failed["status"], &failed["error"]["code"]),
            (&json!("failed"), &json!("code_lost")),
            "{failed:#}"
        );
        assert_eq!(failed["reason"], "lost");
        bench.assert_nothing_is_left();
        bench.assert_input_is_forgotten().await;
    });
}

#[test]
fn a_gateway_that_is_told_to_stop_hands_its_runs_over() {
    run(async {
        // A lease that is left to lapse would take too long for any test.
        let bench = Bench::with(crate::harness::Options::default().with("JOBS__CLAIM", "10m")).await;
        let (app, url) = bench.stack.replica().await;
        let id = begin(&bench.api.at(&url), json!({"cmd": ONCE, "collect": ["/tmp/count"]})).await;
        let running = bench.until(&id, "executing").await;
        bench.until_file(&running, "/tmp/begun").await;
        app.lifecycle.drain();
        bench.inside(&running, "touch /tmp/go").await;
        assert_done(&bench, &bench.ended(&id).await);
    });
}
