//! What nobody uses: what counts as use, pausing and stopping, and waking by a call.

use ags_gateway::{
    app::{
        activity,
        instances::{Idled, idle_batch},
    },
    storage::instances::{self, IdleStep},
};
use chrono::{DateTime, Utc};
use futures_util::future::join_all;
use http::Method;
use serde_json::{Value, json};

use crate::{
    cloud::path,
    exec::Sandbox,
    harness::{Api, Options, Stack, eventually, run},
};

fn options() -> Options {
    Options::simulated().with("TOOLS__SHARED", "base").with("JOBS__ENABLED", "false")
}

async fn still() -> Stack {
    Stack::with(options()).await
}

async fn start(api: &Api, action: &str) -> Value {
    let body = json!({"tool": "base", "timeout": "10m", "idle": {"after": "1m", "action": action}});
    api.post("/v1/instances", &body).await.expect(201)
}

/// Nobody has used any of them for an hour.
async fn age(stack: &Stack) {
    stack.sql("UPDATE instances SET last_active_at = now() - interval '1h', claimed_until = NULL").await;
}

/// The cloud lets instances of its own tools be paused.
async fn persistent(stack: &Stack) {
    stack.sql("UPDATE tools SET spec = jsonb_set(spec, '{persistent}', 'true')").await;
}

async fn idle(stack: &Stack) -> Idled {
    activity::tell(&stack.app).await.expect("a database");
    age(stack).await;
    idle_batch(&stack.app).await.expect("a look")
}

async fn seen(api: &Api, instance: &Value) -> Value {
    api.get(&path(instance)).await.expect(200)
}

fn time(value: &Value) -> DateTime<Utc> {
    value.as_str().expect("a time").parse().expect("a time")
}

#[test]
fn what_nobody_uses_is_stopped_and_says_why() {
    run(async {
        let stack = still().await;
        let api = stack.api();
        let instance = start(&api, "stop").await;
        let without = api.post("/v1/instances", &json!({"tool": "base"})).await.expect(201);
        assert_eq!(idle_batch(&stack.app).await.unwrap(), Idled::default(), "it was used just now");
        assert_eq!(idle(&stack).await, Idled { taken: 1, stopped: 1, ..Idled::default() });
        let stopped = seen(&api, &instance).await;
        assert_eq!((&stopped["status"], &stopped["stop_reason"]), (&json!("STOPPED"), &json!("idle")));
        assert_eq!(stack.upstream_instance(&instance["upstream_id"])["Status"], "STOPPED");
        assert_eq!(seen(&api, &without).await["status"], "RUNNING");
        let told = api.get("/v1/audit?actor=system").await.expect(200);
        let event = &told["items"][0];
        assert_eq!(told["items"].as_array().unwrap().len(), 1);
        for (field, value) in [("action", "stop_idle_instance"), ("reason", "idle"), ("outcome", "ok")] {
            assert_eq!(event[field], value, "{event:#}");
        }
        assert_eq!(event["instance_id"], instance["id"]);
    });
}

#[test]
fn what_can_be_paused_is_paused_and_else_stopped() {
    run(async {
        let stack = still().await;
        let api = stack.api();
        let plain = start(&api, "pause").await;
        assert_eq!(
            idle(&stack).await,
            Idled { taken: 1, stopped: 1, ..Idled::default() },
            "its tool is not persistent"
        );
        assert_eq!(seen(&api, &plain).await["stop_reason"], "idle");
        persistent(&stack).await;
        let instance = start(&api, "pause").await;
        assert_eq!(idle(&stack).await, Idled { taken: 1, paused: 1, ..Idled::default() });
        let paused = seen(&api, &instance).await;
        assert_eq!((&paused["status"], &paused["stop_reason"]), (&json!("PAUSED"), &Value::Null));
        assert_eq!(paused["expires_at"], instance["expires_at"]);
        assert_eq!(idle(&stack).await, Idled::default(), "a paused one is left");
        let told = api.get("/v1/audit?action=pause_idle_instance").await.expect(200);
        assert_eq!((&told["items"][0]["outcome"], &told["items"][0]["reason"]), (&json!("ok"), &json!("idle")));
        // Where the account has no room for more paused ones, stopping is what is left.
        stack.tune(|tunables| tunables.max_paused = 1);
        let further = start(&api, "pause").await;
        assert_eq!(idle(&stack).await, Idled { taken: 1, stopped: 1, ..Idled::default() });
        assert_eq!(seen(&api, &further).await["stop_reason"], "idle");
    });
}

#[test]
fn what_stays_paused_is_stopped_when_its_rule_says_so() {
    run(async {
        let stack = still().await;
        let api = stack.api();
        let rule = |stop_after: &str| json!({"after": "1m", "action": "pause", "stop_after": stop_after});
        let body = json!({"tool": "base", "timeout": "10m", "idle": rule("1h")});
        let instance = api.post("/v1/instances", &body).await.expect(201);
        assert_eq!(instance["idle"], json!({"after_seconds": 60, "action": "pause", "stop_after_seconds": 3600}));
        persistent(&stack).await;
        assert_eq!(idle(&stack).await, Idled { taken: 1, paused: 1, ..Idled::default() });
        assert_eq!(idle(&stack).await, Idled::default(), "an hour and a minute are not over");
        api.patch(&path(&instance), &json!({"idle": rule("10s")})).await.expect(200);
        assert_eq!(idle(&stack).await, Idled { taken: 1, stopped: 1, ..Idled::default() });
        let stopped = seen(&api, &instance).await;
        assert_eq!((&stopped["status"], &stopped["stop_reason"]), (&json!("STOPPED"), &json!("idle")));
        assert_eq!(stack.upstream_instance(&instance["upstream_id"])["Status"], "STOPPED");
        for wrong in [rule("9s"), json!({"after": "1m", "action": "stop", "stop_after": "1m"})] {
            let refused = api.post("/v1/instances", &json!({"tool": "base", "idle": wrong})).await;
            let refused = refused.problem(422, "validation_failed");
            assert_eq!(refused["errors"][0]["field"], "idle.stop_after", "{refused:#}");
        }
    });
}

#[test]
fn a_pause_that_fails_for_now_is_tried_again_later() {
    run(async {
        let stack = still().await;
        let api = stack.api();
        let instance = start(&api, "pause").await;
        persistent(&stack).await;
        stack.fault(
            json!({"match": {"action": "PauseSandboxInstance"}, "kind": "error", "code": "RequestLimitExceeded"}),
        );
        assert_eq!(idle(&stack).await, Idled { taken: 1, ..Idled::default() });
        assert_eq!(seen(&api, &instance).await["status"], "RUNNING");
        stack.no_faults();
        stack.sql("UPDATE instances SET last_active_at = now() - interval '1h'").await;
        assert_eq!(idle_batch(&stack.app).await.unwrap().taken, 0, "it rests");
        assert_eq!(idle(&stack).await.paused, 1);
    });
}

#[test]
fn calls_on_any_replica_are_use_and_so_is_a_new_rule() {
    run(async {
        let stack = still().await;
        let api = stack.api().at(&stack.url);
        let instance = start(&api, "stop").await;
        let (other, url) = stack.replica().await;
        age(&stack).await;
        let execs = format!("{}/execs", path(&instance));
        let before = time(&seen(&api, &instance).await["last_active_at"]);
        // Neither a look at the instance, nor one who may not, is use.
        stack.team("strangers").await.at(&url).get(&execs).await.problem(404, "not_found");
        Api::anonymous(&url).get(&execs).await.problem(401, "unauthenticated");
        activity::tell(&other).await.unwrap();
        assert_eq!(time(&seen(&api, &instance).await["last_active_at"]), before);
        api.at(&url).get(&execs).await.expect(200);
        activity::tell(&other).await.unwrap();
        assert!(time(&seen(&api, &instance).await["last_active_at"]) > before + chrono::TimeDelta::minutes(59));
        assert_eq!(idle_batch(&stack.app).await.unwrap().taken, 0);
        // A port that nothing listens on was asked for all the same.
        age(&stack).await;
        api.at(&url).get(&format!("{}/ports/80/", path(&instance))).await;
        activity::tell(&other).await.unwrap();
        assert_eq!(idle_batch(&stack.app).await.unwrap().taken, 0);
        age(&stack).await;
        let rule = json!({"idle": {"after": "1m", "action": "stop"}});
        api.patch(&path(&instance), &rule).await.expect(200);
        assert_eq!(idle_batch(&stack.app).await.unwrap().taken, 0);
        age(&stack).await;
        api.patch(&path(&instance), &json!({"idle": null})).await.expect(200);
        age(&stack).await;
        assert_eq!(idle_batch(&stack.app).await.unwrap().taken, 0);
        other.lifecycle.drain();
    });
}

#[test]
fn use_at_the_last_moment_keeps_it_running() {
    run(async {
        let stack = still().await;
        let api = stack.api().at(&stack.url);
        let instance = start(&api, "stop").await;
        age(&stack).await;
        let mut connection = stack.app.pool.acquire().await.unwrap();
        let taken = instances::system_take_idle(&mut connection, 10, 5.0, 15.0).await.unwrap();
        assert_eq!(taken.len(), 1);
        assert_eq!(
            instances::system_take_idle(&mut connection, 10, 5.0, 15.0).await.unwrap().len(),
            0,
            "it is claimed"
        );
        api.get(&format!("{}/execs", path(&instance))).await.expect(200);
        activity::tell(&stack.app).await.unwrap();
        let one = &taken[0];
        for step in [IdleStep::Pause, IdleStep::Stop] {
            let begun = instances::system_begin_idle(&mut connection, &one.id, one.last_active_at, step, 15.0).await;
            assert!(!begun.unwrap(), "{step:?}");
        }
        assert_eq!(seen(&api, &instance).await["status"], "RUNNING");
    });
}

#[test]
fn what_runs_counts_when_it_is_waited_for_or_asked_to_or_somebody_elses() {
    run(async {
        let options = Options::default().with("JOBS__ENABLED", "false");
        let rule = json!({"idle": {"after": "1m", "action": "stop"}, "timeout": "1h"});
        let sandbox = Sandbox::with(options, rule).await.at_one_gateway();
        let stack = &sandbox.stack;
        let kept = sandbox.background(json!({"cmd": "sleep 1000", "keep_alive": true})).await;
        assert_eq!(kept["keep_alive"], true);
        assert_eq!(idle(stack).await.taken, 0, "it asked to count");
        sandbox.request(Method::DELETE, &format!("execs/{}", kept["id"].as_str().unwrap())).send().await.unwrap();

        let until_go = json!({"cmd": "until [ -e /tmp/go ]; do sleep 0.05; done; echo gone"});
        let waited = sandbox.exec(&until_go);
        let judged = async {
            eventually(async || {
                let running = sandbox.get("execs?status=running").await.expect(200);
                (!running["items"].as_array().unwrap().is_empty()).then_some(())
            })
            .await;
            let idled = idle(stack).await;
            sandbox.background(json!({"cmd": "touch /tmp/go"})).await;
            idled
        };
        let (answer, idled) = tokio::join!(waited, judged);
        assert_eq!(idled.taken, 0, "somebody waits for it");
        assert_eq!(answer.expect(200)["stdout"], "gone\n");

        let unseen = sandbox.start_unseen("sleep 1000").await;
        assert_eq!(idle(stack).await, Idled { taken: 1, used: 1, ..Idled::default() });
        let last = time(&sandbox.api.get(&format!("/v1/instances/{}", sandbox.id)).await.expect(200)["last_active_at"]);
        assert!(stack.app.clock.now() - last < chrono::TimeDelta::minutes(30), "it counts from now on again");
        assert_eq!(sandbox.run(&format!("kill -9 {unseen}; echo done")).await["stdout"], "done\n");
        eventually(async || {
            let listed = sandbox.get("processes").await.expect(200);
            listed["items"].as_array().unwrap().is_empty().then_some(())
        })
        .await;
        sandbox.background(json!({"cmd": "sleep 1000"})).await;
        assert_eq!(
            idle(stack).await,
            Idled { taken: 1, stopped: 1, ..Idled::default() },
            "in the background it does not count"
        );
    });
}

#[test]
fn a_sandbox_that_cannot_be_asked_is_left_alone() {
    run(async {
        let options = Options::default().with("JOBS__ENABLED", "false");
        let rule = json!({"idle": {"after": "1m", "action": "stop"}, "timeout": "1h"});
        let sandbox = Sandbox::with(options, rule).await.at_one_gateway();
        let stack = &sandbox.stack;
        let unseen = sandbox.start_unseen("sleep 1000").await;
        stack.fault(json!({"match": {"path": "/process.Process/List"}, "kind": "refuse"}));
        assert_eq!(idle(stack).await, Idled { taken: 1, ..Idled::default() });
        assert_eq!(sandbox.api.get(&format!("/v1/instances/{}", sandbox.id)).await.expect(200)["status"], "RUNNING");
        stack.no_faults();
        assert_eq!(idle(stack).await, Idled { taken: 1, used: 1, ..Idled::default() }, "{unseen} runs");
    });
}

async fn paused(sandbox: &Sandbox) -> Value {
    sandbox.api.post(&sandbox.path("pause"), &json!({})).await.expect(200)
}

#[test]
fn a_call_wakes_a_paused_instance_when_it_asks_to() {
    run(async {
        let sandbox = Sandbox::with(Options::default().with("JOBS__ENABLED", "false"), json!({"timeout": "1h"})).await;
        sandbox.run("echo kept > /tmp/file").await;
        let before = paused(&sandbox).await;
        sandbox.exec(&json!({"cmd": "true"})).await.problem(409, "invalid_state");
        sandbox.get("files?path=/tmp/file").await.problem(409, "invalid_state");
        for (query, field) in
            [("wake=x", "wake"), ("wake=1h", "wake"), ("wake=1s&wake=2s", "wake"), ("wake=1s&no=1", "no")]
        {
            let refused = sandbox.get(&format!("files/list?path=/tmp&{query}")).await.problem(422, "validation_failed");
            assert_eq!(refused["errors"][0]["field"], field, "{refused:#}");
        }
        assert_eq!(sandbox.stack.calls("ResumeSandboxInstance"), 0);

        let (exec, cat) = (sandbox.path("exec?wake=30s"), json!({"cmd": "cat /tmp/file"}));
        for answer in join_all((0..8).map(|_| sandbox.api.post(&exec, &cat))).await {
            assert_eq!(answer.expect(200)["stdout"], "kept\n");
        }
        assert_eq!(sandbox.stack.calls("ResumeSandboxInstance"), 1);
        let after = sandbox.api.get(&format!("/v1/instances/{}", sandbox.id)).await.expect(200);
        assert_eq!((&after["status"], &after["expires_at"]), (&json!("RUNNING"), &before["expires_at"]));
        let upstream = sandbox.stack.upstream_instance(&after["upstream_id"]);
        assert!(time(&upstream["ExpiresAt"]) > time(&after["expires_at"]), "the cloud's own end is the backstop");
        // One that runs is asked at once.
        assert_eq!(sandbox.api.post(&exec, &cat).await.expect(200)["stdout"], "kept\n");

        paused(&sandbox).await;
        let file = sandbox.request(Method::GET, "files?path=/tmp/file&wake=30s").send().await.unwrap();
        assert_eq!(file.text().await.unwrap(), "kept\n");
        assert_eq!(sandbox.stack.calls("ResumeSandboxInstance"), 2);
        paused(&sandbox).await;
        let port = sandbox.request(Method::GET, "ports/49983/health?wake=30s");
        assert_eq!(port.send().await.unwrap().status(), 409, "a port's query is the sandbox's");
        let port = sandbox.request(Method::GET, "ports/49983/health").header("x-sandbox-wake", "30s");
        assert!(port.send().await.unwrap().status().is_success());
        assert_eq!(sandbox.stack.calls("ResumeSandboxInstance"), 3);
    });
}

#[test]
fn nobody_is_woken_past_its_deadline_or_by_one_who_does_not_wait() {
    run(async {
        let stack = still().await;
        let api = stack.api();
        let instance = start(&api, "pause").await;
        api.post(&format!("{}/pause", path(&instance)), &json!({})).await.expect(200);
        stack.sql("UPDATE instances SET expires_at = now()").await;
        let list = |wake: &str| format!("{}/files/list?path=/&wake={wake}", path(&instance));
        api.get(&list("5s")).await.problem(409, "invalid_state");
        assert_eq!(stack.calls("ResumeSandboxInstance"), 0);
        stack.sql("UPDATE instances SET expires_at = now() + interval '1h'").await;
        stack.tune(|tunables| tunables.resume_delay_ms = 60_000);
        let waking = api.get(&list("1s")).await.problem(409, "invalid_state");
        assert_eq!(
            (&waking["retryable"], &waking["sandbox"]["status"]),
            (&json!(true), &json!("RESUMING")),
            "{waking:#}"
        );
        let foreign = stack.team("strangers").await.get(&list("1s")).await;
        foreign.problem(404, "not_found");
    });
}
