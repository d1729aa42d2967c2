//! A sandbox with the test server in it, and callers of it.

use std::net::SocketAddr;

use http::Method;
use reqwest::RequestBuilder;
use serde_json::{Value, json};
use sha2::{Digest, Sha256};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::TcpStream,
};

use ags_client::types::StopSandboxInstanceRequest;

use crate::harness::{self, Answer, Api, Options, Stack, eventually};

/// Where the test server listens.
pub const PORT: u16 = 8000;
pub const DOMAIN: &str = "sandbox.localhost";
const SERVER: &str = include_str!("server.py");

pub struct Web {
    pub stack: Stack,
    api: Api,
    pub id: String,
    pub upstream_id: String,
}

impl Web {
    pub async fn start() -> Self {
        Self::with(Options::default()).await
    }

    pub async fn with(options: Options) -> Self {
        let options = options.with("TOOLS__SHARED", "code-interpreter-v1").with("SERVER__SANDBOX_DOMAIN", DOMAIN);
        let stack = Stack::with(options).await;
        let api = stack.api();
        let (id, upstream_id) = instance(&api).await;
        let web = Self { stack, api, id, upstream_id };
        web.serve().await;
        web
    }

    /// Starts the server and waits for its first answer.
    async fn serve(&self) {
        let api = self.api();
        let file = format!("/v1/instances/{}/files?path=/tmp/server.py", self.id);
        harness::read(api.request(Method::PUT, &file).body(SERVER)).await.expect(201);
        let exec = json!({"cmd": ["python3", "/tmp/server.py", PORT.to_string()], "background": true});
        api.post(&format!("/v1/instances/{}/exec", self.id), &exec).await.expect(202);
        eventually(async || (self.get("/statistics").send().await.unwrap().status() == 200).then_some(())).await;
    }

    pub fn api(&self) -> Api {
        self.api.clone()
    }

    /// To be asked at one gateway only: where it is about its address, or what it counts by itself.
    pub fn at_one_gateway(mut self) -> Self {
        self.api = self.api.at(&self.stack.url);
        self
    }

    /// `…/ports/{port}` with what follows it.
    pub fn url(&self, rest: &str) -> String {
        format!("/v1/instances/{}/ports/{PORT}{rest}", self.id)
    }

    pub fn request(&self, method: Method, rest: &str) -> RequestBuilder {
        self.api().request(method, &self.url(rest))
    }

    pub fn get(&self, rest: &str) -> RequestBuilder {
        self.request(Method::GET, rest)
    }

    /// What the server saw of a request.
    pub async fn seen(&self, request: RequestBuilder) -> Value {
        harness::read(request).await.expect(200)
    }

    pub async fn statistics(&self) -> Value {
        self.seen(self.get("/statistics")).await
    }

    pub fn address(&self) -> SocketAddr {
        self.stack.url.strip_prefix("http://").unwrap().parse().unwrap()
    }

    /// The port's own host, with the gateway's port.
    pub fn host(&self) -> String {
        format!("{PORT}-{}.{DOMAIN}:{}", self.id, self.address().port())
    }

    /// A client that finds the port's own host.
    pub fn browser(&self) -> reqwest::ClientBuilder {
        let name = format!("{PORT}-{}.{DOMAIN}", self.id);
        reqwest::Client::builder().no_proxy().resolve(&name, self.address()).redirect(reqwest::redirect::Policy::none())
    }

    /// An address on the port's own host.
    pub fn at(&self, rest: &str) -> String {
        format!("http://{}{rest}", self.host())
    }

    pub async fn preview(&self, body: Value) -> Answer {
        self.api().post(&format!("/v1/instances/{}/previews", self.id), &body).await
    }

    /// Stops the sandbox behind the gateway's back.
    pub async fn stop_upstream(&self) {
        let request = StopSandboxInstanceRequest { instance_id: self.upstream_id.clone() };
        let upstream = self.stack.app.upstreams.get("default").unwrap();
        upstream.control.call(&request).await.expect("a stop");
    }

    /// Sends bytes to the port's own host with the key, and reads until the gateway closes.
    pub async fn wire(&self, text: &str) -> String {
        self.wire_at(&self.stack.url, text).await
    }

    /// As [`wire`](Self::wire), to another gateway.
    pub async fn wire_at(&self, url: &str, text: &str) -> String {
        let mut stream = TcpStream::connect(url.strip_prefix("http://").unwrap()).await.unwrap();
        stream.write_all(self.fill(text).as_bytes()).await.unwrap();
        let mut answer = Vec::new();
        stream.read_to_end(&mut answer).await.unwrap();
        String::from_utf8_lossy(&answer).into_owned()
    }

    pub async fn connect(&self) -> TcpStream {
        TcpStream::connect(self.address()).await.unwrap()
    }

    /// A request's text with host and key: lines end as on the wire.
    pub fn fill(&self, text: &str) -> String {
        let text = text.replace("HOST", &self.host()).replace("KEY", &format!("Bearer {}", self.stack.key));
        text.replace('\n', "\r\n")
    }
}

pub async fn instance(api: &Api) -> (String, String) {
    let instance = api.post("/v1/instances", &json!({"tool": "code-interpreter-v1"})).await.expect(201);
    let text = |field: &str| instance[field].as_str().unwrap().to_owned();
    (text("id"), text("upstream_id"))
}

/// The values of a header that the server saw, by lower-case name.
pub fn values<'a>(seen: &'a Value, name: &str) -> Vec<&'a str> {
    let fields = seen["headers"].as_array().unwrap().iter();
    let named = fields.filter(|field| field[0].as_str().unwrap().eq_ignore_ascii_case(name));
    named.map(|field| field[1].as_str().unwrap()).collect()
}

pub fn sha256(content: &[u8]) -> String {
    hex::encode(Sha256::digest(content))
}

/// What `/download` sends.
pub fn pattern(length: usize) -> Vec<u8> {
    const CHUNK: usize = 64 * 1024;
    let mut bytes = Vec::with_capacity(length);
    while bytes.len() < length {
        let part = CHUNK.min(length - bytes.len());
        let digest = Sha256::digest(bytes.len().to_string());
        bytes.extend(digest.iter().copied().cycle().take(part));
    }
    bytes
}

/// A query string.
pub fn query(pairs: &[(&str, &str)]) -> String {
    format!("?{}", url::form_urlencoded::Serializer::new(String::new()).extend_pairs(pairs).finish())
}
