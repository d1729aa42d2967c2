//! One instance's envd, and the headers every call to it carries.

use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use http::header::{ACCEPT_ENCODING, AUTHORIZATION, HeaderName, USER_AGENT};
use http::{HeaderMap, HeaderValue, Method, Request, Response, StatusCode};
use hyper::body::Incoming;
use secrecy::{ExposeSecret, SecretString};

use crate::endpoint::ENVD_PORT;
use crate::error::{Dialect, EnvdError};
use crate::rpc::{refusal, within_deadline};
use crate::transport::{Body, Transport, empty};

const ACCESS_TOKEN: HeaderName = HeaderName::from_static("x-access-token");
const IDENTITY: HeaderValue = HeaderValue::from_static("identity");
const AGENT: HeaderValue = HeaderValue::from_static(concat!("ags-gateway/", env!("CARGO_PKG_VERSION")));

/// The daemon of one instance. Cheap to make and to clone: the connections are the [`Transport`]'s.
#[derive(Clone)]
pub struct EnvdClient {
    pub(crate) transport: Transport,
    instance: Arc<str>,
    headers: HeaderMap,
}

impl EnvdClient {
    /// `token` goes out as `X-Access-Token` (PROTOCOLS C.2); `None` for instances that ask for none.
    ///
    /// Fails with `InvalidArgument` if `instance` cannot be a host label or `token` cannot be a header.
    pub fn new(transport: Transport, instance: &str, token: Option<&SecretString>) -> Result<Self, EnvdError> {
        transport.endpoint().authority(instance, ENVD_PORT)?;
        Ok(Self { transport, instance: instance.into(), headers: common_headers(token)? })
    }

    pub fn instance(&self) -> &str {
        &self.instance
    }

    /// Whether the daemon answers (`GET /health`, 204). Needs no token of the daemon, but the edge's.
    ///
    /// # Errors
    /// `Gone` once the instance is; `Deadline` after `deadline`.
    pub async fn health(&self, deadline: Duration) -> Result<(), EnvdError> {
        let request = self.request(Method::GET, "/health", empty())?;
        within_deadline(deadline, async {
            let response = self.send(request).await?;
            match response.status() {
                StatusCode::NO_CONTENT | StatusCode::OK => Ok(()),
                _ => Err(refusal(Dialect::Rest, response).await),
            }
        })
        .await
    }

    /// A request with what all of them share. `path` begins with a slash.
    pub(crate) fn request(&self, method: Method, path: &str, body: Body) -> Result<Request<Body>, EnvdError> {
        let mut request = Request::builder()
            .method(method)
            .uri(path)
            .body(body)
            .map_err(|e| EnvdError::invalid("not a request").with_source(e))?;
        *request.headers_mut() = self.headers.clone();
        Ok(request)
    }

    pub(crate) async fn send(&self, request: Request<Body>) -> Result<Response<Incoming>, EnvdError> {
        self.transport.request(&self.instance, ENVD_PORT, request).await
    }
}

impl fmt::Debug for EnvdClient {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("EnvdClient")
            .field("instance", &self.instance)
            .field("token", &self.headers.get(ACCESS_TOKEN).map(|_| "[redacted]"))
            .finish_non_exhaustive()
    }
}

/// What every request carries; `access` as `X-Access-Token`.
pub(crate) fn common_headers(access: Option<&SecretString>) -> Result<HeaderMap, EnvdError> {
    let mut headers = HeaderMap::from_iter([(USER_AGENT, AGENT), (ACCEPT_ENCODING, IDENTITY)]);
    if let Some(token) = access {
        headers.insert(ACCESS_TOKEN, secret_header(token)?);
    }
    Ok(headers)
}

/// A token as the value of a header.
pub(crate) fn secret_header(token: &SecretString) -> Result<HeaderValue, EnvdError> {
    let mut value = HeaderValue::from_str(token.expose_secret())
        .map_err(|_| EnvdError::invalid("the access token cannot be a header"))?;
    value.set_sensitive(true);
    Ok(value)
}

/// Selects the user of a call by HTTP Basic without a password (PROTOCOLS D.2).
pub(crate) fn select_user(request: &mut Request<Body>, user: Option<&str>) -> Result<(), EnvdError> {
    let Some(user) = user else { return Ok(()) };
    if user.contains(':') {
        return Err(EnvdError::invalid("a user name has no colon"));
    }
    let basic = format!("Basic {}", STANDARD.encode(format!("{user}:")));
    let basic = HeaderValue::from_str(&basic).map_err(|e| EnvdError::invalid("not a user name").with_source(e))?;
    request.headers_mut().insert(AUTHORIZATION, basic);
    Ok(())
}
