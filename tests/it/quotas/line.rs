//! Waiting in line for an instance.

use std::sync::Arc;

use http::Method;
use reqwest::RequestBuilder;
use serde_json::{Value, json};
use tokio::task::JoinHandle;

use super::limit;
use crate::{
    cloud::path,
    harness::{Answer, Api, Options, Stack, eventually, read, run},
};

fn options() -> Options {
    Options::simulated().with("TOOLS__SHARED", "base")
}

async fn start(api: &Api) -> Value {
    api.post("/v1/instances", &json!({"tool": "base"})).await.expect(201)
}

async fn stop(api: &Api, instance: &Value) {
    api.delete(&path(instance)).await.expect(204);
}

/// Waits in line, in a task of its own, from the moment on that it stands there.
async fn queue(stack: &Stack, api: &Api) -> JoinHandle<Answer> {
    queue_with(stack, api.request(Method::POST, "/v1/instances?queue=2m").json(&json!({"tool": "base"}))).await
}

async fn queue_with(stack: &Stack, request: RequestBuilder) -> JoinHandle<Answer> {
    let before = waiting(stack).await;
    let task = stack.app.lifecycle.spawn("test-waiter", read(request));
    eventually(async || (waiting(stack).await > before).then_some(())).await;
    task
}

async fn waiting(stack: &Stack) -> i64 {
    let count = "SELECT count(*) FROM instance_queue WHERE seen_until > now()";
    sqlx::query_scalar(count).fetch_one(&stack.app.pool).await.unwrap()
}

async fn live(api: &Api) -> usize {
    api.get("/v1/instances?status=RUNNING").await.expect(200)["items"].as_array().unwrap().len()
}

#[test]
fn a_teams_line_is_first_come_first_served_on_all_replicas() {
    run(async {
        let stack = Stack::with(options()).await;
        let (_app, url) = stack.replica().await;
        let here = stack.api().at(&stack.url);
        let there = here.at(&url);
        limit(&stack, &here, json!({"max_instances": 1})).await;
        let only = start(&here).await;
        let first = queue(&stack, &there).await;
        let second = queue(&stack, &here).await;
        // Whoever does not wait comes last.
        let refused = here.post("/v1/instances", &json!({"tool": "base"})).await;
        let wait: u64 = refused.headers["retry-after"].to_str().unwrap().parse().unwrap();
        assert!((1..=60).contains(&wait), "{wait}");
        let refused = refused.problem(429, "quota_exceeded");
        assert_eq!(refused["limit"], json!({"name": "max_instances", "value": 1, "used": 1}));
        assert_eq!((&refused["queue_position"], &refused["retryable"]), (&json!(3), &json!(true)));

        stop(&here, &only).await;
        let first = first.await.unwrap().expect(201);
        assert!(!second.is_finished());
        stop(&there, &first).await;
        let second = second.await.unwrap().expect(201);
        assert_eq!((live(&here).await, waiting(&stack).await), (1, 0));
        stop(&here, &second).await;
        start(&here).await;
    });
}

#[test]
fn patience_ends_with_the_place_in_line() {
    run(async {
        let stack = Stack::with(options()).await;
        let api = stack.api();
        limit(&stack, &api, json!({"max_instances": 1})).await;
        let only = start(&api).await;
        let late = api.post("/v1/instances?queue=1s", &json!({"tool": "base"})).await.problem(429, "quota_exceeded");
        assert_eq!(late["queue_position"], 1);
        assert_eq!(waiting(&stack).await, 0);
        let long = api.post("/v1/instances?queue=1h", &json!({"tool": "base"})).await.problem(422, "validation_failed");
        assert_eq!(long["errors"][0]["field"], "queue");
        // A waiter whose gateway is gone holds nobody up.
        stack
            .sql("INSERT INTO instance_queue SELECT '0', id, 'default', now() - interval '1s' FROM teams WHERE name = 'dev'")
            .await;
        stop(&api, &only).await;
        start(&api).await;
    });
}

#[test]
fn whoever_hangs_up_gives_up_its_place_but_for_one_with_a_key() {
    run(async {
        let stack = Stack::with(options()).await;
        let api = stack.api().at(&stack.url);
        limit(&stack, &api, json!({"max_instances": 1})).await;
        let only = start(&api).await;
        let gone = queue(&stack, &api).await;
        let run = api.request(Method::POST, "/v1/runs?queue=2m").json(&json!({"tool": "base", "cmd": "true"}));
        let gone_too = queue_with(&stack, run).await;
        gone.abort();
        gone_too.abort();
        eventually(async || (waiting(&stack).await == 0).then_some(())).await;
        let keyed = || {
            let request = api.request(Method::POST, "/v1/instances?queue=2m").header("idempotency-key", "mine");
            request.json(&json!({"tool": "base"}))
        };
        queue_with(&stack, keyed()).await.abort();
        stop(&api, &only).await;
        let again = eventually(async || {
            let again = read(keyed()).await;
            (again.status != 409).then_some(again)
        })
        .await;
        let kept = again.expect(201);
        assert_eq!((kept["status"].as_str(), live(&api).await), (Some("RUNNING"), 1));
        let all = api.get("/v1/instances").await.expect(200);
        assert_eq!(all["items"].as_array().unwrap().len(), 2, "{all:#}");
    });
}

#[test]
fn an_account_that_is_full_is_waited_for() {
    run(async {
        let stack = Stack::with(options()).await;
        let api = stack.api();
        stack.tune(|tunables| tunables.max_instances = 2);
        let (one, _two) = (start(&api).await, start(&api).await);
        // The one by whom it is noticed is told to come back, too.
        let first = api.post("/v1/instances", &json!({"tool": "base"})).await.problem(429, "quota_exceeded");
        assert_eq!((&first["retryable"], &first["limit"]["name"]), (&json!(true), &json!("account_instances")));
        let waiter = queue(&stack, &api).await;
        let refused = api.post("/v1/instances", &json!({"tool": "base"})).await.problem(429, "quota_exceeded");
        assert_eq!(refused["limit"], json!({"name": "account_instances", "value": 2, "used": 2}), "{refused:#}");
        stop(&api, &one).await;
        waiter.await.unwrap().expect(201);
        assert_eq!((live(&api).await, waiting(&stack).await), (2, 0));
        // The cloud was asked for the two, once for the one that was refused, and for that one again.
        assert!(stack.calls("StartSandboxInstance") <= 6, "{}", stack.calls("StartSandboxInstance"));
        // A larger account is noticed.
        stack.tune(|tunables| tunables.max_instances = 10);
        stack.sql("UPDATE account_limits SET seen_at = now() - interval '1m'").await;
        start(&api).await;
        start(&api).await;
    });
}

#[test]
fn teams_take_turns_by_what_they_use_of_their_quotas() {
    run(async {
        let stack = Arc::new(Stack::with(options().with("UPSTREAM_DEFAULTS__MAX_INSTANCES", "4")).await);
        let (_app, url) = stack.replica().await;
        let (many, few) = (stack.api(), stack.team("few").await.at(&url));
        for api in [&many, &few] {
            limit(&stack, api, json!({"max_instances": 10})).await;
        }
        let (used, _more, _most) = (start(&many).await, start(&many).await, start(&many).await);
        let own = start(&few).await;
        let greedy = [queue(&stack, &many).await, queue(&stack, &many).await];
        let modest = queue(&stack, &few).await;
        let refused = few.post("/v1/instances", &json!({"tool": "base"})).await.problem(429, "quota_exceeded");
        assert_eq!(refused["limit"], json!({"name": "account_instances", "value": 4, "used": 4}));
        // It came last, and is first: its team uses less of its quota.
        stop(&many, &used).await;
        modest.await.unwrap().expect(201);
        assert!(greedy.iter().all(|waiter| !waiter.is_finished()));
        stop(&few, &own).await;
        let [first, second] = greedy;
        first.await.unwrap().expect(201);
        assert!(!second.is_finished());
        assert_eq!((live(&many).await, live(&few).await), (3, 1));
        assert_eq!(stack.calls("StartSandboxInstance"), 6);
        second.abort();
    });
}

#[test]
fn throttling_is_not_handed_on() {
    run(async {
        let stack = Stack::with(options()).await;
        let api = stack.api();
        stack.fault(json!({"match": {"action": "StartSandboxInstance"}, "kind": "throttle", "times": 3}));
        start(&api).await;
        assert_eq!(stack.upstream_states(), ["RUNNING"]);
    });
}
