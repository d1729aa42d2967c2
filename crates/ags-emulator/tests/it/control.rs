//! Signatures, routing, the envelope, and tools.

use serde_json::{Value, json};

use crate::harness::{self, SECRET_ID, SECRET_KEY, now, signed, start, start_with};

async fn code_of(request: reqwest::RequestBuilder) -> String {
    let response = request.send().await.unwrap();
    assert_eq!(response.status(), 200);
    assert_eq!(response.headers()["content-type"], "application/json");
    let body: Value = response.json().await.unwrap();
    body["Response"]["Error"]["Code"].as_str().unwrap_or("none").to_owned()
}

#[tokio::test]
async fn who_signs_wrongly_is_told_how() {
    let h = start().await;
    let url = h.emulator.url();
    let action = "DescribeSandboxToolList";
    let by = |timestamp, key| signed(&h.http, &url, action, "{}".into(), timestamp, key);
    assert_eq!(code_of(by(now(), SECRET_KEY)).await, "none");
    assert_eq!(code_of(by(now(), "wrong")).await, "AuthFailure.SignatureFailure");
    assert_eq!(code_of(by(now() - 400, SECRET_KEY)).await, "AuthFailure.SignatureExpire");
    assert_eq!(code_of(by(now(), SECRET_KEY).body(r#"{"Limit": 1}"#)).await, "AuthFailure.SignatureFailure");
    assert_eq!(code_of(by(now(), SECRET_KEY).header("x-tc-token", "x")).await, "AuthFailure.TokenFailure");
    let bare = |authorization: &str| {
        let base = h.http.post(&url).header("x-tc-action", action).header("x-tc-version", "2025-09-20");
        base.header("content-type", "application/json").header("authorization", authorization)
    };
    assert_eq!(code_of(bare("SKIP")).await, "AuthFailure.InvalidAuthorization");
    let stranger = format!(
        "TC3-HMAC-SHA256 Credential=x{SECRET_ID}/2025-10-09/ags/tc3_request, \
         SignedHeaders=content-type;host, Signature={}",
        "0".repeat(64)
    );
    assert_eq!(code_of(bare(&stranger)).await, "AuthFailure.SecretIdNotFound");
}

#[tokio::test]
async fn routing_errors_have_their_codes() {
    let h = start().await;
    let url = h.emulator.url();
    assert_eq!(h.call("NoSuchAction", json!({})).await.unwrap_err(), "InvalidAction");
    assert_eq!(code_of(h.http.post(&url)).await, "MissingParameter");
    let version = h.http.post(&url).header("x-tc-action", "DescribeAPIKeyList").header("x-tc-version", "2020-01-01");
    assert_eq!(code_of(version).await, "NoSuchVersion");
    let huge = format!("{{\"ToolName\": \"{}\"}}", "x".repeat(11 << 20));
    let sent = signed(&h.http, &url, "CreateSandboxTool", huge, now(), SECRET_KEY);
    assert_eq!(code_of(sent).await, "RequestSizeLimitExceeded");
}

#[tokio::test]
async fn a_get_with_flattened_parameters_works() {
    let h = start().await;
    let url = h.emulator.url();
    let query = "Filters.0.Name=ToolName&Filters.0.Values.0=base&Limit=5";
    let host = url.trim_start_matches("http://").to_owned();
    let timestamp = now();
    let credential = tc3::Credential { secret_id: SECRET_ID.into(), secret_key: SECRET_KEY.into(), token: None };
    let kind = "application/x-www-form-urlencoded";
    let request = tc3::SignRequest {
        method: tc3::Method::Get,
        query,
        headers: &[("content-type", kind.as_bytes()), ("host", host.as_bytes())],
        payload: tc3::Payload::Bytes(b""),
        service: "ags",
        timestamp,
    };
    let authorization = tc3::sign(&request, &credential).unwrap().authorization;
    let response = h
        .http
        .get(format!("{url}/?{query}"))
        .header("content-type", kind)
        .header("x-tc-action", "DescribeSandboxToolList")
        .header("x-tc-version", "2025-09-20")
        .header("x-tc-region", harness::REGION)
        .header("x-tc-timestamp", timestamp)
        .header("authorization", authorization);
    let body: Value = response.send().await.unwrap().json().await.unwrap();
    assert_eq!(body["Response"]["TotalCount"], 1, "{body}");
}

#[tokio::test]
async fn a_tool_lives_its_life() {
    let h = start().await;
    let create = json!({
        "ToolName": "mine", "ToolType": "custom", "NetworkConfiguration": {"NetworkMode": "PUBLIC"},
        "DefaultTimeout": "10m", "Tags": [{"Key": "team", "Value": "a"}],
        "CustomConfiguration": {"Image": "python:3.11", "Command": ["sleep"], "Args": ["1"]},
        "NotOfThisVersion": {"ignored": true},
    });
    let id = h.call("CreateSandboxTool", create.clone()).await.unwrap()["ToolId"].as_str().unwrap().to_owned();
    assert!(id.starts_with("sdt-") && id.len() == 12, "{id}");
    assert_eq!(h.call("CreateSandboxTool", create).await.unwrap_err(), "InvalidParameterValue.SandboxTool");
    let listed = h.call("DescribeSandboxToolList", json!({"ToolIds": [id]})).await.unwrap();
    let tool = &listed["SandboxToolSet"][0];
    assert_eq!((&tool["Status"], &tool["DefaultTimeoutSeconds"]), (&json!("ACTIVE"), &json!(600)));
    assert!(tool["CustomConfiguration"]["ImageDigest"].as_str().unwrap().starts_with("sha256:"));
    let update = json!({"ToolId": id, "Description": "new", "Tags": []});
    h.call("UpdateSandboxTool", update).await.unwrap();
    let filter =
        json!({"Filters": [{"Name": "ToolName", "Values": ["mine"]}, {"Name": "Status", "Values": ["ACTIVE"]}]});
    let listed = h.call("DescribeSandboxToolList", filter).await.unwrap();
    assert_eq!((&listed["TotalCount"], &listed["SandboxToolSet"][0]["Description"]), (&json!(1), &json!("new")));
    let started = h.call("StartSandboxInstance", json!({"ToolId": id})).await.unwrap();
    assert_eq!(started["Instance"]["TimeoutSeconds"], 600);
    let instance = json!({"InstanceId": started["Instance"]["InstanceId"]});
    assert_eq!(h.call("DeleteSandboxTool", json!({"ToolId": id})).await.unwrap_err(), "ResourceInUse.SandboxTool");
    h.call("StopSandboxInstance", instance).await.unwrap();
    h.call("DeleteSandboxTool", json!({"ToolId": id})).await.unwrap();
    assert_eq!(h.call("DeleteSandboxTool", json!({"ToolId": id})).await.unwrap_err(), "ResourceNotFound.SandboxTool");
}

#[tokio::test]
async fn bad_tools_are_refused_by_code() {
    let h = start().await;
    let network = json!({"NetworkMode": "PUBLIC"});
    for (body, code) in [
        (json!({"ToolType": "custom", "NetworkConfiguration": network}), "MissingParameter"),
        (
            json!({"ToolName": "a b", "ToolType": "custom", "NetworkConfiguration": network}),
            "InvalidParameterValue.SandboxTool",
        ),
        (
            json!({"ToolName": "a", "ToolType": "toaster", "NetworkConfiguration": network}),
            "InvalidParameterValue.ToolType",
        ),
        (
            json!({"ToolName": "a", "ToolType": "custom", "NetworkConfiguration": {"NetworkMode": "VPC"}}),
            "MissingParameter.VPCParameters",
        ),
        (
            json!({"ToolName": "a", "ToolType": "custom", "NetworkConfiguration": network, "DefaultTimeout": "1s"}),
            "InvalidParameterValue.Timeout",
        ),
        (json!({"ToolName": 7, "ToolType": "custom", "NetworkConfiguration": network}), "InvalidParameter"),
        (
            json!({"ToolName": "a", "ToolType": "custom", "NetworkConfiguration": network, "RoleArn": "me"}),
            "InvalidParameterValue.RoleArn",
        ),
        (
            json!({"ToolName": "a", "ToolType": "custom", "NetworkConfiguration": network, "Description": "x".repeat(201)}),
            "InvalidParameter",
        ),
    ] {
        assert_eq!(h.call("CreateSandboxTool", body.clone()).await.unwrap_err(), code, "{body}");
    }
    let ids: Vec<String> = (0..101).map(|n| format!("sdt-{n}")).collect();
    let listed = h.call("DescribeSandboxToolList", json!({"ToolIds": ids})).await;
    assert_eq!(listed.unwrap_err(), "InvalidParameterValue.ToolIds");
}

#[tokio::test]
async fn tools_and_keys_survive_a_restart() {
    let state = tempfile::tempdir().unwrap();
    let path = state.path().to_owned();
    let h = start_with(|settings| settings.state_dir = path.clone()).await;
    let tool = json!({"ToolName": "kept", "ToolType": "custom", "NetworkConfiguration": {"NetworkMode": "SANDBOX"}});
    let id = h.call("CreateSandboxTool", tool).await.unwrap()["ToolId"].clone();
    let key = h.call("CreateAPIKey", json!({"Name": "k"})).await.unwrap();
    assert!(key["APIKey"].as_str().unwrap().starts_with("ark_"));
    h.emulator.shutdown().await;
    let h = start_with(|settings| settings.state_dir = path).await;
    let listed = h.call("DescribeSandboxToolList", json!({"ToolIds": [id]})).await.unwrap();
    assert_eq!(listed["SandboxToolSet"][0]["ToolName"], "kept");
    let keys = h.call("DescribeAPIKeyList", json!({})).await.unwrap();
    assert_eq!(keys["TotalCount"], 1);
    assert!(keys["APIKeySet"][0]["MaskedKey"].as_str().unwrap().contains("****"));
    h.call("DeleteAPIKey", json!({"KeyId": key["KeyId"]})).await.unwrap();
    assert_eq!(h.call("DeleteAPIKey", json!({"KeyId": key["KeyId"]})).await.unwrap_err(), "ResourceNotFound");
}

#[tokio::test]
async fn too_many_requests_are_throttled() {
    let h = start_with(|settings| settings.tunables.rate_limit = 3).await;
    let mut codes = Vec::new();
    for _ in 0..8 {
        codes.push(h.call("DescribeAPIKeyList", json!({})).await.err().map(|code| code.0));
    }
    assert_eq!(codes[0], None);
    assert!(codes.contains(&Some("RequestLimitExceeded".into())), "{codes:?}");
    assert!(h.call("DescribeSandboxToolList", json!({})).await.is_ok(), "each action has its own limit");
}

#[tokio::test]
async fn images_count_as_cached() {
    let h = start().await;
    let image = json!({"Image": "python:3.11", "ImageRegistryType": "enterprise"});
    let mut made = h.call("CreatePreCacheImageTask", image).await.unwrap();
    made.as_object_mut().unwrap().remove("RequestId");
    assert_eq!(h.call("DescribePreCacheImageTask", made).await.unwrap()["Status"], "Success");
}
