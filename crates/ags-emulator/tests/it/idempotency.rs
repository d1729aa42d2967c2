//! `ClientToken` over HTTP.

use serde_json::{Value, json};

use crate::harness::{Harness, start};

fn request(name: &str) -> Value {
    json!({"ToolName": name, "ClientToken": "t-1"})
}

async fn started(h: &Harness, name: &str) -> Result<String, String> {
    let answer = h.call("StartSandboxInstance", request(name)).await.map_err(|code| code.0)?;
    Ok(answer["Instance"]["InstanceId"].as_str().unwrap().to_owned())
}

#[tokio::test]
async fn a_repeated_token_replays() {
    let h = start().await;
    let first = started(&h, "base").await.unwrap();
    assert_eq!(started(&h, "base").await, Ok(first));
    assert_eq!(started(&h, "code-interpreter-v1").await, Err("FailedOperation.DuplicateRequest".into()));
    let listed = h.call("DescribeSandboxInstanceList", json!({})).await.unwrap();
    assert_eq!(listed["TotalCount"], 1);
}

#[tokio::test]
async fn the_other_readings_can_be_chosen() {
    let h = start().await;
    let first = started(&h, "base").await.unwrap();
    h.admin("POST", "/settings", json!({"client_token": "duplicate_request"})).await;
    assert_eq!(started(&h, "base").await, Err("FailedOperation.DuplicateRequest".into()));
    h.admin("POST", "/settings", json!({"client_token": "forgotten"})).await;
    assert_ne!(started(&h, "base").await.unwrap(), first);
}

#[tokio::test]
async fn a_lost_response_can_be_asked_for_again() {
    let h = start().await;
    let rule = json!({"match": {"action": "StartSandboxInstance"}, "kind": "lose_response", "times": 1});
    h.admin("POST", "/faults", rule).await;
    assert!(h.send("StartSandboxInstance", request("base")).await.is_err());
    let id = started(&h, "base").await.unwrap();
    let listed = h.call("DescribeSandboxInstanceList", json!({})).await.unwrap();
    assert_eq!((&listed["TotalCount"], &listed["InstanceSet"][0]["InstanceId"]), (&json!(1), &json!(id)));
}

#[tokio::test]
async fn a_running_call_is_in_progress() {
    let h = start().await;
    let slow = json!({"match": {"action": "StartSandboxInstance"}, "kind": "delay_start", "ms": 1, "times": 1});
    let refused = h.http.post(format!("{}/faults", h.emulator.admin_url())).json(&slow).send().await.unwrap();
    assert!(refused.status().is_client_error(), "an unknown kind is refused");
    h.admin("POST", "/settings", json!({"start_delay_ms": 0, "start_wait_ms": 10_000})).await;
    let (a, b) = tokio::join!(started(&h, "base"), started(&h, "base"));
    let in_progress = Err("FailedOperation.RequestInProgress".to_owned());
    assert!(a == b || a == in_progress || b == in_progress, "{a:?} {b:?}");
    assert!(a.is_ok() || b.is_ok(), "{a:?} {b:?}");
}
