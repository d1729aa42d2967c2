//! HTTP towards the instances of one region: pooled connections, and every failure in our terms.

use std::error::Error as StdError;
use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use http::header::HOST;
use http::uri::{Parts, PathAndQuery};
use http::{HeaderMap, Method, Request, Response, Uri};
use http_body_util::combinators::UnsyncBoxBody;
use http_body_util::{BodyExt, Empty, Full};
use hyper::body::Incoming;
use hyper_util::client::legacy::Client;
use hyper_util::rt::{TokioExecutor, TokioTimer};

use crate::connector::Connector;
use crate::endpoint::Endpoint;
use crate::error::{EnvdError, EnvdErrorKind};
use crate::framing::RawHead;
use crate::kept::{Bodiless, Fetched, Kept, Stencil};

pub(crate) type BoxError = Box<dyn StdError + Send + Sync>;

/// Body of a request towards an instance.
pub type Body = UnsyncBoxBody<Bytes, BoxError>;

/// A body without content.
pub fn empty() -> Body {
    Empty::new().map_err(|never| match never {}).boxed_unsync()
}

/// A body that is already there.
pub fn full(content: impl Into<Bytes>) -> Body {
    Full::new(content.into()).map_err(|never| match never {}).boxed_unsync()
}

/// A body that is read as it is sent. If it fails, so does the request, with `Cancelled`.
pub fn stream<B>(body: B) -> Body
where
    B: http_body::Body<Data = Bytes> + Send + 'static,
    B::Error: Into<BoxError>,
{
    body.map_err(|e| Box::new(SourceFailed(e.into())) as BoxError).boxed_unsync()
}

/// Limits of a [`Transport`].
#[derive(Clone, Debug)]
pub struct TransportSettings {
    /// Name resolution, TCP and TLS together.
    pub connect_timeout: Duration,
    /// How long a stream, a download or an upload may stand still while we wait for the other side.
    /// Above envd's default keepalive of 90 s. `None`: for ever.
    pub idle_timeout: Option<Duration>,
    /// Connections kept for reuse are closed after this time.
    pub pool_idle_timeout: Duration,
    /// Connections kept for reuse per port of an instance.
    pub pool_max_idle: usize,
    /// Longest reply or stream message accepted, in bytes.
    pub max_message: usize,
}

impl Default for TransportSettings {
    fn default() -> Self {
        Self {
            connect_timeout: Duration::from_secs(5),
            idle_timeout: Some(Duration::from_secs(120)),
            pool_idle_timeout: Duration::from_secs(30),
            pool_max_idle: 8,
            max_message: envd_proto::MAX_MESSAGE_BYTES,
        }
    }
}

/// The way to all instances behind one [`Endpoint`]. Clones share the connections.
#[derive(Clone)]
pub struct Transport {
    inner: Arc<Inner>,
}

struct Inner {
    endpoint: Endpoint,
    settings: TransportSettings,
    client: Client<Connector, Body>,
    kept: Kept,
}

impl Transport {
    /// Opens no connection yet. Fails with `Unavailable` if TLS cannot be set up in this process.
    pub fn new(endpoint: Endpoint, settings: TransportSettings) -> Result<Self, EnvdError> {
        let connector = Connector::new(endpoint.connect_to.clone(), endpoint.skip_ssl_verify, settings.connect_timeout)
            .map_err(|e| EnvdError::local(EnvdErrorKind::Unavailable, "TLS set-up").with_source(e))?;
        let kept = Kept::new(connector.clone(), settings.pool_idle_timeout, settings.pool_max_idle);
        let client = Client::builder(TokioExecutor::new())
            .pool_timer(TokioTimer::new())
            .pool_idle_timeout(settings.pool_idle_timeout)
            .pool_max_idle_per_host(settings.pool_max_idle)
            .build(connector);
        Ok(Self { inner: Arc::new(Inner { endpoint, settings, client, kept }) })
    }

    pub fn endpoint(&self) -> &Endpoint {
        &self.inner.endpoint
    }

    pub fn settings(&self) -> &TransportSettings {
        &self.inner.settings
    }

    /// Sends `request` to `port` of `instance` and returns whatever answers, error statuses included.
    ///
    /// Of the request's URI only path and query count; the Host header is set here. Tokens, hop-by-hop
    /// headers and time limits are the caller's. `Upgrade` works (`hyper::upgrade::on` the response).
    /// A request is repeated on a fresh connection only if it never left on the pooled one.
    /// Dropping the future, or the response body before its end, closes the connection.
    ///
    /// Fails with `InvalidArgument` (not an instance id), `Unavailable` or `Cancelled` (see [`stream`]).
    pub async fn request(
        &self,
        instance: &str,
        port: u16,
        mut request: Request<Body>,
    ) -> Result<Response<Incoming>, EnvdError> {
        let mut target = Parts::default();
        target.scheme = Some(self.inner.endpoint.scheme.clone());
        target.authority = Some(self.inner.endpoint.authority(instance, port)?);
        target.path_and_query = Some(request.uri().path_and_query().cloned().unwrap_or(PathAndQuery::from_static("/")));
        *request.uri_mut() =
            Uri::from_parts(target).map_err(|e| EnvdError::invalid("not a request target").with_source(e))?;
        request.headers_mut().remove(HOST);
        *request.version_mut() = http::Version::HTTP_11;
        self.inner.client.request(request).await.map_err(send_error)
    }

    /// As [`request`](Self::request) for what has no body and asks for no upgrade, at a fraction of the cost: the task that
    /// awaits the answer reads it. The connection is kept for others once the body was read to its end.
    ///
    /// A safe request is repeated on another connection if the server closed the pooled one before it answered.
    ///
    /// Fails as [`request`](Self::request).
    pub async fn fetch(&self, instance: &str, port: u16, request: &Bodiless) -> Result<Response<Fetched>, EnvdError> {
        let Inner { endpoint, kept, .. } = &*self.inner;
        kept.request(&endpoint.scheme, endpoint.authority(instance, port)?, request).await
    }

    /// The head of many requests like this one. To be called within a runtime.
    ///
    /// Fails with `InvalidArgument` for what is no instance id.
    pub fn stencil(
        &self,
        instance: &str,
        port: u16,
        method: Method,
        headers: &HeaderMap,
    ) -> Result<Stencil, EnvdError> {
        let Inner { endpoint, kept, .. } = &*self.inner;
        Ok(kept.stencil(endpoint.authority(instance, port)?, method, headers))
    }

    /// As [`fetch`](Self::fetch), for a head that `stencil` has written; the answer's is shown to `read` as it came.
    ///
    /// Fails as [`request`](Self::request).
    pub async fn fetch_again<T>(
        &self,
        stencil: &Stencil,
        wire: &[u8],
        read: impl FnMut(&RawHead<'_>) -> T,
    ) -> Result<(T, Fetched), EnvdError> {
        let Inner { endpoint, kept, .. } = &*self.inner;
        kept.exchange(&endpoint.scheme, stencil, wire, read).await
    }
}

impl fmt::Debug for Transport {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Transport")
            .field("endpoint", &self.inner.endpoint)
            .field("settings", &self.inner.settings)
            .finish_non_exhaustive()
    }
}

/// What a request body that failed at its source looks like from here.
#[derive(Debug, thiserror::Error)]
#[error("the source of the request body failed")]
struct SourceFailed(#[source] BoxError);

fn send_error(error: hyper_util::client::legacy::Error) -> EnvdError {
    if caused_by::<SourceFailed>(&error) {
        return EnvdError::local(EnvdErrorKind::Cancelled, "the upload broke off at its source")
            .with_unknown_outcome()
            .with_source(error);
    }
    if error.is_connect() {
        return EnvdError::local(EnvdErrorKind::Unavailable, "no connection").with_source(error);
    }
    EnvdError::local(EnvdErrorKind::Unavailable, "the connection broke").with_unknown_outcome().with_source(error)
}

/// The body of a response broke off.
pub(crate) fn body_error(error: hyper::Error) -> EnvdError {
    EnvdError::local(EnvdErrorKind::Unavailable, "the response broke off").with_unknown_outcome().with_source(error)
}

fn caused_by<E: StdError + 'static>(error: &(dyn StdError + 'static)) -> bool {
    std::iter::successors(Some(error), |&e| e.source()).any(|e| e.is::<E>())
}
