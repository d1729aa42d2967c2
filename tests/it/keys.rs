//! Revocation, on every replica and in open streams; what children of a key may do; the pepper's rotation.

use futures_util::StreamExt;
use http::Method;
use serde_json::{Value, json};

use crate::{
    exec::Sandbox,
    harness::{Api, Options, Stack, eventually, read, run},
    ws::{hear, open_with_key, say},
};

async fn child(of: &Api, body: Value) -> (Value, Api) {
    let key = of.post("/v1/keys", &body).await.expect(201);
    let api = of.bearing(key["secret"].as_str().unwrap());
    (key, api)
}

async fn revoke(by: &Api, key: &Value) {
    by.delete(&format!("/v1/keys/{}", key["id"].as_str().unwrap())).await.expect(204);
}

async fn refused(api: &Api) {
    eventually(async || (api.get("/v1/me").await.status == 401).then_some(())).await;
}

#[test]
fn revocation_ends_what_is_open_on_another_replica() {
    run(async {
        let sandbox = Sandbox::start().await;
        let (_other, url) = sandbox.stack.replica().await;
        let (parent, parent_api) =
            child(&sandbox.api, json!({"name": "p", "scopes": ["keys", "exec", "files:read"]})).await;
        let (_, api) = child(&parent_api, json!({"name": "c", "scopes": ["exec", "files:read"]})).await;
        let api = api.at(&url);

        let exec = |accept: &'static str| {
            let request = api.request(Method::POST, &sandbox.path("exec")).header("accept", accept);
            request.json(&json!({"cmd": "echo on; exec sleep 300", "timeout": "10m"}))
        };
        let mut streamed = exec("text/event-stream").send().await.unwrap().bytes_stream();
        streamed.next().await.unwrap().unwrap();
        let watch = api.request(Method::GET, &sandbox.path("files/watch?path=/tmp"));
        let mut watched = watch.send().await.unwrap().bytes_stream();
        watched.next().await.unwrap().unwrap();
        let mut socket = open_with_key(&api, &sandbox.path("exec/ws"), "ags.exec.v1").await;
        say(&mut socket, &json!({"type": "start", "cmd": ["sleep", "300"]})).await;
        assert_eq!(hear(&mut socket).await.unwrap()["type"], "started");
        let waiting = read(exec("application/json"));
        let waiting = sandbox.stack.app.lifecycle.spawn("test", waiting);
        let running = async || sandbox.get("execs?status=running").await.expect(200)["items"].as_array().unwrap().len();
        eventually(async || (running().await == 3).then_some(())).await;

        // The parent's revocation is its children's too.
        revoke(&sandbox.api, &parent).await;
        while let Some(Ok(_)) = streamed.next().await {}
        while let Some(Ok(_)) = watched.next().await {}
        loop {
            match hear(&mut socket).await {
                Ok(_) => {}
                Err(code) => break assert_eq!(code, 1008),
            }
        }
        waiting.await.unwrap().problem(401, "unauthenticated");
        refused(&api).await;
        // What belonged to a request has ended with it; what was started over the socket lives on.
        eventually(async || (running().await == 1).then_some(())).await;
        // Others are not disturbed.
        assert_eq!(sandbox.run("echo fine").await["stdout"], "fine\n");
    });
}

#[test]
fn revocation_is_seen_where_notifications_are_cut_and_they_come_back() {
    run(async {
        let stack = Stack::with(Options::simulated()).await;
        let (_other, url) = stack.replica().await;
        let listeners = async || {
            let counted =
                "SELECT count(*) FROM pg_stat_activity WHERE datname = current_database() AND query LIKE 'LISTEN%'";
            let count: i64 = sqlx::query_scalar(counted).fetch_one(&stack.app.pool).await.unwrap();
            count
        };
        eventually(async || (listeners().await == 2).then_some(())).await;
        for _ in 0..3 {
            let (key, api) = child(&stack.api(), json!({"name": "k", "scopes": ["exec"]})).await;
            let api = api.at(&url);
            api.get("/v1/me").await.expect(200);
            let cut = "SELECT pg_terminate_backend(pid) FROM pg_stat_activity
                       WHERE datname = current_database() AND query LIKE 'LISTEN%'";
            sqlx::query(cut).execute(&stack.app.pool).await.unwrap();
            revoke(&stack.api(), &key).await;
            refused(&api).await;
        }
        eventually(async || (listeners().await == 2).then_some(())).await;
    });
}

#[test]
fn a_childs_key_is_for_one_instance_and_no_other() {
    run(async {
        let stack = Stack::with(Options::simulated().with("TOOLS__SHARED", "base")).await;
        let (api, other) = (stack.api(), stack.team("other").await);
        let start = async |api: &Api| api.post("/v1/instances", &json!({"tool": "base"})).await.expect(201);
        let (one, two, foreign) = (start(&api).await, start(&api).await, start(&other).await);
        for unknown in [&foreign["id"], &json!("ins01kahyexampleexampleexamp0")] {
            let body = json!({"name": "k", "scopes": ["exec"], "instance_id": unknown});
            let refused = api.post("/v1/keys", &body).await;
            assert_eq!(refused.status, 422, "{:#}", refused.body);
        }
        let body = json!({"name": "k", "scopes": ["instances:read", "keys"], "instance_id": one["id"]});
        let (_, bound) = child(&api, body).await;
        let path = |instance: &Value| format!("/v1/instances/{}", instance["id"].as_str().unwrap());
        bound.get(&path(&one)).await.expect(200);
        bound.get(&path(&two)).await.problem(404, "not_found");
        // Its own children are for that instance too.
        let (grandchild, _) = child(&bound, json!({"name": "g", "scopes": ["instances:read"]})).await;
        assert_eq!(grandchild["instance_id"], one["id"]);
        let wider = json!({"name": "g", "scopes": ["instances:read"], "instance_id": two["id"]});
        bound.post("/v1/keys", &wider).await.problem(404, "not_found");
    });
}

#[test]
fn keys_that_nobody_uses_are_listed() {
    run(async {
        let stack = Stack::with(Options::simulated()).await;
        let api = stack.api();
        let (idle, _) = child(&api, json!({"name": "idle", "scopes": ["exec"]})).await;
        let (used, used_api) = child(&api, json!({"name": "used", "scopes": ["exec"]})).await;
        let (gone, _) = child(&api, json!({"name": "gone", "scopes": ["exec"]})).await;
        revoke(&api, &gone).await;
        let age = "UPDATE api_keys SET created_at = created_at - interval '40 days', last_used_at = last_used_at - interval '31 days'";
        used_api.get("/v1/me").await.expect(200);
        stack.sql(age).await;
        sqlx::query("UPDATE api_keys SET last_used_at = now() WHERE id <> $1")
            .bind(idle["id"].as_str().unwrap())
            .execute(&stack.app.pool)
            .await
            .unwrap();
        let unused = api.get("/v1/keys?unused_for=720h").await.expect(200);
        let ids: Vec<_> = unused["items"].as_array().unwrap().iter().map(|key| key["id"].clone()).collect();
        assert_eq!(ids, [idle["id"].clone()], "{unused:#}");
        assert_ne!(used["id"], idle["id"]);
        api.get("/v1/keys?unused_for=long").await.problem(422, "validation_failed");
    });
}

#[test]
fn the_auth_secret_is_changed_without_a_moment_in_which_keys_fail() {
    const OLD: &str = "the-old-auth-secret-of-these-tests-0123456789";
    const NEW: &str = "the-new-auth-secret-of-these-tests-0123456789";
    run(async {
        // First every replica accepts the new secret as well; then they write under it, one after the other.
        let options = Options::simulated().with("TOOLS__SHARED", "base").with("AUTH__SECRET", OLD);
        let stack = Stack::with(options.with("AUTH__PREVIOUS_SECRET", NEW)).await;
        let changed = [("AUTH__SECRET", NEW), ("AUTH__PREVIOUS_SECRET", OLD)];
        let (changed_app, changed) = stack.replica_as(&changed).await;
        let (before, after) = (stack.api(), stack.api().at(&changed));
        for _ in 0..2 {
            // Each re-stores it under its own.
            after.get("/v1/me").await.expect(200);
            stack.app.auth.forget_all();
            before.get("/v1/me").await.expect(200);
        }
        let (_, minted) = child(&after, json!({"name": "new", "scopes": ["exec"]})).await;
        minted.at(&stack.url).get("/v1/me").await.expect(200);
        let instance = before.post("/v1/instances", &json!({"tool": "base"})).await.expect(201);
        let ticket = before.post("/v1/tickets", &json!({"instance_id": instance["id"]})).await.expect(201);
        let redeemed = changed_app.tickets.redeem(ticket["ticket"].as_str().unwrap()).await;
        assert!(redeemed.is_ok());

        changed_app.auth.forget_all();
        after.get("/v1/me").await.expect(200);
        let (_done, done) = stack.replica_as(&[("AUTH__SECRET", NEW), ("AUTH__PREVIOUS_SECRET", "")]).await;
        before.at(&done).get("/v1/me").await.expect(200);
        // What was not used since the change ends with the old secret.
        before.at(&done).bearing(&stack.admin_key).get("/v1/me").await.problem(401, "unauthenticated");
    });
}

#[test]
fn a_team_is_stopped_as_a_whole() {
    run(async {
        let stack = Stack::with(Options::simulated().with("TOOLS__SHARED", "base")).await;
        let (api, admin, other) = (stack.api(), stack.admin(), stack.team("other").await);
        let start = async |api: &Api| api.post("/v1/instances", &json!({"tool": "base"})).await.expect(201);
        let paused = start(&api).await;
        api.post(&format!("/v1/instances/{}/pause", paused["id"].as_str().unwrap()), &json!({})).await.expect(200);
        start(&api).await;
        let spared = start(&other).await;
        let team = api.get("/v1/me").await.expect(200)["team"]["id"].as_str().unwrap().to_owned();
        let path = format!("/v1/teams/{team}/stop-all");
        api.post(&path, &json!({})).await.problem(403, "scope_missing");
        assert_eq!(admin.post(&path, &json!({})).await.expect(202), json!({"stopping": 2}));
        eventually(async || {
            let stopped = api.get("/v1/instances?status=STOPPED").await.expect(200);
            (stopped["items"].as_array().unwrap().len() == 2).then_some(())
        })
        .await;
        let spared = other.get(&format!("/v1/instances/{}", spared["id"].as_str().unwrap())).await.expect(200);
        assert_eq!(spared["status"], "RUNNING");
        assert_eq!(admin.post(&path, &json!({})).await.expect(202), json!({"stopping": 0}));
        admin.post("/v1/teams/team01kahyexampleexampleexamp0/stop-all", &json!({})).await.problem(404, "not_found");
    });
}

#[test]
fn the_clouds_tokens_are_for_granted_teams() {
    run(async {
        let stack = Stack::with(Options::simulated().with("TOOLS__SHARED", "base")).await;
        let (api, admin) = (stack.api(), stack.admin());
        let instance = api.post("/v1/instances", &json!({"tool": "base"})).await.expect(201);
        let path = format!("/v1/instances/{}/token", instance["id"].as_str().unwrap());
        api.post(&path, &json!({})).await.expect(200);
        let team = api.get("/v1/me").await.expect(200)["team"]["id"].as_str().unwrap().to_owned();
        let grants = json!({"grants": {"networks": ["PUBLIC"], "upstreams": ["*"]}});
        admin.patch(&format!("/v1/teams/{team}"), &grants).await.expect(200);
        api.post(&path, &json!({})).await.problem(403, "not_granted");
    });
}
