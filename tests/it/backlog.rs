//! The reaper with much before it: oldest first, each stopped once, at the account's rate, and callers are served meanwhile.

use std::{
    collections::HashMap,
    time::{Duration, Instant},
};

use ags_emulator::control::instances::{StartPlan, ToolRef};
use ags_gateway::{app::App, ids::InstanceId, jobs::reap::reap_batch, upstream::lane::in_background};
use futures_util::{StreamExt, future::join, stream};
use serde_json::{Value, json};

use crate::{
    cloud::path,
    harness::{Api, Options, Stack, run, setting},
};

/// Instances of the cloud that are made at once.
const AT_ONCE: usize = 50;

async fn stack(qps: u32) -> Stack {
    let options = Options::simulated().with("TOOLS__SHARED", "base").with("JOBS__ENABLED", "false");
    let stack = Stack::with(options.with("UPSTREAM_DEFAULTS__QPS", qps.to_string())).await;
    stack.tune(|tunables| {
        tunables.max_instances = 20_000;
        tunables.rate_limit = 0;
        tunables.rate_limits.clear();
    });
    stack
}

async fn start(api: &Api) -> Value {
    api.post("/v1/instances", &json!({"tool": "base", "timeout": "10m"})).await.expect(201)
}

/// So many instances of the cloud and rows for them, whose time was up one second after the other: the first the longest ago.
/// Answers the cloud's ids in that order.
async fn seed(stack: &Stack, count: usize) -> Vec<String> {
    let model = start(&stack.api()).await["id"].as_str().unwrap().to_owned();
    let cloud = stack.emulator.cloud();
    let starts = stream::iter(0..count).map(|_| async {
        let tool = ToolRef { id: None, name: Some("base".into()) };
        cloud.start(StartPlan { tool, ..StartPlan::default() }, false).await.expect("an instance").instance_id
    });
    let upstream: Vec<String> = starts.buffered(AT_ONCE).collect().await;
    let ids: Vec<String> = (0..count).map(|_| stack.app.ids.next::<InstanceId>().to_string()).collect();
    sqlx::query(
        "INSERT INTO instances (id, team_id, tool_id, tool_name, tool_type, upstream, upstream_id, client_token, status, spec,
                                metadata, env, auth_mode, timeout_seconds, created_by, started_at, expires_at)
         SELECT new.id, team_id, tool_id, tool_name, tool_type, upstream, new.upstream_id, new.id, status, spec, metadata,
                env, auth_mode, timeout_seconds, created_by, started_at, now() - make_interval(secs => $3 - new.place)
         FROM instances, unnest($1::text[], $2::text[]) WITH ORDINALITY AS new (id, upstream_id, place)
         WHERE instances.id = $4",
    )
    .bind(&ids)
    .bind(&upstream)
    .bind(i32::try_from(count).unwrap())
    .bind(&model)
    .execute(&stack.app.pool)
    .await
    .expect("rows");
    upstream
}

async fn left(app: &App) -> i64 {
    let due =
        "SELECT count(*) FROM instances WHERE stopped_at IS NULL AND (expires_at <= now() OR status = 'STOPPING')";
    sqlx::query_scalar(due).fetch_one(&app.pool).await.expect("a count")
}

#[test]
fn the_oldest_are_taken_first() {
    run(async {
        let stack = stack(1_000).await;
        let upstream = seed(&stack, 120).await;
        for batch in upstream.chunks(50) {
            assert_eq!(reap_batch(&stack.app).await.unwrap().stopped, batch.len());
            for id in batch {
                assert_eq!(stack.upstream_instance(&json!(id))["Status"], "STOPPED");
            }
        }
        assert_eq!(reap_batch(&stack.app).await.unwrap().taken, 0);
    });
}

/// Reaps until nothing is left, as the job does.
async fn reap_all(app: &App) {
    while left(app).await > 0 {
        let reaped = in_background(reap_batch(app)).await.expect("a database");
        if reaped.taken == 0 {
            // The other replica has what is left.
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    }
}

/// Starts and stops instances as long as the work goes on; answers how long the calls took at most, and how many there were.
async fn serve_meanwhile(api: &Api, work: impl Future<Output = ()>) -> (Duration, usize) {
    let mut work = std::pin::pin!(work);
    let (mut longest, mut calls) = (Duration::ZERO, 0);
    loop {
        let served = async {
            let began = Instant::now();
            let instance = start(api).await;
            api.delete(&path(&instance)).await.expect(204);
            began.elapsed()
        };
        let mut served = std::pin::pin!(served);
        tokio::select! {
            took = &mut served => {
                longest = longest.max(took);
                calls += 1;
            }
            () = &mut work => {
                served.await;
                return (longest, calls + 1);
            }
        }
    }
}

/// `AGS_TEST_BACKLOG=10000` makes it the whole thing; `AGS_TEST_QPS` says what the account allows.
#[test]
fn a_backlog_is_worked_off_by_two_replicas_and_each_is_stopped_once() {
    run(async {
        let (count, qps) = (setting("AGS_TEST_BACKLOG", 300_usize), setting("AGS_TEST_QPS", 1_000_u32));
        let stack = stack(qps).await;
        let upstream = seed(&stack, count).await;
        let (other, url) = stack.replica().await;
        let stop = |kind: Value| {
            let mut rule = kind;
            rule["match"] = json!({"action": "StopSandboxInstance"});
            stack.fault(rule);
        };
        stop(json!({"kind": "latency", "ms": 20}));
        stop(json!({"kind": "error", "code": "InternalError", "probability": 0.01}));
        stop(json!({"kind": "lose_response", "probability": 0.01}));
        stack.emulator.cloud().journal.clear();
        let began = Instant::now();
        let api = stack.team("callers").await.at(&url);
        let both = async {
            join(reap_all(&stack.app), reap_all(&other)).await;
        };
        let (longest, calls) = serve_meanwhile(&api, both).await;
        let took = began.elapsed();

        let stops =
            stack.emulator.cloud().journal.calls(|call| call.action == "StopSandboxInstance" && call.error.is_none());
        let mut by_instance: HashMap<&str, usize> = HashMap::new();
        for call in &stops {
            *by_instance.entry(call.instance.as_deref().unwrap_or_default()).or_default() += 1;
        }
        for id in &upstream {
            assert_eq!(by_instance.get(id.as_str()), Some(&1), "{id}");
        }
        let ended: i64 = sqlx::query_scalar(
            "SELECT count(*) FROM instances WHERE status = 'STOPPED' AND stop_reason = 'timeout' AND stopped_at IS NOT NULL",
        )
        .fetch_one(&stack.app.pool)
        .await
        .unwrap();
        assert_eq!(ended, i64::try_from(count).unwrap());
        let told: i64 = sqlx::query_scalar(
            "SELECT count(*) FROM audit_events WHERE action = 'expire_instance' AND outcome = 'ok' AND key_prefix = 'system'",
        )
        .fetch_one(&stack.app.pool)
        .await
        .unwrap();
        assert_eq!(told, ended);
        eprintln!(
            "{count} expired instances at {qps} calls/s: {:.1} s, {:.0} stops/s; {calls} starts with stops by callers meanwhile, \
             the longest took {longest:.1?}",
            took.as_secs_f64(),
            f64::from(u32::try_from(count).unwrap()) / took.as_secs_f64(),
        );
        other.lifecycle.drain();
    });
}
