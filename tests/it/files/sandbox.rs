//! A running instance, and the files API as seen from outside.

use ags_client::types::StopSandboxInstanceRequest;
use http::Method;
use reqwest::{RequestBuilder, Response};
use serde_json::{Value, json};
use sha2::{Digest, Sha256};

use crate::harness::{self, Answer, Api, Options, Stack, eventually};

pub struct Sandbox {
    pub stack: Stack,
    pub id: String,
    pub upstream_id: String,
}

impl Sandbox {
    pub async fn start() -> Self {
        Self::with(Options::default()).await
    }

    pub async fn with(options: Options) -> Self {
        let stack = Stack::with(options.with("TOOLS__SHARED", "code-interpreter-v1")).await;
        let body = json!({"tool": "code-interpreter-v1"});
        let instance = stack.api().post("/v1/instances", &body).await.expect(201);
        let text = |field: &str| instance[field].as_str().expect("text").to_owned();
        Self { id: text("id"), upstream_id: text("upstream_id"), stack }
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
        let path = format!("/v1/instances/{}/exec", self.id);
        let done = self.api().post(&path, &json!({"cmd": line, "user": "root"})).await.expect(200);
        assert_eq!(done["exit_code"], 0, "{line}: {done:#}");
        done["stdout"].as_str().expect("text").to_owned()
    }

    /// Stops the instance behind the gateway's back.
    pub async fn stop_upstream(&self) {
        let upstreams = &self.stack.app.upstreams;
        let stop = StopSandboxInstanceRequest { instance_id: self.upstream_id.clone() };
        let upstream = upstreams.get(upstreams.default_name()).expect("an upstream");
        upstream.control.call(&stop).await.expect("a stop");
    }

    /// Waits until a directory has these names and no others.
    pub async fn until_names(&self, path: &str, wanted: &[&str]) {
        eventually(async || (self.names(path).await == wanted).then_some(())).await;
    }
}

/// A query string.
pub fn query(pairs: &[(&str, &str)]) -> String {
    format!("?{}", url::form_urlencoded::Serializer::new(String::new()).extend_pairs(pairs).finish())
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

/// The JSON of a move.
pub fn moving(source: &str, destination: &str) -> Value {
    json!({"source": source, "destination": destination})
}
