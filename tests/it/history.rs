//! Who did what, and what was used.

use ags_gateway::jobs::prune::prune_batch;
use futures_util::StreamExt;
use http::Method;
use serde_json::{Value, json};

use crate::{
    cloud::{eventually, path},
    code::Interpreter,
    exec::Sandbox,
    harness::{Api, Options, Stack, read, run},
    ws::{hear_all, open_with_key, say},
};

async fn still() -> Stack {
    Stack::with(Options::simulated().with("JOBS__ENABLED", "false").with("TOOLS__SHARED", "base")).await
}

/// The events of these actions that have an outcome, oldest first, when there are so many.
async fn events(api: &Api, query: &str, count: usize) -> Vec<Value> {
    eventually(query, async || {
        let listed = api.get(&format!("/v1/audit?limit=100&{query}")).await.expect(200);
        let mut items = listed["items"].as_array().unwrap().clone();
        items.retain(|item| item["outcome"].is_string());
        items.reverse();
        (items.len() >= count).then_some(items)
    })
    .await
}

async fn event(api: &Api, query: &str) -> Value {
    let mut events = events(api, query, 1).await;
    assert_eq!(events.len(), 1, "{events:#?}");
    events.remove(0)
}

/// The event of a command or code, when that has ended.
async fn ended_run(api: &Api, action: &str) -> Value {
    eventually(action, async || {
        let listed = api.get(&format!("/v1/audit?action={action}")).await.expect(200);
        listed["items"].as_array().unwrap().iter().find(|item| item["reason"].is_string()).cloned()
    })
    .await
}

#[test]
fn what_is_done_is_written_down_with_who_whence_for_whom_and_how_it_went() {
    run(async {
        let stack = still().await;
        let api = stack.api();
        let me = api.get("/v1/me").await.expect(200);
        let create = api.request(Method::POST, "/v1/instances").json(&json!({"tool": "base"}));
        let create = create.header("x-on-behalf-of", "Žofie <z@example.com>").header("x-request-id", "r-1");
        let instance = read(create).await.expect(201);
        let made = event(&api, "action=create_instance").await;
        for (field, value) in [
            ("team_id", me["team"]["id"].clone()),
            ("key_id", me["key"]["id"].clone()),
            ("key_prefix", me["key"]["prefix"].clone()),
            ("on_behalf_of", json!("Žofie <z@example.com>")),
            ("client", json!("127.0.0.1")),
            ("request_id", json!("r-1")),
            ("instance_id", instance["id"].clone()),
            ("tool_id", instance["tool_id"].clone()),
            ("outcome", json!("ok")),
            ("status", json!(201)),
            ("command", Value::Null),
        ] {
            assert_eq!(made[field], value, "{field}: {made:#}");
        }
        let journal = stack.emulator.cloud().journal.calls(|call| call.action == "StartSandboxInstance");
        let request_id = made["upstream_request_id"].as_str().unwrap();
        assert!(format!("{journal:?}").contains(request_id), "{request_id} is not in {journal:?}");
        assert!(made["duration_ms"].is_u64());

        api.patch(&path(&instance), &json!({"timeout": "1h"})).await.expect(200);
        api.post(&format!("{}/pause", path(&instance)), &json!({})).await.expect(200);
        api.patch(&path(&instance), &json!({"timeout": "1s"})).await.problem(422, "validation_failed");
        api.delete(&path(&instance)).await.expect(204);
        let of_it = events(&api, &format!("instance={}", instance["id"].as_str().unwrap()), 5).await;
        let told: Vec<_> =
            of_it.iter().map(|event| (event["action"].as_str().unwrap(), event["outcome"].as_str().unwrap())).collect();
        let expected = [
            ("create_instance", "ok"),
            ("update_instance", "ok"),
            ("pause_instance", "ok"),
            ("update_instance", "validation_failed"),
            ("delete_instance", "ok"),
        ];
        assert_eq!(told, expected);
        // Looks leave nothing.
        assert_eq!(api.get("/v1/audit?action=get_instance,list_audit_events").await.expect(200)["items"], json!([]));
        let by_user = events(&api, "actor=%C5%BDofie%20%3Cz@example.com%3E", 1).await;
        assert_eq!(by_user.len(), 1);
    });
}

#[test]
fn an_intent_and_its_event_are_written_together() {
    run(async {
        let stack = still().await;
        let api = stack.api();
        stack.tune(|tunables| tunables.start_delay_ms = 60_000);
        let starting = api.post("/v1/instances?wait=0", &json!({"tool": "base"})).await.expect(202);
        // The answer came after the intent: the event is there already, whatever becomes of this process.
        let listed = api.get("/v1/audit?action=create_instance").await.expect(200);
        assert_eq!(listed["items"][0]["instance_id"], starting["id"], "{listed:#}");

        // A client that leaves before there is an answer.
        let waiting = read(api.request(Method::POST, "/v1/instances?wait=5m").json(&json!({"tool": "base"})));
        let written = eventually("the intent", async || {
            let listed = api.get("/v1/audit?action=create_instance").await.expect(200);
            (listed["items"].as_array().unwrap().len() == 2).then(|| listed["items"][0].clone())
        });
        let written = tokio::select! {
            answer = waiting => panic!("{answer:?}"),
            written = written => written,
        };
        assert_eq!(written["outcome"], Value::Null);
        let left = event(&api, "outcome=client_left").await;
        assert_eq!((&left["id"], &left["instance_id"]), (&written["id"], &written["instance_id"]));
    });
}

#[test]
fn refusals_and_repetitions_are_told_apart() {
    run(async {
        let stack = still().await;
        let api = stack.api();
        let weak = json!({"name": "weak", "scopes": ["instances:read"]});
        let weak = api.post("/v1/keys", &weak).await.expect(201);
        let minted = event(&api, "action=create_key").await;
        assert_eq!(minted["target_id"], weak["id"]);
        assert!(!minted.to_string().contains(&weak["secret"].as_str().unwrap()[13..]), "{minted:#}");
        let weak_api = Api::new(&stack.url, weak["secret"].as_str().unwrap());
        weak_api.post("/v1/instances", &json!({"tool": "base"})).await.problem(403, "scope_missing");
        let refused = event(&api, &format!("actor={}", weak["prefix"].as_str().unwrap())).await;
        assert_eq!((&refused["outcome"], &refused["status"]), (&json!("scope_missing"), &json!(403)));

        let keyed = || {
            let request = api.request(Method::POST, "/v1/instances").header("idempotency-key", "once");
            read(request.json(&json!({"tool": "base"})))
        };
        keyed().await.expect(201);
        keyed().await.expect(201);
        let made = events(&api, "action=create_instance&outcome=ok,replayed", 2).await;
        assert_eq!((&made[0]["outcome"], &made[1]["outcome"]), (&json!("ok"), &json!("replayed")));

        stack.fault(json!({"match": {"action": "StartSandboxInstance"}, "kind": "fail_instance", "times": 1}));
        api.post("/v1/instances", &json!({"tool": "base"})).await.problem(502, "instance_start_failed");
        event(&api, "outcome=instance_start_failed").await;

        for bad in ["a\tb", "", &"x".repeat(129)] {
            let request = api.request(Method::GET, "/v1/me").header("x-on-behalf-of", bad);
            read(request).await.problem(400, "invalid_request");
        }
    });
}

#[test]
fn everybody_sees_the_own_teams_history_and_administrators_all() {
    run(async {
        let stack = still().await;
        let (api, admin, other) = (stack.api(), stack.admin(), stack.team("other").await);
        let instance = api.post("/v1/instances", &json!({"tool": "base"})).await.expect(201);
        other.post("/v1/instances", &json!({"tool": "base"})).await.expect(201);
        let own = event(&other, "action=create_instance").await;
        assert_ne!(own["instance_id"], instance["id"]);
        assert_eq!(events(&admin, "action=create_instance", 2).await.len(), 2);
        assert_eq!(event(&admin, "action=create_instance&team=dev").await["instance_id"], instance["id"]);
        api.get("/v1/audit?team=other").await.problem(404, "not_found");
        api.get("/v1/usage?team=other").await.problem(404, "not_found");
        api.get("/v1/audit?from=yesterday").await.problem(422, "validation_failed");
        api.get("/v1/usage?from=2026-01-02T00:00:00Z&to=2026-01-01T00:00:00Z").await.problem(422, "validation_failed");
        api.get("/v1/usage?group_by=colour").await.problem(422, "validation_failed");

        // What an administrator does to a team's things is the team's history.
        let key = admin.post("/v1/keys", &json!({"name": "k", "scopes": ["exec"], "team": "dev"})).await.expect(201);
        let given = event(&api, "action=create_key").await;
        assert_eq!((&given["target_id"], &given["outcome"]), (&key["id"], &json!("ok")));
        Api::new(&stack.url, key["secret"].as_str().unwrap()).get("/v1/audit").await.problem(403, "scope_missing");

        let body = json!({"name": "one", "scopes": ["audit:read"], "instance_id": instance["id"]});
        let bound = api.post("/v1/keys", &body).await.expect(201);
        let bound = Api::new(&stack.url, bound["secret"].as_str().unwrap());
        assert_eq!(event(&bound, "").await["instance_id"], instance["id"]);
        assert_eq!(bound.get("/v1/audit?instance=insother").await.expect(200)["items"], json!([]));
        bound.get("/v1/usage").await.problem(403, "scope_missing");

        let first = api.get("/v1/audit?limit=1").await.expect(200);
        let next = api.get(&format!("/v1/audit?limit=1&cursor={}", first["next_cursor"].as_str().unwrap())).await;
        assert_ne!(next.expect(200)["items"][0]["id"], first["items"][0]["id"]);
    });
}

#[test]
fn commands_are_written_down_once_with_their_end_and_without_secrets() {
    run(async {
        let sandbox = Sandbox::start().await;
        let api = &sandbox.api;
        let secret = "TOKEN=hunter2 bash -c 'exit 3'";
        sandbox.run(secret).await;
        let waited = ended_run(api, "exec_command").await;
        assert_eq!(waited["command"], "TOKEN=[redacted] bash -c 'exit 3'");
        assert_eq!(
            (&waited["outcome"], &waited["reason"], &waited["exit_code"]),
            (&json!("ok"), &json!("exited"), &json!(3))
        );
        assert_eq!(waited["instance_id"], json!(sandbox.id));
        let exec = waited["exec_id"].as_str().unwrap();

        let stream = sandbox.stream(&json!({"cmd": "echo streamed"}), "application/x-ndjson").await;
        assert!(stream.text().await.unwrap().contains("streamed"));
        let started = sandbox.background(json!({"cmd": ["sleep", "300"]})).await;
        let id = started["id"].as_str().unwrap();
        api.delete(&sandbox.path(&format!("execs/{id}"))).await.expect(204);
        sandbox.exec(&json!({"cmd": "true", "cwd": "/nowhere"})).await.problem(422, "validation_failed");
        let runs = events(api, "action=exec_command", 4).await;
        let told: Vec<_> = runs.iter().map(|event| event["command"].as_str().unwrap()).collect();
        assert_eq!(told[1..], ["echo streamed", "sleep 300", "true"]);
        assert_eq!(runs[3]["outcome"], "validation_failed");
        let killed = event(api, "action=kill_exec").await;
        assert_eq!((&killed["exec_id"], &killed["command"]), (&json!(id), &Value::Null));
        assert_ne!(killed["exec_id"], json!(exec));

        let mut socket = open_with_key(api, &sandbox.path("exec/ws"), "ags.exec.v1").await;
        say(&mut socket, &json!({"type": "start", "cmd": "echo by-socket"})).await;
        assert_eq!(hear_all(&mut socket).await.1, 1000);
        let by_socket = ended_run(api, "exec_websocket").await;
        assert_eq!((&by_socket["command"], &by_socket["exit_code"]), (&json!("echo by-socket"), &json!(0)));
        assert_eq!(by_socket["client"], "127.0.0.1");
    });
}

#[test]
fn code_is_written_down_with_its_end() {
    run(async {
        let interpreter = Interpreter::start().await;
        interpreter.python("password = 'hunter2'; print(1)").await;
        let ran = ended_run(&interpreter.api, "run_code").await;
        assert_eq!(ran["command"], "password = [redacted]; print(1)");
        assert_eq!((&ran["outcome"], &ran["reason"]), (&json!("ok"), &json!("finished")));
        let used = eventually("a run", async || {
            let usage = interpreter.api.get("/v1/usage?group_by=tool").await.expect(200);
            usage["items"].as_array().unwrap().iter().find(|item| item["execs"] == 1).cloned()
        })
        .await;
        assert_eq!(used["name"], "ci");
    });
}

#[test]
fn command_lines_are_left_out_where_configured_so() {
    run(async {
        let sandbox = Sandbox::with(Options::default().with("AUDIT__COMMANDS", "false"), json!({})).await;
        sandbox.run("echo private").await;
        let ran = ended_run(&sandbox.api, "exec_command").await;
        assert_eq!((&ran["command"], &ran["exit_code"]), (&Value::Null, &json!(0)));
    });
}

#[test]
fn a_history_that_cannot_be_written_holds_nobody_up_and_is_made_up_for() {
    run(async {
        let sandbox = Sandbox::start().await;
        let mut lock = sandbox.stack.app.pool.begin().await.unwrap();
        sqlx::raw_sql("LOCK TABLE audit_events").execute(&mut *lock).await.unwrap();
        for _ in 0..3 {
            sandbox.run("echo on").await;
        }
        lock.rollback().await.unwrap();
        assert_eq!(events(&sandbox.api, "action=exec_command", 3).await.len(), 3);
    });
}

#[test]
fn usage_and_history_outlive_the_instance() {
    run(async {
        let options = Options::default().with("JOBS__ENABLED", "false").with("JOBS__INSTANCE_RETENTION", "1h");
        let sandbox = Sandbox::with(options, json!({})).await;
        let (api, stack) = (&sandbox.api, &sandbox.stack);
        sandbox.run("printf 12345").await;
        let background = sandbox.background(json!({"cmd": "printf 12345"})).await;
        let output = format!("execs/{}/output?follow=true", background["id"].as_str().unwrap());
        let followed =
            sandbox.request(Method::GET, &output).header("accept", "text/event-stream").send().await.unwrap();
        followed.bytes_stream().for_each(async |_| {}).await;
        eventually("counts", async || {
            let usage = api.get("/v1/usage?group_by=key").await.expect(200);
            (usage["items"][0]["bytes"] == 10).then_some(())
        })
        .await;
        api.delete(&format!("/v1/instances/{}", sandbox.id)).await.expect(204);
        stack.sql("UPDATE usage_runs SET started_at = ended_at - interval '100 seconds'").await;
        prune_batch(&stack.app).await.unwrap();
        sandbox.get("execs").await.expect(200);
        stack.sql("UPDATE instances SET stopped_at = stopped_at - interval '2 hours'").await;
        prune_batch(&stack.app).await.unwrap();
        let gone = api.get(&format!("/v1/instances/{}", sandbox.id)).await.problem(404, "not_found");
        assert!(gone["sandbox"]["stopped_at"].is_string(), "{gone:#}");
        let other = stack.team("other").await.get(&format!("/v1/instances/{}", sandbox.id)).await;
        assert!(other.problem(404, "not_found")["sandbox"].is_null());

        let me = api.get("/v1/me").await.expect(200);
        for (group, id) in [("team", &me["team"]["id"]), ("key", &me["key"]["id"])] {
            let usage = api.get(&format!("/v1/usage?group_by={group}")).await.expect(200);
            let used = &usage["items"][0];
            assert_eq!((usage["items"].as_array().unwrap().len(), &used["id"]), (1, id), "{usage:#}");
            for (field, value) in [("instances", 1), ("instance_seconds", 100), ("execs", 2), ("bytes", 10)] {
                assert_eq!(used[field], value, "{field}: {usage:#}");
            }
        }
        let by_tool = api.get("/v1/usage?group_by=tool").await.expect(200);
        assert_eq!(by_tool["items"][0]["name"], "shell");
        let past = api.get("/v1/usage?from=2020-01-01T00:00:00Z&to=2020-02-01T00:00:00Z").await.expect(200);
        assert_eq!(past["items"], json!([]));
        assert_eq!(events(api, &format!("instance={}&action=delete_instance", sandbox.id), 1).await.len(), 1);

        stack.sql("UPDATE audit_events SET at = at - interval '2 years'").await;
        stack.sql("UPDATE usage_runs SET ended_at = ended_at - interval '3 years'").await;
        stack.sql("UPDATE usage_hours SET hour = hour - interval '3 years'").await;
        prune_batch(&stack.app).await.unwrap();
        assert_eq!(api.get("/v1/usage?from=2000-01-01T00:00:00Z").await.expect(200)["items"], json!([]));
        assert_eq!(api.get("/v1/audit?action=delete_instance").await.expect(200)["items"], json!([]));
    });
}

#[test]
fn time_that_is_paused_does_not_count() {
    run(async {
        let stack = still().await;
        let api = stack.api();
        let instance = api.post("/v1/instances", &json!({"tool": "base"})).await.expect(201);
        stack.sql("UPDATE usage_runs SET started_at = started_at - interval '1000 seconds'").await;
        api.post(&format!("{}/pause", path(&instance)), &json!({})).await.expect(200);
        stack
            .sql("UPDATE usage_runs SET started_at = started_at - interval '5 h', ended_at = ended_at - interval '5 h'")
            .await;
        api.post(&format!("{}/resume", path(&instance)), &json!({})).await.expect(200);
        stack.sql("UPDATE usage_runs SET started_at = started_at - interval '200 seconds' WHERE resumed").await;
        let used = api.get("/v1/usage").await.expect(200)["items"][0].clone();
        let seconds = used["instance_seconds"].as_u64().unwrap();
        // It runs on while the test looks.
        assert!((1200..1260).contains(&seconds), "{used:#}");
        assert_eq!(used["instances"], 1);
    });
}
