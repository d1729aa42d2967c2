//! A running instance, and the files API as seen from outside.

use std::time::Duration;

use ags_client::types::{
    CreateSandboxToolRequest, NetworkConfiguration, StartSandboxInstanceRequest, StopSandboxInstanceRequest,
};
use ags_gateway::{
    app::instances,
    auth::Caller,
    ids::{InstanceId, ToolId},
};
use envd_client::{ProcessEvent, StartSpec};
use futures_util::StreamExt;
use http::{HeaderMap, Method};
use reqwest::{RequestBuilder, Response};
use serde_json::{Value, json};
use sha2::{Digest, Sha256};

use crate::harness::{self, Answer, Api, Options, Stack};

pub struct Sandbox {
    pub stack: Stack,
    pub id: InstanceId,
}

impl Sandbox {
    pub async fn start() -> Self {
        Self::with(Options::default()).await
    }

    pub async fn with(options: Options) -> Self {
        let _ = tracing_subscriber::fmt().with_env_filter(tracing_subscriber::EnvFilter::from_default_env()).try_init();
        let stack = Stack::with(options).await;
        let id = start_instance(&stack).await;
        Self { stack, id }
    }

    pub fn api(&self) -> Api {
        self.stack.api()
    }

    /// `…/files` with what follows it.
    pub fn url(&self, rest: &str) -> String {
        format!("/v1/instances/{}/files{rest}", self.id)
    }

    /// A request for the content at a path.
    pub fn content(&self, method: Method, path: &str) -> RequestBuilder {
        self.api().request(method, &self.url(&query(&[("path", path)])))
    }

    pub async fn put(&self, path: &str, content: impl Into<reqwest::Body>) -> Answer {
        harness::read(self.content(Method::PUT, path).body(content)).await
    }

    pub async fn fetch(&self, path: &str) -> Response {
        self.content(Method::GET, path).send().await.expect("an answer")
    }

    /// The whole content of a file that must be there.
    pub async fn read(&self, path: &str) -> Vec<u8> {
        let response = self.fetch(path).await;
        assert_eq!(response.status(), 200, "{path:?}");
        response.bytes().await.expect("a whole body").to_vec()
    }

    pub async fn delete(&self, path: &str) -> Answer {
        harness::read(self.content(Method::DELETE, path)).await
    }

    pub async fn stat(&self, path: &str) -> Answer {
        self.api().get(&self.url(&format!("/stat{}", query(&[("path", path)])))).await
    }

    pub async fn list(&self, path: &str, depth: u32) -> Vec<Value> {
        let rest = format!("/list{}", query(&[("path", path), ("depth", &depth.to_string())]));
        let listed = self.api().get(&self.url(&rest)).await;
        listed.expect(200)["items"].as_array().expect("items").clone()
    }

    pub async fn names(&self, path: &str) -> Vec<String> {
        self.list(path, 1).await.iter().map(|item| item["name"].as_str().expect("a name").to_owned()).collect()
    }

    pub async fn post(&self, rest: &str, body: &Value) -> Answer {
        self.api().post(&self.url(rest), body).await
    }

    /// Runs a line of shell as root in the sandbox; what it prints.
    pub async fn shell(&self, line: &str) -> String {
        let app = &self.stack.app;
        let mut headers = HeaderMap::new();
        headers.insert("x-api-key", self.stack.key.parse().expect("a header"));
        let caller: std::sync::Arc<Caller> = app.auth.authenticate(&headers).await.expect("a caller");
        let target = instances::running(app, &caller, &self.id).await.expect("a running instance");
        let spec = StartSpec {
            cmd: "/bin/bash".into(),
            args: vec!["-c".into(), line.into()],
            user: Some("root".into()),
            ..StartSpec::default()
        };
        let mut events = target.envd().await.expect("a client").start(spec).await.expect("a process");
        let (mut output, mut errors) = (Vec::new(), Vec::new());
        while let Some(event) = events.next().await {
            match event.expect("an event") {
                ProcessEvent::Stdout(bytes) => output.extend_from_slice(&bytes),
                ProcessEvent::Stderr(bytes) => errors.extend_from_slice(&bytes),
                ProcessEvent::End { exit_code, .. } => {
                    assert_eq!(exit_code, 0, "{line}: {}", String::from_utf8_lossy(&errors));
                }
                _ => {}
            }
        }
        String::from_utf8(output).expect("text")
    }

    /// Stops the instance behind the gateway's back.
    pub async fn stop_upstream(&self) {
        let app = &self.stack.app;
        let sql = "SELECT upstream_id FROM instances WHERE id = $1";
        let id: String = sqlx::query_scalar(sql).bind(self.id.as_str()).fetch_one(&app.pool).await.expect("a row");
        let upstream = app.upstreams.get(app.upstreams.default_name()).expect("an upstream");
        let stop = StopSandboxInstanceRequest { instance_id: id };
        upstream.control.call(&stop).await.expect("a stop");
    }

    /// Waits until a directory has these names and no others.
    pub async fn until_names(&self, path: &str, wanted: &[&str]) {
        eventually(async || {
            let names = self.names(path).await;
            (names == wanted).then_some(()).ok_or(format!("{path} has {names:?}"))
        })
        .await;
    }
}

/// A query string.
pub fn query(pairs: &[(&str, &str)]) -> String {
    format!("?{}", url::form_urlencoded::Serializer::new(String::new()).extend_pairs(pairs).finish())
}

/// Asks again until the answer is there.
pub async fn eventually<T>(mut ask: impl AsyncFnMut() -> Result<T, String>) -> T {
    let mut last = String::new();
    for _ in 0..400 {
        match ask().await {
            Ok(value) => return value,
            Err(text) => last = text,
        }
        tokio::time::sleep(Duration::from_millis(25)).await;
    }
    panic!("still not: {last}")
}

pub fn sha256(content: &[u8]) -> String {
    hex::encode(Sha256::digest(content))
}

/// Bytes that do not repeat within any buffer's length.
pub fn noise(length: usize) -> Vec<u8> {
    let mut state = 0x9e37_79b9_7f4a_7c15_u64;
    let words = std::iter::repeat_with(|| {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        state.to_le_bytes()
    });
    words.take(length.div_ceil(8)).flatten().take(length).collect()
}

async fn start_instance(stack: &Stack) -> InstanceId {
    let app = &stack.app;
    let upstream = app.upstreams.get(app.upstreams.default_name()).expect("an upstream");
    let tool = CreateSandboxToolRequest {
        tool_name: "files".into(),
        tool_type: "code-interpreter".to_owned().into(),
        network_configuration: NetworkConfiguration { network_mode: "SANDBOX".to_owned().into(), ..Default::default() },
        ..Default::default()
    };
    upstream.control.call(&tool).await.expect("a tool");
    let start = StartSandboxInstanceRequest { tool_name: Some("files".into()), ..Default::default() };
    let started = upstream.control.call(&start).await.expect("an instance").value.instance;
    let (id, tool): (InstanceId, ToolId) = (app.ids.next(), app.ids.next());
    let sql = "WITH team AS (SELECT id FROM teams WHERE name = 'dev'),
        tool AS (INSERT INTO tools (id, team_id, upstream, client_token, name, type, spec, status, created_by)
            SELECT $1, id, $3, '', 'files', 'code-interpreter', '{}', 'ACTIVE', '' FROM team)
        INSERT INTO instances (id, team_id, tool_id, tool_name, tool_type, upstream, upstream_id, client_token, status, spec,
            metadata, env, auth_mode, timeout_seconds, created_by, expires_at)
        SELECT $2, id, $1, 'files', 'code-interpreter', $3, $4, '', 'RUNNING', '{}', '{}', '{}', 'TOKEN', 300, '',
            now() + interval '5 minutes' FROM team";
    sqlx::query(sql)
        .bind(tool.as_str())
        .bind(id.as_str())
        .bind(upstream.name())
        .bind(started.instance_id)
        .execute(&app.pool)
        .await
        .expect("a row");
    id
}

/// The JSON of a move.
pub fn moving(source: &str, destination: &str) -> Value {
    json!({"source": source, "destination": destination})
}
