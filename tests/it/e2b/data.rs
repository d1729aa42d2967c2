//! The data plane: headers decide, tokens are the gateway's own, errors are those of E2B's edge.

use base64::{Engine, prelude::BASE64_STANDARD};
use http::Method;
use reqwest::RequestBuilder;
use serde_json::{Value, json};

use super::{DOMAIN, Sandbox, refused, stack};
use crate::{
    harness::{Api, Stack, eventually, read, run},
    ports::web::{PORT, Web, values},
};

/// A message of a Connect stream.
fn frame(message: &Value) -> Vec<u8> {
    let payload = message.to_string();
    let length = u32::try_from(payload.len()).unwrap().to_be_bytes();
    [&[0][..], &length, payload.as_bytes()].concat()
}

/// All messages of a stream's answer.
fn frames(mut body: &[u8]) -> Vec<Value> {
    let mut messages = Vec::new();
    while let Some((head, rest)) = body.split_at_checked(5) {
        let length = u32::from_be_bytes(head[1..].try_into().unwrap()) as usize;
        messages.push(serde_json::from_slice(&rest[..length]).unwrap());
        body = &rest[length..];
    }
    messages
}

fn start(request: RequestBuilder, script: &str, envs: Value) -> RequestBuilder {
    let process = json!({"cmd": "/bin/sh", "args": ["-c", script], "envs": envs});
    let message = json!({"process": process, "stdin": false});
    let request = request.header("content-type", "application/connect+json").header("connect-protocol-version", "1");
    request.body(frame(&message))
}

/// What a command prints.
async fn output(request: RequestBuilder) -> String {
    let response = request.send().await.unwrap();
    assert_eq!(response.status(), 200, "{:?}", response.text().await);
    assert_eq!(response.headers()["content-type"], "application/connect+json");
    let messages = frames(&response.bytes().await.unwrap());
    let printed = messages.iter().filter_map(|message| message["event"]["data"]["stdout"].as_str());
    printed.map(|text| String::from_utf8(BASE64_STANDARD.decode(text).unwrap()).unwrap()).collect()
}

fn run_in(sandbox: &Sandbox, api: &Api, script: &str, envs: Value) -> RequestBuilder {
    start(sandbox.envd(api, Method::POST, "/process.Process/Start"), script, envs)
}

async fn status(request: RequestBuilder) -> u16 {
    request.send().await.unwrap().status().as_u16()
}

fn anybody(stack: &Stack) -> Api {
    Api::anonymous(&stack.url)
}

#[test]
fn the_headers_decide_whose_paths_they_are() {
    run(async {
        let stack = stack().await;
        let body = json!({"templateID": "base", "envVars": {"OWN": "of the sandbox", "BOTH": "hidden"}});
        let (sandbox, anybody) = (Sandbox::create(&stack.api(), body).await, anybody(&stack));
        assert_eq!(status(sandbox.envd(&anybody, Method::GET, "/health")).await, 204);
        let metrics = read(sandbox.envd(&anybody, Method::GET, "/metrics")).await.expect(200);
        assert!(metrics["mem_total"].as_u64().unwrap() > 0);
        assert_eq!(anybody.get("/healthz").await.expect(200)["status"], "ok");
        anybody.get("/metrics").await.problem(401, "unauthenticated");
        let script = "printf '%s|%s|%s' \"$OWN\" \"$BOTH\" \"$ASKED\"";
        let printed = output(run_in(&sandbox, &anybody, script, json!({"BOTH": "b", "ASKED": "a"}))).await;
        assert_eq!(printed, "of the sandbox|b|a");
        // Handles of some SDKs forget the headers: the token says whose it is.
        let unnamed = anybody.request(Method::POST, "/process.Process/Start").header("x-access-token", &sandbox.access);
        assert_eq!(output(start(unnamed, "echo here", json!({}))).await, "here\n");
        let point = stack.api().get(&format!("/e2b/sandboxes/{}/metrics", sandbox.id)).await.expect(200);
        assert!(point[0]["memTotal"].as_u64().unwrap() > 0 && point[0]["timestamp"].is_string());
    });
}

#[test]
fn a_ports_own_host_answers_sdks_too() {
    run(async {
        let stack = stack().await;
        let sandbox = Sandbox::create(&stack.api(), json!({"templateID": "base"})).await;
        let at = |api: &Api, port: u16, path: &str| {
            let host = format!("{port}-{}.{DOMAIN}", sandbox.id);
            api.request(Method::GET, path).header("host", host)
        };
        let anybody = anybody(&stack);
        assert_eq!(status(at(&anybody, 49_983, "/health").header("x-access-token", &sandbox.access)).await, 204);
        let closed = at(&anybody, 9, "/").header("e2b-traffic-access-token", &sandbox.traffic);
        let closed = read(closed).await;
        assert_eq!(closed.body["port"], 9);
        assert!(refused(closed, 502).contains("port is not open"));
        // The host goes before the headers.
        let other = Sandbox::create(&stack.api(), json!({"templateID": "base"})).await;
        let mixed = other.named(at(&anybody, 49_983, "/health"), 9).header("x-access-token", &sandbox.access);
        assert_eq!(status(mixed).await, 204);
        // Without a sign of an SDK it is answered as before.
        read(at(&anybody, 9, "/")).await.problem(401, "unauthenticated");
    });
}

#[test]
fn a_ports_own_host_answers_the_clouds_clients_too() {
    run(async {
        let stack = stack().await;
        let api = stack.api().at(&stack.url);
        let sandbox = Sandbox::create(&api, json!({"templateID": "base"})).await;
        let anybody = anybody(&stack).at(&stack.url);
        let at = |port: u16| {
            let host = format!("{port}-{}.ap-guangzhou.{DOMAIN}", sandbox.id);
            anybody.request(Method::GET, "/health").header("host", host)
        };
        assert_eq!(status(at(49_983).header("x-access-token", &sandbox.access)).await, 204);
        let bearer = format!("Bearer {}", sandbox.access);
        assert_eq!(status(at(49_983).header("authorization", &bearer)).await, 204);
        api.delete(&format!("/v1/instances/{}", sandbox.id)).await.expect(204);
        // To E2B's clients what has ended is a bad gateway, to the cloud's it is not there.
        let over = eventually(async || {
            let over = read(at(8000).header("x-access-token", &sandbox.access)).await;
            (over.body["detail"] != "The instance is STOPPING (manual). Start a new one.").then_some(over)
        })
        .await;
        assert!(over.problem(404, "not_found")["detail"].as_str().unwrap().contains("STOPPED (manual)"));
        for port in [49_983, 49_999] {
            refused(read(at(port).header("x-access-token", &sandbox.access)).await, 502);
        }
        refused(read(at(8000).header("e2b-traffic-access-token", &sandbox.traffic)).await, 502);
        refused(read(sandbox.named(at(8000), 8000).header("x-access-token", &sandbox.access)).await, 502);
    });
}

#[test]
fn tokens_are_good_for_their_own_sandbox_alone() {
    run(async {
        let stack = stack().await;
        let (api, anybody) = (stack.api(), anybody(&stack));
        let one = Sandbox::create(&api, json!({"templateID": "base"})).await;
        let two = Sandbox::create(&api, json!({"templateID": "base"})).await;
        let health = |sandbox: &Sandbox, port: u16| sandbox.named(anybody.request(Method::GET, "/health"), port);
        refused(read(health(&one, 49_983)).await, 401);
        let foreign = health(&one, 49_983).header("x-access-token", &two.access);
        refused(read(foreign).await, 401);
        let mut forged = one.access.clone();
        let last = if forged.pop() == Some('0') { '1' } else { '0' };
        forged.push(last);
        refused(read(health(&one, 49_983).header("x-access-token", &forged)).await, 401);
        // The traffic token is for what servers serve: neither commands nor files.
        refused(read(health(&one, 49_983).header("x-access-token", &one.traffic)).await, 403);
        assert!(refused(read(health(&one, 9).header("x-access-token", &one.traffic)).await, 502).contains("not open"));
        // They are no keys.
        api.bearing(&one.access).get("/v1/me").await.problem(401, "unauthenticated");
        refused(api.bearing(&one.access).get("/e2b/sandboxes").await, 401);
        // A key of the team is good, too; another team's is not.
        assert_eq!(status(one.named(api.request(Method::GET, "/health"), 49_983)).await, 204);
        let other = stack.team("other").await;
        assert!(
            refused(read(one.named(other.request(Method::GET, "/health"), 49_983)).await, 502).contains("not found")
        );
    });
}

#[test]
fn headers_that_say_half_of_it_are_refused() {
    run(async {
        let stack = stack().await;
        let sandbox = Sandbox::create(&stack.api(), json!({"templateID": "base"})).await;
        let get = || stack.api().request(Method::GET, "/health");
        let (id, port) = (("e2b-sandbox-id", sandbox.id.as_str()), ("e2b-sandbox-port", "49983"));
        for (headers, status, said) in [
            (vec![id], 400, "missing header e2b-sandbox-port"),
            (vec![port], 400, "missing header e2b-sandbox-id"),
            (vec![id, ("e2b-sandbox-port", "0")], 400, "e2b-sandbox-port"),
            (vec![("e2b-sandbox-id", "abc123"), port], 502, "The sandbox was not found"),
        ] {
            let request = headers.into_iter().fold(get(), |request, (name, value)| request.header(name, value));
            let message = refused(read(request).await, status);
            assert!(message.contains(said), "{message}");
        }
    });
}

#[test]
fn a_token_ends_with_its_key_and_with_its_sandbox() {
    run(async {
        let stack = stack().await;
        let (api, anybody) = (stack.api(), anybody(&stack));
        let mut made = Vec::new();
        for name in ["revoked", "expired"] {
            let scopes = json!([
                "instances:read",
                "instances:write",
                "exec",
                "files:read",
                "files:write",
                "ports",
                "tools:read"
            ]);
            let key = api.post("/v1/keys", &json!({"name": name, "scopes": scopes})).await.expect(201);
            let own = stack.bearer(key["secret"].as_str().unwrap());
            made.push((
                key["id"].as_str().unwrap().to_owned(),
                Sandbox::create(&own, json!({"templateID": "base"})).await,
            ));
        }
        let health = |sandbox: &Sandbox| sandbox.envd(&anybody, Method::GET, "/health");
        let [(revoked, one), (expired, two)] = made.try_into().ok().unwrap();
        for sandbox in [&one, &two] {
            assert_eq!(status(health(sandbox)).await, 204);
        }
        api.delete(&format!("/v1/keys/{revoked}")).await.expect(204);
        let expire = "UPDATE api_keys SET expires_at = now() WHERE id = $1";
        sqlx::query(expire).bind(&expired).execute(&stack.app.pool).await.unwrap();
        for sandbox in [&one, &two] {
            eventually(async || (status(health(sandbox)).await == 401).then_some(())).await;
        }
        // Another key of the team is given tokens of its own.
        let connect = format!("/e2b/sandboxes/{}/connect", one.id);
        let again = Sandbox::of(&api.post(&connect, &json!({"timeout": 60})).await.expect(200));
        assert_ne!(again.access, one.access);
        assert_eq!(status(health(&again)).await, 204);
        api.delete(&format!("/e2b/sandboxes/{}", one.id)).await.expect(204);
        assert!(refused(read(health(&again)).await, 502).contains("The sandbox was not found"));
    });
}

#[test]
fn a_command_is_cut_off_when_its_sandbox_is_killed() {
    run(async {
        let stack = stack().await;
        let (api, anybody) = (stack.api(), anybody(&stack));
        let sandbox = Sandbox::create(&api, json!({"templateID": "base"})).await;
        let mut response = run_in(&sandbox, &anybody, "echo begun; sleep 600", json!({})).send().await.unwrap();
        assert!(response.chunk().await.unwrap().is_some());
        api.delete(&format!("/e2b/sandboxes/{}", sandbox.id)).await.expect(204);
        // Cut, not ended: the SDK then asks whether the sandbox is there.
        while let Some(_more) = match response.chunk().await {
            Ok(more) => Some(more.expect("an end that nobody can tell from the command's own")),
            Err(_) => None,
        } {}
    });
}

#[test]
fn a_server_sees_none_of_the_tokens() {
    run(async {
        let web = Web::start().await;
        let connect = format!("/e2b/sandboxes/{}/connect", web.id);
        let sandbox = Sandbox::of(&web.api().post(&connect, &json!({"timeout": 60})).await.expect(200));
        let get = || sandbox.named(Api::anonymous(&web.stack.url).request(Method::GET, "/v1/me?x=1"), PORT);
        let both = get().header("x-access-token", &sandbox.access).header("e2b-traffic-access-token", &sandbox.traffic);
        let seen = web.seen(both.header("x-api-key", "of-the-server").header("cookie", "a=1")).await;
        assert_eq!(seen["target"], "/v1/me?x=1");
        assert_eq!(values(&seen, "x-api-key"), ["of-the-server"]);
        for name in ["x-access-token", "e2b-traffic-access-token", "e2b-sandbox-id", "e2b-sandbox-port", "cookie"] {
            assert!(values(&seen, name).is_empty(), "{name}");
        }
        let response = get().header("x-access-token", &sandbox.access).send().await.unwrap();
        assert!(
            response.headers()["content-security-policy"].to_str().unwrap().contains("sandbox"),
            "the API's origin"
        );
        sqlx::query("UPDATE instances SET auth_mode = 'PUBLIC'").execute(&web.stack.app.pool).await.unwrap();
        let seen = eventually(async || {
            let answer = read(get().header("x-access-token", &sandbox.access)).await;
            (answer.status == 200).then_some(answer.body)
        });
        assert!(values(&seen.await, "x-access-token").is_empty());
        let bearer = sandbox.named(Api::anonymous(&web.stack.url).request(Method::GET, "/x"), PORT);
        let seen = web.seen(bearer.header("authorization", format!("Bearer {}", sandbox.access))).await;
        assert!(values(&seen, "authorization").is_empty());
    });
}
