//! Instance-seconds of a day.

use ags_gateway::app::daily::enforce;
use serde_json::{Value, json};

use super::limit;
use crate::{
    cloud::path,
    harness::{Api, Options, Stack, eventually, run},
};

async fn start(api: &Api) -> Value {
    api.post("/v1/instances", &json!({"tool": "base"})).await.expect(201)
}

#[test]
fn a_day_that_is_used_up_stops_what_runs_and_starts_nothing() {
    run(async {
        let stack =
            Stack::with(Options::simulated().with("TOOLS__SHARED", "base").with("JOBS__ENABLED", "false")).await;
        let (api, other) = (stack.api(), stack.team("other").await);
        let (running, paused, others) = (start(&api).await, start(&api).await, start(&other).await);
        api.post(&format!("{}/pause", path(&paused)), &json!({})).await.expect(200);
        limit(&stack, &api, json!({"instance_seconds_per_day": 3600})).await;
        assert_eq!(enforce(&stack.app).await.unwrap(), 0);
        // What was used yesterday does not count, and of a run over midnight what is today's.
        stack
            .sql(
                "INSERT INTO usage_runs (instance_id, team_id, tool_id, key_id, resumed, started_at, ended_at)
                 SELECT 'yesterday', id, 't', 'k', false, d - interval '9h', d - interval '1h' FROM teams,
                        (SELECT date_trunc('day', now() AT TIME ZONE 'UTC') AT TIME ZONE 'UTC' AS d) AS day WHERE name = 'dev'",
            )
            .await;
        assert_eq!(enforce(&stack.app).await.unwrap(), 0);
        let today =
            || async { api.get("/v1/me").await.expect(200)["usage"]["instance_seconds_today"].as_u64().unwrap() };
        assert!(today().await < 3000);
        // Some that ran at once: an hour of this day may not be over yet.
        stack
            .sql(
                "INSERT INTO usage_runs (instance_id, team_id, tool_id, key_id, resumed, started_at, ended_at)
                 SELECT 'run' || n, id, 't', 'k', false, now(), now() + interval '1h' FROM teams, generate_series(1, 2) AS n
                 WHERE name = 'dev'",
            )
            .await;
        assert!(today().await >= 3600);
        let refused = api.post("/v1/instances", &json!({"tool": "base"})).await;
        let wait: u64 = refused.headers["retry-after"].to_str().unwrap().parse().unwrap();
        assert!((1..=86_400).contains(&wait), "{wait}");
        let refused = refused.problem(429, "quota_exceeded");
        assert_eq!(
            (&refused["limit"]["name"], &refused["limit"]["value"]),
            (&json!("instance_seconds_per_day"), &json!(3600))
        );
        assert!(refused["limit"]["used"].as_u64().unwrap() >= 3600);
        // To wait in line would be of no use.
        api.post("/v1/instances?queue=1m", &json!({"tool": "base"})).await.problem(429, "quota_exceeded");
        api.post(&format!("{}/resume", path(&paused)), &json!({})).await.problem(429, "quota_exceeded");

        assert_eq!(enforce(&stack.app).await.unwrap(), 1);
        let stopping = api.get(&path(&running)).await.expect(200);
        assert_eq!((&stopping["status"], &stopping["stop_reason"]), (&json!("STOPPING"), &json!("quota")));
        assert_eq!(api.get(&path(&paused)).await.expect(200)["status"], "PAUSED");
        assert_eq!(other.get(&path(&others)).await.expect(200)["status"], "RUNNING");
        limit(&stack, &api, json!({"instance_seconds_per_day": null})).await;
        let limits = api.get("/v1/me").await.expect(200);
        assert_eq!(limits["limits"]["instance_seconds_per_day"], Value::Null, "{limits:#}");
        eventually(async || (api.post("/v1/instances", &json!({"tool": "base"})).await.status == 201).then_some(()))
            .await;
    });
}
