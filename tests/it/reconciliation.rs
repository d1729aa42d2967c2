//! The reconciler as administrators see it: dry runs, passes, graces and the brake.

use std::{collections::BTreeMap, time::Duration};

use ags_emulator::control::instances::{StartPlan, ToolRef};
use ags_gateway::{
    app::reconciliation::{self, Leave},
    ids::{InstanceId, TeamId, ToolId},
    upstream::instance_metadata,
};
use futures_util::future::join;
use serde_json::{Value, json};

use crate::{
    cloud::path,
    harness::{Api, Options, Stack, eventually, run},
};

const PATH: &str = "/v1/reconciliation";

fn options() -> Options {
    Options::simulated().with("TOOLS__SHARED", "base").with("JOBS__CLAIM", "1s").with("JOBS__ENABLED", "false")
}

async fn still() -> Stack {
    Stack::with(options()).await
}

/// A stack whose brake holds at the second of few.
async fn touchy() -> Stack {
    Stack::with(options().with("JOBS__BRAKE_COUNT", "1").with("JOBS__BRAKE_PERCENT", "10")).await
}

async fn start(api: &Api) -> Value {
    api.post("/v1/instances", &json!({"tool": "base", "timeout": "10m"})).await.expect(201)
}

/// An instance that carries our stamp and that the database has never known: its id here, and in the cloud.
async fn stray(stack: &Stack) -> (String, String) {
    let id: InstanceId = stack.app.ids.next();
    let me = stack.api().get("/v1/me").await.expect(200);
    let team: TeamId = me["team"]["id"].as_str().unwrap().parse().unwrap();
    let metadata = instance_metadata(&stack.app.deployment, &id, &team, &BTreeMap::new());
    let upstream_id = start_upstream(stack, StartPlan { metadata, ..plan() }).await;
    (id.to_string(), upstream_id)
}

fn plan() -> StartPlan {
    StartPlan { tool: ToolRef { id: None, name: Some("base".into()) }, ..StartPlan::default() }
}

async fn start_upstream(stack: &Stack, plan: StartPlan) -> String {
    let known: Vec<Value> = stack.upstream_instances();
    stack.emulator.cloud().start(plan, false).await.expect("an instance");
    let new = stack
        .upstream_instances()
        .into_iter()
        .find(|one| !known.iter().any(|old| old["InstanceId"] == one["InstanceId"]));
    new.expect("it is there")["InstanceId"].as_str().unwrap().to_owned()
}

fn ids<'a>(list: &'a Value, field: &str) -> Vec<&'a str> {
    list.as_array().unwrap().iter().map(|one| one[field].as_str().unwrap()).collect()
}

async fn look(stack: &Stack) -> Value {
    stack.admin().get(PATH).await.expect(200)
}

async fn pass(stack: &Stack) -> Value {
    stack.admin().post(PATH, &json!({})).await.expect(200)
}

/// The system's own events of an action.
async fn deeds(stack: &Stack, action: &str) -> Vec<Value> {
    let listed = stack.api().get(&format!("/v1/audit?actor=system&action={action}")).await.expect(200);
    listed["items"].as_array().unwrap().clone()
}

#[test]
fn a_dry_run_tells_all_and_changes_nothing() {
    run(async {
        let stack = still().await;
        let api = stack.api();
        let (_fine, gone) = (start(&api).await, start(&api).await);
        let gone_upstream = gone["upstream_id"].as_str().unwrap().to_owned();
        stack.emulator.cloud().with_state(|state| drop(state.instances.remove(&gone_upstream)));
        let (orphan, upstream_id) = stray(&stack).await;
        start_upstream(&stack, plan()).await;
        for _ in 0..2 {
            let report = look(&stack).await;
            assert_eq!(
                (&report["complete"], &report["dry_run"], &report["braked"]),
                (&json!(true), &json!(true), &json!(false))
            );
            assert_eq!(ids(&report["orphans"], "id"), [orphan.as_str()]);
            assert_eq!(report["orphans"][0]["upstream_id"], json!(upstream_id));
            assert_eq!(
                (&report["orphans"][0]["reason"], &report["orphans"][0]["due"]),
                (&json!("unknown"), &json!(false))
            );
            assert_eq!(report["would_stop"], json!([]), "its grace has not begun");
            assert_eq!(ids(&report["missing"], "id"), [gone["id"].as_str().unwrap()]);
            assert_eq!(report["missing"][0]["status"], "RUNNING");
            assert_eq!(report["would_end"], json!([]));
            // The emulator has tools of its own, of which one is shared here.
            assert_eq!(report["foreign"], 1);
            assert!(report["foreign_tools"].as_u64().unwrap() >= 1, "{report:#}");
            assert_eq!(
                (&report["stopped"], &report["ended"], &report["adopted"]),
                (&json!([]), &json!([]), &json!([]))
            );
        }
        let noted: i64 = sqlx::query_scalar(
            "SELECT (SELECT count(*) FROM orphans) + (SELECT count(*) FROM instances WHERE missing_since IS NOT NULL)",
        )
        .fetch_one(&stack.app.pool)
        .await
        .unwrap();
        assert_eq!(noted, 0, "a look leaves no notes");
        api.get(PATH).await.problem(403, "scope_missing");
        api.post(PATH, &json!({})).await.problem(403, "scope_missing");
        stack.admin().post(PATH, &json!({"forse": true})).await.problem(422, "validation_failed");
    });
}

#[test]
fn what_is_unknown_is_stopped_after_its_grace_and_what_has_ended_at_once() {
    run(async {
        let stack = still().await;
        let api = stack.api();
        let ended = start(&api).await;
        stack.sql("UPDATE instances SET status = 'FAILED', stopped_at = now(), stop_reason = 'error'").await;
        let (unknown, upstream_id) = stray(&stack).await;
        let stranger = start_upstream(&stack, plan()).await;
        let first = pass(&stack).await;
        assert_eq!(first["stopped"], json!([ended["upstream_id"]]));
        assert_eq!(look(&stack).await["would_stop"], json!([]));
        stack.sql("UPDATE orphans SET since = now() - interval '1h'").await;
        let due = look(&stack).await;
        assert_eq!(ids(&due["would_stop"], "id"), [unknown.as_str()]);
        let second = pass(&stack).await;
        assert_eq!((&second["stopped"], &second["dry_run"]), (&json!([upstream_id]), &json!(false)));
        assert_eq!(stack.upstream_instance(&json!(stranger))["Status"], "RUNNING");
        assert_eq!(pass(&stack).await["orphans"], json!([]));

        let told = deeds(&stack, "stop_orphan_instance").await;
        assert_eq!(ids(&json!(told), "instance_id"), [unknown.as_str(), ended["id"].as_str().unwrap()]);
        for event in &told {
            assert_eq!((&event["outcome"], &event["reason"]), (&json!("ok"), &json!("orphan")), "{event:#}");
            assert_eq!((&event["key_id"], &event["key_prefix"]), (&Value::Null, &json!("system")));
            assert!(event["upstream_request_id"].is_string(), "{event:#}");
        }
        // What has no transaction is written a moment later.
        let by_admin = async || {
            let events = stack.admin().get("/v1/audit?action=run_reconciliation").await.expect(200);
            (events["items"].as_array().unwrap().len() == 3).then_some(())
        };
        eventually(by_admin).await;
    });
}

#[test]
fn the_brake_holds_when_too_much_is_missing_until_somebody_has_looked() {
    run(async {
        let stack = touchy().await;
        let api = stack.api();
        let (one, two) = (start(&api).await, start(&api).await);
        stack.emulator.cloud().with_state(|state| state.instances.clear());
        stack.sql("UPDATE instances SET updated_at = now() - interval '1h'").await;
        let report = pass(&stack).await;
        assert_eq!((&report["braked"], &report["complete"]), (&json!(true), &json!(true)));
        assert_eq!(report["brakes"][0]["reason"], "too_many_missing");
        assert_eq!(report["would_end"].as_array().unwrap().len(), 2);
        for kept in [&one, &two] {
            assert_eq!(api.get(&path(kept)).await.expect(200)["status"], "RUNNING");
        }
        let (braked, missing): (bool, i64) =
            sqlx::query_as("SELECT braked, missing FROM reconciliation").fetch_one(&stack.app.pool).await.unwrap();
        assert!(braked && missing == 2);
        let forced = stack.admin().post(PATH, &json!({"force": true})).await.expect(200);
        assert_eq!((&forced["braked"], forced["ended"].as_array().unwrap().len()), (&json!(false), 2));
        for gone in [&one, &two] {
            let seen = api.get(&path(gone)).await.expect(200);
            assert_eq!((&seen["status"], &seen["stop_reason"]), (&json!("STOPPED"), &json!("system")));
        }
        let told = deeds(&stack, "end_instance").await;
        assert!(
            told.len() == 2 && told.iter().all(|event| event["reason"] == "system" && event["outcome"] == "ok"),
            "{told:#?}"
        );
    });
}

#[test]
fn the_brake_holds_when_too_many_are_unknown_as_after_an_old_backup() {
    run(async {
        let stack = touchy().await;
        for _ in 0..3 {
            stray(&stack).await;
        }
        pass(&stack).await;
        stack.sql("UPDATE orphans SET since = now() - interval '1h'").await;
        let report = pass(&stack).await;
        assert_eq!((&report["braked"], &report["stopped"]), (&json!(true), &json!([])));
        assert_eq!(report["brakes"][0]["reason"], "too_many_orphans");
        assert_eq!(stack.upstream_states(), ["RUNNING", "RUNNING", "RUNNING"]);
        let forced = stack.admin().post(PATH, &json!({"force": true})).await.expect(200);
        assert_eq!(forced["stopped"].as_array().unwrap().len(), 3);
        assert_eq!(stack.upstream_states(), ["STOPPED", "STOPPED", "STOPPED"]);
    });
}

#[test]
fn nothing_is_concluded_from_a_list_that_contradicts_itself() {
    run(async {
        let stack = still().await;
        let api = stack.api();
        let instance = start(&api).await;
        stack.sql("UPDATE instances SET updated_at = now() - interval '1h'").await;
        let empty = json!({"Response": {"TotalCount": 7, "InstanceSet": [], "RequestId": "r"}}).to_string();
        stack.fault(
            json!({"match": {"action": "DescribeSandboxInstanceList"}, "kind": "http", "status": 200, "body": empty}),
        );
        for body in [json!({}), json!({"force": true})] {
            let report = stack.admin().post(PATH, &body).await.expect(200);
            assert_eq!((&report["complete"], &report["braked"]), (&json!(false), &json!(true)), "{report:#}");
            assert_eq!(report["brakes"][0]["reason"], "listing_unsound");
        }
        assert_eq!(api.get(&path(&instance)).await.expect(200)["status"], "RUNNING");
        stack.no_faults();
        stack.fault(
            json!({"match": {"action": "DescribeSandboxToolList"}, "kind": "error", "code": "InvalidParameter"}),
        );
        let report = pass(&stack).await;
        assert_eq!((&report["complete"], &report["unreachable"]), (&json!(false), &json!(["default"])));
        stack.no_faults();
        let report = pass(&stack).await;
        assert_eq!((&report["complete"], &report["missing"]), (&json!(true), &json!([])));
    });
}

#[test]
fn tools_are_compared_as_well() {
    run(async {
        let stack = still().await;
        let api = stack.api();
        let make = async |name: &str| api.post("/v1/tools", &json!({"name": name, "type": "custom"})).await.expect(201);
        let (kept, lost, orphan) = (make("kept").await, make("lost").await, make("orphan").await);
        let in_cloud = |tool: &Value| {
            let id: ToolId = tool["id"].as_str().unwrap().parse().unwrap();
            stack.emulator.cloud().with_state(|state| state.tool_named(id.as_str()).map(|tool| tool.tool_id.clone()))
        };
        let lost_upstream = in_cloud(&lost).unwrap();
        stack.emulator.cloud().with_state(|state| state.tools.retain(|id, _| *id != lost_upstream));
        let orphan_id = orphan["id"].as_str().unwrap().to_owned();
        sqlx::query("DELETE FROM tools WHERE id = $1").bind(&orphan_id).execute(&stack.app.pool).await.unwrap();
        let report = pass(&stack).await;
        assert_eq!((ids(&report["missing"], "kind"), ids(&report["orphans"], "kind")), (vec!["tool"], vec!["tool"]));
        assert_eq!((&report["stopped"], &report["ended"]), (&json!([]), &json!([])), "within the graces");
        stack.sql("UPDATE orphans SET since = now() - interval '1h'").await;
        stack.sql("UPDATE tools SET missing_since = now() - interval '1h' WHERE missing_since IS NOT NULL").await;
        let report = pass(&stack).await;
        assert_eq!(report["ended"], json!([lost["id"]]));
        assert_eq!(report["stopped"].as_array().unwrap().len(), 1);
        let seen = api.get(&path(&lost)).await.expect(200);
        assert_eq!(seen["status"], "FAILED");
        assert!(seen["status_reason"].as_str().unwrap().contains("does not know it"), "{seen:#}");
        assert_eq!(api.get(&path(&kept)).await.expect(200)["status"], "ACTIVE");
        assert!(in_cloud(&kept).is_some() && in_cloud(&orphan).is_none());
        assert_eq!(deeds(&stack, "end_tool").await.len(), 1);
        assert_eq!(deeds(&stack, "delete_orphan_tool").await.len(), 1);
    });
}

#[test]
fn one_replica_at_a_time_makes_a_pass() {
    run(async {
        let stack = still().await;
        let (other, _) = stack.replica().await;
        stack.fault(json!({"match": {"action": "DescribeSandboxInstanceList"}, "kind": "latency", "ms": 1_500}));
        // Longer than the claim: it is renewed while the pass goes on.
        let none = Duration::ZERO;
        let (a, b) = join(
            reconciliation::pass(&stack.app, Leave::default(), none),
            reconciliation::pass(&other, Leave::default(), none),
        )
        .await;
        assert_eq!([a.unwrap(), b.unwrap()].iter().flatten().count(), 1);
        assert_eq!(stack.calls("DescribeSandboxInstanceList"), 1);
        stack.no_faults();
        // By timer nobody looks again soon; one who asks is not refused.
        let soon = reconciliation::pass(&other, Leave::default(), Duration::from_secs(60)).await.unwrap();
        assert!(soon.is_none());
        let (a, b) = join(pass(&stack), pass(&stack)).await;
        assert!(a["complete"] == true && b["complete"] == true);
        // A replica that died in a pass holds the others up for no longer than its claim.
        stack.sql("UPDATE reconciliation SET holder = 'gone', held_until = now() + interval '300ms'").await;
        assert_eq!(pass(&stack).await["complete"], true);
        other.lifecycle.drain();
    });
}

#[test]
fn a_pass_is_made_from_the_command_line() {
    run(async {
        let stack = touchy().await;
        let ended = start(&stack.api()).await;
        stack.sql("UPDATE instances SET status = 'FAILED', stopped_at = now(), stop_reason = 'error'").await;
        let told = async |arguments: &[&str]| {
            let mut command = tokio::process::Command::from(stack.command(arguments));
            let output = command.output().await.expect("the command");
            let report: Value = serde_json::from_slice(&output.stdout).unwrap_or_default();
            (output.status.code(), report, String::from_utf8_lossy(&output.stderr).into_owned())
        };
        let (code, report, error) = told(&["reconcile", "--dry-run"]).await;
        assert_eq!((code, ids(&report["would_stop"], "id")), (Some(0), vec![ended["id"].as_str().unwrap()]), "{error}");
        assert_eq!(stack.upstream_states(), ["RUNNING"]);
        let (code, report, error) = told(&["reconcile"]).await;
        assert_eq!((code, &report["stopped"]), (Some(0), &json!([ended["upstream_id"]])), "{error}");
        assert_eq!(stack.upstream_states(), ["STOPPED"]);
        for _ in 0..2 {
            stray(&stack).await;
        }
        pass(&stack).await;
        stack.sql("UPDATE orphans SET since = now() - interval '1h'").await;
        let (code, report, error) = told(&["reconcile"]).await;
        assert_eq!((code, &report["braked"]), (Some(1), &json!(true)));
        assert!(error.contains("the brake holds"), "{error}");
        let (code, ..) = told(&["reconcile", "--force"]).await;
        assert_eq!((code, stack.upstream_states()), (Some(0), vec!["STOPPED".to_owned(); 3]));
    });
}
