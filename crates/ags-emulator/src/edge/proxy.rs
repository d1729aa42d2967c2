//! The byte plane (PROTOCOLS C, D.11): requests, streams and WebSockets go through unchanged but for
//! hop-by-hop headers; they break off when the instance ends.

use std::error::Error as _;
use std::io;
use std::sync::Arc;

use http::header::{self, HeaderMap, HeaderName};
use http::{Request, Response, StatusCode, Version};
use http_body::Body as _;
use http_body_util::BodyExt as _;
use hyper::body::Incoming;
use hyper_util::client::legacy;
use hyper_util::rt::TokioIo;
use serde_json::json;
use tokio_util::sync::CancellationToken;

use super::access::Refusal;
use super::dial::{self, InstanceClient};
use super::expect;
use super::route::{Style, Target};
use crate::body::{self, Answer, Body, Broken};
use crate::control::Cloud;
use crate::control::front::bare;
use crate::envd;
use crate::faults::{Instead, Plane, Struck, Subject};
use crate::settings::GoneStyle;

/// Only the control plane of the real thing can reach these (PROTOCOLS D.8).
const INTERNAL_PATHS: [&str; 7] = ["/init", "/freeze", "/unfreeze", "/fsfreeze", "/fsthaw", "/collapse", "/upgrade"];

/// Meant for one connection only; `Connection` may name more.
const HOP_BY_HOP: [HeaderName; 8] = [
    header::CONNECTION,
    HeaderName::from_static("keep-alive"),
    header::PROXY_AUTHENTICATE,
    header::PROXY_AUTHORIZATION,
    HeaderName::from_static("proxy-connection"),
    header::TE,
    header::TRANSFER_ENCODING,
    header::UPGRADE,
];

/// Forwards requests into instances.
pub struct Proxy {
    cloud: Arc<Cloud>,
    client: InstanceClient,
}

impl Proxy {
    pub fn new(cloud: Arc<Cloud>) -> Self {
        let client = dial::client(cloud.clone());
        Self { cloud, client }
    }

    /// Answers a request to a port of an instance.
    ///
    /// # Errors
    /// A fault rule drops the connection.
    pub async fn answer(&self, target: Target, host: String, request: Request<Incoming>) -> Answer {
        let struck = self.cloud.faults.strike(&Subject {
            plane: Plane::Data,
            action: None,
            path: request.uri().path(),
            method: request.method().as_str(),
            port: Some(target.port),
            instance: Some(&target.instance),
        });
        struck.before().await;
        if struck.expires_tokens() {
            self.cloud.expire_tokens(Some(&target.instance));
        }
        match struck.instead() {
            Some(Instead::Drop) => return Err(Broken::OnPurpose),
            Some(Instead::Http { status, body }) => return Ok(bare(status, body)),
            Some(Instead::Error { code, message }) => return Ok(fault_status(&code, &message)),
            None => {}
        }
        let response = self.admit_and_forward(&target, host, request).await?;
        struck.after().await;
        finish(response, &struck)
    }

    async fn admit_and_forward(&self, target: &Target, host: String, request: Request<Incoming>) -> Answer {
        let uri = request.uri();
        if target.port == envd::PORT && INTERNAL_PATHS.contains(&uri.path()) {
            return Ok(problem(StatusCode::NOT_FOUND, target, "not found"));
        }
        match self.cloud.admit_data(target, request.headers(), uri.query()) {
            Ok(links) => self.forward(target, host, request, links).await,
            Err(refusal) => Ok(self.refused(target, refusal)),
        }
    }

    fn refused(&self, target: &Target, refusal: Refusal) -> Response<Body> {
        let e2b_style = match self.cloud.tunables().gone {
            GoneStyle::ByRoute => target.style == Style::Header,
            GoneStyle::Ags => false,
            GoneStyle::E2b => true,
        };
        match refusal {
            Refusal::Unauthorized => unauthorized(),
            Refusal::Gone | Refusal::NotRunning if e2b_style => {
                problem(StatusCode::BAD_GATEWAY, target, "The sandbox was not found")
            }
            Refusal::Gone => problem(StatusCode::NOT_FOUND, target, "The sandbox was not found"),
            Refusal::NotRunning => problem(StatusCode::CONFLICT, target, "The sandbox is not running"),
        }
    }

    async fn forward(
        &self,
        target: &Target,
        host: String,
        mut request: Request<Incoming>,
        links: CancellationToken,
    ) -> Answer {
        let traffic_header = self.cloud.tunables().traffic_header;
        let client_side = wants_upgrade(request.headers()).then(|| hyper::upgrade::on(&mut request));
        let Ok(outgoing) = rewrite(target, &host, request, client_side.is_some(), &traffic_header) else {
            return Ok(problem(StatusCode::BAD_REQUEST, target, "the request cannot be forwarded"));
        };
        let sent = tokio::select! {
            sent = self.client.request(outgoing) => sent,
            () = links.cancelled() => return Ok(self.refused(target, Refusal::Gone)),
        };
        let mut response = match sent {
            Ok(response) => response,
            Err(error) => return Ok(self.unreachable(target, &error)),
        };
        if response.status() == StatusCode::SWITCHING_PROTOCOLS {
            if let Some(client_side) = client_side {
                self.tunnel(client_side, hyper::upgrade::on(&mut response), links);
                return Ok(response.map(|_| body::full("")));
            }
            return Ok(problem(StatusCode::BAD_GATEWAY, target, "The port switched protocols unasked"));
        }
        strip_hop_by_hop(response.headers_mut());
        Ok(response.map(|incoming| body::linked(incoming.map_err(Broken::Upstream).boxed_unsync(), &links)))
    }

    fn unreachable(&self, target: &Target, error: &legacy::Error) -> Response<Body> {
        match dial_error(error) {
            Some(io::ErrorKind::ConnectionRefused) => {
                problem(StatusCode::BAD_GATEWAY, target, "The sandbox is running but port is not open")
            }
            Some(io::ErrorKind::NotConnected) => self.refused(target, Refusal::Gone),
            _ => {
                tracing::debug!(instance = %target.instance, port = target.port, ?error, "forwarding failed");
                problem(StatusCode::BAD_GATEWAY, target, "The port did not answer with HTTP")
            }
        }
    }

    fn tunnel(&self, client: hyper::upgrade::OnUpgrade, instance: hyper::upgrade::OnUpgrade, links: CancellationToken) {
        self.cloud.run(async move {
            let Ok((client, instance)) = tokio::try_join!(client, instance) else { return };
            let (mut client, mut instance) = (TokioIo::new(client), TokioIo::new(instance));
            tokio::select! {
                // Either side may break off at any time; both are closed then, and there is nobody to tell.
                _ = tokio::io::copy_bidirectional(&mut client, &mut instance) => {}
                () = links.cancelled() => {}
            }
        });
    }

    /// A GET on behalf of the emulator itself.
    pub async fn fetch(&self, instance: &str, port: u16, path: &str) -> Option<bytes::Bytes> {
        let request = Request::get(dial::address(instance, port, path).ok()?).body(body::full("")).ok()?;
        let response = self.client.request(request).await.ok()?;
        if !response.status().is_success() {
            return None;
        }
        Some(response.into_body().collect().await.ok()?.to_bytes())
    }
}

fn finish(response: Response<Body>, struck: &Struck) -> Answer {
    if struck.loses_response() {
        return Err(Broken::OnPurpose);
    }
    Ok(match struck.cut_after() {
        Some(bytes) => response.map(|body| body::cut_after(body, bytes)),
        None => response,
    })
}

fn rewrite(
    target: &Target,
    host: &str,
    request: Request<Incoming>,
    upgrade: bool,
    traffic_header: &str,
) -> Result<Request<Body>, http::Error> {
    let (mut parts, incoming) = request.into_parts();
    let path = parts.uri.path_and_query().map_or("/", |path| path.as_str());
    parts.uri = dial::address(&target.instance, target.port, path)?;
    parts.version = Version::HTTP_11;
    let protocol = parts.headers.get(header::UPGRADE).cloned();
    let trailers = options(&parts.headers, header::TE).any(|coding| coding == "trailers");
    strip_hop_by_hop(&mut parts.headers);
    if target.port != envd::PORT {
        // The edge's own tokens end here (PROTOCOLS C.3); envd looks at its token itself.
        parts.headers.remove("x-access-token");
        parts.headers.remove(traffic_header);
    }
    if trailers {
        parts.headers.insert(header::CONNECTION, header::HeaderValue::from_static("te"));
        parts.headers.insert(header::TE, header::HeaderValue::from_static("trailers"));
    }
    if let Some(protocol) = protocol.filter(|_| upgrade) {
        parts.headers.insert(header::CONNECTION, header::HeaderValue::from_static("upgrade"));
        parts.headers.insert(header::UPGRADE, protocol);
    }
    if !parts.headers.contains_key(header::HOST) {
        parts.headers.insert(header::HOST, host.parse()?);
    }
    let waits = parts.headers.contains_key(header::EXPECT) && !incoming.is_end_stream();
    let request = Request::from_parts(parts, incoming.map_err(Broken::Upstream).boxed_unsync());
    Ok(if waits { expect::hold_back(request) } else { request })
}

fn wants_upgrade(headers: &HeaderMap) -> bool {
    headers.contains_key(header::UPGRADE) && options(headers, header::CONNECTION).any(|option| option == "upgrade")
}

/// The members of a header that is a list of names.
fn options(headers: &HeaderMap, name: HeaderName) -> impl Iterator<Item = String> {
    headers
        .get_all(name)
        .iter()
        .filter_map(|value| value.to_str().ok())
        .flat_map(|value| value.split(','))
        .map(|option| option.trim().to_ascii_lowercase())
}

fn strip_hop_by_hop(headers: &mut HeaderMap) {
    for option in options(headers, header::CONNECTION).collect::<Vec<_>>() {
        headers.remove(option);
    }
    for name in &HOP_BY_HOP {
        headers.remove(name);
    }
}

fn dial_error(error: &legacy::Error) -> Option<io::ErrorKind> {
    let mut cause = error.source().filter(|_| error.is_connect());
    while let Some(error) = cause {
        if let Some(error) = error.downcast_ref::<io::Error>() {
            return Some(error.kind());
        }
        cause = error.source();
    }
    None
}

/// An error in the shape of the E2B edge, which AGS clients do not read beyond its status.
fn problem(status: StatusCode, target: &Target, message: &str) -> Response<Body> {
    let value = json!({
        "sandboxId": target.instance,
        "port": target.port,
        "message": message,
        "code": status.as_u16(),
    });
    body::json(status, &value)
}

/// The answer to a bad token, byte for byte that of envd (PROTOCOLS D.2).
fn unauthorized() -> Response<Body> {
    const TEXT: &str = r#"{"code":401,"message":"unauthorized access, please provide a valid access token or method signing if supported"}"#;
    body::respond(StatusCode::UNAUTHORIZED, "application/json; charset=utf-8", TEXT)
}

/// What a fault rule's error code is on a plane without error codes.
pub fn fault_status(code: &str, message: &str) -> Response<Body> {
    let status = match code {
        "RequestLimitExceeded" => StatusCode::TOO_MANY_REQUESTS,
        other => other.parse().unwrap_or(StatusCode::INTERNAL_SERVER_ERROR),
    };
    body::json(status, &json!({"code": status.as_u16(), "message": message}))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn hop_by_hop_headers_go_with_those_connection_names() {
        let mut headers = HeaderMap::new();
        for (name, value) in [
            ("connection", "close, X-Secret"),
            ("x-secret", "1"),
            ("te", "trailers"),
            ("transfer-encoding", "chunked"),
            ("x-kept", "1"),
        ] {
            headers.insert(HeaderName::from_static(name), value.parse().unwrap());
        }
        strip_hop_by_hop(&mut headers);
        assert_eq!(headers.keys().map(HeaderName::as_str).collect::<Vec<_>>(), ["x-kept"]);
    }

    #[test]
    fn an_upgrade_needs_both_headers() {
        let mut headers = HeaderMap::new();
        headers.insert(header::UPGRADE, "websocket".parse().unwrap());
        assert!(!wants_upgrade(&headers));
        headers.insert(header::CONNECTION, "keep-alive, Upgrade".parse().unwrap());
        assert!(wants_upgrade(&headers));
    }
}
