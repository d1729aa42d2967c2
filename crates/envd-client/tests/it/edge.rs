//! Answers of what stands before the daemon (PROTOCOLS D.2, D.3, D.11).

use axum::Router;
use axum::response::IntoResponse;
use envd_client::{EnvdClient, EnvdError, EnvdErrorKind, StartSpec};
use http::{HeaderMap, StatusCode};

use crate::harness::{SOON, Server};

/// Answers every request the same.
async fn wall(status: u16, content_type: &'static str, body: &'static str) -> Server {
    let answer = move || async move {
        let status = StatusCode::from_u16(status).unwrap();
        (status, [("content-type", content_type)], body).into_response()
    };
    Server::start(Router::new().fallback(answer)).await
}

async fn every_call(client: &EnvdClient) -> [EnvdError; 5] {
    let spec = StartSpec { cmd: "x".into(), ..Default::default() };
    [
        client.list(SOON).await.unwrap_err(),
        client.start(spec).await.unwrap_err(),
        client.download("/x", None, &HeaderMap::new()).await.unwrap_err(),
        client.upload("/x", None, envd_client::full("content")).await.unwrap_err(),
        client.health(SOON).await.unwrap_err(),
    ]
}

#[tokio::test]
async fn a_refused_token_is_unauthenticated() {
    let body = r#"{"code":401,"message":"unauthorized access, please provide a valid access token or method signing if supported"}"#;
    let server = wall(401, "application/json; charset=utf-8", body).await;
    for error in every_call(&server.client()).await {
        assert_eq!(error.kind(), EnvdErrorKind::Unauthenticated, "{error:?}");
        assert!(error.token_rejected() && !error.retryable());
        assert_eq!(error.http_status(), Some(StatusCode::UNAUTHORIZED));
    }
}

#[tokio::test]
async fn an_instance_that_is_not_there_is_gone() {
    let walls = [
        (502, "application/json", r#"{"sandboxId":"ins-1","message":"The sandbox was not found","code":502}"#),
        (
            502,
            "application/json",
            r#"{"sandboxId":"ins-1","message":"The sandbox is running but port is not open","port":49983,"code":502}"#,
        ),
        (404, "text/html", "<html>not here</html>"),
    ];
    for (status, content_type, body) in walls {
        let server = wall(status, content_type, body).await;
        for error in every_call(&server.client()).await {
            assert_eq!(error.kind(), EnvdErrorKind::Gone, "{error:?}");
            assert!(error.gone() && !error.retryable());
            assert_eq!(error.daemon_message(), None);
        }
    }
}

#[tokio::test]
async fn an_edge_that_is_busy_can_be_asked_again() {
    for (status, kind) in [(503, EnvdErrorKind::Unavailable), (429, EnvdErrorKind::ResourceExhausted)] {
        let server = wall(status, "text/plain", "later").await;
        for error in every_call(&server.client()).await {
            assert_eq!(error.kind(), kind, "{error:?}");
            assert!(error.retryable());
        }
    }
}

#[tokio::test]
async fn the_body_of_an_error_is_not_read_for_ever() {
    let body: &'static str = "x".repeat(1024 * 1024).leak();
    let server = wall(403, "text/html", body).await;
    for error in every_call(&server.client()).await {
        assert_eq!(error.kind(), EnvdErrorKind::PermissionDenied);
        assert!(error.to_string().len() < 100, "{error}");
        assert!(error.token_rejected());
    }
}
