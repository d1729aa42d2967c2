//! What happens to instances, as a list and as it happens.

use std::time::Duration;

use ags_gateway::jobs::reap::{reap_batch, warn_batch};
use futures_util::future::join_all;
use http::Method;
use serde_json::{Value, json};

use crate::{
    cloud::path,
    harness::{Api, Options, Stack, run},
};

async fn still() -> Stack {
    Stack::with(Options::simulated().with("TOOLS__SHARED", "base").with("JOBS__ENABLED", "false")).await
}

async fn start(api: &Api) -> Value {
    api.post("/v1/instances", &json!({"tool": "base", "timeout": "10m"})).await.expect(201)
}

/// Events in lines of JSON, without signs of life.
fn events(lines: &str) -> Vec<Value> {
    let all = lines.lines().map(|line| serde_json::from_str::<Value>(line).expect("a line of JSON"));
    all.filter(|event| event["type"] != "keepalive").collect()
}

fn told(events: &[Value]) -> Vec<(&str, &str)> {
    events.iter().map(|event| (event["type"].as_str().unwrap(), event["status"].as_str().unwrap())).collect()
}

#[test]
fn every_change_of_state_is_told_in_order_and_the_stream_ends_with_the_instance() {
    run(async {
        let stack = still().await;
        let api = stack.api();
        let instance = start(&api).await;
        let of_it = format!("{}/events", path(&instance));
        let follow = |accept: &'static str| api.request(Method::GET, &of_it).header("accept", accept).send();
        let live = follow("application/x-ndjson").await.unwrap();
        api.post(&format!("{}/pause", path(&instance)), &json!({})).await.expect(200);
        api.post(&format!("{}/resume", path(&instance)), &json!({})).await.expect(200);
        api.delete(&path(&instance)).await.expect(204);
        let seen = events(&live.text().await.unwrap());
        let expected = ["STARTING", "RUNNING", "PAUSING", "PAUSED", "RESUMING", "RUNNING", "STOPPING", "STOPPED"];
        assert_eq!(told(&seen), expected.map(|status| ("status", status)));
        assert_eq!((&seen[7]["stop_reason"], &seen[0]["stop_reason"]), (&json!("manual"), &Value::Null));

        let listed = api.get(&format!("{of_it}?limit=5")).await.expect(200);
        let next = api.get(&format!("{of_it}?cursor={}", listed["next_cursor"].as_str().unwrap())).await.expect(200);
        let both = [&listed["items"], &next["items"]].into_iter().flat_map(|items| items.as_array().unwrap().clone());
        let mut both: Vec<Value> = both.collect();
        both.reverse();
        assert_eq!(both, seen, "a list is newest first");

        let sse = follow("text/event-stream").await.unwrap();
        assert_eq!(sse.headers()["content-type"], "text/event-stream");
        let whole = sse.text().await.unwrap();
        assert_eq!(whole.matches("event: status\n").count(), 8, "{whole}");
        let last = seen[5]["id"].as_str().unwrap();
        let request = api.request(Method::GET, &of_it).header("accept", "text/event-stream");
        let rest = request.header("last-event-id", last).send().await.unwrap().text().await.unwrap();
        assert!(whole.ends_with(&rest) && rest.starts_with("event: status\nid: "), "{rest}");
        assert_eq!(rest.matches("event: ").count(), 2);
        let bad = api.request(Method::GET, &of_it).header("accept", "text/event-stream").header("last-event-id", "x");
        crate::harness::read(bad).await.problem(422, "validation_failed");
        stack.team("strangers").await.get(&of_it).await.problem(404, "not_found");
    });
}

#[test]
fn each_end_is_warned_of_once() {
    run(async {
        let stack = still().await;
        let api = stack.api();
        let (soon, _later) = (start(&api).await, start(&api).await);
        let id = soon["id"].as_str().unwrap().to_owned();
        let near = "UPDATE instances SET expires_at = now() + interval '59s' WHERE id = $1";
        sqlx::query(near).bind(&id).execute(&stack.app.pool).await.unwrap();
        assert_eq!((warn_batch(&stack.app).await.unwrap(), warn_batch(&stack.app).await.unwrap()), (1, 0));
        let warnings = async || {
            let listed = api.get(&format!("{}/events", path(&soon))).await.expect(200);
            let items = listed["items"].as_array().unwrap().clone();
            items.into_iter().filter(|event| event["type"] == "expiring").collect::<Vec<_>>()
        };
        let first = warnings().await;
        assert_eq!(first.len(), 1);
        let now = api.get(&path(&soon)).await.expect(200);
        assert_eq!((&first[0]["expires_at"], &first[0]["status"]), (&now["expires_at"], &json!("RUNNING")));
        api.patch(&path(&soon), &json!({"timeout": "10m"})).await.expect(200);
        assert_eq!(warn_batch(&stack.app).await.unwrap(), 0);
        api.patch(&path(&soon), &json!({"timeout": "45s"})).await.expect(200);
        assert_eq!(warn_batch(&stack.app).await.unwrap(), 1, "a new end, a new warning");
        assert_eq!(warnings().await.len(), 2);
    });
}

/// Whoever is told that an instance lives on has it, however close the end was.
#[test]
fn extending_while_the_reaper_looks_is_safe() {
    run(async {
        const EACH: usize = 20;
        let stack = still().await;
        stack.tune(|tunables| {
            tunables.max_instances = 1_000;
            tunables.rate_limit = 0;
        });
        let (other, url) = stack.replica().await;
        let api = stack.api();
        let mut kept = 0;
        for round in 0..3_u32 {
            let instances = join_all((0..EACH).map(|_| start(&api))).await;
            // Ends fall due one after the other while they are being moved.
            stack
                .sql(
                    "UPDATE instances SET expires_at = now() + random() * interval '60ms'
                     WHERE status = 'RUNNING' AND expires_at < now() + interval '11m'",
                )
                .await;
            let patches = join_all(instances.iter().enumerate().map(|(index, instance)| {
                let api = if index % 2 == 0 { stack.api() } else { stack.api().at(&url) };
                async move {
                    tokio::time::sleep(Duration::from_millis(u64::try_from(index).unwrap() * 3)).await;
                    api.patch(&path(instance), &json!({"timeout": "1h"})).await
                }
            }));
            let reap = async {
                for _ in 0..20 {
                    let (a, b) = futures_util::future::join(reap_batch(&stack.app), reap_batch(&other)).await;
                    a.unwrap();
                    b.unwrap();
                }
            };
            let (answers, ()) = futures_util::future::join(patches, reap).await;
            // What was not extended is due by now.
            stack.sql("UPDATE instances SET expires_at = now() WHERE expires_at < now() + interval '11m' AND stopped_at IS NULL").await;
            while reap_batch(&stack.app).await.unwrap().taken > 0 {}
            for (answer, instance) in answers.into_iter().zip(&instances) {
                let seen = api.get(&path(instance)).await.expect(200);
                let upstream = stack.upstream_instance(&instance["upstream_id"]);
                if answer.status == 200 {
                    kept += 1;
                    assert_eq!(
                        (&seen["status"], &upstream["Status"]),
                        (&json!("RUNNING"), &json!("RUNNING")),
                        "round {round}"
                    );
                } else {
                    answer.problem(409, "invalid_state");
                    assert_eq!((&seen["status"], &seen["stop_reason"]), (&json!("STOPPED"), &json!("timeout")));
                    assert_eq!(upstream["Status"], "STOPPED");
                }
            }
        }
        assert!(kept > 0, "nothing was extended");
        other.lifecycle.drain();
    });
}
