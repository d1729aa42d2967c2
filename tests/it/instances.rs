//! Instances over HTTP, with the emulator's cloud on the other side.

use serde_json::json;

use crate::harness::{Options, Stack, run};

#[test]
fn an_instance_lives_and_ends_and_stays_readable() {
    run(async {
        let stack = Stack::with(Options::simulated().with("TOOLS__SHARED", "code-interpreter-v1,base")).await;
        let api = stack.api();
        let body = json!({"tool": "code-interpreter-v1", "timeout": "10m", "metadata": {"user": "42"}});
        let instance = api.post("/v1/instances", &body).await.expect(201);
        assert_eq!(instance["status"], "RUNNING");
        assert_eq!(instance["timeout_seconds"], 600);
        assert_eq!(instance["metadata"], json!({"user": "42"}));
        let path = format!("/v1/instances/{}", instance["id"].as_str().unwrap());
        assert_eq!(api.delete(&path).await.status, 204);
        let ended = api.get(&path).await.expect(200);
        assert_eq!((&ended["status"], &ended["stop_reason"]), (&json!("STOPPED"), &json!("manual")));
        assert!(ended["stopped_at"].is_string());
        assert_eq!(api.delete(&path).await.status, 204);
    });
}
