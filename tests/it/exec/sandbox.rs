//! A stack with one running instance.

use http::Method;
use reqwest::{RequestBuilder, Response};
use serde_json::{Value, json};

use crate::harness::{Answer, Api, Options, Stack, read};

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
        let stack = Stack::with(options).await;
        let api = stack.api();
        api.post("/v1/tools?wait=30s", &json!({"name": "shell", "type": "custom"})).await.expect(201);
        let mut body = instance;
        body["tool"] = json!("shell");
        let instance = api.post("/v1/instances", &body).await.expect(201);
        let id = instance["id"].as_str().expect("an id").to_owned();
        Self { stack, api, id }
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
        let request = self.api.request(Method::POST, &self.path("exec")).header("accept", accept).json(spec);
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

    /// Whether any process of the sandbox has this in its command line.
    pub async fn runs(&self, marker: &str) -> bool {
        // The brackets keep the search from finding itself.
        let (first, rest) = marker.split_at(1);
        let line = format!("cat /proc/[0-9]*/cmdline 2>/dev/null | tr '\\0' ' ' | grep -c '[{first}]{rest}'");
        self.run(&line).await["stdout"].as_str().expect("text").trim() != "0"
    }

    /// Waits until [`Self::runs`] is `wanted`.
    pub async fn until_runs(&self, marker: &str, wanted: bool) {
        let waiting = async {
            while self.runs(marker).await != wanted {
                tokio::task::yield_now().await;
            }
        };
        tokio::time::timeout(std::time::Duration::from_secs(20), waiting).await.expect("it did not become so in time");
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
