//! What goes over the wire.

use std::sync::Arc;
use std::sync::atomic::{AtomicI64, Ordering};

use ags_client::types::*;
use ags_client::{AgsClient, Credential, CredentialError, CredentialProvider, ErrorKind, StaticCredentials, Url};
use chrono::DateTime;
use futures_util::future::{BoxFuture, ready};
use serde_json::json;

use crate::server::{NOW, SECRET_ID, SECRET_KEY, Server, client, credential, error, http, ok, settings};

fn stop() -> StopSandboxInstanceRequest {
    StopSandboxInstanceRequest { instance_id: "c8f3".into() }
}

#[tokio::test]
async fn a_call_is_signed_and_carries_the_headers_of_the_api() {
    let server = Server::scripted([ok(json!({}))]).await;
    let reply = server.client().call(&stop()).await.unwrap();
    assert_eq!((reply.request_id.as_deref(), reply.attempts), (Some("r-ok"), 1));

    let [received] = server.received().try_into().ok().unwrap();
    assert_eq!(received.verified, Ok(()));
    assert_eq!(received.json(), json!({"InstanceId": "c8f3"}));
    let expected = [
        ("host", server.address.to_string()),
        ("content-type", "application/json".into()),
        ("x-tc-action", "StopSandboxInstance".into()),
        ("x-tc-version", "2025-09-20".into()),
        ("x-tc-timestamp", NOW.to_string()),
        ("x-tc-region", "ap-guangzhou".into()),
        ("x-tc-language", "en-US".into()),
    ];
    for (name, value) in expected {
        assert_eq!(received.header(name), Some(value.as_str()), "{name}");
    }
    let scope = format!("Credential={SECRET_ID}/2025-10-09/ags/tc3_request");
    assert!(received.header("authorization").unwrap().contains(&scope));
    assert_eq!(received.header("x-tc-token"), None);
}

#[tokio::test]
async fn temporary_credentials_send_their_token_and_an_empty_region_nothing() {
    let server = Server::scripted([ok(json!({}))]).await;
    let mut settings = server.settings();
    settings.region.clear();
    let temporary = Credential { token: Some("sts-token".into()), ..credential() };
    let client = AgsClient::new(settings, http(), Arc::new(StaticCredentials(temporary))).unwrap();
    client.call(&stop()).await.unwrap();
    let [received] = server.received().try_into().ok().unwrap();
    assert_eq!(received.verified, Ok(()));
    assert_eq!(received.header("x-tc-token"), Some("sts-token"));
    assert_eq!(received.header("x-tc-region"), None);
}

#[tokio::test]
async fn every_attempt_is_signed_anew() {
    let server = Server::scripted([error("RequestLimitExceeded"), ok(json!({}))]).await;
    let time = Arc::new(AtomicI64::new(NOW));
    let clock = move || DateTime::from_timestamp(time.fetch_add(7, Ordering::SeqCst), 0).unwrap();
    let client = AgsClient::builder(server.settings(), http(), Arc::new(StaticCredentials(credential())))
        .clock(Arc::new(clock))
        .build()
        .unwrap();
    client.call(&stop()).await.unwrap();
    let [first, second] = server.received().try_into().ok().unwrap();
    assert_eq!((&first.verified, &second.verified), (&Ok(()), &Ok(())));
    assert_eq!(second.header("x-tc-timestamp"), Some((NOW + 7).to_string().as_str()));
    assert_ne!(first.header("authorization"), second.header("authorization"));
}

struct NoCredential;

impl CredentialProvider for NoCredential {
    fn credential(&self) -> BoxFuture<'_, Result<Credential, CredentialError>> {
        Box::pin(ready(Err(CredentialError { reason: "the role cannot be assumed".into(), retryable: true })))
    }
}

#[tokio::test]
async fn without_a_credential_nothing_is_sent() {
    let server = Server::scripted([]).await;
    let client = AgsClient::new(server.settings(), http(), Arc::new(NoCredential)).unwrap();
    let error = client.call(&stop()).await.unwrap_err();
    assert!(matches!(error.kind(), ErrorKind::Credential(_)));
    assert!(error.retryable());
    assert_eq!(server.count(), 0);
}

#[tokio::test]
async fn no_secret_is_shown() {
    let server = Server::scripted([error("AuthFailure.SignatureFailure")]).await;
    let token = Credential { token: Some("hush".into()), ..credential() };
    let client = AgsClient::new(server.settings(), http(), Arc::new(StaticCredentials(token.clone()))).unwrap();
    let error = client.call(&stop()).await.unwrap_err();
    assert!(error.auth_failed());
    let shown = format!("{client:?} {error:?} {error} {:?} {token:?}", StaticCredentials(token.clone()));
    assert!(!shown.contains("hush") && !shown.contains(SECRET_KEY), "{shown}");
}

#[test]
fn settings_that_cannot_work_are_refused() {
    let base = settings("127.0.0.1:1".parse().unwrap());
    let with_endpoint = |endpoint: &str| {
        let endpoint: Url = endpoint.parse().unwrap();
        let settings = ags_client::Settings { endpoint, ..base.clone() };
        AgsClient::new(settings, http(), Arc::new(StaticCredentials(credential())))
    };
    for good in ["https://ags.tencentcloudapi.com", "http://[::1]:8080/"] {
        assert!(with_endpoint(good).is_ok(), "{good}");
    }
    let bad = ["ftp://host", "http://host/path", "http://host/?q", "http://user:hush@host", "http://host/#f"];
    for endpoint in bad {
        let error = with_endpoint(endpoint).unwrap_err().to_string();
        assert!(!error.contains("hush"), "{error}");
    }
    for settings in [
        ags_client::Settings { region: "ap\nx".into(), ..base.clone() },
        ags_client::Settings { language: "en US".into(), ..base.clone() },
    ] {
        assert!(AgsClient::new(settings, http(), Arc::new(StaticCredentials(credential()))).is_err());
    }
    assert_eq!(client(base.clone()).settings(), &base);
}
