//! Faults on demand.

use serde_json::{Value, json};

use crate::harness::{API_KEY, start};

#[tokio::test]
async fn each_kind_does_what_it_says() {
    let h = start().await;
    let add = async |rule: Value| h.admin("POST", "/faults", rule).await;
    let list = "DescribeSandboxToolList";

    add(json!({"match": {"action": list}, "kind": "throttle", "times": 1})).await;
    assert_eq!(h.call(list, json!({})).await.unwrap_err(), "RequestLimitExceeded");

    add(json!({"match": {"action": list}, "kind": "error", "code": "InternalError.Unknown", "times": 1})).await;
    assert_eq!(h.call(list, json!({})).await.unwrap_err(), "InternalError.Unknown");

    add(json!({"match": {"action": list}, "kind": "http", "status": 503, "times": 1})).await;
    assert_eq!(h.send(list, json!({})).await.unwrap().status(), 503);

    add(json!({"match": {"action": list}, "kind": "cut", "times": 1})).await;
    assert!(h.send(list, json!({})).await.is_err());

    add(json!({"match": {"action": list}, "kind": "cut_stream_after_bytes", "bytes": 10, "times": 1})).await;
    assert!(h.send(list, json!({})).await.unwrap().bytes().await.is_err());

    add(json!({"kind": "refuse", "times": 1})).await;
    assert!(crate::harness::client().post(h.emulator.url()).send().await.is_err());

    assert!(h.call(list, json!({})).await.is_ok(), "all are spent");
}

#[tokio::test]
async fn a_cut_has_no_effect_and_a_lost_response_has() {
    let h = start().await;
    let start = json!({"ToolName": "base"});
    let count = async || h.admin("GET", "/state", Value::Null).await["live_instances"].clone();
    let rule = |kind: &str| json!({"match": {"action": "StartSandboxInstance"}, "kind": kind, "times": 1});
    h.admin("POST", "/faults", rule("cut")).await;
    assert!(h.send("StartSandboxInstance", start.clone()).await.is_err());
    assert_eq!(count().await, 0);
    h.admin("POST", "/faults", rule("lose_response")).await;
    assert!(h.send("StartSandboxInstance", start).await.is_err());
    assert_eq!(count().await, 1);
}

#[tokio::test]
async fn transitions_fail_on_demand() {
    let h = start().await;
    let add = async |action: &str, kind: &str| {
        h.admin("POST", "/faults", json!({"match": {"action": action}, "kind": kind, "times": 1})).await;
    };
    add("CreateSandboxTool", "fail_tool").await;
    let tool = json!({"ToolName": "t", "ToolType": "custom", "NetworkConfiguration": {"NetworkMode": "PUBLIC"}});
    let id = h.call("CreateSandboxTool", tool).await.unwrap()["ToolId"].clone();
    let listed = h.call("DescribeSandboxToolList", json!({"ToolIds": [id]})).await.unwrap();
    assert_eq!(listed["SandboxToolSet"][0]["Status"], "FAILED");
    assert!(listed["SandboxToolSet"][0]["StatusReason"].is_string());
    let start = h.call("StartSandboxInstance", json!({"ToolId": id})).await;
    assert_eq!(start.unwrap_err(), "ResourceUnavailable.SandboxTool");

    let id = h.start_instance().await;
    let this = json!({"InstanceId": id});
    for (action, failed) in [("PauseSandboxInstance", "PAUSE_FAILED"), ("StopSandboxInstance", "STOPPING_FAILED")] {
        add(action, "fail_instance").await;
        h.call(action, this.clone()).await.unwrap();
        assert_eq!(h.status(&id).await, failed);
    }
    h.call("StopSandboxInstance", this).await.unwrap();
    assert_eq!(h.status(&id).await, "STOPPED");
    add("StartSandboxInstance", "fail_instance").await;
    let started = h.call("StartSandboxInstance", json!({"ToolName": "base"})).await.unwrap();
    assert_eq!(started["Instance"]["Status"], "STARTING_FAILED");
}

#[tokio::test]
async fn tokens_expire_on_demand() {
    let h = start().await;
    let id = h.start_instance().await;
    let token = h.token(&id).await["Token"].as_str().unwrap().to_owned();
    let status = async || {
        let sent = h.data("GET", &id, 49983, "/x").header("x-access-token", &token);
        sent.send().await.unwrap().status().as_u16()
    };
    assert_eq!(status().await, 200);
    let rule = json!({"match": {"plane": "data", "instance": id, "port": 49983}, "kind": "expire_tokens", "times": 1});
    h.admin("POST", "/faults", rule).await;
    assert_eq!(status().await, 401);
    h.token(&id).await;
    assert_eq!(h.admin("POST", "/tokens/expire", json!({"instance": id})).await["expired"], 1);
}

#[tokio::test]
async fn the_other_planes_have_faults_too() {
    let h = start().await;
    h.admin("POST", "/faults", json!({"match": {"plane": "e2b"}, "kind": "throttle", "times": 1})).await;
    let sent = h.http.get(format!("{}/sandboxes", h.emulator.url())).header("x-api-key", API_KEY);
    assert_eq!(sent.send().await.unwrap().status(), 429);
    let rule = json!({"match": {"plane": "data", "path": "/files"}, "kind": "error", "code": "507"});
    let id = h.admin("POST", "/faults", rule).await["id"].clone();
    let instance = h.start_instance().await;
    assert_eq!(h.data("GET", &instance, 49983, "/files?path=x").send().await.unwrap().status(), 507);
    assert_eq!(h.admin("GET", "/faults", Value::Null).await[1]["hits"], 1);
    h.admin("DELETE", &format!("/faults/{id}"), Value::Null).await;
    h.admin("DELETE", "/faults", Value::Null).await;
    assert_eq!(h.admin("GET", "/faults", Value::Null).await, json!([]));
}

#[tokio::test]
async fn calls_are_counted_and_named() {
    let h = start().await;
    let id = h.start_instance().await;
    h.call("StopSandboxInstance", json!({"InstanceId": id})).await.unwrap();
    let twice = h.call("StopSandboxInstance", json!({"InstanceId": id})).await;
    assert_eq!(twice.unwrap_err(), "ResourceNotFound.SandboxInstance");
    let state = h.admin("GET", "/state", Value::Null).await;
    let stops = &state["counters"]["StopSandboxInstance"];
    assert_eq!((&stops["calls"], &stops["ok"]), (&json!(2), &json!(1)));
    assert_eq!(stops["errors"]["ResourceNotFound.SandboxInstance"], 1);
    assert_eq!(state["stops"][0]["instance"], json!(id));
    assert_eq!(state["stops"][0]["by"], "account:AKIDTEST");
    let calls = h.admin("GET", &format!("/calls?action=StartSandboxInstance&instance={id}"), Value::Null).await;
    assert_eq!(calls.as_array().unwrap().len(), 1);
    assert!(!state.to_string().contains("sit_"), "no token is shown");
}
