//! The explicit clock: nothing moves until it is moved.

use ags_emulator::clock::Mode;
use serde_json::json;

use crate::harness::start_with;

#[tokio::test]
async fn an_instance_ends_when_its_time_is_up() {
    let h = start_with(|settings| settings.clock = Mode::Explicit).await;
    let id = h.start_instance().await;
    h.admin("POST", "/clock", json!({"advance": "4m59s"})).await;
    assert_eq!(h.status(&id).await, "RUNNING");
    h.call("UpdateSandboxInstance", json!({"InstanceId": id, "Timeout": "60s"})).await.unwrap();
    h.admin("POST", "/clock", json!({"advance": "59s"})).await;
    assert_eq!(h.status(&id).await, "RUNNING");
    h.admin("POST", "/clock", json!({"advance": "1s"})).await;
    h.until_status(&id, "STOPPED").await;
    assert_eq!(h.instance(&id).await["StopReason"], "timeout");
    let stops = h.admin("GET", "/state", json!(null)).await["stops"].clone();
    assert_eq!((&stops[0]["action"], &stops[0]["by"]), (&json!("timeout"), &json!("system")));
    h.admin("POST", "/clock", json!({"advance": "2h"})).await;
    assert_eq!(h.status(&id).await, "absent");
}

#[tokio::test]
async fn transitions_take_the_time_they_are_given() {
    let h = start_with(|settings| {
        settings.clock = Mode::Explicit;
        settings.tunables.tool_delay_ms = 1000;
        settings.tunables.start_delay_ms = 1000;
        settings.tunables.pause_delay_ms = 1000;
        settings.tunables.resume_delay_ms = 1000;
        settings.tunables.stop_delay_ms = 1000;
    })
    .await;
    let step = async || h.admin("POST", "/clock", json!({"advance": "1s"})).await;
    let tool = json!({"ToolName": "slow", "ToolType": "custom", "NetworkConfiguration": {"NetworkMode": "PUBLIC"}});
    h.call("CreateSandboxTool", tool).await.unwrap();
    let start = h.call("StartSandboxInstance", json!({"ToolName": "slow"})).await;
    assert_eq!(start.unwrap_err(), "ResourceUnavailable.SandboxTool");
    step().await;
    let id = h.start_instance().await;
    assert_eq!(h.status(&id).await, "STARTING");
    let paused = h.call("PauseSandboxInstance", json!({"InstanceId": id})).await;
    assert_eq!(paused.unwrap_err(), "UnsupportedOperation.SandboxInstance");
    for (action, between, after) in [
        ("", "STARTING", "RUNNING"),
        ("PauseSandboxInstance", "PAUSING", "PAUSED"),
        ("ResumeSandboxInstance", "RESUMING", "RUNNING"),
        ("StopSandboxInstance", "STOPPING", "STOPPED"),
    ] {
        if !action.is_empty() {
            h.call(action, json!({"InstanceId": id})).await.unwrap();
        }
        assert_eq!(h.status(&id).await, between);
        step().await;
        h.until_status(&id, after).await;
    }
}

#[tokio::test]
async fn a_paused_instance_outlives_its_countdown() {
    let h = start_with(|settings| settings.clock = Mode::Explicit).await;
    let id = h.start_instance().await;
    h.call("PauseSandboxInstance", json!({"InstanceId": id})).await.unwrap();
    h.admin("POST", "/clock", json!({"advance": "10h"})).await;
    h.call("ResumeSandboxInstance", json!({"InstanceId": id})).await.unwrap();
    assert_eq!(h.status(&id).await, "RUNNING");
    h.admin("POST", "/clock", json!({"advance": "5m"})).await;
    h.until_status(&id, "STOPPED").await;
}

#[tokio::test]
async fn a_token_ends_with_its_time() {
    let h = start_with(|settings| {
        settings.clock = Mode::Explicit;
        settings.tunables.token_ttl_seconds = Some(60);
    })
    .await;
    let id = h.start_instance().await;
    let token = h.token(&id).await;
    let status = async || {
        let sent = h.data("GET", &id, 49983, "/x").header("x-access-token", token["Token"].as_str().unwrap());
        sent.send().await.unwrap().status().as_u16()
    };
    assert_eq!(status().await, 200);
    h.admin("POST", "/clock", json!({"advance": "60s"})).await;
    assert_eq!(status().await, 401);
}
