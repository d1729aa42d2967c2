//! How errors read and what they keep.

use std::error::Error;

use ags_client::types::*;
use ags_client::{ErrorKind, Outcome};
use serde_json::json;

use crate::server::{Answer, Server, error, error_with_status, ok};

fn stop() -> StopSandboxInstanceRequest {
    StopSandboxInstanceRequest { instance_id: "c8f3".into() }
}

#[tokio::test]
async fn an_error_that_comes_with_http_200_is_one() {
    let server = Server::scripted([error("ResourceNotFound.SandboxInstance")]).await;
    let error = server.client().call(&stop()).await.unwrap_err();
    assert!(error.not_found() && !error.rate_limited() && !error.quota_exceeded());
    assert_eq!(error.action(), "StopSandboxInstance");
    assert_eq!(error.code(), Some("ResourceNotFound.SandboxInstance"));
    assert_eq!(error.message(), Some("about ResourceNotFound.SandboxInstance"));
    assert_eq!((error.request_id(), error.http_status()), (Some("r-error"), Some(200)));
    let expected = "StopSandboxInstance: ResourceNotFound.SandboxInstance: about ResourceNotFound.SandboxInstance \
                    (request r-error)";
    assert_eq!(error.to_string(), expected);
}

#[tokio::test]
async fn the_code_is_kept_when_the_status_is_not_200() {
    let server = Server::scripted([error_with_status(403, "UnauthorizedOperation")]).await;
    let error = server.client().call(&stop()).await.unwrap_err();
    assert_eq!((error.code(), error.http_status()), (Some("UnauthorizedOperation"), Some(403)));
    assert!(error.auth_failed());
}

#[tokio::test]
async fn a_page_that_is_not_the_apis_is_told_by_its_status() {
    for status in [301, 404, 413] {
        let server = Server::scripted([Answer::Reply(status, "<html>".into())]).await;
        let error = server.client().call(&stop()).await.unwrap_err();
        assert!(matches!(error.kind(), ErrorKind::Http { status: s } if *s == status));
        assert_eq!((error.code(), error.outcome(), error.attempts()), (None, Outcome::Known, 1));
        assert!(error.unreachable() && !error.not_found() && !error.retryable());
    }
}

#[tokio::test]
async fn a_success_of_the_wrong_shape_is_not_made_up() {
    let request = StartSandboxInstanceRequest { client_token: Some("t".into()), ..Default::default() };
    let server = Server::scripted([ok(json!({"Instance": {"InstanceId": 7}}))]).await;
    let error = server.client().call(&request).await.unwrap_err();
    assert!(matches!(error.kind(), ErrorKind::Decode(_)));
    assert_eq!((error.request_id(), error.outcome()), (Some("r-ok"), Outcome::Unknown));
    assert!(!error.retryable());
    let source = error.source().unwrap().to_string();
    assert!(!error.to_string().contains(&source), "the outer text repeats its source");
}

#[tokio::test]
async fn a_success_with_a_status_of_failure_is_not_believed() {
    let body = json!({"Response": {"RequestId": "r"}}).to_string();
    let server = Server::scripted([Answer::Reply(500, body.clone()), Answer::Reply(403, body)]).await;
    let error = server.client().call(&stop()).await.unwrap_err();
    assert_eq!((error.http_status(), error.attempts(), error.request_id()), (Some(403), 2, Some("r")));
    assert_eq!(error.outcome(), Outcome::Unknown);
}

#[tokio::test]
async fn unknown_values_of_a_newer_cloud_are_kept() {
    let instance = json!({"InstanceId": "i", "ToolId": "t", "ToolName": "t", "Status": "HIBERNATING", "New": {}});
    let server = Server::scripted([ok(json!({"InstanceSet": [instance], "TotalCount": 1, "NextToken": ""}))]).await;
    let reply = server.client().call(&DescribeSandboxInstanceListRequest::default()).await.unwrap();
    assert_eq!(reply.value.instance_set[0].status, InstanceStatus::Unknown("HIBERNATING".into()));
}
