//! HTTP and Connect by hand: what goes over the wire is what the tests say.

use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use ags_emulator::instance::Instance;
use anyhow::{Context as _, ensure};
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use bytes::{Buf as _, Bytes, BytesMut};
use http::{HeaderMap, Request, Response, StatusCode};
use http_body_util::{BodyExt as _, Full};
use hyper::body::Incoming;
use hyper_util::rt::TokioIo;
use serde_json::{Value, json};
use tokio_util::task::{AbortOnDropHandle, TaskTracker};

/// The daemon's port.
pub const ENVD: u16 = 49983;

/// Longer than any silence that a test waits out.
const PATIENCE: Duration = Duration::from_secs(20);

/// A whole answer.
#[derive(Debug)]
pub struct Answer {
    pub status: StatusCode,
    pub headers: HeaderMap,
    pub body: Bytes,
}

impl Answer {
    pub fn text(&self) -> String {
        String::from_utf8_lossy(&self.body).into_owned()
    }

    pub fn json(&self) -> anyhow::Result<Value> {
        serde_json::from_slice(&self.body).with_context(|| self.text())
    }

    pub fn header(&self, name: &str) -> &str {
        self.headers.get(name).and_then(|value| value.to_str().ok()).unwrap_or_default()
    }
}

/// Talks to one instance; every request has a connection of its own.
#[derive(Clone)]
pub struct Client {
    pub instance: Arc<dyn Instance>,
    pub headers: HeaderMap,
    pub port: u16,
}

impl Client {
    pub fn new(instance: &Arc<dyn Instance>) -> Self {
        Self { instance: Arc::clone(instance), headers: HeaderMap::new(), port: ENVD }
    }

    /// With one more header on every request.
    pub fn with(&self, name: &'static str, value: &str) -> anyhow::Result<Self> {
        let mut other = self.clone();
        other.headers.insert(name, value.parse()?);
        Ok(other)
    }

    /// As a user, by HTTP Basic.
    pub fn user(&self, name: &str) -> anyhow::Result<Self> {
        self.with("authorization", &format!("Basic {}", STANDARD.encode(format!("{name}:"))))
    }

    pub async fn send(&self, mut request: Request<Full<Bytes>>) -> anyhow::Result<(Response<Incoming>, Connection)> {
        let stream = self.instance.dial(self.port).await?;
        let (mut sender, connection) = hyper::client::conn::http1::handshake(TokioIo::new(stream)).await?;
        let task = TaskTracker::new().spawn(async move { drop(connection.await) });
        let connection = AbortOnDropHandle::new(task);
        request.headers_mut().insert("host", "localhost".parse()?);
        request.headers_mut().extend(self.headers.clone());
        Ok((sender.send_request(request).await?, connection))
    }

    pub async fn request(&self, request: Request<Full<Bytes>>) -> anyhow::Result<Answer> {
        let (response, _connection) = self.send(request).await?;
        let (head, body) = response.into_parts();
        Ok(Answer { status: head.status, headers: head.headers, body: body.collect().await?.to_bytes() })
    }

    pub async fn get(&self, path: &str) -> anyhow::Result<Answer> {
        self.request(Request::get(path).body(Full::default())?).await
    }

    pub async fn post(&self, path: &str, kind: &str, body: impl Into<Bytes>) -> anyhow::Result<Answer> {
        let request = Request::post(path).header("content-type", kind);
        self.request(request.body(Full::new(body.into()))?).await
    }

    /// A unary call: the message, or code and text of the error.
    pub async fn call(&self, method: &str, message: Value) -> anyhow::Result<Result<Value, (String, String)>> {
        let answer = self.post(&format!("/{method}"), "application/json", message.to_string()).await?;
        ensure!(answer.header("content-type") == "application/json", "{answer:?}");
        let body = answer.json()?;
        if answer.status == StatusCode::OK {
            return Ok(Ok(body));
        }
        let field = |name: &str| body[name].as_str().unwrap_or_default().to_owned();
        Ok(Err((field("code"), field("message"))))
    }

    /// A server stream.
    pub async fn stream(&self, method: &str, message: Value) -> anyhow::Result<Frames> {
        let payload = message.to_string();
        let mut body = BytesMut::from(&[0][..]);
        body.extend_from_slice(&u32::try_from(payload.len())?.to_be_bytes());
        body.extend_from_slice(payload.as_bytes());
        let request = Request::post(format!("/{method}"))
            .header("content-type", "application/connect+json")
            .header("connect-protocol-version", "1");
        let (response, connection) = self.send(request.body(Full::new(body.freeze()))?).await?;
        ensure!(response.status() == StatusCode::OK, "{}", response.status());
        let kind = response.headers().get("content-type").map(http::HeaderValue::as_bytes);
        ensure!(kind == Some(b"application/connect+json"), "{kind:?}");
        Ok(Frames { body: response.into_body(), buffer: BytesMut::new(), _connection: connection })
    }

    /// Runs a command as the SDKs do and waits for its end.
    pub async fn run(&self, command: &str) -> anyhow::Result<Ran> {
        self.stream("process.Process/Start", start(command)).await?.finish().await
    }
}

/// Held while an answer is read.
pub type Connection = AbortOnDropHandle<()>;

/// The request that the SDKs send for a command.
pub fn start(command: &str) -> Value {
    json!({"process": {"cmd": "/bin/bash", "args": ["-l", "-c", command]}, "stdin": false})
}

/// The frames of a stream.
pub struct Frames {
    body: Incoming,
    buffer: BytesMut,
    _connection: Connection,
}

/// What a process said, and how the stream ended.
#[derive(Debug, Default)]
pub struct Ran {
    pub pid: u64,
    pub stdout: Vec<u8>,
    pub stderr: Vec<u8>,
    pub pty: Vec<u8>,
    /// The `end` event.
    pub end: Value,
    /// The payload of the end-of-stream frame.
    pub trailer: Value,
}

impl fmt::Display for Ran {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for output in [&self.stdout, &self.stderr, &self.pty] {
            write!(f, "{:?} ", String::from_utf8_lossy(output))?;
        }
        Ok(())
    }
}

impl Ran {
    pub fn out(&self) -> String {
        String::from_utf8_lossy(&self.stdout).into_owned()
    }
}

impl Frames {
    /// Flags and payload of the next frame; `None` when the body is over.
    pub async fn frame(&mut self) -> anyhow::Result<Option<(u8, Value)>> {
        loop {
            if let Some(header) = self.buffer.first_chunk::<5>() {
                let [flags, length @ ..] = *header;
                let length = u32::from_be_bytes(length) as usize;
                if self.buffer.len() >= 5 + length {
                    self.buffer.advance(5);
                    let payload = self.buffer.split_to(length);
                    return Ok(Some((flags, serde_json::from_slice(&payload)?)));
                }
            }
            let more = tokio::time::timeout(PATIENCE, self.body.frame()).await;
            match more.context("the stream is silent")? {
                Some(frame) => self.buffer.extend(frame?.into_data().ok()),
                None => return Ok(None),
            }
        }
    }

    /// The next message.
    pub async fn message(&mut self) -> anyhow::Result<Value> {
        match self.frame().await?.context("the stream is over")? {
            (0, message) => Ok(message),
            (flags, payload) => anyhow::bail!("frame with flags {flags}: {payload}"),
        }
    }

    /// The pid of the first event.
    pub async fn started(&mut self) -> anyhow::Result<u64> {
        let message = self.message().await?;
        message["event"]["start"]["pid"].as_u64().with_context(|| message.to_string())
    }

    /// Reads to the end of the stream.
    pub async fn finish(mut self) -> anyhow::Result<Ran> {
        let mut ran = Ran::default();
        while let Some((flags, payload)) = self.frame().await? {
            if flags & 2 != 0 {
                ran.trailer = payload;
                ensure!(self.frame().await?.is_none(), "something follows the end of the stream");
                return Ok(ran);
            }
            ran.take(&payload["event"])?;
        }
        anyhow::bail!("no end of stream after {ran}")
    }

    /// Reads until the terminal or the output has said this.
    pub async fn until(&mut self, ran: &mut Ran, text: &str) -> anyhow::Result<()> {
        let said = |ran: &Ran| [&ran.pty, &ran.stdout].iter().any(|out| String::from_utf8_lossy(out).contains(text));
        while !said(ran) {
            let message = self.message().await.with_context(|| format!("waiting for {text:?} after {ran}"))?;
            ran.take(&message["event"])?;
        }
        Ok(())
    }
}

impl Ran {
    fn take(&mut self, event: &Value) -> anyhow::Result<()> {
        if let Some(pid) = event["start"]["pid"].as_u64() {
            self.pid = pid;
        } else if !event["end"].is_null() {
            self.end = event["end"].clone();
        } else {
            ensure!(self.end.is_null(), "output after the end");
            for (name, to) in [("stdout", &mut self.stdout), ("stderr", &mut self.stderr), ("pty", &mut self.pty)] {
                if let Some(data) = event["data"][name].as_str() {
                    to.extend(STANDARD.decode(data)?);
                }
            }
        }
        Ok(())
    }
}
