//! Instances over HTTP, with the emulator's cloud on the other side.

use std::time::Duration;

use http::Method;
use serde_json::{Value, json};

use crate::{
    cloud::{eventually, path},
    harness::{Api, Options, Stack, read, run},
};

/// A stack whose jobs run only when the test says so.
async fn still() -> Stack {
    stack(Options::default()).await
}

async fn stack(options: Options) -> Stack {
    let options = Options { simulated: true, ..options };
    Stack::with(options.with("JOBS__ENABLED", "false").with("TOOLS__SHARED", "base").with("JOBS__CLAIM", "1s")).await
}

async fn start(api: &Api, extra: Value) -> Value {
    let mut body = json!({"tool": "base"});
    body.as_object_mut().unwrap().extend(extra.as_object().unwrap().clone());
    api.post("/v1/instances", &body).await.expect(201)
}

fn seconds_between(from: &Value, to: &Value) -> i64 {
    let time = |value: &Value| value.as_str().unwrap().parse::<chrono::DateTime<chrono::Utc>>().unwrap();
    (time(to) - time(from)).num_seconds()
}

#[test]
fn an_instance_lives_and_ends_and_stays_readable() {
    run(async {
        let stack = still().await;
        let api = stack.api();
        let instance = start(&api, json!({"timeout": "10m", "metadata": {"user": "42"}})).await;
        assert_eq!((&instance["status"], &instance["timeout_seconds"]), (&json!("RUNNING"), &json!(600)));
        assert_eq!(instance["metadata"], json!({"user": "42"}));
        assert_eq!(seconds_between(&instance["started_at"], &instance["expires_at"]), 600);
        let seen = stack.upstream_instance(&instance["upstream_id"]);
        assert_eq!(seen["TimeoutSeconds"], 900);
        let stamp = seen["Metadata"].to_string();
        assert!(stamp.contains(&stack.app.deployment) && stamp.contains(instance["id"].as_str().unwrap()), "{stamp}");
        let usage = api.get("/v1/me").await.expect(200)["usage"].clone();
        assert_eq!((&usage["instances"], &usage["execs"]), (&json!(1), &json!(0)));

        assert_eq!(api.delete(&path(&instance)).await.status, 204);
        let ended = api.get(&path(&instance)).await.expect(200);
        assert_eq!((&ended["status"], &ended["stop_reason"]), (&json!("STOPPED"), &json!("manual")));
        assert!(ended["stopped_at"].is_string());
        assert_eq!(stack.upstream_states(), ["STOPPED"]);
        assert_eq!(api.delete(&path(&instance)).await.status, 204);
        assert_eq!(stack.calls("StopSandboxInstance"), 1);
        assert_eq!(api.get("/v1/me").await.expect(200)["usage"]["instances"], 0);
    });
}

#[test]
fn a_slow_start_is_answered_in_time_and_goes_on() {
    run(async {
        let stack = still().await;
        let api = stack.api();
        stack.tune(|tunables| tunables.start_delay_ms = 700);
        let body = json!({"tool": "base"});
        let starting = api.post("/v1/instances?wait=0", &body).await.expect(202);
        assert_eq!((&starting["status"], &starting["started_at"]), (&json!("STARTING"), &Value::Null));
        let running = eventually("RUNNING", async || {
            let seen = api.get(&path(&starting)).await.expect(200);
            (seen["status"] == "RUNNING").then_some(seen)
        })
        .await;
        assert_eq!(seconds_between(&running["started_at"], &running["expires_at"]), 300);
        assert_eq!(api.post("/v1/instances", &body).await.expect(201)["status"], "RUNNING");
    });
}

#[test]
fn a_client_that_hangs_up_changes_nothing() {
    run(async {
        let stack = still().await;
        let api = stack.api();
        stack.fault(json!({"match": {"action": "StartSandboxInstance"}, "kind": "latency", "ms": 500}));
        let hasty = api.request(Method::POST, "/v1/instances").json(&json!({"tool": "base"}));
        assert!(hasty.timeout(Duration::from_millis(200)).send().await.unwrap_err().is_timeout());
        eventually("RUNNING", async || {
            let listed = api.get("/v1/instances?status=RUNNING").await.expect(200);
            (listed["items"].as_array().unwrap().len() == 1).then_some(())
        })
        .await;
    });
}

#[test]
fn a_start_that_fails_says_what_to_do_and_is_readable() {
    run(async {
        let stack = stack(Options::default().with("INSTANCES__STARTUP_TIMEOUT", "2s")).await;
        let api = stack.api();
        let body = json!({"tool": "base"});
        stack.fault(json!({"match": {"action": "StartSandboxInstance"}, "kind": "fail_instance", "times": 1}));
        let failed = api.post("/v1/instances", &body).await.problem(502, "instance_start_failed");
        assert_eq!(
            (&failed["sandbox"]["status"], &failed["sandbox"]["stop_reason"]),
            (&json!("FAILED"), &json!("error"))
        );
        assert!(failed["detail"].as_str().unwrap().contains("probe"), "{failed:#}");
        let seen = api.get(&path(&failed["sandbox"])).await.expect(200);
        assert_eq!(seen["status"], "FAILED");
        assert!(seen["status_reason"].is_string());

        stack.no_faults();
        stack.tune(|tunables| tunables.start_delay_ms = 60_000);
        let late = api.post("/v1/instances", &body).await.problem(502, "instance_start_failed");
        assert!(late["detail"].as_str().unwrap().contains("2 s"), "{late:#}");
        assert_eq!(stack.upstream_states(), ["STARTING_FAILED", "STOPPED"]);

        stack.tune(|tunables| tunables.max_instances = 0);
        let full = api.post("/v1/instances", &body).await.problem(429, "quota_exceeded");
        assert_eq!(full["upstream"]["code"], "LimitExceeded.SandboxInstance");
        assert!(full["upstream"]["request_id"].is_string());
        assert_eq!(api.get("/v1/me").await.expect(200)["usage"]["instances"], 0);
    });
}

#[test]
fn an_unreachable_cloud_is_said_and_nothing_is_left() {
    run(async {
        let stack = still().await;
        let api = stack.api();
        start(&api, json!({})).await;
        for kind in [json!({"kind": "http", "status": 503}), json!({"kind": "cut"}), json!({"kind": "refuse"})] {
            stack.fault(kind.clone());
            let failed = api.post("/v1/instances", &json!({"tool": "base"})).await;
            assert!(matches!(failed.status.as_u16(), 502..=504), "{kind}: {:#}", failed.body);
            assert_eq!(failed.body["retryable"], true, "{kind}: {:#}", failed.body);
            assert_eq!(failed.body["sandbox"]["status"], "FAILED");
            stack.no_faults();
        }
        assert_eq!(stack.upstream_states(), ["RUNNING"]);
        assert_eq!(api.get("/v1/me").await.expect(200)["usage"]["instances"], 1);
    });
}

#[test]
fn throttling_and_lost_answers_start_one_instance_however_tokens_are_read() {
    use ags_emulator::settings::ClientTokenMode::{DuplicateRequest, Forgotten, Replay};
    run(async {
        let stack = still().await;
        let api = stack.api();
        for (index, mode) in [Replay, DuplicateRequest, Forgotten].into_iter().enumerate() {
            stack.tune(|tunables| tunables.client_token = mode);
            for kind in ["throttle", "lose_response"] {
                let rule = json!({"match": {"action": "StartSandboxInstance"}, "kind": kind, "times": 2});
                stack.fault(rule);
                let instance = start(&api, json!({})).await;
                assert_eq!(stack.upstream_instance(&instance["upstream_id"])["Status"], "RUNNING");
                stack.no_faults();
            }
            assert_eq!(stack.upstream_instances().len(), 2 * (index + 1), "{mode:?}");
        }
    });
}

#[test]
fn the_quota_holds_against_many_at_once() {
    run(async {
        let stack = still().await;
        let api = stack.api();
        let me = api.get("/v1/me").await.expect(200);
        let team = format!("/v1/teams/{}", me["team"]["id"].as_str().unwrap());
        let quotas = json!({"quotas": {"max_instances": 3, "max_lifetime_seconds": 600}});
        stack.admin().patch(&team, &quotas).await.expect(200);
        start(&api, json!({})).await;
        let body = json!({"tool": "base"});
        let answers = futures_util::future::join_all((0..8).map(|_| api.post("/v1/instances", &body))).await;
        let (made, refused): (Vec<_>, Vec<_>) = answers.into_iter().partition(|answer| answer.status == 201);
        assert_eq!(made.len(), 2);
        for answer in refused {
            assert!(answer.headers.contains_key("retry-after"));
            let problem = answer.problem(429, "quota_exceeded");
            assert_eq!(problem["limit"], json!({"name": "max_instances", "value": 3, "used": 3}));
        }
        let long = json!({"tool": "base", "timeout": "1h"});
        let problem = api.post("/v1/instances", &long).await.problem(422, "validation_failed");
        assert_eq!(problem["limit"], json!({"name": "max_lifetime_seconds", "value": 600, "used": 3600}));
    });
}

#[test]
fn a_change_counts_from_now_and_keeps_our_stamp() {
    run(async {
        let stack = still().await;
        let api = stack.api();
        let instance = start(&api, json!({"timeout": "1m", "metadata": {"a": "1"}})).await;
        let change = json!({"timeout": "2h", "metadata": {"b": "2"}, "idle": {"after": "5m", "action": "pause"}});
        let changed = api.patch(&path(&instance), &change).await.expect(200);
        assert_eq!((&changed["timeout_seconds"], &changed["metadata"]), (&json!(7200), &json!({"b": "2"})));
        assert_eq!(changed["idle"], json!({"after_seconds": 300, "action": "pause"}));
        assert_eq!(seconds_between(&changed["updated_at"], &changed["expires_at"]), 7200);
        let seen = stack.upstream_instance(&instance["upstream_id"]);
        assert_eq!(seen["TimeoutSeconds"], 7500);
        let metadata = seen["Metadata"].to_string();
        assert!(metadata.contains(&stack.app.deployment) && metadata.contains("\"b\"") && !metadata.contains("\"a\""));

        // A shorter life needs no later backstop: the cloud is not called.
        let calls = stack.calls("UpdateSandboxInstance");
        let shorter = api.patch(&path(&instance), &json!({"timeout": 60, "idle": null})).await.expect(200);
        assert_eq!(
            (seconds_between(&shorter["updated_at"], &shorter["expires_at"]), &shorter["idle"]),
            (60, &Value::Null)
        );
        assert_eq!(stack.calls("UpdateSandboxInstance"), calls);

        let end = (chrono::DateTime::parse_from_rfc3339(shorter["updated_at"].as_str().unwrap()).unwrap()
            + chrono::TimeDelta::minutes(30))
        .to_rfc3339();
        let until = api.patch(&path(&instance), &json!({"expires_at": end})).await.expect(200);
        let told: chrono::DateTime<chrono::Utc> = until["expires_at"].as_str().unwrap().parse().unwrap();
        assert_eq!(told, end.parse::<chrono::DateTime<chrono::Utc>>().unwrap());

        for (field, bad) in [
            ("expires_at", json!({"timeout": "1m", "expires_at": end})),
            ("timeout", json!({"timeout": 29})),
            ("expires_at", json!({"expires_at": "2020-01-01T00:00:00Z"})),
            ("metadata.ags-gateway.instance", json!({"metadata": {"ags-gateway.instance": "x"}})),
            ("idle.action", json!({"idle": {"after": 60, "action": "explode"}})),
            ("status", json!({"status": "RUNNING"})),
        ] {
            let refused = api.patch(&path(&instance), &bad).await.problem(422, "validation_failed");
            assert_eq!(refused["errors"][0]["field"], field, "{refused:#}");
        }
        assert_eq!(api.delete(&path(&instance)).await.status, 204);
        let late = api.patch(&path(&instance), &json!({"timeout": 60})).await.problem(409, "invalid_state");
        assert_eq!(late["sandbox"]["status"], "STOPPED");
    });
}

#[test]
fn a_change_of_what_has_ended_in_the_cloud_tells_so() {
    run(async {
        let stack = still().await;
        let api = stack.api();
        let instance = start(&api, json!({})).await;
        stack.emulator.cloud().clock.advance(Duration::from_secs(7200));
        eventually("the cloud's own stop", async || (stack.upstream_states() == ["STOPPED"]).then_some(())).await;
        let late = api.patch(&path(&instance), &json!({"timeout": "1h"})).await.problem(409, "invalid_state");
        assert_eq!(
            (&late["sandbox"]["status"], &late["sandbox"]["stop_reason"]),
            (&json!("STOPPED"), &json!("timeout"))
        );
    });
}

#[test]
fn a_paused_instance_keeps_its_end_and_resumes() {
    run(async {
        let stack = still().await;
        let api = stack.api();
        let instance = start(&api, json!({"timeout": "1h"})).await;
        let post = async |what: &str, body: Value| api.post(&format!("{}/{what}", path(&instance)), &body).await;
        let paused = post("pause", json!({"memory": true})).await.expect(200);
        assert_eq!((&paused["status"], &paused["expires_at"]), (&json!("PAUSED"), &instance["expires_at"]));
        post("pause", json!({})).await.expect(200);
        let changed = api.patch(&path(&instance), &json!({"timeout": "2h"})).await.expect(200);
        assert_eq!(changed["status"], "PAUSED");
        let resumed = post("resume", json!({})).await.expect(200);
        assert_eq!((&resumed["status"], &resumed["expires_at"]), (&json!("RUNNING"), &changed["expires_at"]));
        let given = stack.upstream_instance(&instance["upstream_id"])["TimeoutSeconds"].as_u64().unwrap();
        assert!((7490..=7500).contains(&given), "{given}");
        post("resume", json!({})).await.expect(200);
        post("resume", json!({"timeout": "1h"})).await.problem(409, "invalid_state");

        stack.tune(|tunables| tunables.pause_delay_ms = 400);
        let slow = api.post(&format!("{}/pause?wait=0", path(&instance)), &json!({})).await.expect(202);
        assert_eq!(slow["status"], "PAUSING");
        post("resume", json!({})).await.problem(409, "invalid_state");
        eventually("PAUSED", async || {
            (api.get(&path(&instance)).await.expect(200)["status"] == "PAUSED").then_some(())
        })
        .await;
        let again = post("resume", json!({"timeout": "10m"})).await.expect(200);
        assert_eq!(again["timeout_seconds"], 600);

        stack.tune(|tunables| tunables.max_paused = 0);
        let full = post("pause", json!({})).await.problem(429, "quota_exceeded");
        assert_eq!(full["sandbox"]["status"], "RUNNING");
        assert_eq!(api.delete(&path(&instance)).await.status, 204);
        post("pause", json!({})).await.problem(409, "invalid_state");
    });
}

#[test]
fn a_pause_that_the_cloud_does_not_do_is_said() {
    run(async {
        let stack = still().await;
        let api = stack.api();
        let instance = start(&api, json!({})).await;
        stack.fault_in("PauseSandboxInstance", "fail_instance");
        let failed = api.post(&format!("{}/pause", path(&instance)), &json!({})).await.problem(502, "upstream_error");
        assert_eq!((&failed["retryable"], &failed["sandbox"]["status"]), (&json!(true), &json!("RUNNING")));
        stack.no_faults();
        stack.fault_in("PauseSandboxInstance", "lose_response");
        let paused = api.post(&format!("{}/pause", path(&instance)), &json!({})).await.expect(200);
        assert_eq!(paused["status"], "PAUSED");
    });
}

#[test]
fn an_instance_can_be_stopped_while_it_starts() {
    run(async {
        let stack = still().await;
        let api = stack.api();
        stack.tune(|tunables| tunables.start_delay_ms = 60_000);
        let starting = api.post("/v1/instances?wait=0", &json!({"tool": "base"})).await.expect(202);
        eventually("the start in the cloud", async || (stack.upstream_states() == ["STARTING"]).then_some(())).await;
        assert_eq!(api.delete(&path(&starting)).await.status, 204);
        eventually("its end in the cloud", async || (stack.upstream_states() == ["STOPPED"]).then_some(())).await;
        let ended = api.get(&path(&starting)).await.expect(200);
        assert_eq!((&ended["status"], &ended["stop_reason"]), (&json!("STOPPED"), &json!("manual")));
    });
}

#[test]
fn a_start_is_stopped_even_before_the_cloud_has_answered_it() {
    run(async {
        let stack = still().await;
        let api = stack.api();
        stack.fault(json!({"match": {"action": "StartSandboxInstance"}, "kind": "delay_response", "ms": 700}));
        let starting = api.post("/v1/instances?wait=0", &json!({"tool": "base"})).await.expect(202);
        eventually("the start", async || (stack.upstream_states().len() == 1).then_some(())).await;
        assert_eq!(api.delete(&path(&starting)).await.status, 204);
        assert_eq!(api.get(&path(&starting)).await.expect(200)["status"], "STOPPED");
        eventually("its end in the cloud", async || (stack.upstream_states() == ["STOPPED"]).then_some(())).await;
    });
}

#[test]
fn a_stop_that_fails_stays_stopping() {
    run(async {
        let stack = still().await;
        let api = stack.api();
        let instance = start(&api, json!({})).await;
        stack.fault(json!({"match": {"action": "StopSandboxInstance"}, "kind": "error", "code": "InternalError"}));
        let stopping = api.delete(&path(&instance)).await.expect(202);
        assert_eq!((&stopping["status"], &stopping["stop_reason"]), (&json!("STOPPING"), &json!("manual")));
        stack.no_faults();
        assert_eq!(api.delete(&path(&instance)).await.status, 204);
        assert_eq!(stack.upstream_states(), ["STOPPED"]);
    });
}

#[test]
fn a_repeated_creation_gets_the_first_answer() {
    run(async {
        let stack = still().await;
        let api = stack.api();
        let post = async |key: &str, body: Value| {
            let request = api.request(Method::POST, "/v1/instances").header("idempotency-key", key).json(&body);
            read(request).await
        };
        let body = json!({"tool": "base", "metadata": {"n": "1"}});
        let first = post("k-1", body.clone()).await;
        assert!(!first.headers.contains_key("idempotency-replayed"));
        let first = first.expect(201);
        let again = post("k-1", body.clone()).await;
        assert_eq!(again.headers["idempotency-replayed"], "true");
        assert_eq!(again.expect(201), first);
        post("k-1", json!({"tool": "base"})).await.problem(422, "idempotency_key_reused");
        post("", body.clone()).await.problem(400, "invalid_request");
        // Another team's keys are its own.
        let other = stack.team("other").await;
        let request = other.request(Method::POST, "/v1/instances").header("idempotency-key", "k-1").json(&body);
        assert_ne!(read(request).await.expect(201)["id"], first["id"]);
        // A refusal is kept; a passing failure is not.
        let unknown = json!({"tool": "nowhere"});
        post("k-2", unknown.clone()).await.problem(404, "not_found");
        assert_eq!(post("k-2", unknown).await.headers["idempotency-replayed"], "true");
        stack.fault(json!({"match": {"action": "StartSandboxInstance"}, "kind": "fail_instance", "times": 1}));
        post("k-3", body.clone()).await.problem(502, "instance_start_failed");
        post("k-3", body).await.expect(201);
        assert_eq!(stack.upstream_states().iter().filter(|state| *state == "RUNNING").count(), 3);
    });
}

#[test]
fn a_key_in_use_is_said_and_survives_a_crash() {
    run(async {
        let stack = still().await;
        let api = stack.api();
        let request =
            || api.request(Method::POST, "/v1/instances").header("idempotency-key", "k").json(&json!({"tool": "base"}));
        stack.fault(json!({"match": {"action": "StartSandboxInstance"}, "kind": "latency", "ms": 600}));
        let both = futures_util::future::join(read(request()), read(request())).await;
        let (made, refused) = if both.0.status == 201 { both } else { (both.1, both.0) };
        refused.problem(409, "idempotency_in_progress");
        let made = made.expect(201);
        // As a crash leaves it: the intent is written, the answer is not.
        stack.sql("UPDATE idempotency_keys SET status = NULL, body = NULL, locked_until = now()").await;
        let resumed = read(request()).await.expect(201);
        assert_eq!(resumed["id"], made["id"]);
        assert_eq!(stack.calls("StartSandboxInstance"), 1);
        assert_eq!(read(request()).await.headers["idempotency-replayed"], "true");
    });
}

#[test]
fn addresses_and_tokens_of_a_running_instance() {
    run(async {
        let stack = stack(Options::default().with("SERVER__SANDBOX_DOMAIN", "localhost")).await;
        let api = stack.api().at(&stack.url);
        let instance = start(&api, json!({})).await;
        let id = instance["id"].as_str().unwrap();
        let address = api.get(&format!("{}/url", path(&instance))).await.expect(200);
        assert_eq!(address["url"], format!("{}/v1/instances/{id}/ports/8000/", stack.url));
        let port = stack.url.rsplit(':').next().unwrap();
        assert_eq!(address["host_url"], format!("http://8000-{id}.localhost:{port}/"));
        assert_eq!(api.get(&format!("{}/url?port=65535", path(&instance))).await.expect(200)["port"], 65535);
        for bad in ["0", "65536", "http", "-1"] {
            let refused =
                api.get(&format!("{}/url?port={bad}", path(&instance))).await.problem(422, "validation_failed");
            assert_eq!(refused["errors"][0]["field"], "port");
        }
        let token = api.post(&format!("{}/token", path(&instance)), &json!({})).await.expect(200);
        assert!(token["token"].as_str().unwrap().starts_with("sit_"), "{token:#}");
        assert_eq!(token["upstream_id"], instance["upstream_id"]);
        api.delete(&path(&instance)).await;
        api.get(&format!("{}/url", path(&instance))).await.problem(409, "invalid_state");
        api.post(&format!("{}/token", path(&instance)), &json!({})).await.problem(409, "invalid_state");
    });
}

#[test]
fn bad_fields_are_named_and_start_nothing() {
    run(async {
        let stack = still().await;
        let api = stack.api();
        for (field, extra) in [
            ("timeout", json!({"timeout": 29})),
            ("timeout", json!({"timeout": "24h1s"})),
            ("timeout", json!({"timeout": "a while"})),
            ("timeout", json!({"timeout": -5})),
            ("auth_mode", json!({"auth_mode": "OPEN"})),
            ("metadata.ags-gateway.team", json!({"metadata": {"ags-gateway.team": "x"}})),
            ("metadata.n", json!({"metadata": {"n": 1}})),
            ("env.A=B", json!({"env": {"A=B": "1"}})),
            ("image", json!({"image": ""})),
            ("ports[0].port", json!({"ports": [{"port": 70000}]})),
            ("probe.period_ms", json!({"probe": {"period_ms": 0}})),
            ("resources.cpu", json!({"resources": {"cpu": "none"}})),
            ("mounts[0].name", json!({"mounts": [{"name": "data"}]})),
            ("idle.after", json!({"idle": {"after": 1, "action": "stop"}})),
            ("idle.action", json!({"idle": {"after": 60}})),
            ("colour", json!({"colour": "red"})),
        ] {
            let mut body = json!({"tool": "base"});
            body.as_object_mut().unwrap().extend(extra.as_object().unwrap().clone());
            let refused = api.post("/v1/instances", &body).await.problem(422, "validation_failed");
            assert_eq!(refused["errors"][0]["field"], field, "{refused:#}");
        }
        let none = api.post("/v1/instances", &json!({})).await.problem(422, "validation_failed");
        assert_eq!(none["errors"][0]["field"], "tool");
        let refused = api.post("/v1/instances", &json!({"tool": "base", "auth_mode": "NONE"})).await;
        refused.problem(403, "not_granted");
        assert_eq!(stack.calls("StartSandboxInstance"), 0);
        assert_eq!(api.get("/v1/instances").await.expect(200)["items"], json!([]));
    });
}

#[test]
fn an_override_is_completed_from_the_tool() {
    run(async {
        let stack = still().await;
        // What was granted just now is known here at once, elsewhere within a second.
        let api = stack.api().at(&stack.url);
        let mount = json!({"name": "code", "mount_path": "/code", "source": {"image": {"reference": "r/x:1"}}});
        let tool = json!({"name": "t", "type": "custom", "storage_mounts": [mount], "resources": {"cpu": "2"}});
        let team = api.get("/v1/me").await.expect(200)["team"]["id"].as_str().unwrap().to_owned();
        let grants = json!({"grants": {"mounts": ["*"]}});
        stack.admin().at(&stack.url).patch(&format!("/v1/teams/{team}"), &grants).await.expect(200);
        api.post("/v1/tools", &tool).await.expect(201);
        let body = json!({"tool": "t", "image": "node:22", "probe": {"port": 9000}, "resources": {"memory": "4Gi"},
            "mounts": [{"name": "code", "sub_path": "a", "read_only": true}], "env": {"SECRET": "x"}});
        let instance = api.post("/v1/instances", &body).await.expect(201);
        assert_eq!(instance.get("env"), None);
        let custom = stack.upstream_instance(&instance["upstream_id"])["CustomConfiguration"].clone();
        assert_eq!(custom["Image"], "node:22");
        assert_eq!(custom["Resources"], json!({"CPU": "2", "Memory": "4Gi"}));
        assert_eq!(custom["Probe"]["HttpGet"], json!({"Path": "/", "Port": 9000, "Scheme": "HTTP"}));
        let mounts = &stack.upstream_instance(&instance["upstream_id"])["MountOptions"];
        assert_eq!(*mounts, json!([{"Name": "code", "SubPath": "a", "ReadOnly": true}]));
    });
}

#[test]
fn lists_are_filtered_and_paged_newest_first() {
    run(async {
        let stack = still().await;
        let api = stack.api();
        let a = start(&api, json!({"metadata": {"user": "1", "job": "x"}})).await;
        let b = start(&api, json!({"metadata": {"user": "2"}})).await;
        let c = start(&api, json!({"metadata": {"user": "1"}})).await;
        api.delete(&path(&b)).await;
        let names: Vec<(&str, &str)> =
            [(&a, "a"), (&b, "b"), (&c, "c")].map(|(one, name)| (one["id"].as_str().unwrap(), name)).to_vec();
        let listed = async |query: &str| {
            let page = api.get(&format!("/v1/instances{query}")).await.expect(200);
            let name = |one: &Value| names.iter().find(|(id, _)| one["id"] == *id).expect("one of these").1;
            let items: String = page["items"].as_array().unwrap().iter().map(name).collect();
            (items, page["next_cursor"].as_str().map(str::to_owned))
        };
        assert_eq!(listed("").await, ("cba".into(), None));
        assert_eq!(listed("?metadata.user=1").await.0, "ca");
        assert_eq!(listed("?metadata.user=1&limit=2&cursor=").await.0, "ca");
        assert_eq!(listed("?metadata.user=1,none").await.0, "ca");
        assert_eq!(listed("?metadata.user=1&metadata.user=2").await.0, "cba");
        assert_eq!(listed("?metadata.user=1&metadata.job=x").await.0, "a");
        assert_eq!(listed("?status=RUNNING,PAUSED").await.0, "ca");
        assert_eq!(listed("?status=STOPPED").await.0, "b");
        assert_eq!(listed(&format!("?id={},{}", names[0].0, names[1].0)).await.0, "ba");
        assert_eq!(listed("?tool=base&limit=2").await.0, "cb");
        assert_eq!(listed(&format!("?tool={}", a["tool_id"].as_str().unwrap())).await.0, "cba");
        assert_eq!(listed("?tool=other").await.0, "");
        assert_eq!(listed(&format!("?created_after={}", b["created_at"].as_str().unwrap())).await.0, "c");
        let (first, cursor) = listed("?limit=2").await;
        assert_eq!(first, "cb");
        assert_eq!(listed(&format!("?limit=2&cursor={}", cursor.unwrap())).await, ("a".into(), None));
        api.get("/v1/instances?created_after=yesterday").await.problem(422, "validation_failed");
        api.get("/v1/instances?limit=101").await.problem(422, "validation_failed");
    });
}

#[test]
fn other_teams_and_bound_keys_see_nothing() {
    run(async {
        let stack = still().await;
        let api = stack.api();
        let (instance, second) = (start(&api, json!({})).await, start(&api, json!({})).await);
        let other = stack.team("other").await;
        let key = json!({"name": "one", "scopes": ["instances:read", "instances:write", "tokens"], "instance_id": second["id"]});
        let minted = api.post("/v1/keys", &key).await.expect(201);
        let bound = Api::new(&stack.url, minted["secret"].as_str().unwrap());
        let at = path(&instance);
        for stranger in [&other, &bound] {
            stranger.get(&at).await.problem(404, "not_found");
            stranger.patch(&at, &json!({"timeout": 60})).await.problem(404, "not_found");
            stranger.delete(&at).await.problem(404, "not_found");
            stranger.get(&format!("{at}/url")).await.problem(404, "not_found");
            for what in ["pause", "resume", "token"] {
                stranger.post(&format!("{at}/{what}"), &json!({})).await.problem(404, "not_found");
            }
        }
        assert_eq!(other.get("/v1/instances").await.expect(200)["items"], json!([]));
        assert_eq!(bound.get("/v1/instances").await.expect(200)["items"].as_array().unwrap().len(), 1);
        bound.post("/v1/instances", &json!({"tool": "base"})).await.problem(403, "scope_missing");
        bound.get(&path(&second)).await.expect(200);
        api.get("/v1/instances/ins00000000000000000000000000").await.problem(404, "not_found");
        api.get("/v1/instances/nonsense").await.problem(404, "not_found");
    });
}
