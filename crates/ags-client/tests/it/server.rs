//! A scripted cloud: it verifies every signature and answers what it was told to, in order.

use std::collections::VecDeque;
use std::net::SocketAddr;
use std::num::NonZeroU32;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use ags_client::{AgsClient, Backoff, Credential, Settings, StaticCredentials};
use axum::Router;
use axum::body::{Body, Bytes};
use axum::extract::State;
use axum::http::{HeaderMap, StatusCode};
use axum::response::{IntoResponse, Response};
use chrono::DateTime;
use serde_json::{Value, json};
use tokio::net::TcpListener;
use tokio::task::JoinSet;

pub const SECRET_ID: &str = "AKIDEXAMPLE";
pub const SECRET_KEY: &str = "SKEXAMPLE-hush";
pub const NOW: i64 = 1_760_000_000;

/// What the server does with a request.
pub enum Answer {
    Reply(u16, String),
    /// Starts an answer and cuts the connection.
    Cut,
    /// Never answers.
    Hang,
}

/// A successful response with `fields`, as request `r-ok`.
pub fn ok(mut fields: Value) -> Answer {
    fields["RequestId"] = json!("r-ok");
    Answer::Reply(200, json!({"Response": fields}).to_string())
}

/// An error of the API, as request `r-error`.
pub fn error(code: &str) -> Answer {
    error_with_status(200, code)
}

pub fn error_with_status(status: u16, code: &str) -> Answer {
    let error = json!({"Code": code, "Message": format!("about {code}")});
    Answer::Reply(status, json!({"Response": {"Error": error, "RequestId": "r-error"}}).to_string())
}

/// A request as received.
#[derive(Clone)]
pub struct Received {
    pub headers: HeaderMap,
    pub body: Bytes,
    /// What [`tc3::verify`] said.
    pub verified: Result<(), tc3::VerifyError>,
}

impl Received {
    pub fn header(&self, name: &str) -> Option<&str> {
        self.headers.get(name).map(|value| value.to_str().unwrap())
    }

    pub fn json(&self) -> Value {
        serde_json::from_slice(&self.body).unwrap()
    }
}

type Script = Box<dyn FnMut(&Received) -> Answer + Send>;

pub struct Server {
    pub address: SocketAddr,
    received: Arc<Mutex<Vec<Received>>>,
    _tasks: JoinSet<()>,
}

struct Shared {
    script: Mutex<Script>,
    received: Arc<Mutex<Vec<Received>>>,
}

impl Server {
    /// Answers with `answers` one after another, and hangs when there are no more.
    pub async fn scripted(answers: impl IntoIterator<Item = Answer>) -> Server {
        let mut answers: VecDeque<Answer> = answers.into_iter().collect();
        Server::start(Box::new(move |_| answers.pop_front().unwrap_or(Answer::Hang))).await
    }

    pub async fn start(script: Script) -> Server {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let received = Arc::new(Mutex::new(Vec::new()));
        let shared = Arc::new(Shared { script: Mutex::new(script), received: received.clone() });
        let router = Router::new().fallback(answer).with_state(shared);
        let mut tasks = JoinSet::new();
        tasks.spawn(async move { axum::serve(listener, router).await.unwrap() });
        Server { address, received, _tasks: tasks }
    }

    pub fn received(&self) -> Vec<Received> {
        self.received.lock().unwrap().clone()
    }

    pub fn count(&self) -> usize {
        self.received.lock().unwrap().len()
    }

    pub fn settings(&self) -> Settings {
        settings(self.address)
    }

    pub fn client(&self) -> AgsClient {
        client(self.settings())
    }
}

async fn answer(State(shared): State<Arc<Shared>>, headers: HeaderMap, body: Bytes) -> Response {
    let verified = verify(&headers, &body);
    let received = Received { headers, body, verified };
    let answer = (shared.script.lock().unwrap())(&received);
    shared.received.lock().unwrap().push(received);
    match answer {
        Answer::Reply(status, body) => {
            (StatusCode::from_u16(status).unwrap(), [("content-type", "application/json")], body).into_response()
        }
        Answer::Cut => {
            let parts = [Ok(Bytes::from(r#"{"Response":"#)), Err(std::io::Error::other("cut"))];
            Body::from_stream(futures_util::stream::iter(parts)).into_response()
        }
        Answer::Hang => std::future::pending().await,
    }
}

fn verify(headers: &HeaderMap, body: &[u8]) -> Result<(), tc3::VerifyError> {
    let text = |name: &str| headers[name].to_str().unwrap();
    let authorization = tc3::Authorization::parse(text("authorization")).unwrap();
    let timestamp = text("x-tc-timestamp").parse().unwrap();
    let pairs: Vec<tc3::Header<'_>> = headers.iter().map(|(name, value)| (name.as_str(), value.as_bytes())).collect();
    let request = tc3::VerifyRequest {
        authorization: &authorization,
        method: tc3::Method::Post,
        query: "",
        headers: &pairs,
        signing_hosts: &[],
        payload: tc3::Payload::Bytes(body),
        service: "ags",
        timestamp,
    };
    tc3::verify(&request, &SECRET_KEY.into(), timestamp)
}

/// Waits between attempts are of milliseconds, and no limit is in the way.
pub fn settings(address: SocketAddr) -> Settings {
    let mut settings = Settings::new(format!("http://{address}").parse().unwrap(), "ap-guangzhou");
    settings.backoff = Backoff { base: Duration::from_millis(1), cap: Duration::from_millis(5) };
    settings.rates.default = NonZeroU32::new(1000).unwrap();
    settings
}

pub fn client(settings: Settings) -> AgsClient {
    AgsClient::builder(settings, http(), Arc::new(StaticCredentials(credential())))
        .clock(Arc::new(|| DateTime::from_timestamp(NOW, 0).unwrap()))
        .jitter(Arc::new(|| 1.0))
        .build()
        .unwrap()
}

pub fn credential() -> Credential {
    Credential { secret_id: SECRET_ID.into(), secret_key: SECRET_KEY.into(), token: None }
}

pub fn http() -> reqwest::Client {
    let _ = rustls::crypto::ring::default_provider().install_default();
    reqwest::Client::builder().no_proxy().build().unwrap()
}
