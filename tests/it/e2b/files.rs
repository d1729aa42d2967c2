//! Signed addresses of files: what the SDK signs with its token is checked here, not by the cloud.

use base64::{Engine, prelude::BASE64_STANDARD_NO_PAD};
use http::Method;
use serde_json::{Value, json};
use sha2::{Digest, Sha256};

use super::{DOMAIN, Sandbox, refused, stack};
use crate::harness::{Api, read, run};

/// A signed address, as the SDKs make it.
fn address(path: &str, operation: &str, token: &str, end: Option<i64>) -> String {
    let end_of = |separator: &str| end.map(|end| format!("{separator}{end}")).unwrap_or_default();
    let text = format!("{path}:{operation}::{token}{}", end_of(":"));
    let signature = format!("v1_{}", BASE64_STANDARD_NO_PAD.encode(Sha256::digest(text)));
    let mut query = url::form_urlencoded::Serializer::new(String::new());
    query.append_pair("path", path).append_pair("signature", &signature);
    format!("/files?{}{}", query.finish(), end_of("&signature_expiration="))
}

#[test]
fn a_signature_opens_one_file() {
    run(async {
        let stack = stack().await;
        let api = stack.api();
        // Others are compared with, too.
        let other = Sandbox::create(&api, json!({"templateID": "base"})).await;
        let sandbox = Sandbox::create(&api, json!({"templateID": "base"})).await;
        let _newest = Sandbox::create(&api, json!({"templateID": "base"})).await;
        let anybody = Api::anonymous(&stack.url);
        let path = "dir one/ä+.txt";
        let write = anybody.request(Method::POST, &address(path, "write", &sandbox.access, None));
        let written = read(write.header("content-type", "application/octet-stream").body("content")).await.expect(200);
        assert_eq!(written[0]["path"], "/home/user/dir one/ä+.txt");
        let end = stack.app.clock.now().timestamp() + 600;
        let host = format!("49983-{}.{DOMAIN}", sandbox.id);
        for end in [None, Some(end)] {
            let signed = address(path, "read", &sandbox.access, end);
            let by_address = anybody.request(Method::GET, &signed).send().await.unwrap();
            assert_eq!(by_address.status(), 200);
            let policy = by_address.headers()["content-security-policy"].to_str().unwrap();
            assert!(policy.contains("sandbox"), "what opens in a browser is harmless on the API's origin");
            assert_eq!(by_address.text().await.unwrap(), "content");
            let by_host = anybody.request(Method::GET, &signed).header("host", &host).send().await.unwrap();
            assert_eq!(by_host.text().await.unwrap(), "content");
            let named = sandbox.named(anybody.request(Method::GET, &signed), 49_983);
            assert_eq!(named.send().await.unwrap().text().await.unwrap(), "content");
        }
        let exactly = async |address: String, message: &str| {
            for host in ["", host.as_str()] {
                let request = anybody.request(Method::GET, &address);
                let request = if host.is_empty() { request } else { request.header("host", host) };
                let body: Value = read(request).await.expect(401);
                assert_eq!(body, json!({"code": 401, "message": message}), "{address}");
            }
        };
        exactly(address(path, "read", &sandbox.access, Some(1)), "signature is already expired").await;
        exactly(address(path, "write", &sandbox.access, None), "invalid signature").await;
        exactly(address(path, "read", &sandbox.traffic, None), "invalid signature").await;
        exactly(
            address(path, "read", &sandbox.access, Some(end)).replace(&end.to_string(), &(end + 1).to_string()),
            "invalid signature",
        )
        .await;
        exactly(address("other", "read", &sandbox.access, None).replace("path=other", "path=x"), "invalid signature")
            .await;
        refused(read(anybody.request(Method::GET, "/files?path=x")).await, 401);
        // One sandbox's signature does not open another's file.
        let foreign = anybody.request(Method::GET, &address(path, "read", &other.access, None)).header("host", &host);
        refused(read(foreign).await, 401);
        let absent = anybody.request(Method::GET, &address("absent", "read", &sandbox.access, None));
        let said = read(absent).await.expect(404);
        assert!(said["message"].as_str().unwrap().contains("absent"), "envd's own word");
    });
}

#[test]
fn a_signature_ends_with_the_key_behind_it() {
    run(async {
        let stack = stack().await;
        let api = stack.api();
        let scopes = json!({"name": "k", "scopes": ["instances:write", "exec", "files:read", "files:write", "ports", "tools:read"]});
        let key = api.post("/v1/keys", &scopes).await.expect(201);
        let own = stack.bearer(key["secret"].as_str().unwrap());
        let sandbox = Sandbox::create(&own, json!({"templateID": "base"})).await;
        let anybody = Api::anonymous(&stack.url);
        let signed = address("/etc/hostname", "read", &sandbox.access, None);
        assert_eq!(anybody.request(Method::GET, &signed).send().await.unwrap().status(), 200);
        api.delete(&format!("/v1/keys/{}", key["id"].as_str().unwrap())).await.expect(204);
        crate::harness::eventually(async || {
            (anybody.request(Method::GET, &signed).send().await.unwrap().status() == 401).then_some(())
        })
        .await;
    });
}
