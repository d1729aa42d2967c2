//! Tools over HTTP, with the emulator's cloud on the other side.

use ags_gateway::{app::tools, domain::team::Grants};
use serde_json::{Value, json};

use crate::{
    cloud::path,
    harness::{Options, Stack, run},
};

fn custom(name: &str) -> Value {
    json!({"name": name, "type": "custom"})
}

/// A tool in the cloud, by our id of it.
fn upstream(stack: &Stack, id: &Value) -> Option<Value> {
    let name = id.as_str().expect("an id");
    let tool = stack.emulator.cloud().with_state(|state| state.tool_named(name).cloned());
    tool.map(|tool| serde_json::to_value(tool).expect("JSON"))
}

fn upstream_count(stack: &Stack) -> usize {
    stack.emulator.cloud().with_state(|state| state.tools.len())
}

/// A stack whose jobs run only when the test says so.
async fn still() -> Stack {
    Stack::with(Options::simulated().with("JOBS__ENABLED", "false").with("JOBS__CLAIM", "1s")).await
}

#[test]
fn a_custom_tool_gets_the_configured_defaults_and_carries_our_stamp() {
    run(async {
        let stack = still().await;
        let body = json!({"name": "mine", "type": "custom", "description": "for tests", "tags": {"env": "prod"},
            "probe": {"port": 8000}, "resources": {"cpu": "500m"}, "env": {"A": "1"}});
        let tool = stack.api().post("/v1/tools", &body).await.expect(201);
        assert_eq!(tool["status"], "ACTIVE");
        assert_eq!(tool["default_timeout_seconds"], 300);
        assert_eq!(tool["image"], "python:3.11");
        assert_eq!(tool["network"]["mode"], "PUBLIC");
        assert_eq!(tool["resources"], json!({"cpu": "500m", "memory": "2Gi", "storage": null}));
        assert_eq!((&tool["probe"]["port"], &tool["probe"]["failure_threshold"]), (&json!(8000), &json!(100)));
        let seen = upstream(&stack, &tool["id"]).expect("the tool in the cloud");
        assert_eq!(seen["ToolId"], tool["upstream_id"]);
        assert_eq!(seen["Description"], "mine: for tests");
        let tags = seen["Tags"].to_string();
        assert!(tags.contains(&stack.app.deployment) && tags.contains("prod"), "{tags}");
        assert_eq!(seen["CustomConfiguration"]["Probe"]["HttpGet"]["Port"], 8000);
        assert_eq!(stack.api().get(&path(&tool)).await.expect(200), tool);
    });
}

#[test]
fn names_are_unique_in_a_team_and_free_again_after_deletion() {
    run(async {
        let stack = still().await;
        let api = stack.api();
        let tool = api.post("/v1/tools", &custom("one")).await.expect(201);
        api.post("/v1/tools", &custom("one")).await.problem(409, "name_taken");
        let other = stack.team("other").await;
        other.post("/v1/tools", &custom("one")).await.expect(201);
        assert_eq!(api.delete(&path(&tool)).await.status, 204);
        assert_eq!(api.delete(&path(&tool)).await.status, 204);
        api.get(&path(&tool)).await.problem(404, "not_found");
        assert_eq!(upstream(&stack, &tool["id"]), None);
        api.post("/v1/tools", &custom("one")).await.expect(201);
    });
}

#[test]
fn a_tool_with_live_instances_stays() {
    run(async {
        let stack = still().await;
        let api = stack.api();
        let tool = api.post("/v1/tools", &custom("busy")).await.expect(201);
        let instance = api.post("/v1/instances", &json!({"tool": "busy"})).await.expect(201);
        api.delete(&path(&tool)).await.problem(409, "tool_in_use");
        assert_eq!(api.delete(&path(&instance)).await.status, 204);
        assert_eq!(api.delete(&path(&tool)).await.status, 204);
        // The ended instance remembers its tool.
        assert_eq!(api.get(&path(&instance)).await.expect(200)["tool_name"], "busy");
    });
}

#[test]
fn a_slow_creation_is_followed_as_long_as_the_caller_waits() {
    run(async {
        let stack = still().await;
        let api = stack.api();
        stack.tune(|tunables| tunables.tool_delay_ms = 1_000);
        let tool = api.post("/v1/tools", &custom("slow")).await.expect(202);
        assert_eq!(tool["status"], "CREATING");
        let refused = api.post("/v1/instances", &json!({"tool": "slow"})).await.problem(409, "invalid_state");
        assert_eq!(refused["retryable"], true);
        let waited = api.post("/v1/tools?wait=10s", &custom("slow-too")).await.expect(201);
        assert_eq!(waited["status"], "ACTIVE");
        api.post("/v1/tools?wait=1h", &custom("x")).await.problem(422, "validation_failed");
    });
}

#[test]
fn a_creation_that_the_cloud_fails_leaves_nothing() {
    run(async {
        let stack = still().await;
        let api = stack.api();
        let before = upstream_count(&stack);
        stack.fault(json!({"match": {"action": "CreateSandboxTool"}, "kind": "fail_tool", "reason": "no such image"}));
        let failed = api.post("/v1/tools?wait=5s", &custom("bad")).await.problem(502, "upstream_error");
        assert!(failed["detail"].as_str().unwrap().contains("image_registry_type"), "{failed:#}");
        let listed = api.get("/v1/tools?status=FAILED").await.expect(200);
        assert_eq!(listed["items"][0]["status_reason"], "no such image");
        stack.no_faults();
        tools::settle(&stack.app).await.unwrap();
        assert_eq!(upstream_count(&stack), before);
        api.post("/v1/tools", &custom("bad")).await.expect(201);

        stack.fault(json!({"match": {"action": "CreateSandboxTool"}, "kind": "error", "code": "ResourceInsufficient"}));
        let refused = api.post("/v1/tools", &custom("none")).await.problem(503, "upstream_unavailable");
        assert_eq!(refused["upstream"]["code"], "ResourceInsufficient");
        assert_eq!(api.get("/v1/tools?name=none").await.expect(200)["items"], json!([]));
    });
}

#[test]
fn a_creation_whose_answer_is_lost_is_found_again() {
    run(async {
        let stack = still().await;
        stack.fault_in("CreateSandboxTool", "lose_response");
        let tool = stack.api().post("/v1/tools", &custom("lost")).await.expect(201);
        assert_eq!(upstream(&stack, &tool["id"]).expect("one in the cloud")["ToolId"], tool["upstream_id"]);
    });
}

#[test]
fn what_an_unreachable_cloud_may_have_made_is_removed_later() {
    run(async {
        let stack = still().await;
        let api = stack.api();
        let before = upstream_count(&stack);
        stack.fault_in("CreateSandboxTool", "lose_response");
        stack.fault(json!({"match": {"action": "DescribeSandboxToolList"}, "kind": "error", "code": "InternalError"}));
        let refused = api.post("/v1/tools", &custom("lost")).await;
        assert!(refused.status.is_server_error(), "{:#}", refused.body);
        assert_eq!(refused.body["retryable"], true);
        assert_eq!(upstream_count(&stack), before + 1);
        stack.no_faults();
        // The name is free at once.
        api.post("/v1/tools", &custom("lost")).await.expect(201);
        tools::settle(&stack.app).await.unwrap();
        assert_eq!(upstream_count(&stack), before + 1);
    });
}

#[test]
fn a_creation_that_was_cut_off_is_finished() {
    run(async {
        let stack = still().await;
        let api = stack.api();
        let tool = api.post("/v1/tools", &custom("cut")).await.expect(201);
        stack.tune(|tunables| tunables.client_token = ags_emulator::settings::ClientTokenMode::Forgotten);
        // As a crash leaves it after the effect, and before.
        stack
            .sql("UPDATE tools SET status = 'CREATING', upstream_id = NULL, claimed_until = now() + interval '1h'")
            .await;
        assert_eq!(tools::settle(&stack.app).await.unwrap(), 0);
        stack.sql("UPDATE tools SET claimed_until = now()").await;
        assert_eq!(tools::settle(&stack.app).await.unwrap(), 1);
        assert_eq!(api.get(&path(&tool)).await.expect(200)["upstream_id"], tool["upstream_id"]);
        stack.sql("UPDATE tools SET status = 'CREATING', upstream_id = NULL, claimed_until = NULL").await;
        stack.emulator.cloud().with_state(|state| state.tools.retain(|_, tool| tool.tags.is_none()));
        tools::settle(&stack.app).await.unwrap();
        let healed = api.get(&path(&tool)).await.expect(200);
        assert_eq!(healed["status"], "ACTIVE");
        assert_eq!(upstream(&stack, &tool["id"]).expect("a new one")["ToolId"], healed["upstream_id"]);
        // The cloud refuses it by now.
        stack.sql("UPDATE tools SET status = 'CREATING', upstream_id = NULL, claimed_until = NULL").await;
        stack.emulator.cloud().with_state(|state| state.tools.retain(|_, tool| tool.tags.is_none()));
        stack.fault(json!({"match": {"action": "CreateSandboxTool"}, "kind": "error", "code": "InvalidParameter"}));
        tools::settle(&stack.app).await.unwrap();
        let failed = api.get(&path(&tool)).await.expect(200);
        assert_eq!(failed["status"], "FAILED");
        assert!(failed["status_reason"].is_string());
        assert_eq!(api.delete(&path(&tool)).await.status, 204);
    });
}

#[test]
fn a_change_reaches_the_cloud_and_keeps_the_rest() {
    run(async {
        let stack = still().await;
        let api = stack.api();
        let tool = api.post("/v1/tools", &json!({"name": "a", "type": "custom", "env": {"A": "1"}})).await.expect(201);
        let change = json!({"name": "b", "description": "new", "image": "node:22", "default_timeout": "1h",
            "probe": {"port": 9000}, "tags": {"x": "y"}});
        let changed = api.patch(&path(&tool), &change).await.expect(200);
        assert_eq!((&changed["name"], &changed["image"]), (&json!("b"), &json!("node:22")));
        assert_eq!((&changed["env"], &changed["probe"]["path"]), (&json!({"A": "1"}), &json!("/")));
        assert_eq!(changed["default_timeout_seconds"], 3600);
        let seen = upstream(&stack, &tool["id"]).unwrap();
        assert_eq!(seen["Description"], "b: new");
        assert_eq!(seen["CustomConfiguration"]["Image"], "node:22");
        assert_eq!(seen["CustomConfiguration"]["Env"], json!([{"Name": "A", "Value": "1"}]));
        assert!(seen["Tags"].to_string().contains(&stack.app.deployment));
        api.post("/v1/tools", &custom("c")).await.expect(201);
        api.patch(&path(&tool), &json!({"name": "c"})).await.problem(409, "name_taken");
        let bad = api.patch(&path(&tool), &json!({"network": {"mode": "LAN"}})).await.problem(422, "validation_failed");
        assert_eq!(bad["errors"][0]["field"], "network.mode");
    });
}

#[test]
fn shared_tools_are_everybodys_to_start_and_nobodys_to_change() {
    run(async {
        let stack = Stack::with(
            Options::simulated().with("JOBS__ENABLED", "false").with("TOOLS__SHARED", "code-interpreter-v1,base"),
        )
        .await;
        let api = stack.team("guests").await;
        let instance = api.post("/v1/instances", &json!({"tool": "base"})).await.expect(201);
        assert_eq!((&instance["tool_name"], &instance["timeout_seconds"]), (&json!("base"), &json!(300)));
        let listed = api.get("/v1/tools?name=base,code-interpreter-v1").await.expect(200);
        let tools = listed["items"].as_array().unwrap();
        assert_eq!(tools.len(), 2);
        assert!(tools.iter().all(|tool| tool["shared"] == true && tool["type"] == "code-interpreter"));
        api.patch(&path(&tools[0]), &json!({"description": "mine"})).await.problem(403, "not_granted");
        api.delete(&path(&tools[0])).await.problem(403, "not_granted");
        // A team's own tool of that name comes first.
        let own = api.post("/v1/tools", &custom("base")).await.expect(201);
        let instance = api.post("/v1/instances", &json!({"tool": "base"})).await.expect(201);
        assert_eq!(instance["tool_id"], own["id"]);
        api.post("/v1/instances", &json!({"tool": "swebench-1"})).await.problem(404, "not_found");
    });
}

#[test]
fn what_was_not_granted_is_refused() {
    run(async {
        let stack = still().await;
        let api = stack.api();
        let tool = |extra: Value| {
            let mut body = custom("x");
            body.as_object_mut().unwrap().extend(extra.as_object().unwrap().clone());
            body
        };
        let role = "qcs::cam::uin/1:roleName/r";
        let cos = json!({"name": "data", "mount_path": "/data", "source": {"cos": {"bucket_name": "b-1"}}});
        for (field, body) in [
            ("role_arn", tool(json!({"role_arn": role}))),
            ("storage_mounts", tool(json!({"storage_mounts": [cos]}))),
            (
                "network.mode",
                tool(json!({"network": {"mode": "VPC", "subnet_ids": ["subnet-1"],
                "security_group_ids": ["sg-1"]}})),
            ),
        ] {
            let refused = api.post("/v1/tools", &body).await.problem(403, "not_granted");
            assert_eq!(refused["errors"][0]["field"], field);
        }
        let me = api.get("/v1/me").await.expect(200);
        let grants = Grants { role_arns: vec![role.into()], mounts: vec!["cos:b-1".into()], ..Grants::default() };
        let team = format!("/v1/teams/{}", me["team"]["id"].as_str().unwrap());
        stack.admin().patch(&team, &json!({"grants": grants})).await.expect(200);
        let granted = tool(json!({"role_arn": role, "storage_mounts": [cos]}));
        let made = api.post("/v1/tools", &granted).await.expect(201);
        assert_eq!(made["storage_mounts"][0]["source"]["cos"]["bucket_name"], "b-1");
        let seen = upstream(&stack, &made["id"]).unwrap();
        assert_eq!(seen["StorageMounts"][0]["StorageSource"]["Cos"]["BucketName"], "b-1");
    });
}

#[test]
fn bad_fields_are_named() {
    run(async {
        let stack = still().await;
        let api = stack.api();
        for (field, extra) in [
            ("name", json!({"name": ""})),
            ("name", json!({"name": "x".repeat(51)})),
            ("type", json!({"type": "No Type"})),
            ("type", json!({"type": "nonsense"})),
            ("description", json!({"description": "x".repeat(201)})),
            ("default_timeout", json!({"default_timeout": "29s"})),
            ("default_timeout", json!({"default_timeout": "25h"})),
            ("default_timeout", json!({"default_timeout": "soon"})),
            ("network.mode", json!({"network": {"mode": "public"}})),
            ("network.subnet_ids", json!({"network": {"mode": "VPC", "security_group_ids": ["sg-1"]}})),
            ("image", json!({"image": "two words"})),
            ("image_registry_type", json!({"image_registry_type": "docker"})),
            ("ports[0].port", json!({"ports": [{"port": 0}]})),
            ("ports[0].port", json!({"ports": [{"port": 65536}]})),
            ("probe.port", json!({"probe": {"port": "x"}})),
            ("probe.path", json!({"probe": {"path": "health"}})),
            ("resources.memory", json!({"resources": {"memory": "lots"}})),
            ("dns.servers[0]", json!({"dns": {"servers": ["dns.local"]}})),
            ("tags.ags-gateway.team", json!({"tags": {"ags-gateway.team": "x"}})),
            (
                "storage_mounts[0].mount_path",
                json!({"storage_mounts": [{"name": "d", "mount_path": "data",
                "source": {"cfs": {"file_system_id": "f"}}}]}),
            ),
            ("mount_envd", json!({"mount_envd": true})),
            ("log.files[0]", json!({"log": {"files": ["/var/log/x"]}})),
            ("upstream", json!({"upstream": "mars"})),
            ("colour", json!({"colour": "red"})),
        ] {
            let mut body = custom("x");
            body.as_object_mut().unwrap().extend(extra.as_object().unwrap().clone());
            let refused = api.post("/v1/tools", &body).await.problem(422, "validation_failed");
            assert_eq!(refused["errors"][0]["field"], field, "{refused:#}");
        }
        assert_eq!(api.get("/v1/tools").await.expect(200)["items"], json!([]));
    });
}

#[test]
fn lists_are_filtered_and_paged_newest_first() {
    run(async {
        let stack = still().await;
        let api = stack.api();
        for (name, env) in [("a", "prod"), ("b", "test"), ("c", "prod")] {
            let body = json!({"name": name, "type": "custom", "tags": {"env": env}});
            api.post("/v1/tools", &body).await.expect(201);
        }
        let names = async |query: &str| {
            let page = api.get(&format!("/v1/tools{query}")).await.expect(200);
            let names: Vec<String> =
                page["items"].as_array().unwrap().iter().map(|tool| tool["name"].as_str().unwrap().into()).collect();
            (names.join(""), page["next_cursor"].as_str().map(str::to_owned))
        };
        assert_eq!(names("").await, ("cba".into(), None));
        assert_eq!(names("?tag.env=prod").await.0, "ca");
        assert_eq!(names("?tag.env=prod&tag.env=test").await.0, "cba");
        assert_eq!(names("?name=a,b&status=ACTIVE&type=custom").await.0, "ba");
        assert_eq!(names("?type=browser").await.0, "");
        let (first, cursor) = names("?limit=2").await;
        assert_eq!(first, "cb");
        assert_eq!(names(&format!("?limit=2&cursor={}", cursor.unwrap())).await, ("a".into(), None));
        api.get("/v1/tools?tags=x").await.problem(422, "validation_failed");
    });
}

#[test]
fn other_teams_see_nothing() {
    run(async {
        let stack = still().await;
        let tool = stack.api().post("/v1/tools", &custom("mine")).await.expect(201);
        let other = stack.team("other").await;
        other.get(&path(&tool)).await.problem(404, "not_found");
        other.patch(&path(&tool), &json!({"description": "x"})).await.problem(404, "not_found");
        other.delete(&path(&tool)).await.problem(404, "not_found");
        other.post("/v1/instances", &json!({"tool": tool["id"]})).await.problem(404, "not_found");
        other.post("/v1/instances", &json!({"tool": "mine"})).await.problem(404, "not_found");
        assert_eq!(other.get("/v1/tools").await.expect(200)["items"], json!([]));
    });
}
