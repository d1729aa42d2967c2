//! `Idempotency-Key` on every call that creates.

use http::Method;
use serde_json::{Value, json};

use crate::{
    code::Interpreter,
    exec::Sandbox,
    harness::{Answer, Api, Options, Stack, read, run},
};

/// Leaves all keys as calls do that died before they could say what became of them.
const DIED: &str = "UPDATE idempotency_keys SET status = NULL, body = NULL, locked_until = now()";

async fn keyed(api: &Api, path: &str, key: &str, body: &Value) -> Answer {
    read(api.request(Method::POST, path).header("idempotency-key", key).json(body)).await
}

/// Makes something twice, and something else under the same key. The first answer and its repetition.
async fn twice(api: &Api, path: &str, body: &Value, other: &Value) -> (Value, Value) {
    let first = keyed(api, path, "once", body).await;
    assert!(!first.headers.contains_key("idempotency-replayed"));
    let again = keyed(api, path, "once", body).await;
    assert_eq!(again.headers["idempotency-replayed"], "true");
    keyed(api, path, "once", other).await.problem(422, "idempotency_key_reused");
    (first.expect(201), again.expect(201))
}

#[test]
fn a_key_is_minted_once_and_its_secret_is_shown_once() {
    run(async {
        let stack = Stack::with(Options::simulated()).await;
        let api = stack.api();
        let body = json!({"name": "ci", "scopes": ["exec"]});
        let (first, mut again) = twice(&api, "/v1/keys", &body, &json!({"name": "x", "scopes": ["exec"]})).await;
        let secret = first["secret"].as_str().unwrap();
        Api::new(&stack.url, secret).get("/v1/me").await.expect(200);
        assert_eq!(again["secret"], Value::Null);
        again["secret"] = first["secret"].clone();
        assert_eq!(again, first);
        let kept: String = sqlx::query_scalar("SELECT coalesce(string_agg(body::text, ''), '') FROM idempotency_keys")
            .fetch_one(&stack.app.pool)
            .await
            .unwrap();
        assert!(kept.contains("\"ci\"") && !kept.contains(secret), "{kept}");

        // A call that died after it had made the key: the repetition finds that one.
        stack.sql("UPDATE idempotency_keys SET status = NULL, body = NULL, locked_until = now()").await;
        let found = keyed(&api, "/v1/keys", "once", &body).await.expect(201);
        assert_eq!((&found["id"], &found["secret"]), (&first["id"], &Value::Null));
    });
}

#[test]
fn a_key_is_rotated_once() {
    run(async {
        let stack = Stack::with(Options::simulated()).await;
        let api = stack.api();
        let key = api.post("/v1/keys", &json!({"name": "ci", "scopes": ["exec"]})).await.expect(201);
        let path = format!("/v1/keys/{}/rotate", key["id"].as_str().unwrap());
        let first = keyed(&api, &path, "once", &json!({"grace": "1h"})).await.expect(200);
        let again = keyed(&api, &path, "once", &json!({"grace": "1h"})).await;
        assert_eq!(again.headers["idempotency-replayed"], "true");
        assert_eq!(again.expect(200)["secret"], Value::Null);
        for secret in [&first["secret"], &key["secret"]] {
            Api::new(&stack.url, secret.as_str().unwrap()).get("/v1/me").await.expect(200);
        }
    });
}

#[test]
fn a_ticket_is_made_once_and_shown_once() {
    run(async {
        let stack = Stack::with(Options::simulated().with("TOOLS__SHARED", "base")).await;
        let api = stack.api();
        let instance = api.post("/v1/instances", &json!({"tool": "base"})).await.expect(201);
        let body = |scope: &str| json!({"instance_id": instance["id"], "scopes": [scope]});
        let (first, again) = twice(&api, "/v1/tickets", &body("exec"), &body("exec:read")).await;
        assert!(first["ticket"].is_string());
        assert_eq!((&again["ticket"], &again["expires_at"]), (&Value::Null, &first["expires_at"]));
        let made: i64 = sqlx::query_scalar("SELECT count(*) FROM tickets").fetch_one(&stack.app.pool).await.unwrap();
        assert_eq!(made, 1);
    });
}

#[test]
fn an_image_is_fetched_ahead() {
    run(async {
        let stack = Stack::with(Options::simulated()).await;
        let admin = stack.admin();
        let body = json!({"image": "python:3.11", "image_registry_type": "custom"});
        let first = keyed(&admin, "/v1/images/precache", "once", &body).await.expect(202);
        let again = keyed(&admin, "/v1/images/precache", "once", &body).await;
        assert_eq!(again.headers["idempotency-replayed"], "true");
        assert_eq!((again.expect(202), stack.calls("CreatePreCacheImageTask")), (first.clone(), 1));
        let digest = first["image_digest"].as_str().expect("a digest");
        let path = |digest: &str| {
            format!("/v1/images/precache?image=python:3.11&image_registry_type=custom&image_digest={digest}")
        };
        let fetched = admin.get(&path(digest)).await.expect(200);
        assert_eq!((&fetched["status"], &fetched["image"]), (&json!("Success"), &json!("python:3.11")), "{fetched:#}");
        let unknown = admin.get(&path("sha256:00")).await;
        assert!(unknown.status.is_client_error(), "{unknown:?}");
        let missing = admin.get("/v1/images/precache").await.problem(422, "validation_failed");
        let fields: Vec<_> = missing["errors"].as_array().unwrap().iter().map(|error| error["field"].clone()).collect();
        assert_eq!(fields, ["image", "image_digest"]);
        let wrong = json!({"image": "a b", "image_registry_type": "docker"});
        let wrong = admin.post("/v1/images/precache", &wrong).await.problem(422, "validation_failed");
        assert_eq!(wrong["errors"].as_array().unwrap().len(), 2, "{wrong:#}");
        let other = json!({"image": "python:3.11", "upstream": "nowhere"});
        let other = admin.post("/v1/images/precache", &other).await.problem(422, "validation_failed");
        assert_eq!(other["errors"][0]["field"], "upstream");
        stack.api().post("/v1/images/precache", &body).await.problem(403, "scope_missing");
    });
}

#[test]
fn teams_and_previews_are_made_once() {
    run(async {
        let options =
            Options::simulated().with("TOOLS__SHARED", "base").with("SERVER__SANDBOX_DOMAIN", "sandbox.localhost");
        let stack = Stack::with(options).await;
        let (api, admin) = (stack.api(), stack.admin());
        let (first, again) = twice(&admin, "/v1/teams", &json!({"name": "red"}), &json!({"name": "blue"})).await;
        assert_eq!(first, again);
        keyed(&admin, "/v1/teams", "twice", &json!({"name": "red"})).await.problem(409, "name_taken");
        let refused = keyed(&admin, "/v1/teams", "twice", &json!({"name": "red"})).await;
        assert_eq!(refused.headers["idempotency-replayed"], "true");
        refused.problem(409, "name_taken");

        let instance = api.post("/v1/instances", &json!({"tool": "base"})).await.expect(201);
        let previews = format!("/v1/instances/{}/previews", instance["id"].as_str().unwrap());
        let (first, again) = twice(&api, &previews, &json!({"port": 80}), &json!({"port": 81})).await;
        assert!(first["url"].is_string());
        assert_eq!((&again["id"], &again["url"]), (&first["id"], &Value::Null));
        assert_eq!(api.get(&previews).await.expect(200)["items"].as_array().unwrap().len(), 1);
    });
}

#[test]
fn a_context_is_made_once() {
    run(async {
        let sandbox = Interpreter::start().await;
        let contexts = sandbox.path("contexts");
        let count = async || sandbox.api.get(&contexts).await.expect(200)["items"].as_array().unwrap().len();
        let (first, again) = twice(&sandbox.api, &contexts, &json!({}), &json!({"language": "bash"})).await;
        assert_eq!(first, again);
        let with_one = count().await;
        sandbox.api.post(&contexts, &json!({})).await.expect(201);
        assert_eq!(count().await, with_one + 1);
    });
}

#[test]
fn code_runs_once() {
    run(async {
        let sandbox = Interpreter::start().await;
        let path = sandbox.path("code");
        let body = json!({"code": "runs = globals().get('runs', 0) + 1\nprint(runs)"});
        let first = keyed(&sandbox.api, &path, "once", &body).await.expect(200);
        let again = keyed(&sandbox.api, &path, "once", &body).await;
        assert_eq!(again.headers["idempotency-replayed"], "true");
        assert_eq!((again.expect(200), &first["stdout"]), (first.clone(), &json!("1\n")));
        // A call that died: nobody knows whether it ran.
        sandbox.stack.sql(DIED).await;
        keyed(&sandbox.api, &path, "once", &body).await.problem(503, "unavailable");
        let streamed = sandbox.api.request(Method::POST, &path).header("accept", "text/event-stream");
        let streamed = read(streamed.header("idempotency-key", "twice").json(&body)).await;
        assert_eq!(streamed.problem(422, "validation_failed")["errors"][0]["field"], "Idempotency-Key");
        assert_eq!(sandbox.code(&body).await.expect(200)["stdout"], "2\n");
    });
}

#[test]
fn a_command_runs_once_and_its_repetition_is_answered_with_it() {
    run(async {
        let sandbox = Sandbox::start().await;
        let (api, path) = (&sandbox.api, sandbox.path("exec"));
        let body = json!({"cmd": "echo x >> /tmp/runs; exit 3"});
        let first = keyed(api, &path, "waited", &body).await.expect(200);
        let again = keyed(api, &path, "waited", &body).await;
        assert_eq!(again.headers["idempotency-replayed"], "true");
        let again = again.expect(200);
        assert_eq!((&again["id"], &again["exit_code"]), (&first["exec_id"], &json!(3)));
        keyed(api, &path, "waited", &json!({"cmd": "true"})).await.problem(422, "idempotency_key_reused");
        // A call that died when it had started: it is asked for by the id that was decided before.
        sandbox.stack.sql(DIED).await;
        assert_eq!(keyed(api, &path, "waited", &body).await.expect(200)["id"], first["exec_id"]);
        // Or nobody knows whether it ran.
        sandbox.stack.sql("DELETE FROM execs").await;
        sandbox.stack.sql(DIED).await;
        keyed(api, &path, "waited", &body).await.problem(503, "unavailable");

        let streamed = || {
            let request = api.request(Method::POST, &path).header("idempotency-key", "streamed");
            request.header("accept", "application/x-ndjson").json(&body).send()
        };
        let first = streamed().await.unwrap().text().await.unwrap();
        assert!(first.lines().count() >= 2, "{first}");
        let again = streamed().await.unwrap();
        assert_eq!(again.headers()["content-type"], "application/json");
        let again: Value = serde_json::from_str(&again.text().await.unwrap()).unwrap();
        assert!(first.contains(again["id"].as_str().unwrap()));

        let background = json!({"cmd": "echo x >> /tmp/runs", "background": true});
        let first = keyed(api, &path, "background", &background).await.expect(202);
        assert_eq!(keyed(api, &path, "background", &background).await.expect(202)["id"], first["id"]);
        let refused = json!({"cmd": "true", "cwd": "/nowhere"});
        keyed(api, &path, "refused", &refused).await.problem(422, "validation_failed");
        assert_eq!(keyed(api, &path, "refused", &refused).await.headers["idempotency-replayed"], "true");
        let ended = sandbox.run("until [ $(wc -l < /tmp/runs) -ge 3 ]; do sleep 0.05; done; wc -l < /tmp/runs").await;
        assert_eq!(ended["stdout"], "3\n");
    });
}
