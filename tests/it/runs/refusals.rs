//! What is refused, and leaves no run.

use http::Method;
use serde_json::{Value, json};

use super::bench::Bench;
use crate::{
    cloud::path,
    harness::{Api, Options, Stack, eventually, read, run},
};

fn fields(problem: &Value) -> Vec<&str> {
    problem["errors"].as_array().unwrap().iter().map(|error| error["field"].as_str().unwrap()).collect()
}

#[test]
fn what_does_not_fit_is_named() {
    run(async {
        let bench = Bench::start().await;
        let refused = async |body: Value| bench.create(&body).await.problem(422, "validation_failed");
        assert_eq!(fields(&refused(json!({"tool": "shell"})).await), ["cmd"]);
        assert_eq!(fields(&refused(json!({"tool": "ci", "cmd": "a", "code": "b"})).await), ["code"]);
        let base64 =
            json!({"tool": "shell", "cmd": "true", "files": [{"path": "a", "content": "?", "encoding": "base64"}]});
        assert_eq!(fields(&refused(base64).await), ["files[0].content"]);
        let many = json!({"tool": "shell", "cmd": [], "timeout": "25h", "env": {"A=": ""}, "collect": ["x", ""],
            "files": [{"path": "/", "content": ""}]});
        let problem = refused(many).await;
        for field in ["cmd", "timeout", "env", "files[0].path", "collect[1]"] {
            assert!(fields(&problem).contains(&field), "{field}: {problem:#}");
        }
        assert_eq!(fields(&refused(json!({"tool": "shell", "cmd": "true", "wait": 1})).await), ["wait"]);
        bench.create(&json!({"tool": "nowhere", "cmd": "true"})).await.problem(404, "not_found");
        bench.create(&json!({"tool": "shell", "code": "1"})).await.problem(409, "tool_type_unsupported");
        assert_eq!(bench.api.get("/v1/runs").await.expect(200)["items"], json!([]));
        assert_eq!(bench.stack.calls("StartSandboxInstance"), 0);
    });
}

#[test]
fn a_body_may_be_larger_than_others_but_not_too_large() {
    run(async {
        let options = Options::default().with("SERVER__MAX_JSON_BODY", "1KiB").with("RUNS__MAX_BODY", "8KiB");
        let bench = Bench::with(options.with("RUNS__MAX_COLLECTED", "2KiB")).await;
        let of = |size: usize| {
            json!({"tool": "shell", "cmd": "cat a > b; head -c 100 a > c", "collect": ["c", "b", "c"],
                "files": [{"path": "a", "content": "x".repeat(size)}]})
        };
        bench.create(&of(10_000)).await.problem(413, "body_too_large");
        let done = bench.create(&of(4_000)).await.expect(200);
        assert_eq!(done["files"][1]["error"]["code"], "body_too_large", "{done:#}");
        assert_eq!(
            (&done["files"][0]["content"], &done["files"][2]["content"]),
            (&json!("x".repeat(100)), &json!("x".repeat(100)))
        );
    });
}

#[test]
fn a_run_needs_what_its_parts_need() {
    run(async {
        let bench = Bench::start().await;
        let with = async |scopes: &[&str]| {
            let key = bench.api.post("/v1/keys", &json!({"name": "k", "scopes": scopes})).await.expect(201);
            bench.api.bearing(key["secret"].as_str().unwrap())
        };
        let body = json!({"tool": "shell", "cmd": "true", "files": [{"path": "a", "content": ""}], "collect": ["a"]});
        let all = ["exec", "instances:write", "files:write", "files:read"];
        for missing in all {
            let rest: Vec<&str> = all.into_iter().filter(|scope| *scope != missing).collect();
            with(&rest).await.post("/v1/runs", &body).await.problem(403, "scope_missing");
        }
        assert_eq!(bench.stack.calls("StartSandboxInstance"), 0);
        with(&all).await.post("/v1/runs", &body).await.expect(200);
        with(&["exec", "instances:write"])
            .await
            .post("/v1/runs", &json!({"tool": "shell", "cmd": "true"}))
            .await
            .expect(200);
        let anonymous = Api::anonymous(&bench.stack.url);
        read(anonymous.request(Method::POST, "/v1/runs").json(&body)).await.problem(401, "unauthenticated");
    });
}

/// What is in line, at the moment.
async fn in_line(stack: &Stack) -> i64 {
    let count = "SELECT count(*) FROM instance_queue WHERE seen_until > now()";
    sqlx::query_scalar(count).fetch_one(&stack.app.pool).await.unwrap()
}

#[test]
fn a_run_waits_in_line_for_its_instance() {
    run(async {
        let stack = Stack::with(Options::default().with("TOOLS__SHARED", "shell")).await;
        let api = stack.api();
        stack.tune(|tunables| tunables.max_instances = 1);
        api.post("/v1/tools?wait=30s", &json!({"name": "shell", "type": "custom"})).await.expect(201);
        let only = api.post("/v1/instances", &json!({"tool": "shell"})).await.expect(201);
        let body = json!({"tool": "shell", "cmd": "echo in turn"});
        // The cloud says that the account is full: nobody knew.
        let waiter = api.request(Method::POST, "/v1/runs?queue=2m").json(&body);
        let waiter = stack.app.lifecycle.spawn("test-waiter", read(waiter));
        eventually(async || (stack.calls("StartSandboxInstance") == 2 && in_line(&stack).await == 1).then_some(()))
            .await;
        // From now on it is known, and who does not wait is told so.
        let refused = api.post("/v1/runs", &body).await.problem(429, "quota_exceeded");
        assert_eq!((&refused["limit"]["name"], &refused["queue_position"]), (&json!("account_instances"), &json!(2)));
        api.delete(&path(&only)).await.expect(204);
        let run = waiter.await.unwrap().expect(200);
        assert_eq!((&run["status"], &run["stdout"]), (&json!("done"), &json!("in turn\n")));
        let runs = api.get("/v1/runs").await.expect(200);
        assert_eq!(runs["items"].as_array().unwrap().len(), 1, "{runs:#}");
        let late = api.post("/v1/runs?queue=1h", &body).await.problem(422, "validation_failed");
        assert_eq!(late["errors"][0]["field"], "queue");
    });
}

#[test]
fn a_full_quota_and_a_short_life_refuse_a_run() {
    run(async {
        let stack = Stack::with(Options::simulated().with("TOOLS__SHARED", "base")).await;
        let team = stack.admin().get("/v1/teams").await.expect(200);
        let dev = team["items"].as_array().unwrap().iter().find(|team| team["name"] == "dev").unwrap();
        let path = format!("/v1/teams/{}", dev["id"].as_str().unwrap());
        stack.admin().patch(&path, &json!({"quotas": {"max_lifetime_seconds": 100}})).await.expect(200);
        let long = json!({"tool": "base", "cmd": "true", "timeout": "101s"});
        let refused = stack.api().post("/v1/runs", &long).await.problem(422, "validation_failed");
        assert_eq!(refused["limit"]["name"], "max_lifetime_seconds");
        stack.admin().patch(&path, &json!({"quotas": {"max_instances": 0}})).await.expect(200);
        let full = stack.api().post("/v1/runs", &json!({"tool": "base", "cmd": "true"})).await;
        assert_eq!(full.problem(429, "quota_exceeded")["limit"]["name"], "max_instances");
        assert_eq!(stack.api().get("/v1/runs").await.expect(200)["items"], json!([]));
    });
}
