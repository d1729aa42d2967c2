//! A stack with one running instance.

use ags_gateway::{app::instances::Target, storage::instances};
use envd_client::{ProcessEvent, StartSpec};
use futures_util::StreamExt;
use http::Method;
use reqwest::{RequestBuilder, Response};
use serde_json::{Value, json};

use crate::harness::{Answer, Api, Options, Stack, eventually, read};

pub struct Sandbox {
    pub stack: Stack,
    pub api: Api,
    pub id: String,
}

impl Sandbox {
    pub async fn start() -> Self {
        Self::with(Options::default(), json!({})).await
    }

    /// `instance`: fields of the instance beside its tool.
    pub async fn with(options: Options, instance: Value) -> Self {
        Self::of(&json!({"name": "shell", "type": "custom"}), options, instance).await
    }

    /// As [`with`](Self::with), of another tool.
    pub async fn of(tool: &Value, options: Options, mut instance: Value) -> Self {
        let stack = Stack::with(options).await;
        let api = stack.api();
        api.post("/v1/tools?wait=30s", tool).await.expect(201);
        instance["tool"] = tool["name"].clone();
        let instance = api.post("/v1/instances", &instance).await.expect(201);
        let id = instance["id"].as_str().expect("an id").to_owned();
        Self { stack, api, id }
    }

    /// To be asked at one gateway only: each counts by itself what it allows.
    pub fn at_one_gateway(mut self) -> Self {
        self.api = self.api.at(&self.stack.url);
        self
    }

    /// A path below the instance's.
    pub fn path(&self, rest: &str) -> String {
        format!("/v1/instances/{}/{rest}", self.id)
    }

    pub async fn exec(&self, spec: &Value) -> Answer {
        self.api.post(&self.path("exec"), spec).await
    }

    /// The result of a shell line that was waited for.
    pub async fn run(&self, line: &str) -> Value {
        self.exec(&json!({"cmd": line})).await.expect(200)
    }

    /// The start of a stream of events.
    pub async fn stream(&self, spec: &Value, accept: &str) -> Response {
        self.stream_of("exec", spec, accept).await
    }

    /// The start of a stream of events from another path below the instance's.
    pub async fn stream_of(&self, rest: &str, spec: &Value, accept: &str) -> Response {
        let request = self.request(Method::POST, rest).header("accept", accept).json(spec);
        let response = request.send().await.expect("an answer");
        assert_eq!(response.status(), 200, "{}", response.text().await.unwrap_or_default());
        response
    }

    /// A command in the background: its record.
    pub async fn background(&self, mut spec: Value) -> Value {
        spec["background"] = json!(true);
        self.exec(&spec).await.expect(202)
    }

    pub async fn get(&self, rest: &str) -> Answer {
        self.api.get(&self.path(rest)).await
    }

    pub fn request(&self, method: Method, rest: &str) -> RequestBuilder {
        self.api.request(method, &self.path(rest))
    }

    pub async fn post_bytes(&self, rest: &str, body: impl Into<reqwest::Body>) -> Answer {
        read(self.request(Method::POST, rest).body(body)).await
    }

    /// Starts a shell line past the gateway, as any client of the cloud may; answers its process id.
    pub async fn start_unseen(&self, line: &str) -> u32 {
        let app = &self.stack.app;
        let mut connection = app.pool.acquire().await.expect("a connection");
        let instance = instances::system_find(&mut connection, &self.id.parse().expect("an id")).await;
        let target = Target::of(app, instance.expect("a database").expect("an instance")).expect("a way into it");
        let spec = StartSpec {
            cmd: "/bin/bash".to_owned(),
            args: vec!["-c".to_owned(), line.to_owned()],
            stdin: true,
            ..StartSpec::default()
        };
        let started = target.call(|envd| {
            let spec = spec.clone();
            async move { envd.start(spec).await }
        });
        let mut events = started.await.expect("a process");
        match events.next().await {
            Some(Ok(ProcessEvent::Started { pid })) => pid,
            other => panic!("{other:?}"),
        }
    }

    /// Whether any process of the sandbox has this in its command line.
    pub async fn runs(&self, marker: &str) -> bool {
        // The brackets keep the search from finding itself.
        let (first, rest) = marker.split_at(1);
        let line = format!("cat /proc/[0-9]*/cmdline 2>/dev/null | tr '\\0' ' ' | grep -c '[{first}]{rest}'");
        self.run(&line).await["stdout"].as_str().expect("text").trim() != "0"
    }

    /// Waits until [`Self::runs`] is `wanted`.
    pub async fn until_runs(&self, marker: &str, wanted: bool) {
        eventually(async || (self.runs(marker).await == wanted).then_some(())).await;
    }
}

/// The events in lines of JSON.
pub fn events(lines: &str) -> Vec<Value> {
    lines.lines().map(|line| serde_json::from_str(line).expect("a line of JSON")).collect()
}

/// All text of one stream.
pub fn text_of(events: &[Value], stream: &str) -> String {
    let of_stream = events.iter().filter(|event| event["type"] == stream);
    of_stream.map(|event| event["data"].as_str().expect("text")).collect()
}
