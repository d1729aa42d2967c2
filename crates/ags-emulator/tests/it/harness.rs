//! A running emulator, a signing client and instances made of one task.

use std::convert::Infallible;
use std::io;
use std::sync::Arc;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use ags_emulator::instance::{BoxIo, Instance, InstanceSpec, Launch, LaunchError};
use ags_emulator::settings::{Account, Backing};
use ags_emulator::{Emulator, Settings};
use bytes::Bytes;
use futures_util::FutureExt as _;
use futures_util::future::BoxFuture;
use http_body_util::{BodyExt, StreamBody, combinators::BoxBody};
use hyper::body::{Frame, Incoming};
use hyper::{Request, Response};
use hyper_util::rt::TokioIo;
use serde_json::{Value, json};
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

pub const SECRET_ID: &str = "AKIDTEST";
pub const SECRET_KEY: &str = "not-a-real-key";
pub const API_KEY: &str = "e2b_0123456789abcdef";
pub const REGION: &str = "ap-guangzhou";

pub struct Harness {
    pub emulator: Emulator,
    pub http: reqwest::Client,
    _state: tempfile::TempDir,
}

/// An emulator whose instances answer HTTP on port 49983 and 8000.
pub async fn start() -> Harness {
    start_with(|_| {}).await
}

pub async fn start_with(change: impl FnOnce(&mut Settings)) -> Harness {
    let state = tempfile::tempdir().expect("a directory");
    let mut settings = Settings::new(state.path());
    settings.backing = Backing::Nothing;
    settings.accounts = vec![Account { secret_id: SECRET_ID.into(), secret_key: SECRET_KEY.into(), token: None }];
    settings.api_keys = vec![API_KEY.into()];
    settings.tunables.rate_limit = 0;
    settings.tunables.rate_limits.clear();
    change(&mut settings);
    let emulator = Emulator::start_with(settings, Arc::new(Servers)).await.expect("an emulator");
    Harness { emulator, http: client(), _state: state }
}

/// A client without retries of its own.
pub fn client() -> reqwest::Client {
    // Fails when another test was faster: then there is a provider already.
    drop(rustls::crypto::ring::default_provider().install_default());
    reqwest::Client::builder()
        .timeout(Duration::from_secs(20))
        .retry(reqwest::retry::never())
        .build()
        .expect("a client")
}

/// An error code of the API.
#[derive(Debug, PartialEq, Eq)]
pub struct Code(pub String);

impl PartialEq<&str> for Code {
    fn eq(&self, other: &&str) -> bool {
        self.0 == *other
    }
}

impl Harness {
    pub async fn call(&self, action: &str, params: Value) -> Result<Value, Code> {
        let response = self.send(action, params).await.expect("an answer");
        assert_eq!(response.status(), 200, "errors come with 200 too");
        assert_eq!(response.headers()["content-type"], "application/json");
        let body: Value = response.json().await.expect("an envelope");
        let inner = body["Response"].clone();
        assert!(inner["RequestId"].as_str().is_some_and(|id| id.len() == 36), "{inner}");
        match inner["Error"]["Code"].as_str() {
            Some(code) => Err(Code(code.to_owned())),
            None => Ok(inner),
        }
    }

    pub async fn send(&self, action: &str, params: Value) -> reqwest::Result<reqwest::Response> {
        signed(&self.http, &self.emulator.url(), action, params.to_string(), now(), SECRET_KEY).send().await
    }

    pub async fn start_instance(&self) -> String {
        let started = self.call("StartSandboxInstance", json!({"ToolName": "base"})).await.expect("an instance");
        started["Instance"]["InstanceId"].as_str().expect("an id").to_owned()
    }

    /// The instance as listed; `Null` when it is not.
    pub async fn instance(&self, id: &str) -> Value {
        let listed = self.call("DescribeSandboxInstanceList", json!({"InstanceIds": [id]})).await.expect("a list");
        listed["InstanceSet"][0].clone()
    }

    pub async fn status(&self, id: &str) -> String {
        self.instance(id).await["Status"].as_str().unwrap_or("absent").to_owned()
    }

    pub async fn token(&self, id: &str) -> Value {
        self.call("AcquireSandboxInstanceToken", json!({"InstanceId": id})).await.expect("a token")
    }

    /// Asks until the instance has this status.
    pub async fn until_status(&self, id: &str, wanted: &str) {
        for _ in 0..400 {
            if self.status(id).await == wanted {
                return;
            }
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
        panic!("{id} is {} and not {wanted}", self.status(id).await);
    }

    pub async fn admin(&self, method: &str, path: &str, body: Value) -> Value {
        let url = format!("{}{path}", self.emulator.admin_url());
        let request = self.http.request(method.parse().expect("a method"), url);
        let request = if body.is_null() { request } else { request.json(&body) };
        let response = request.send().await.expect("an answer");
        assert!(response.status().is_success(), "{path}: {}", response.status());
        response.json().await.unwrap_or(Value::Null)
    }

    /// A request to a port of an instance, by host name.
    pub fn data(&self, method: &str, id: &str, port: u16, path: &str) -> reqwest::RequestBuilder {
        self.http
            .request(method.parse().expect("a method"), format!("{}{path}", self.emulator.url()))
            .header("host", format!("{port}-{id}.ags.localhost"))
    }

    pub fn e2b(&self, method: &str, path: &str) -> reqwest::RequestBuilder {
        self.http
            .request(method.parse().expect("a method"), format!("{}{path}", self.emulator.url()))
            .header("x-api-key", API_KEY)
    }
}

#[expect(clippy::disallowed_methods, reason = "signatures are judged by real time")]
pub fn now() -> i64 {
    SystemTime::now().duration_since(UNIX_EPOCH).expect("after 1970").as_secs().cast_signed()
}

/// A POST signed as the official SDKs do.
pub fn signed(
    http: &reqwest::Client,
    url: &str,
    action: &str,
    body: String,
    timestamp: i64,
    secret_key: &str,
) -> reqwest::RequestBuilder {
    let host = url.trim_start_matches("http://");
    let credential = tc3::Credential { secret_id: SECRET_ID.into(), secret_key: secret_key.into(), token: None };
    let request = tc3::SignRequest {
        method: tc3::Method::Post,
        query: "",
        headers: &[("content-type", b"application/json"), ("host", host.as_bytes())],
        payload: tc3::Payload::Bytes(body.as_bytes()),
        service: "ags",
        timestamp,
    };
    let signed = tc3::sign(&request, &credential).expect("a signature");
    http.post(url)
        .header("content-type", "application/json")
        .header("x-tc-action", action)
        .header("x-tc-version", "2025-09-20")
        .header("x-tc-region", REGION)
        .header("x-tc-timestamp", timestamp)
        .header("authorization", signed.authorization)
        .body(body)
}

/// Launches instances that are an HTTP server in this process.
struct Servers;

struct Server {
    ended: CancellationToken,
    tasks: TaskTracker,
}

impl Launch for Servers {
    fn launch(&self, spec: InstanceSpec) -> BoxFuture<'_, Result<Arc<dyn Instance>, LaunchError>> {
        async move {
            if spec.envs.contains_key("CANNOT_START") {
                return Err(LaunchError::Timeout);
            }
            Ok(Arc::new(Server { ended: CancellationToken::new(), tasks: TaskTracker::new() }) as Arc<dyn Instance>)
        }
        .boxed()
    }
}

impl Instance for Server {
    fn dial(&self, port: u16) -> BoxFuture<'_, io::Result<BoxIo>> {
        async move {
            if !matches!(port, 49983 | 8000) {
                return Err(io::ErrorKind::ConnectionRefused.into());
            }
            let (ours, theirs) = tokio::io::duplex(64 << 10);
            let service = hyper::service::service_fn(serve);
            self.tasks.spawn(async move {
                let server = hyper::server::conn::http1::Builder::new();
                drop(server.serve_connection(TokioIo::new(theirs), service).with_upgrades().await);
            });
            Ok(Box::new(ours) as BoxIo)
        }
        .boxed()
    }

    fn ready(&self) -> BoxFuture<'_, Result<(), LaunchError>> {
        async { Ok(()) }.boxed()
    }

    fn pause(&self) -> io::Result<()> {
        Ok(())
    }

    fn resume(&self) -> io::Result<()> {
        Ok(())
    }

    fn stop(&self) -> BoxFuture<'_, ()> {
        self.ended.cancel();
        async {}.boxed()
    }

    fn exited(&self) -> CancellationToken {
        self.ended.clone()
    }
}

type ServedBody = BoxBody<Bytes, Infallible>;

async fn serve(request: Request<Incoming>) -> Result<Response<ServedBody>, Infallible> {
    Ok(match request.uri().path() {
        "/endless" => Response::new(BodyExt::boxed(endless())),
        "/upgrade" => upgrade(request),
        "/echo" => {
            let body = request.into_body().collect().await.map(|body| body.to_bytes()).unwrap_or_default();
            Response::new(text(body))
        }
        _ => {
            let headers: Vec<(String, String)> = request
                .headers()
                .iter()
                .map(|(name, value)| (name.to_string(), String::from_utf8_lossy(value.as_bytes()).into_owned()))
                .collect();
            let seen = json!({"path": request.uri().to_string(), "headers": headers});
            Response::new(text(seen.to_string().into()))
        }
    })
}

fn text(bytes: Bytes) -> ServedBody {
    BodyExt::boxed(http_body_util::Full::new(bytes))
}

fn endless() -> StreamBody<impl futures_util::Stream<Item = Result<Frame<Bytes>, Infallible>>> {
    StreamBody::new(futures_util::stream::unfold((), |()| async {
        tokio::time::sleep(Duration::from_millis(5)).await;
        Some((Ok(Frame::data(Bytes::from_static(b"tick"))), ()))
    }))
}

/// Switches to a protocol that sends every byte back.
fn upgrade(mut request: Request<Incoming>) -> Response<ServedBody> {
    let upgraded = hyper::upgrade::on(&mut request);
    TaskTracker::new().spawn(async move {
        if let Ok(upgraded) = upgraded.await {
            let (mut reader, mut writer) = tokio::io::split(TokioIo::new(upgraded));
            drop(tokio::io::copy(&mut reader, &mut writer).await);
        }
    });
    Response::builder()
        .status(101)
        .header("connection", "upgrade")
        .header("upgrade", "bytes")
        .body(text(Bytes::new()))
        .expect("a response")
}
