//! Tools over HTTP, with the emulator's cloud on the other side.

use serde_json::{Value, json};

use crate::harness::{Options, Stack, run};

/// A tool in the cloud, by our id of it.
fn upstream(stack: &Stack, id: &Value) -> Option<Value> {
    let name = id.as_str().expect("an id");
    let tool = stack.emulator.cloud().with_state(|state| state.tool_named(name).cloned());
    tool.map(|tool| serde_json::to_value(tool).expect("JSON"))
}

#[test]
fn a_custom_tool_gets_the_configured_defaults_and_carries_our_stamp() {
    run(async {
        let stack = Stack::with(Options::simulated()).await;
        let body = json!({"name": "mine", "type": "custom", "description": "for tests", "tags": {"env": "prod"},
            "probe": {"port": 8000}, "resources": {"cpu": "500m"}, "env": {"A": "1"}});
        let tool = stack.api().post("/v1/tools", &body).await.expect(201);
        assert_eq!(tool["status"], "ACTIVE");
        assert_eq!(tool["default_timeout_seconds"], 300);
        assert_eq!(tool["image"], "python:3.11");
        assert_eq!(tool["network"]["mode"], "PUBLIC");
        assert_eq!(tool["resources"], json!({"cpu": "500m", "memory": "2Gi", "storage": null}));
        assert_eq!(tool["probe"]["port"], 8000);
        assert_eq!(tool["probe"]["failure_threshold"], 100);
        let seen = upstream(&stack, &tool["id"]).expect("the tool in the cloud");
        assert_eq!(seen["ToolId"], tool["upstream_id"]);
        assert_eq!(seen["Description"], "mine: for tests");
        let tags = seen["Tags"].to_string();
        assert!(tags.contains(&stack.app.deployment) && tags.contains("prod"), "{tags}");
        assert_eq!(seen["CustomConfiguration"]["Probe"]["HttpGet"]["Port"], 8000);
        let read = stack.api().get(&format!("/v1/tools/{}", tool["id"].as_str().unwrap())).await.expect(200);
        assert_eq!(read, tool);
    });
}
