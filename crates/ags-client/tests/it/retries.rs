//! What is repeated, how often, and until when.

use std::num::NonZeroU32;
use std::time::{Duration, Instant};

use ags_client::types::*;
use ags_client::{Action, ErrorKind, Outcome, Stage};
use serde_json::json;
use tokio::io::AsyncReadExt;
use tokio::net::TcpListener;
use tokio::task::JoinSet;

use crate::server::{Answer, Server, client, error, ok, settings};

fn stop() -> StopSandboxInstanceRequest {
    StopSandboxInstanceRequest { instance_id: "c8f3".into() }
}

fn start(client_token: Option<&str>) -> StartSandboxInstanceRequest {
    let client_token = client_token.map(str::to_owned);
    StartSandboxInstanceRequest { tool_name: Some("t".into()), client_token, ..Default::default() }
}

fn started() -> Answer {
    ok(json!({"Instance": {"InstanceId": "i", "ToolId": "t", "ToolName": "t", "Status": "RUNNING"}}))
}

#[test]
fn only_what_is_safe_is_repeatable() {
    assert!(DescribeApiKeyListRequest {}.repeatable());
    assert!(stop().repeatable());
    assert!(!start(None).repeatable());
    assert!(!start(Some("")).repeatable());
    assert!(start(Some("token")).repeatable());
    assert!(CreateSandboxToolRequest { client_token: Some("t".into()), ..Default::default() }.repeatable());
    assert!(!CreateApiKeyRequest::default().repeatable());
    assert!(!PauseSandboxInstanceRequest::default().repeatable());
}

#[tokio::test]
async fn a_throttled_call_is_repeated_whatever_it_does() {
    let server = Server::scripted([
        error("RequestLimitExceeded"),
        error("RequestLimitExceeded.UinLimitExceeded"),
        Answer::Reply(429, "slow down".into()),
        started(),
    ])
    .await;
    let reply = server.client().call(&start(None)).await.unwrap();
    assert_eq!((reply.attempts, server.count()), (4, 4));
    assert_eq!(reply.value.instance.status, InstanceStatus::Running);
}

#[tokio::test]
async fn attempts_are_counted_and_end() {
    let server = Server::start(Box::new(|_| error("RequestLimitExceeded"))).await;
    let mut settings = server.settings();
    settings.max_attempts = NonZeroU32::new(3).unwrap();
    let error = client(settings).call(&stop()).await.unwrap_err();
    assert_eq!((error.attempts(), server.count()), (3, 3));
    assert!(error.rate_limited() && error.retryable());
    assert_eq!(error.outcome(), Outcome::Known);
}

#[tokio::test]
async fn a_read_is_repeated_after_any_passing_fault() {
    let server = Server::scripted([
        error("InternalError"),
        Answer::Reply(502, "<html>bad gateway</html>".into()),
        Answer::Cut,
        Answer::Reply(200, "<html>welcome to the hotel</html>".into()),
        ok(json!({"InstanceSet": [], "TotalCount": 0})),
    ])
    .await;
    let reply = server.client().call(&DescribeSandboxInstanceListRequest::default()).await.unwrap();
    assert_eq!(reply.attempts, 5);
}

#[tokio::test]
async fn an_unguarded_create_is_never_repeated_when_its_fate_is_unknown() {
    let faults = [
        || error("InternalError.Unknown"),
        || error("FailedOperation.DependencyUnavailable"),
        || Answer::Reply(502, String::new()),
        || Answer::Reply(200, "<html>".into()),
        || Answer::Cut,
    ];
    for fault in faults {
        let server = Server::scripted([fault(), started()]).await;
        let error = server.client().call(&start(None)).await.unwrap_err();
        assert_eq!((error.outcome(), error.attempts(), server.count()), (Outcome::Unknown, 1, 1), "{error}");
        assert!(!error.retryable(), "{error}");
    }
}

#[tokio::test]
async fn a_guarded_create_is_repeated_with_the_same_token() {
    let server =
        Server::scripted([Answer::Cut, error("FailedOperation.RequestInProgress"), error("InternalError"), started()])
            .await;
    let reply = server.client().call(&start(Some("token-1"))).await.unwrap();
    assert_eq!(reply.attempts, 4);
    for received in server.received() {
        assert_eq!(received.json()["ClientToken"], "token-1");
    }
}

#[tokio::test]
async fn a_duplicate_says_that_the_first_attempt_took_effect() {
    let server = Server::scripted([Answer::Cut, error("FailedOperation.DuplicateRequest")]).await;
    let error = server.client().call(&start(Some("token-1"))).await.unwrap_err();
    assert!(error.duplicate() && !error.retryable());
    assert_eq!((error.outcome(), server.count()), (Outcome::Unknown, 2));
}

#[tokio::test]
async fn a_doubt_outlives_later_attempts_that_had_no_effect() {
    let server = Server::scripted([Answer::Cut, error("LimitExceeded.SandboxInstance")]).await;
    let error = server.client().call(&start(Some("token-1"))).await.unwrap_err();
    assert!(error.quota_exceeded());
    assert_eq!(error.outcome(), Outcome::Unknown);
}

#[tokio::test]
async fn a_repeated_stop_that_finds_nothing_is_no_doubt() {
    let server = Server::scripted([Answer::Cut, error("ResourceNotFound.SandboxInstance")]).await;
    let error = server.client().call(&stop()).await.unwrap_err();
    assert!(error.not_found());
    assert_eq!((error.outcome(), server.count()), (Outcome::Known, 2));
}

#[tokio::test]
async fn what_the_caller_did_wrong_is_not_repeated() {
    for code in ["InvalidParameterValue.Timeout", "AuthFailure.SignatureFailure", "ResourceInUse.SandboxTool"] {
        let server = Server::scripted([error(code), ok(json!({}))]).await;
        let error = server.client().call(&stop()).await.unwrap_err();
        assert_eq!((error.code(), error.attempts(), server.count()), (Some(code), 1, 1));
        assert_eq!(error.outcome(), Outcome::Known);
        assert!(!error.retryable());
    }
}

/// Takes one request after another and closes the connection instead of answering.
async fn server_that_loses_answers() -> (std::net::SocketAddr, tokio::sync::watch::Receiver<usize>, JoinSet<()>) {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    let (count, counted) = tokio::sync::watch::channel(0);
    let mut tasks = JoinSet::new();
    tasks.spawn(async move {
        loop {
            let (mut stream, _) = listener.accept().await.unwrap();
            let mut request = Vec::new();
            while !request.ends_with(b"}") && stream.read_buf(&mut request).await.unwrap() > 0 {}
            count.send_modify(|count| *count += 1);
        }
    });
    (address, counted, tasks)
}

#[tokio::test]
async fn a_lost_answer_leaves_an_unguarded_create_in_doubt_after_one_request() {
    let (address, count, _tasks) = server_that_loses_answers().await;
    let error = client(settings(address)).call(&CreateApiKeyRequest::default()).await.unwrap_err();
    assert!(matches!(error.kind(), ErrorKind::Exchange(_)), "{error:?}");
    assert_eq!((error.outcome(), error.attempts(), *count.borrow()), (Outcome::Unknown, 1, 1));
    assert!(error.unreachable() && !error.retryable());
}

#[tokio::test]
async fn a_lost_answer_is_asked_for_again_where_that_is_safe() {
    let (address, count, _tasks) = server_that_loses_answers().await;
    let client = client(settings(address));
    let read = client.call(&DescribeApiKeyListRequest {}).await.unwrap_err();
    assert_eq!((read.outcome(), read.attempts(), *count.borrow()), (Outcome::Known, 5, 5));
    let guarded = client.call(&start(Some("token"))).await.unwrap_err();
    assert_eq!((guarded.outcome(), guarded.attempts(), *count.borrow()), (Outcome::Unknown, 5, 10));
    assert!(read.retryable() && guarded.retryable());
}

#[tokio::test]
async fn a_refused_connection_had_no_effect() {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    drop(listener);
    let error = client(settings(address)).call(&start(None)).await.unwrap_err();
    assert!(matches!(error.kind(), ErrorKind::Connect(_)), "{error:?}");
    assert_eq!((error.outcome(), error.attempts()), (Outcome::Known, 5));
    assert!(error.retryable() && error.unreachable());
}

#[tokio::test]
async fn the_total_deadline_is_kept_when_nobody_answers() {
    let server = Server::scripted([]).await;
    let limit = Duration::from_millis(150);
    let begun = Instant::now();
    let error = server.client().call_within(&start(None), limit).await.unwrap_err();
    assert!(begun.elapsed() >= limit && begun.elapsed() < limit * 20, "{:?}", begun.elapsed());
    assert!(matches!(error.kind(), ErrorKind::Timeout(Stage::Answer, was) if *was == limit));
    assert_eq!((error.outcome(), server.count()), (Outcome::Unknown, 1));
    assert!(!error.retryable());
}

#[tokio::test]
async fn an_attempt_that_takes_too_long_is_given_up_and_repeated() {
    let mut first = true;
    let server = Server::start(Box::new(move |_| {
        if std::mem::take(&mut first) { Answer::Hang } else { ok(json!({"APIKeySet": [], "TotalCount": 0})) }
    }))
    .await;
    let mut settings = server.settings();
    settings.attempt_timeout = Duration::from_millis(300);
    let reply = client(settings).call(&DescribeApiKeyListRequest {}).await.unwrap();
    assert!(reply.attempts >= 2, "the first attempt is never answered");
}

#[tokio::test]
async fn a_wait_beyond_the_deadline_is_not_begun() {
    let server = Server::start(Box::new(|_| error("RequestLimitExceeded"))).await;
    let mut settings = server.settings();
    settings.backoff.base = Duration::from_secs(600);
    settings.backoff.cap = Duration::from_secs(600);
    let begun = Instant::now();
    let error = client(settings).call(&stop()).await.unwrap_err();
    assert!(begun.elapsed() < Duration::from_secs(60));
    assert!(error.rate_limited());
    assert_eq!((error.attempts(), server.count()), (1, 1));
}

#[tokio::test]
async fn clones_share_the_rate_limit_and_waiting_respects_the_deadline() {
    let server = Server::start(Box::new(|_| ok(json!({})))).await;
    let mut settings = server.settings();
    settings.rates.default = NonZeroU32::MIN;
    let client = client(settings);
    let (clone, request) = (client.clone(), stop());
    let late = client.call_within(&request, Duration::from_millis(100));
    let (first, second) = tokio::join!(clone.call(&request), late);
    let error = second.unwrap_err();
    first.unwrap();
    assert!(matches!(error.kind(), ErrorKind::Timeout(Stage::Turn, _)), "{error:?}");
    assert!(error.rate_limited() && error.retryable());
    assert_eq!((error.outcome(), server.count()), (Outcome::Known, 1));
    client.call(&DescribeApiKeyListRequest {}).await.unwrap();
    assert_eq!(server.count(), 2, "another action has its own allowance");
}
