//! Instances: life, listing, quotas, tokens.

use serde_json::{Value, json};

use crate::harness::{start, start_with};

#[tokio::test]
async fn an_instance_lives_its_life() {
    let h = start().await;
    let metadata = json!([{"Name": "k", "Value": "v"}]);
    let start = json!({"ToolName": "base", "Timeout": "10m0s", "Metadata": metadata, "AuthMode": "TOKEN"});
    let instance = h.call("StartSandboxInstance", start).await.unwrap()["Instance"].clone();
    let id = instance["InstanceId"].as_str().unwrap().to_owned();
    assert!(!id.contains('-') && id.len() == 32, "{id}");
    assert_eq!(
        (&instance["Status"], &instance["TimeoutSeconds"], &instance["Metadata"], &instance["AuthMode"]),
        (&json!("RUNNING"), &json!(600), &metadata, &json!("TOKEN"))
    );
    assert!(instance["ExpiresAt"].as_str().unwrap().ends_with('Z'));
    assert_eq!(instance["StopReason"], Value::Null);
    let new = json!([{"Name": "only", "Value": "this"}]);
    let update = json!({"InstanceId": id, "Timeout": "1h", "Metadata": new});
    h.call("UpdateSandboxInstance", update).await.unwrap();
    let shown = h.instance(&id).await;
    assert_eq!((&shown["TimeoutSeconds"], &shown["Metadata"]), (&json!(3600), &new));
    let this = json!({"InstanceId": id});
    assert_eq!(h.call("PauseSandboxInstance", this.clone()).await.unwrap()["InstanceStatus"], "PAUSED");
    assert_eq!(h.instance(&id).await["ExpiresAt"], Value::Null);
    let update = h.call("UpdateSandboxInstance", json!({"InstanceId": id, "Timeout": "5m"})).await;
    assert_eq!(update.unwrap_err(), "UnsupportedOperation.SandboxInstance");
    h.call("ResumeSandboxInstance", json!({"InstanceId": id, "Timeout": "2m"})).await.unwrap();
    assert_eq!(h.instance(&id).await["TimeoutSeconds"], 120);
    h.call("StopSandboxInstance", this.clone()).await.unwrap();
    let shown = h.instance(&id).await;
    assert_eq!((&shown["Status"], &shown["StopReason"]), (&json!("STOPPED"), &json!("manual")));
    for action in [
        "StopSandboxInstance",
        "PauseSandboxInstance",
        "ResumeSandboxInstance",
        "UpdateSandboxInstance",
        "AcquireSandboxInstanceToken",
    ] {
        assert_eq!(h.call(action, this.clone()).await.unwrap_err(), "ResourceNotFound.SandboxInstance", "{action}");
    }
}

#[tokio::test]
async fn starts_that_cannot_be_are_refused_by_code() {
    let h = start().await;
    for (body, code) in [
        (json!({}), "MissingParameter"),
        (json!({"ToolName": "nope"}), "ResourceNotFound.SandboxTool"),
        (json!({"ToolName": "base", "Timeout": "29s"}), "InvalidParameterValue.Timeout"),
        (json!({"ToolName": "base", "AuthMode": "MAYBE"}), "InvalidParameter"),
        (json!({"ToolName": "base", "MountOptions": [{"Name": "x"}]}), "InvalidParameterValue.MountOption"),
        (json!({"ToolName": "base", "ClientToken": "x".repeat(65)}), "InvalidParameter"),
        (json!({"ToolName": "base", "Metadata": "x"}), "InvalidParameter"),
    ] {
        assert_eq!(h.call("StartSandboxInstance", body.clone()).await.unwrap_err(), code, "{body}");
    }
}

#[tokio::test]
async fn lists_filter_and_page() {
    let h = start().await;
    let mut ids = Vec::new();
    for _ in 0..3 {
        ids.push(h.start_instance().await);
    }
    h.call("StopSandboxInstance", json!({"InstanceId": ids[0]})).await.unwrap();
    let list = async |body: Value| {
        let listed = h.call("DescribeSandboxInstanceList", body).await.unwrap();
        let set = listed["InstanceSet"].as_array().unwrap().clone();
        let ids: Vec<String> = set.iter().map(|i| i["InstanceId"].as_str().unwrap().to_owned()).collect();
        (ids, listed["TotalCount"].as_i64().unwrap())
    };
    let newest_first = vec![ids[2].clone(), ids[1].clone(), ids[0].clone()];
    assert_eq!(list(json!({})).await, (newest_first, 3));
    assert_eq!(list(json!({"Offset": 1, "Limit": 1})).await, (vec![ids[1].clone()], 3));
    let status = |values: Value| json!({"Filters": [{"Name": "Status", "Values": values}]});
    assert_eq!(list(status(json!(["STOPPED"]))).await, (vec![ids[0].clone()], 1));
    assert_eq!(list(status(json!(["RUNNING", "STOPPED"]))).await.1, 3);
    assert_eq!(list(json!({"InstanceIds": [ids[1], "unknown"]})).await, (vec![ids[1].clone()], 1));
    assert_eq!(list(json!({"ToolId": "sdt-unknown0"})).await.1, 0);
    h.admin("POST", &format!("/instances/{}/health", ids[1]), json!({"unhealthy": true})).await;
    assert_eq!(list(status(json!(["UNHEALTHY"]))).await, (vec![ids[1].clone()], 1));
    assert_eq!(h.status(&ids[1]).await, "UNHEALTHY");
    let bad = json!({"Filters": [{"Name": "Colour", "Values": ["x"]}]});
    assert_eq!(h.call("DescribeSandboxInstanceList", bad).await.unwrap_err(), "InvalidParameter");
    let many: Vec<String> = (0..101).map(|n| format!("i{n}")).collect();
    let listed = h.call("DescribeSandboxInstanceList", json!({"InstanceIds": many})).await;
    assert_eq!(listed.unwrap_err(), "InvalidParameterValue.InstanceIds");
}

#[tokio::test]
async fn quotas_count_running_and_paused_apart() {
    let h = start_with(|settings| {
        settings.tunables.max_instances = 2;
        settings.tunables.max_paused = 1;
    })
    .await;
    let (a, b) = (h.start_instance().await, h.start_instance().await);
    let start = json!({"ToolName": "base"});
    let quota = "LimitExceeded.SandboxInstance";
    assert_eq!(h.call("StartSandboxInstance", start.clone()).await.unwrap_err(), quota);
    h.call("PauseSandboxInstance", json!({"InstanceId": a})).await.unwrap();
    assert_eq!(h.call("PauseSandboxInstance", json!({"InstanceId": b})).await.unwrap_err(), quota);
    h.start_instance().await;
    assert_eq!(h.call("ResumeSandboxInstance", json!({"InstanceId": a})).await.unwrap_err(), quota);
    h.call("StopSandboxInstance", json!({"InstanceId": b})).await.unwrap();
    h.call("ResumeSandboxInstance", json!({"InstanceId": a})).await.unwrap();
    assert_eq!(h.status(&a).await, "RUNNING");
}

#[tokio::test]
async fn tokens_have_their_shape_and_old_ones_stay() {
    let h = start().await;
    let id = h.start_instance().await;
    let (first, second) = (h.token(&id).await, h.token(&id).await);
    assert!(first["Token"].as_str().unwrap().starts_with("sit_"));
    assert_eq!(first["TrafficToken"].as_str().unwrap().len(), 64);
    assert_ne!(first["Token"], second["Token"]);
    for token in [&first, &second] {
        let sent = h.data("GET", &id, 49983, "/x").header("x-access-token", token["Token"].as_str().unwrap());
        assert_eq!(sent.send().await.unwrap().status(), 200);
    }
    h.admin("POST", "/settings", json!({"token_rotation_revokes": true})).await;
    h.token(&id).await;
    let sent = h.data("GET", &id, 49983, "/x").header("x-access-token", first["Token"].as_str().unwrap());
    assert_eq!(sent.send().await.unwrap().status(), 401);
}

#[tokio::test]
async fn a_daemon_that_dies_fails_its_instance() {
    let h = start().await;
    let id = h.start_instance().await;
    h.admin("POST", &format!("/instances/{id}/fail"), Value::Null).await;
    let shown = h.instance(&id).await;
    assert_eq!((&shown["Status"], &shown["StopReason"]), (&json!("FAILED"), &json!("error")));
}

#[tokio::test]
async fn what_cannot_start_says_so() {
    let h = start().await;
    let env = json!({"Env": [{"Name": "CANNOT_START", "Value": "1"}]});
    let start = json!({"ToolName": "base", "CustomConfiguration": env});
    let started = h.call("StartSandboxInstance", start).await.unwrap();
    assert_eq!(started["Instance"]["Status"], "STARTING_FAILED");
}
