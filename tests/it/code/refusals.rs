//! What cannot be run, and who may not.

use serde_json::{Value, json};

use super::Interpreter;
use crate::harness::{Api, Options, Stack, run};

#[test]
fn what_is_wrong_with_a_request_is_named() {
    run(async {
        let sandbox = Interpreter::start().await;
        for (body, field) in [
            (json!({}), "code"),
            (json!({"code": 1}), "code"),
            (json!({"code": ""}), "code"),
            (json!({"code": " \n"}), "code"),
            (json!({"code": "1", "language": "cobol"}), "language"),
            (json!({"code": "1", "language": "python", "context_id": "c"}), "context_id"),
            (json!({"code": "1", "context_id": ""}), "context_id"),
            (json!({"code": "1", "env": {"A=B": ""}}), "env"),
            (json!({"code": "1", "env": {"A": 1}}), "env.A"),
            (json!({"code": "1", "timeout": 0}), "timeout"),
            (json!({"code": "1", "timeout": "25h"}), "timeout"),
            (json!({"code": "1", "output_limit": 1u64 << 40}), "output_limit"),
            (json!({"code": "1", "user": "root"}), "user"),
        ] {
            let problem = sandbox.code(&body).await.problem(422, "validation_failed");
            assert_eq!(problem["errors"][0]["field"], field, "{body}: {problem:#}");
        }
        let unknown = json!({"code": "1", "context_id": "no-such-context"});
        sandbox.code(&unknown).await.problem(404, "not_found");
    });
}

#[test]
fn code_may_be_as_long_as_a_json_body() {
    run(async {
        let sandbox = Interpreter::with(Options::default().with("SERVER__MAX_JSON_BODY", "64KiB"), json!({})).await;
        let code = |length: usize| json!({"code": format!("len('{}')", "x".repeat(length))});
        let answer = sandbox.code(&code(60_000)).await.expect(200);
        assert_eq!(answer["results"][0]["text"], "60000");
        sandbox.code(&code(70_000)).await.problem(413, "body_too_large");
    });
}

#[test]
fn another_tool_type_is_told_how_else() {
    run(async {
        let stack = Stack::start().await;
        let api = stack.api();
        api.post("/v1/tools?wait=30s", &json!({"name": "shell", "type": "custom"})).await.expect(201);
        let instance = api.post("/v1/instances", &json!({"tool": "shell"})).await.expect(201);
        let path = |rest: &str| format!("/v1/instances/{}/{rest}", instance["id"].as_str().unwrap());
        for answer in [
            api.post(&path("code"), &json!({"code": "1"})).await,
            api.get(&path("contexts")).await,
            api.post(&path("contexts"), &json!({})).await,
            api.delete(&path("contexts/c")).await,
        ] {
            let problem = answer.problem(409, "tool_type_unsupported");
            let detail = problem["detail"].as_str().unwrap();
            assert!(detail.contains("/files") && detail.contains("/exec"), "{detail}");
        }
    });
}

#[test]
fn code_needs_the_scope_and_an_instance_of_ones_own_team() {
    run(async {
        let sandbox = Interpreter::start().await;
        let (code, contexts) = (sandbox.path("code"), sandbox.path("contexts"));
        let spec = json!({"code": "1"});
        Api::anonymous(&sandbox.stack.url).post(&code, &spec).await.problem(401, "unauthenticated");
        let other = sandbox.stack.team("other").await;
        other.post(&code, &spec).await.problem(404, "not_found");
        other.get(&contexts).await.problem(404, "not_found");
        let minted = json!({"name": "reader", "scopes": ["exec:read"]});
        let minted = sandbox.api.post("/v1/keys", &minted).await.expect(201);
        let reader = Api::new(&sandbox.stack.url, minted["secret"].as_str().unwrap());
        reader.post(&code, &spec).await.problem(403, "scope_missing");
        reader.post(&contexts, &json!({})).await.problem(403, "scope_missing");
        reader.delete(&format!("{contexts}/c")).await.problem(403, "scope_missing");
        reader.post(&format!("{contexts}/c/restart"), &Value::Null).await.problem(403, "scope_missing");
        reader.get(&contexts).await.expect(200);
    });
}
