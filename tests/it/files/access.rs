//! Who may, and what is asked for in the wrong way.

use http::Method;
use serde_json::json;

use super::{Sandbox, sandbox::moving};
use crate::harness::{self, Api, read};

#[test]
fn another_teams_instance_is_not_there() {
    harness::run(async {
        let sandbox = Sandbox::start().await;
        sandbox.put("secret", "x").await.expect(201);
        let other = sandbox.stack.team("other").await;
        for method in [Method::GET, Method::PUT, Method::DELETE] {
            read(other.request(method, &sandbox.url("?path=secret"))).await.problem(404, "not_found");
        }
        assert_eq!(other.request(Method::HEAD, &sandbox.url("?path=secret")).send().await.unwrap().status(), 404);
        for rest in ["/list?path=~", "/stat?path=secret"] {
            other.get(&sandbox.url(rest)).await.problem(404, "not_found");
        }
        other.post(&sandbox.url("/mkdir"), &json!({"path": "d"})).await.problem(404, "not_found");
        other.post(&sandbox.url("/move"), &moving("secret", "d")).await.problem(404, "not_found");
        assert_eq!(sandbox.read("secret").await, b"x");
    });
}

#[test]
fn reading_and_writing_are_scopes_of_their_own() {
    harness::run(async {
        let sandbox = Sandbox::start().await;
        sandbox.put("a", "x").await.expect(201);
        let with = async |scope: &str| {
            let key = sandbox.api().post("/v1/keys", &json!({"name": "k", "scopes": [scope]})).await.expect(201);
            Api::new(&sandbox.stack.url, key["secret"].as_str().unwrap())
        };
        let (reader, writer) = (with("files:read").await, with("files:write").await);
        for rest in ["?path=a", "/list?path=~", "/stat?path=a"] {
            assert_eq!(reader.request(Method::GET, &sandbox.url(rest)).send().await.unwrap().status(), 200);
            writer.get(&sandbox.url(rest)).await.problem(403, "scope_missing");
        }
        reader.post(&sandbox.url("/mkdir"), &json!({"path": "d"})).await.problem(403, "scope_missing");
        reader.post(&sandbox.url("/move"), &moving("a", "b")).await.problem(403, "scope_missing");
        read(reader.request(Method::PUT, &sandbox.url("?path=a")).body("y")).await.problem(403, "scope_missing");
        reader.delete(&sandbox.url("?path=a")).await.problem(403, "scope_missing");
        writer.post(&sandbox.url("/mkdir"), &json!({"path": "d"})).await.expect(201);
        read(writer.request(Method::PUT, &sandbox.url("?path=a")).body("y")).await.expect(200);
        writer.delete(&sandbox.url("?path=a")).await.expect(204);
    });
}

#[test]
fn the_field_at_fault_is_named() {
    harness::run(async {
        let sandbox = Sandbox::start().await;
        let long = "x".repeat(256);
        let (get, put, delete) = (Method::GET, Method::PUT, Method::DELETE);
        let too_long = format!("?path={long}");
        let cases: &[(&Method, &str, &str)] = &[
            (&get, "", "path"),
            (&get, "?path=", "path"),
            (&get, "?path=a%00b", "path"),
            (&get, "?path=%ff", "path"),
            (&get, "?path=~root/x", "path"),
            (&get, "?path=a&path=b", "path"),
            (&get, &too_long, "path"),
            (&get, "?path=a&colour=red", "colour"),
            (&get, "?path=a&user=", "user"),
            (&get, "?path=a&user=a:b", "user"),
            (&get, "?path=a&user=nobody-here", "user"),
            (&get, "/stat", "path"),
            (&get, "/stat?path=a%00", "path"),
            (&get, "/list?depth=1", "path"),
            (&get, "/list?path=~&depth=0", "depth"),
            (&get, "/list?path=~&depth=65", "depth"),
            (&get, "/list?path=~&depth=x", "depth"),
            (&put, "", "path"),
            (&put, "?path=a%00b", "path"),
            (&put, "?path=dir/", "path"),
            (&put, "?path=/", "path"),
            (&put, "?path=a/..", "path"),
            (&delete, "?path=/", "path"),
            (&delete, "?path=~", "path"),
            (&delete, "?path=..", "path"),
            (&delete, "?path=a%00b", "path"),
        ];
        for (method, rest, field) in cases {
            let answer = read(sandbox.api().request((*method).clone(), &sandbox.url(rest))).await;
            let problem = answer.problem(422, "validation_failed");
            assert_eq!(problem["errors"][0]["field"], *field, "{method} {rest}");
        }
        let bodies = [
            ("/mkdir", json!({"path": ""}), "path"),
            ("/mkdir", json!({"path": "a\u{0}b"}), "path"),
            ("/mkdir", json!({"path": 1}), "path"),
            ("/mkdir", json!({}), "path"),
            ("/mkdir", json!({"path": "a", "mode": 1}), "mode"),
            ("/mkdir", json!({"path": "a", "user": "x\ny"}), "user"),
            ("/move", json!({"source": "a"}), "destination"),
            ("/move", moving("a\u{0}", "b"), "source"),
            ("/move", moving("a", "b\u{0}"), "destination"),
            ("/move", moving("/", "b"), "source"),
            ("/move", moving("a", "~"), "destination"),
        ];
        for (rest, body, field) in bodies {
            let problem = sandbox.post(rest, &body).await.problem(422, "validation_failed");
            assert_eq!(problem["errors"][0]["field"], field, "{rest} {body}");
        }
        let encoded = sandbox.content(Method::PUT, "a").header("content-encoding", "gzip").body("x");
        read(encoded).await.problem(415, "unsupported_media_type");
        let partial = sandbox.content(Method::PUT, "a").header("content-range", "bytes 0-0/9").body("x");
        read(partial).await.problem(400, "invalid_request");
    });
}

#[test]
fn an_instance_that_does_not_run_has_no_files() {
    harness::run(async {
        let sandbox = Sandbox::start().await;
        for (status, retryable) in [("STARTING", true), ("PAUSED", false), ("STOPPED", false)] {
            sqlx::query("UPDATE instances SET status = $1")
                .bind(status)
                .execute(&sandbox.stack.app.pool)
                .await
                .unwrap();
            let problem = sandbox.put("a", "x").await.problem(409, "invalid_state");
            assert_eq!((&problem["sandbox"]["status"], &problem["retryable"]), (&json!(status), &json!(retryable)));
            sandbox.delete("a").await.problem(409, "invalid_state");
        }
    });
}

#[test]
fn a_sandbox_that_is_gone_is_told_from_a_file_that_is_not_there() {
    harness::run(async {
        let sandbox = Sandbox::start().await;
        sandbox.stat("a").await.problem(404, "not_found");
        // A gateway that has no token of it yet is told by the cloud itself.
        let (_app, url) = sandbox.stack.replica().await;
        sandbox.stop_upstream().await;
        let told = [
            sandbox.stat("a").await,
            sandbox.stat("a").await,
            sandbox.api().at(&url).get(&sandbox.url("/stat?path=a")).await,
        ];
        for answer in told {
            assert_ne!(answer.status, 404, "{:#}", answer.body);
            assert_eq!(answer.body["sandbox"]["id"], sandbox.id);
        }
    });
}
