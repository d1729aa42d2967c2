//! The code interpreter of an instance: contexts, and code that runs in them (PROTOCOLS E).

pub(crate) mod event;
pub(crate) mod lines;

use std::collections::BTreeMap;
use std::fmt;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;

use futures_util::stream::{self, BoxStream, Stream, StreamExt};
use http::header::{CONTENT_TYPE, HeaderName};
use http::{HeaderMap, HeaderValue, Method, Request, Response, StatusCode};
use http_body_util::BodyExt;
use hyper::body::Incoming;
use percent_encoding::{AsciiSet, NON_ALPHANUMERIC, utf8_percent_encode};
use secrecy::SecretString;
use serde::{Deserialize, Serialize};
use serde_json::json;

pub use event::{CodeEvent, CodeResult};

use self::lines::LineDecoder;
use crate::client::{common_headers, secret_header};
use crate::error::{Dialect, EnvdError, EnvdErrorKind};
use crate::idle;
use crate::rpc::{LAST_FRAME_GRACE, read_up_to, refusal, within_deadline};
use crate::transport::{Body, Transport, body_error, empty, full};

/// The port of the code interpreter within an instance of a tool of that type (PROTOCOLS C.1).
pub const CODE_PORT: u16 = 49999;

/// What may stand in a segment of a path as it is; a dot might name another.
const SEGMENT: &AsciiSet = &NON_ALPHANUMERIC.remove(b'-').remove(b'_');
/// A list of contexts is short.
const MAX_CONTEXTS: usize = 1024 * 1024;

/// The token that ports other than envd's take, and the header it goes in.
#[derive(Clone, Copy)]
pub struct TrafficToken<'a> {
    pub header: &'a str,
    pub token: &'a SecretString,
}

/// The code interpreter of one instance. Cheap to make and to clone: the connections are the [`Transport`]'s.
#[derive(Clone)]
pub struct CodeClient {
    transport: Transport,
    instance: Arc<str>,
    headers: HeaderMap,
}

/// Code and where to run it. Not `Debug`: the environment may hold secrets.
#[derive(Clone, Default, PartialEq, Eq, Serialize)]
pub struct CodeRun {
    pub code: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub context_id: Option<String>,
    /// Selects the default context of a language. Not together with `context_id`; with neither it is Python's.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub language: Option<String>,
    /// Variables for this run, besides those of the instance.
    pub env_vars: BTreeMap<String, String>,
}

/// A context: a kernel with its state.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
pub struct CodeContext {
    pub id: String,
    #[serde(default)]
    pub language: String,
    #[serde(default)]
    pub cwd: String,
}

/// The events of code that runs.
///
/// - Dropping it before the end closes the request at once, and the interpreter interrupts the code.
/// - While it is not polled nothing is read, and before long the code is held up.
/// - It ends (`None`) after [`CodeEvent::End`]; read on to that `None` and the connection can be used again.
/// - Any `Err` is final: `Unavailable` if the connection broke or was silent for the transport's `idle_timeout`.
pub struct CodeStream(BoxStream<'static, Result<CodeEvent, EnvdError>>);

impl Stream for CodeStream {
    type Item = Result<CodeEvent, EnvdError>;

    fn poll_next(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Self::Item>> {
        self.0.poll_next_unpin(cx)
    }
}

impl fmt::Debug for CodeStream {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("CodeStream").finish_non_exhaustive()
    }
}

impl CodeClient {
    /// `access` goes out as `X-Access-Token`, with which the interpreter asks the daemon for the instance's environment;
    /// `traffic` in its own header. `None` for instances that ask for none.
    ///
    /// Fails with `InvalidArgument` if `instance` cannot be a host label or a token cannot be a header.
    pub fn new(
        transport: Transport,
        instance: &str,
        access: Option<&SecretString>,
        traffic: Option<TrafficToken<'_>>,
    ) -> Result<Self, EnvdError> {
        transport.endpoint().authority(instance, CODE_PORT)?;
        let mut headers = common_headers(access)?;
        if let Some(TrafficToken { header, token }) = traffic {
            let name = HeaderName::try_from(header)
                .map_err(|e| EnvdError::invalid("the traffic token's header is no header name").with_source(e))?;
            headers.insert(name, secret_header(token)?);
        }
        Ok(Self { transport, instance: instance.into(), headers })
    }

    /// Runs code. Resolves when the interpreter has taken it; before that it may have to start a kernel.
    ///
    /// # Errors
    /// `NotFound`: no such context; `Internal`: the language's kernel cannot be had; `InvalidArgument`.
    pub async fn execute(&self, run: &CodeRun) -> Result<CodeStream, EnvdError> {
        let request = self.request(Method::POST, "/execute", json_body(run)?)?;
        let settings = self.transport.settings();
        let idle_timeout = settings.idle_timeout;
        let response = idle::within(idle_timeout, async { accepted(self.send(request).await?).await }).await??;
        let lines = Lines {
            body: response.into_body(),
            decoder: LineDecoder::new(settings.max_message),
            idle_timeout,
            ended: false,
        };
        Ok(CodeStream(stream::try_unfold(lines, Lines::step).boxed()))
    }

    /// All contexts, oldest first.
    ///
    /// # Errors
    /// `Deadline` after `deadline`.
    pub async fn contexts(&self, deadline: Duration) -> Result<Vec<CodeContext>, EnvdError> {
        self.call(deadline, Method::GET, "/contexts", empty()).await
    }

    /// Makes a context. Defaults: Python, the home of `user`.
    ///
    /// # Errors
    /// `Internal`: the language's kernel cannot be had, or the directory is none.
    pub async fn create_context(
        &self,
        language: Option<&str>,
        cwd: Option<&str>,
        deadline: Duration,
    ) -> Result<CodeContext, EnvdError> {
        let members = [("language", language), ("cwd", cwd)];
        let given: BTreeMap<_, _> = members.into_iter().filter(|(_, value)| value.is_some()).collect();
        self.call(deadline, Method::POST, "/contexts", json_body(&json!(given))?).await
    }

    /// Gives a context a fresh kernel. What runs there is broken off.
    ///
    /// # Errors
    /// `NotFound`.
    pub async fn restart_context(&self, id: &str, deadline: Duration) -> Result<(), EnvdError> {
        let path = format!("/contexts/{}/restart", segment(id));
        self.call::<()>(deadline, Method::POST, &path, empty()).await
    }

    /// Ends a context.
    ///
    /// # Errors
    /// `NotFound`.
    pub async fn delete_context(&self, id: &str, deadline: Duration) -> Result<(), EnvdError> {
        self.call::<()>(deadline, Method::DELETE, &format!("/contexts/{}", segment(id)), empty()).await
    }

    async fn call<T: for<'de> Deserialize<'de>>(
        &self,
        deadline: Duration,
        method: Method,
        path: &str,
        body: Body,
    ) -> Result<T, EnvdError> {
        let request = self.request(method, path, body)?;
        within_deadline(deadline, async {
            let mut response = accepted(self.send(request).await?).await?;
            let body = read_up_to(response.body_mut(), MAX_CONTEXTS).await?.unwrap_or_default();
            serde_json::from_slice(&body)
                .map_err(|e| EnvdError::protocol("an answer of the interpreter that makes no sense").with_source(e))
        })
        .await
    }

    fn request(&self, method: Method, path: &str, body: Body) -> Result<Request<Body>, EnvdError> {
        let mut request = Request::builder()
            .method(method)
            .uri(path)
            .body(body)
            .map_err(|e| EnvdError::invalid("not a request").with_source(e))?;
        *request.headers_mut() = self.headers.clone();
        request.headers_mut().insert(CONTENT_TYPE, HeaderValue::from_static("application/json"));
        Ok(request)
    }

    async fn send(&self, request: Request<Body>) -> Result<Response<Incoming>, EnvdError> {
        self.transport.request(&self.instance, CODE_PORT, request).await
    }
}

impl fmt::Debug for CodeClient {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("CodeClient").field("instance", &self.instance).finish_non_exhaustive()
    }
}

fn json_body(value: &impl Serialize) -> Result<Body, EnvdError> {
    let body = serde_json::to_vec(value).map_err(|e| EnvdError::invalid("not JSON").with_source(e))?;
    Ok(full(body))
}

/// An id as one segment of a path.
fn segment(id: &str) -> String {
    utf8_percent_encode(id, SEGMENT).to_string()
}

async fn accepted(response: Response<Incoming>) -> Result<Response<Incoming>, EnvdError> {
    match response.status() {
        StatusCode::OK => Ok(response),
        _ => Err(refusal(Dialect::Code, response).await),
    }
}

/// An answer that is read line by line.
struct Lines {
    body: Incoming,
    decoder: LineDecoder,
    idle_timeout: Option<Duration>,
    ended: bool,
}

impl Lines {
    async fn step(mut self) -> Result<Option<(CodeEvent, Self)>, EnvdError> {
        if self.ended {
            self.give_back().await;
            return Ok(None);
        }
        let event = self.next().await?;
        self.ended = event == CodeEvent::End;
        Ok(Some((event, self)))
    }

    async fn next(&mut self) -> Result<CodeEvent, EnvdError> {
        loop {
            if let Some(line) = self.decoder.next_line().map_err(too_long)? {
                return event::parse(&line);
            }
            let Some(frame) = idle::within(self.idle_timeout, self.body.frame()).await? else {
                return Err(cut(self.decoder.is_mid_line()));
            };
            if let Ok(data) = frame.map_err(body_error)?.into_data() {
                self.decoder.push(&data);
            }
        }
    }

    /// Reads on to the end of the body: only then can the connection be used again.
    async fn give_back(&mut self) {
        let rest = async { while matches!(self.body.frame().await, Some(Ok(_))) {} };
        // It is due at once. A server that withholds it costs us the connection and no more.
        let _ = tokio::time::timeout(LAST_FRAME_GRACE, rest).await;
    }
}

fn too_long(error: lines::TooLong) -> EnvdError {
    EnvdError::local(EnvdErrorKind::ResourceExhausted, "a result that is too large")
        .with_unknown_outcome()
        .with_source(error)
}

fn cut(mid_line: bool) -> EnvdError {
    let text =
        if mid_line { "the execution ended within a line" } else { "the execution ended without its last event" };
    EnvdError::local(EnvdErrorKind::Unavailable, text).with_unknown_outcome()
}
