//! A stack with a tool of either type, and no instance.

use std::sync::Arc;

use http::Method;
use reqwest::Response;
use serde_json::{Value, json};
use tokio::runtime::Runtime;

use crate::harness::{Answer, Api, Options, Stack, eventually, read};

pub struct Bench {
    pub stack: Stack,
    pub api: Api,
}

impl Bench {
    pub async fn start() -> Self {
        Self::with(Options::default()).await
    }

    /// Replicas take over soon from one that is gone.
    pub async fn hasty() -> Arc<Self> {
        let options = Options::default().with("JOBS__CLAIM", "1s").with("JOBS__RECONCILE_INTERVAL", "1s");
        Arc::new(Self::with(options).await)
    }

    pub async fn with(options: Options) -> Self {
        let stack = Stack::with(options).await;
        let api = stack.api();
        api.post("/v1/tools?wait=30s", &json!({"name": "shell", "type": "custom"})).await.expect(201);
        api.post("/v1/tools?wait=30s", &json!({"name": "ci", "type": "code-interpreter"})).await.expect(201);
        Self { stack, api }
    }

    pub async fn create(&self, body: &Value) -> Answer {
        self.api.post("/v1/runs", body).await
    }

    /// A run of the tool `shell` that was waited for.
    pub async fn run(&self, mut body: Value) -> Value {
        body["tool"] = json!("shell");
        self.create(&body).await.expect(200)
    }

    /// A run of the tool `shell` in the background: its id.
    pub async fn begin(&self, body: Value) -> String {
        begin(&self.api, body).await
    }

    pub async fn keyed(&self, key: &str, body: &Value) -> Answer {
        read(self.api.request(Method::POST, "/v1/runs").header("idempotency-key", key).json(body)).await
    }

    /// The start of a stream of events.
    pub async fn stream(&self, body: &Value, accept: &str) -> Response {
        let request = self.api.request(Method::POST, "/v1/runs").header("accept", accept).json(body);
        let response = request.send().await.expect("an answer");
        assert_eq!(response.status(), 200, "{}", response.text().await.unwrap_or_default());
        response
    }

    pub async fn get(&self, id: &str) -> Value {
        self.api.get(&format!("/v1/runs/{id}")).await.expect(200)
    }

    /// The run, when it has this status.
    pub async fn until(&self, id: &str, status: &str) -> Value {
        eventually(async || {
            let run = self.get(id).await;
            (run["status"] == status).then_some(run)
        })
        .await
    }

    /// The run, when it has ended.
    pub async fn ended(&self, id: &str) -> Value {
        let run = self.api.get(&format!("/v1/runs/{id}?wait=2m")).await.expect(200);
        assert!(run["ended_at"].is_string(), "{run:#}");
        run
    }

    /// Does a shell line in the instance of a run, as others may.
    pub async fn inside(&self, run: &Value, line: &str) -> Value {
        let path = format!("/v1/instances/{}/exec", run["instance_id"].as_str().unwrap());
        self.api.post(&path, &json!({"cmd": line})).await.expect(200)
    }

    /// Waits until a file is there in the instance of a run.
    pub async fn until_file(&self, run: &Value, path: &str) {
        let line = format!("test -e {path}");
        eventually(async || (self.inside(run, &line).await["exit_code"] == 0).then_some(())).await;
    }

    /// Neither here nor in the cloud lives an instance.
    #[track_caller]
    pub fn assert_nothing_is_left(&self) {
        let ended = ["STOPPED", "FAILED", "STARTING_FAILED"];
        let live: Vec<String> =
            self.stack.upstream_states().into_iter().filter(|state| !ended.contains(&state.as_str())).collect();
        assert_eq!(live, [] as [String; 0]);
    }

    /// What a run was given is stored no longer than it is needed.
    pub async fn assert_input_is_forgotten(&self) {
        let kept: i64 = sqlx::query_scalar("SELECT count(*) FROM runs WHERE input IS NOT NULL")
            .fetch_one(&self.stack.app.pool)
            .await
            .unwrap();
        assert_eq!(kept, 0);
    }
}

/// A run of the tool `shell` in the background: its id.
pub async fn begin(api: &Api, mut body: Value) -> String {
    body["tool"] = json!("shell");
    body["background"] = json!(true);
    let run = api.post("/v1/runs", &body).await.expect(202);
    run["id"].as_str().unwrap().to_owned()
}

/// A further replica, on a runtime of its own: shutting that down kills it.
pub async fn doomed(bench: &Arc<Bench>) -> (Runtime, Api) {
    let runtime = Runtime::new().expect("a runtime");
    let there = Arc::clone(bench);
    let (_, url) = runtime.spawn(async move { there.stack.replica().await }).await.expect("a replica");
    (runtime, bench.api.at(&url))
}

/// The events in lines of JSON, but for signs of life.
pub fn events(lines: &str) -> Vec<Value> {
    let events = lines.lines().map(|line| serde_json::from_str::<Value>(line).expect("a line of JSON"));
    events.filter(|event| event["type"] != "keepalive").collect()
}

/// The statuses that a stream told of, in order.
pub fn statuses(events: &[Value]) -> Vec<&str> {
    events.iter().filter(|event| event["type"] == "run").map(|event| event["status"].as_str().unwrap()).collect()
}
