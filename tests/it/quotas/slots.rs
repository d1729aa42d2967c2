//! Commands and code of a team, over all replicas.

use futures_util::future::join_all;
use serde_json::json;

use super::limit;
use crate::{
    code::Interpreter,
    exec::Sandbox,
    harness::{Answer, eventually, run},
};

#[test]
fn a_team_runs_no_more_commands_on_two_replicas_than_on_one() {
    run(async {
        let sandbox = Sandbox::start().await;
        let (_app, url) = sandbox.stack.replica().await;
        let both = [sandbox.api.at(&sandbox.stack.url), sandbox.api.at(&url)];
        limit(&sandbox.stack, &sandbox.api, json!({"max_execs": 3})).await;
        eventually(async || {
            let limits = join_all(both.iter().map(|api| api.get("/v1/me"))).await;
            limits.into_iter().all(|answer| answer.expect(200)["limits"]["max_execs"] == 3).then_some(())
        })
        .await;
        let body = json!({"cmd": "sleep 4931", "background": true});
        let path = sandbox.path("exec");
        let asked = (0..12).map(|number| both[number % 2].post(&path, &body));
        let (started, refused): (Vec<Answer>, Vec<Answer>) =
            join_all(asked).await.into_iter().partition(|answer| answer.status == 202);
        assert_eq!((started.len(), refused.len()), (3, 9));
        for refusal in refused {
            let problem = refusal.problem(429, "quota_exceeded");
            assert_eq!(problem["limit"], json!({"name": "max_execs", "value": 3, "used": 3}));
        }
        // What ends at one leaves room at the other.
        let running = sandbox.get("execs?status=running").await.expect(200);
        for exec in running["items"].as_array().unwrap() {
            let path = sandbox.path(&format!("execs/{}", exec["id"].as_str().unwrap()));
            sandbox.api.delete(&path).await.expect(204);
        }
        for api in &both {
            let body = json!({"cmd": "true"});
            let three = eventually(async || {
                let answer = api.post(&path, &body).await;
                (answer.status == 200).then_some(answer)
            });
            assert_eq!(three.await.expect(200)["exit_code"], 0);
        }
    });
}

#[test]
fn code_counts_on_all_replicas_too() {
    run(async {
        let sandbox = Interpreter::start().await;
        let (_app, url) = sandbox.stack.replica().await;
        let (here, there) = (sandbox.api.at(&sandbox.stack.url), sandbox.api.at(&url));
        // A kernel is there before.
        sandbox.python("1").await;
        limit(&sandbox.stack, &here, json!({"max_execs": 1})).await;
        let path = sandbox.path("code");
        let first = here.request(http::Method::POST, &path).header("accept", "application/x-ndjson");
        let first = first.json(&json!({"code": "import time\ntime.sleep(100)"})).send();
        let first = eventually_started(&there, &path, first).await;
        let refused = there.post(&path, &json!({"code": "1"})).await.problem(429, "quota_exceeded");
        assert_eq!(refused["limit"], json!({"name": "max_execs", "value": 1, "used": 1}));
        drop(first);
        eventually(async || (there.post(&path, &json!({"code": "1"})).await.status == 200).then_some(())).await;
    });
}

/// The stream of code that was started when both replicas know of the quota.
async fn eventually_started(
    there: &crate::harness::Api,
    path: &str,
    first: impl Future<Output = reqwest::Result<reqwest::Response>>,
) -> reqwest::Response {
    eventually(async || {
        let me = there.get("/v1/me").await.expect(200);
        (me["limits"]["max_execs"] == 1).then_some(())
    })
    .await;
    let response = first.await.unwrap();
    assert_eq!(response.status(), 200, "{path}");
    response
}
