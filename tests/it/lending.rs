//! Tools that are lent to other teams, and those adopted from the cloud's console.

use ags_client::types as wire;
use serde_json::{Value, json};

use crate::{
    cloud::path,
    harness::{Api, Options, Stack, run},
};

async fn still() -> Stack {
    Stack::with(Options::simulated().with("JOBS__ENABLED", "false")).await
}

async fn team_id(api: &Api) -> String {
    api.get("/v1/me").await.expect(200)["team"]["id"].as_str().unwrap().to_owned()
}

#[test]
fn a_lent_tool_is_started_by_others_and_changed_by_its_team_alone() {
    run(async {
        let stack = still().await;
        let (api, other, third) = (stack.api(), stack.team("other").await, stack.team("third").await);
        let tool = api.post("/v1/tools?wait=10s", &json!({"name": "mine", "type": "custom"})).await.expect(201);
        other.get(&path(&tool)).await.problem(404, "not_found");
        let share = format!("{}/share", path(&tool));
        let others = team_id(&other).await;
        other.post(&share, &json!({"team_ids": [others]})).await.problem(404, "not_found");
        let unknown = json!({"team_ids": ["team01kahyexampleexampleexamp0"]});
        api.post(&share, &unknown).await.problem(422, "validation_failed");
        let lent = api.post(&share, &json!({"team_ids": [others, others]})).await.expect(200);
        assert_eq!((&lent["shared_with"], &lent["id"]), (&json!([others]), &tool["id"]));

        let seen = other.get(&path(&tool)).await.expect(200);
        assert_eq!(seen["team_id"], json!(team_id(&api).await));
        assert_eq!(other.get("/v1/tools?name=mine").await.expect(200)["items"][0]["id"], tool["id"]);
        third.get(&path(&tool)).await.problem(404, "not_found");
        let instance = other.post("/v1/instances", &json!({"tool": "mine"})).await.expect(201);
        assert_eq!(instance["tool_id"], tool["id"]);
        other.patch(&path(&tool), &json!({"description": "x"})).await.problem(403, "not_granted");
        other.delete(&path(&tool)).await.problem(403, "not_granted");
        other.post(&share, &json!({"team_ids": []})).await.problem(403, "not_granted");
        api.delete(&path(&tool)).await.problem(409, "tool_in_use");

        // A tool of one's own goes before.
        let own = other.post("/v1/tools?wait=10s", &json!({"name": "mine", "type": "custom"})).await.expect(201);
        let started = other.post("/v1/instances", &json!({"tool": "mine"})).await.expect(201);
        assert_eq!(started["tool_id"], own["id"]);

        api.post(&share, &json!({"team_ids": []})).await.expect(200);
        other.post("/v1/instances", &json!({"tool": tool["id"]})).await.problem(404, "not_found");
        other.get(&format!("/v1/instances/{}", instance["id"].as_str().unwrap())).await.expect(200);
    });
}

#[test]
fn a_lent_tool_lends_no_power_that_the_team_was_not_granted() {
    run(async {
        let stack = still().await;
        let (api, other) = (stack.api(), stack.team("other").await);
        let grants = json!({"grants": {"role_arns": ["*"], "networks": ["PUBLIC"], "upstreams": ["*"], "auth_modes": ["DEFAULT"]}});
        stack.admin().patch(&format!("/v1/teams/{}", team_id(&api).await), &grants).await.expect(200);
        let body = json!({"name": "mighty", "type": "custom", "role_arn": "qcs::cam::uin/1:roleName/x"});
        let tool = api.post("/v1/tools?wait=10s", &body).await.expect(201);
        api.post(&format!("{}/share", path(&tool)), &json!({"team_ids": [team_id(&other).await]})).await.expect(200);
        let refused = other.post("/v1/instances", &json!({"tool": "mighty"})).await.problem(403, "not_granted");
        assert_eq!(refused["errors"][0]["field"], "role_arn");
        stack.admin().patch(&format!("/v1/teams/{}", team_id(&other).await), &grants).await.expect(200);
        other.post("/v1/instances", &json!({"tool": "mighty"})).await.expect(201);
    });
}

/// A tool that somebody made in the cloud's console.
async fn made_in_the_console(stack: &Stack, name: &str, role: Option<&str>) -> String {
    stack.tune(|tunables| tunables.tool_delay_ms = 0);
    let request = wire::CreateSandboxToolRequest {
        tool_name: name.into(),
        tool_type: "custom".into(),
        network_configuration: wire::NetworkConfiguration { network_mode: "PUBLIC".into(), vpc_config: None },
        tags: Some(vec![wire::Tag { key: "cost".into(), value: "42".into() }]),
        role_arn: role.map(str::to_owned),
        custom_configuration: Some(wire::CustomConfiguration {
            image: Some("python:3.11".into()),
            image_registry_type: Some("enterprise".into()),
            env: Some(vec![wire::EnvVar { name: "A".into(), value: "1".into() }]),
            ..Default::default()
        }),
        ..Default::default()
    };
    let upstream = stack.app.upstreams.get("default").unwrap();
    upstream.control.call(&request).await.expect("a tool").value.tool_id
}

async fn in_the_cloud(stack: &Stack, id: &str) -> Value {
    let request = wire::DescribeSandboxToolListRequest { tool_ids: Some(vec![id.to_owned()]), ..Default::default() };
    let upstream = stack.app.upstreams.get("default").unwrap();
    let set = upstream.control.call(&request).await.expect("a list").value.sandbox_tool_set;
    serde_json::to_value(&set[0]).unwrap()
}

#[test]
fn a_tool_of_the_console_is_adopted_once_and_stays_as_it_is() {
    run(async {
        let stack = still().await;
        let (api, other) = (stack.api(), stack.team("other").await);
        let id = made_in_the_console(&stack, "by-hand", None).await;
        let before = in_the_cloud(&stack, &id).await;
        let import = |id: &str| json!({"upstream_id": id});
        api.post("/v1/tools/import", &import("sdt-00000000")).await.problem(404, "not_found");
        let tool = api.post("/v1/tools/import", &import(&id)).await.expect(201);
        assert_eq!(
            (&tool["name"], &tool["status"], &tool["upstream_id"]),
            (&json!("by-hand"), &json!("ACTIVE"), &json!(id))
        );
        assert_eq!((&tool["image"], &tool["tags"]), (&json!("python:3.11"), &json!({"cost": "42"})));
        let mut after = in_the_cloud(&stack, &id).await;
        let tags = after["Tags"].to_string();
        assert!(tags.contains(tool["id"].as_str().unwrap()) && tags.contains("cost"), "{tags}");
        for changed in ["Tags", "UpdateTime"] {
            after[changed] = before[changed].clone();
        }
        assert_eq!(after, before);

        api.post("/v1/tools/import", &import(&id)).await.problem(409, "already_exists");
        other.post("/v1/tools/import", &import(&id)).await.problem(409, "already_exists");
        let second = made_in_the_console(&stack, "by-hand-2", None).await;
        let taken = json!({"upstream_id": second, "name": "by-hand"});
        api.post("/v1/tools/import", &taken).await.problem(409, "name_taken");
        other.post("/v1/tools/import", &taken).await.expect(201);
        api.post("/v1/instances", &json!({"tool": "by-hand"})).await.expect(201);
    });
}

#[test]
fn what_may_be_adopted_is_granted() {
    run(async {
        let stack = still().await;
        let api = stack.api();
        let mighty = made_in_the_console(&stack, "mighty", Some("qcs::cam::uin/1:roleName/x")).await;
        let refused = api.post("/v1/tools/import", &json!({"upstream_id": mighty})).await.problem(403, "not_granted");
        assert_eq!(refused["errors"][0]["field"], "role_arn");
        let plain = made_in_the_console(&stack, "plain", None).await;
        let grants = json!({"grants": {"networks": ["PUBLIC"], "upstreams": ["*"]}});
        stack.admin().patch(&format!("/v1/teams/{}", team_id(&api).await), &grants).await.expect(200);
        api.post("/v1/tools/import", &json!({"upstream_id": plain})).await.problem(403, "not_granted");
    });
}
