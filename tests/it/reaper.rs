//! The jobs: the reaper, the reconciler, and what a crash leaves to them.

use std::{sync::Arc, time::Duration};

use ags_client::types::{PauseSandboxInstanceRequest, StopSandboxInstanceRequest};
use ags_emulator::{
    control::instances::{StartPlan, ToolRef},
    faults::Struck,
};
use ags_gateway::{
    app::{
        App,
        reconciliation::{self, Leave, take_up},
    },
    jobs::{
        prune::prune_batch,
        reap::{Reaped, reap_batch},
    },
};
use serde_json::{Value, json};

use crate::{
    cloud::{eventually, path},
    harness::{Api, Options, Stack, run},
};

fn options() -> Options {
    Options::simulated().with("TOOLS__SHARED", "base").with("JOBS__CLAIM", "1s")
}

/// A stack whose jobs run only when the test says so.
async fn still() -> Stack {
    Stack::with(options().with("JOBS__ENABLED", "false")).await
}

async fn start(api: &Api) -> Value {
    api.post("/v1/instances", &json!({"tool": "base", "timeout": "10m"})).await.expect(201)
}

/// How many were stopped, ended and brought to what the cloud shows.
struct Pass {
    complete: bool,
    orphans: usize,
    missing: usize,
    adopted: usize,
}

/// A pass, with all that it has taken up brought to its end.
async fn whole_pass(app: &App) -> Pass {
    let taken = take_up(app).await.expect("what is open");
    for start in taken.starts {
        drop(start.await.expect("a task"));
    }
    let report = reconciliation::pass(app, Leave::default(), Duration::ZERO).await.expect("a pass").expect("alone");
    let (orphans, missing) = (report.stopped.len(), report.ended.len());
    Pass { complete: report.complete, orphans, missing, adopted: taken.adopted + report.adopted.len() }
}

fn ended(status: &str, reason: &str) -> (Value, Value) {
    (json!(status), json!(reason))
}

async fn end_of(api: &Api, instance: &Value) -> (Value, Value) {
    let seen = api.get(&path(instance)).await.expect(200);
    (seen["status"].clone(), seen["stop_reason"].clone())
}

#[test]
fn what_expires_is_stopped_by_us_within_two_seconds() {
    run(async {
        let stack = Stack::with(options()).await;
        let api = stack.api();
        let instance = start(&api).await;
        let paused = start(&api).await;
        api.post(&format!("{}/pause", path(&paused)), &json!({})).await.expect(200);
        stack.sql("UPDATE instances SET expires_at = now()").await;
        let stopped = eventually("STOPPED", async || {
            let listed = api.get("/v1/instances?status=STOPPED").await.expect(200);
            let items = listed["items"].as_array().unwrap().clone();
            (items.len() == 2).then_some(items)
        })
        .await;
        for one in stopped {
            let time = |name: &str| one[name].as_str().unwrap().parse::<chrono::DateTime<chrono::Utc>>().unwrap();
            let lag = (time("stopped_at") - time("expires_at")).num_milliseconds();
            assert!((0..2_000).contains(&lag), "{lag} ms");
            assert_eq!(one["stop_reason"], "timeout");
        }
        let listed = api.get("/v1/audit?actor=system").await.expect(200);
        let told = listed["items"].as_array().unwrap();
        assert_eq!(told.len(), 2, "{told:#?}");
        for event in told {
            assert_eq!((&event["action"], &event["reason"]), (&json!("expire_instance"), &json!("timeout")));
            assert_eq!((&event["outcome"], &event["key_id"]), (&json!("ok"), &Value::Null));
            assert!(event["upstream_request_id"].is_string() && event["duration_ms"].is_u64(), "{event:#}");
        }
        let seen = stack.upstream_instance(&instance["upstream_id"]);
        assert_eq!((&seen["Status"], &seen["StopReason"]), (&json!("STOPPED"), &json!("manual")));
        assert_eq!((stack.calls("StopSandboxInstance"), stack.calls("timeout")), (2, 0));
    });
}

#[test]
fn two_replicas_share_the_work() {
    run(async {
        let stack = still().await;
        stack.tune(|tunables| {
            tunables.max_instances = 30;
            tunables.rate_limit = 0;
        });
        let (other, _) = stack.replica().await;
        for _ in 0..20 {
            start(&stack.api()).await;
        }
        stack.sql("UPDATE instances SET expires_at = now()").await;
        let (a, b) = futures_util::future::join(reap_batch(&stack.app), reap_batch(&other)).await;
        let (a, b) = (a.unwrap(), b.unwrap());
        assert_eq!((a.taken + b.taken, a.stopped + b.stopped), (20, 20));
        assert_eq!(stack.calls("StopSandboxInstance"), 20);
        assert_eq!(reap_batch(&stack.app).await.unwrap(), Reaped::default());
    });
}

#[test]
fn a_stop_that_fails_is_tried_again_later_and_can_be_seen() {
    run(async {
        let stack = still().await;
        let api = stack.api();
        let instance = start(&api).await;
        stack.sql("UPDATE instances SET expires_at = now()").await;
        stack
            .fault(json!({"match": {"action": "StopSandboxInstance"}, "kind": "error", "code": "ResourceUnavailable"}));
        assert_eq!(reap_batch(&stack.app).await.unwrap(), Reaped { taken: 1, stopped: 0, failed: 1 });
        assert_eq!(end_of(&api, &instance).await, ended("STOPPING", "timeout"));
        let row = || {
            sqlx::query_as::<_, (i32, Option<String>, f64)>(
                "SELECT attempts, last_error, extract(epoch FROM claimed_until - now())::float8 FROM instances",
            )
            .fetch_one(&stack.app.pool)
        };
        let (attempts, error, rest) = row().await.unwrap();
        assert_eq!(attempts, 1);
        assert!(error.unwrap().contains("ResourceUnavailable"));
        assert!(rest > 0.5, "{rest}");
        assert_eq!(reap_batch(&stack.app).await.unwrap().taken, 0);
        stack.sql("UPDATE instances SET claimed_until = now()").await;
        assert_eq!(reap_batch(&stack.app).await.unwrap().failed, 1);
        let (attempts, _, longer) = row().await.unwrap();
        assert!(attempts == 2 && longer > rest, "{attempts}: {rest}, {longer}");
        stack.no_faults();
        stack.sql("UPDATE instances SET claimed_until = now()").await;
        assert_eq!(reap_batch(&stack.app).await.unwrap().stopped, 1);
        assert_eq!(end_of(&api, &instance).await, ended("STOPPED", "timeout"));
    });
}

#[test]
fn what_is_not_there_counts_as_stopped() {
    run(async {
        let stack = still().await;
        let api = stack.api();
        let instance = start(&api).await;
        stack.emulator.cloud().with_state(|state| state.instances.clear());
        stack.sql("UPDATE instances SET expires_at = now()").await;
        assert_eq!(reap_batch(&stack.app).await.unwrap().stopped, 1);
        assert_eq!(end_of(&api, &instance).await, ended("STOPPED", "timeout"));
    });
}

#[test]
fn a_starting_instance_past_its_end_is_stopped() {
    run(async {
        let stack = still().await;
        let api = stack.api();
        stack.tune(|tunables| tunables.start_delay_ms = 60_000);
        let starting = api.post("/v1/instances?wait=0", &json!({"tool": "base"})).await.expect(202);
        eventually("the start in the cloud", async || (stack.upstream_states() == ["STARTING"]).then_some(())).await;
        stack.sql("UPDATE instances SET expires_at = now()").await;
        assert_eq!(reap_batch(&stack.app).await.unwrap().stopped, 1);
        assert_eq!(end_of(&api, &starting).await, ended("STOPPED", "timeout"));
        assert_eq!(stack.upstream_states(), ["STOPPED"]);
    });
}

/// Starts an instance at a replica of its own, and kills that when the cloud has been called.
async fn start_and_crash(stack: &Arc<Stack>) -> Value {
    let doomed = tokio::runtime::Runtime::new().expect("a runtime");
    let replica = Arc::clone(stack);
    let (_, url) = doomed.spawn(async move { replica.replica().await }).await.expect("a replica");
    let called = stack.calls("StartSandboxInstance");
    let starting = stack.api().at(&url).post("/v1/instances?wait=0", &json!({"tool": "base"})).await.expect(202);
    eventually("the call", async || (stack.faults_hit() > called).then_some(())).await;
    doomed.shutdown_background();
    starting
}

impl Stack {
    fn faults_hit(&self) -> usize {
        self.emulator.cloud().faults.list().iter().map(|rule| usize::try_from(rule.hits).unwrap()).sum()
    }
}

#[test]
fn a_crash_after_the_effect_is_healed_without_a_second_instance() {
    run(async {
        let stack = Arc::new(still().await);
        let api = stack.api();
        stack.fault(json!({"match": {"action": "StartSandboxInstance"}, "kind": "delay_response", "ms": 60_000}));
        let starting = start_and_crash(&stack).await;
        eventually("the effect", async || (stack.upstream_states() == ["RUNNING"]).then_some(())).await;
        stack.no_faults();
        // While the claim lasts it is left alone.
        assert!(take_up(&stack.app).await.unwrap().starts.is_empty());
        assert_eq!(api.get(&path(&starting)).await.expect(200)["status"], "STARTING");
        let resumed = eventually("the claim to lapse", async || {
            let taken = take_up(&stack.app).await.unwrap();
            (!taken.starts.is_empty()).then_some(taken.starts)
        })
        .await;
        for start in resumed {
            start.await.expect("a task").expect("a running instance");
        }
        let healed = api.get(&path(&starting)).await.expect(200);
        assert_eq!(healed["status"], "RUNNING");
        assert_eq!(stack.upstream_instances().len(), 1);
        assert_eq!(stack.upstream_instances()[0]["InstanceId"], healed["upstream_id"]);
    });
}

#[test]
fn a_crash_before_the_effect_is_healed_by_starting_it() {
    run(async {
        let stack = Arc::new(still().await);
        let api = stack.api();
        stack.fault(json!({"match": {"action": "StartSandboxInstance"}, "kind": "latency", "ms": 60_000}));
        let starting = start_and_crash(&stack).await;
        stack.no_faults();
        assert_eq!(stack.upstream_instances().len(), 0);
        stack.sql("UPDATE instances SET claimed_until = now()").await;
        whole_pass(&stack.app).await;
        assert_eq!(api.get(&path(&starting)).await.expect(200)["status"], "RUNNING");
        assert_eq!(stack.upstream_states(), ["RUNNING"]);
    });
}

#[test]
fn a_new_process_settles_the_last_ones_leftovers_before_it_says_so() {
    run(async {
        let stack = Arc::new(still().await);
        stack.fault(json!({"match": {"action": "StartSandboxInstance"}, "kind": "delay_response", "ms": 60_000}));
        let starting = start_and_crash(&stack).await;
        stack.no_faults();
        let running = start(&stack.api()).await;
        stack.sql("UPDATE instances SET expires_at = now() WHERE status = 'RUNNING'").await;
        let (app, url) = stack.replica_with("JOBS__ENABLED", "true").await;
        assert_eq!(Api::anonymous(&url).get("/readyz").await.expect(200)["ready"], true);
        app.upkeep.reconciled().await;
        assert_eq!(Api::anonymous(&url).get("/readyz").await.expect(200)["reconciled"], true);
        assert_eq!(stack.api().get(&path(&starting)).await.expect(200)["status"], "RUNNING");
        assert_eq!(end_of(&stack.api(), &running).await, ended("STOPPED", "timeout"));
        assert_eq!(stack.upstream_states(), ["RUNNING", "STOPPED"]);
        app.lifecycle.drain();
    });
}

#[test]
fn an_intent_that_cannot_be_settled_in_time_fails() {
    run(async {
        let stack = still().await;
        let api = stack.api();
        let instance = start(&api).await;
        stack
            .sql(
                "UPDATE instances SET status = 'STARTING', upstream_id = NULL, claimed_until = NULL,
                                      created_at = now() - interval '1h'",
            )
            .await;
        stack.emulator.cloud().with_state(|state| state.instances.clear());
        whole_pass(&stack.app).await;
        assert_eq!(end_of(&api, &instance).await, ended("FAILED", "error"));
        assert_eq!(stack.calls("StartSandboxInstance"), 1);
    });
}

#[test]
fn pauses_that_were_cut_off_become_what_the_cloud_shows() {
    run(async {
        let stack = still().await;
        let api = stack.api();
        let (a, b) = (start(&api).await, start(&api).await);
        api.post(&format!("{}/pause", path(&a)), &json!({})).await.expect(200);
        stack.sql("UPDATE instances SET status = 'PAUSING', claimed_until = NULL").await;
        assert_eq!(whole_pass(&stack.app).await.adopted, 2);
        assert_eq!(api.get(&path(&a)).await.expect(200)["status"], "PAUSED");
        assert_eq!(api.get(&path(&b)).await.expect(200)["status"], "RUNNING");
    });
}

#[test]
fn orphans_with_our_stamp_are_stopped_and_strangers_are_left() {
    run(async {
        let grace = ("JOBS__ORPHAN_GRACE", "1ms");
        let stack = Stack::with(options().with("JOBS__ENABLED", "false").with(grace.0, grace.1)).await;
        let api = stack.api();
        let (lost, twice, fine) = (start(&api).await, start(&api).await, start(&api).await);
        let tool = ToolRef { id: None, name: Some("base".into()) };
        let stranger = StartPlan { tool, ..StartPlan::default() };
        stack.emulator.cloud().start(stranger, false).await.expect("a stranger's instance");
        let id = lost["id"].as_str().unwrap().to_owned();
        sqlx::query("DELETE FROM instances WHERE id = $1").bind(id).execute(&stack.app.pool).await.unwrap();
        // A second instance of one row, as a cloud that forgets tokens makes them.
        let metadata = stack.emulator.cloud().with_state(|state| {
            let id = twice["upstream_id"].as_str().unwrap();
            state.instances.get(id).map(|record| record.metadata.clone()).expect("it")
        });
        let tool = ToolRef { id: None, name: Some("base".into()) };
        let copy = StartPlan { tool, metadata, ..StartPlan::default() };
        stack.emulator.cloud().start(copy, false).await.expect("a copy");
        // What is not known gets a grace from the first pass on; a twin gets none.
        let pass = whole_pass(&stack.app).await;
        assert!(pass.complete);
        assert_eq!((pass.missing, pass.adopted), (0, 0));
        assert_eq!(pass.orphans + whole_pass(&stack.app).await.orphans, 2);
        assert_eq!(stack.upstream_states(), ["RUNNING", "RUNNING", "RUNNING", "STOPPED", "STOPPED"]);
        for kept in [&twice, &fine] {
            assert_eq!(stack.upstream_instance(&kept["upstream_id"])["Status"], "RUNNING");
            assert_eq!(api.get(&path(kept)).await.expect(200)["status"], "RUNNING");
        }
        assert_eq!(whole_pass(&stack.app).await.orphans, 0);
    });
}

#[test]
fn what_ended_in_the_cloud_ends_here_with_its_reason() {
    run(async {
        let stack = still().await;
        let api = stack.api();
        let (failed, console, expired) = (start(&api).await, start(&api).await, start(&api).await);
        let cloud = stack.emulator.cloud();
        let id = |one: &Value| one["upstream_id"].as_str().unwrap().to_owned();
        let admin = Api::anonymous(&stack.emulator.admin_url());
        admin.post(&format!("/instances/{}/fail", id(&failed)), &json!({})).await.expect(204);
        let stop = StopSandboxInstanceRequest { instance_id: id(&console) };
        cloud.stop_instance(stop, &Struck::default()).await.expect("a stop");
        cloud.clock.advance(Duration::from_secs(1_000));
        eventually("the cloud's own stop", async || {
            (stack.upstream_instance(&expired["upstream_id"])["Status"] == "STOPPED").then_some(())
        })
        .await;
        assert_eq!(whole_pass(&stack.app).await.adopted, 3);
        assert_eq!(end_of(&api, &failed).await, ended("FAILED", "error"));
        assert_eq!(end_of(&api, &console).await, ended("STOPPED", "manual"));
        assert_eq!(end_of(&api, &expired).await, ended("STOPPED", "timeout"));
    });
}

#[test]
fn what_is_gone_ends_after_a_grace_and_not_when_the_listing_failed() {
    run(async {
        let stack = still().await;
        let api = stack.api();
        let (old, fresh) = (start(&api).await, start(&api).await);
        stack.emulator.cloud().with_state(|state| state.instances.clear());
        let id = old["id"].as_str().unwrap().to_owned();
        let age = "UPDATE instances SET updated_at = now() - interval '1h' WHERE id = $1";
        sqlx::query(age).bind(id).execute(&stack.app.pool).await.unwrap();
        stack.fault(
            json!({"match": {"action": "DescribeSandboxInstanceList"}, "kind": "error", "code": "InvalidParameter"}),
        );
        let blind = whole_pass(&stack.app).await;
        assert!(!blind.complete);
        assert_eq!(api.get(&path(&old)).await.expect(200)["status"], "RUNNING");
        stack.no_faults();
        assert_eq!(whole_pass(&stack.app).await.missing, 1);
        assert_eq!(end_of(&api, &old).await, ended("STOPPED", "system"));
        assert_eq!(api.get(&path(&fresh)).await.expect(200)["status"], "RUNNING");
        stack.sql("UPDATE instances SET missing_since = now() - interval '1h' WHERE stopped_at IS NULL").await;
        assert_eq!(whole_pass(&stack.app).await.missing, 1);
        assert_eq!(end_of(&api, &fresh).await, ended("STOPPED", "system"));
    });
}

#[test]
fn a_pause_in_the_clouds_console_is_followed() {
    run(async {
        let stack = still().await;
        let api = stack.api();
        let instance = start(&api).await;
        let instance_id = instance["upstream_id"].as_str().unwrap().to_owned();
        let pause = PauseSandboxInstanceRequest { instance_id, memory: None };
        stack.emulator.cloud().pause_instance(pause, &Struck::default()).await.expect("a pause");
        assert_eq!(whole_pass(&stack.app).await.adopted, 1);
        assert_eq!(api.get(&path(&instance)).await.expect(200)["status"], "PAUSED");
    });
}

#[test]
fn old_keys_and_tickets_are_removed() {
    run(async {
        let stack = still().await;
        let api = stack.api();
        for key in ["a", "b"] {
            let body = json!({"tool": "nowhere"});
            let call = api.request(http::Method::POST, "/v1/instances").header("idempotency-key", key).json(&body);
            crate::harness::read(call).await.problem(404, "not_found");
        }
        assert_eq!(prune_batch(&stack.app).await.unwrap(), 0);
        stack.sql("UPDATE idempotency_keys SET expires_at = now() WHERE key = 'a'").await;
        assert_eq!(prune_batch(&stack.app).await.unwrap(), 1);
        let left: i64 =
            sqlx::query_scalar("SELECT count(*) FROM idempotency_keys").fetch_one(&stack.app.pool).await.unwrap();
        assert_eq!(left, 1);
    });
}
