//! How a client reached the gateway: by which name, under TLS or not, through which proxies.

use std::net::SocketAddr;

use axum::extract::{ConnectInfo, FromRequestParts};
use http::{Extensions, HeaderMap, HeaderName, Request, Uri, header, request::Parts};
use url::Url;

use super::{client_addr::through_trusted, front::UnderTls};
use crate::{app::App, error::Error};

pub const X_FORWARDED_PROTO: HeaderName = HeaderName::from_static("x-forwarded-proto");

/// How the client of a request reached the gateway.
pub struct Address {
    /// Host and port as the client wrote them.
    pub authority: String,
    /// `http` or `https`.
    pub proto: &'static str,
    pub peer: Option<SocketAddr>,
    /// The peer is a proxy of ours: what it says of the client is believed.
    pub trusted: bool,
}

impl Address {
    pub fn of<B>(app: &App, request: &Request<B>) -> Self {
        Self::seen(app, request.uri(), request.headers(), request.extensions())
    }

    fn seen(app: &App, uri: &Uri, headers: &HeaderMap, extensions: &Extensions) -> Self {
        let peer = extensions.get::<ConnectInfo<SocketAddr>>().map(|ConnectInfo(peer)| *peer);
        let trusted = peer.is_some_and(|peer| through_trusted(peer.ip(), &app.config.server.trusted_proxies));
        Self {
            authority: authority(uri, headers).unwrap_or_default().to_owned(),
            proto: proto(extensions, headers, trusted),
            peer,
            trusted,
        }
    }

    #[cfg(test)]
    pub fn at(authority: &str, proto: &'static str) -> Self {
        Self { authority: authority.to_owned(), proto, peer: None, trusted: false }
    }

    /// Scheme and authority, without a trailing slash.
    pub fn origin(&self) -> String {
        format!("{}://{}", self.proto, self.authority)
    }
}

/// Scheme of a request as the client sees it: TLS ends here, or at a trusted proxy, which says so.
fn proto(extensions: &Extensions, headers: &HeaderMap, trusted: bool) -> &'static str {
    let https = match headers.get(X_FORWARDED_PROTO).filter(|_| trusted) {
        Some(said) => said.as_bytes().eq_ignore_ascii_case(b"https"),
        None => extensions.get::<UnderTls>().is_some(),
    };
    if https { "https" } else { "http" }
}

/// Host and port that a request names: `:authority` (or the absolute form's), else `Host`.
pub fn authority<'a>(uri: &'a Uri, headers: &'a HeaderMap) -> Option<&'a str> {
    match uri.authority() {
        Some(authority) => Some(authority.as_str()),
        None => headers.get(header::HOST)?.to_str().ok(),
    }
}

/// The address to give to clients: as configured, else the one by which this client came.
pub struct OwnAddress(pub Url);

impl FromRequestParts<App> for OwnAddress {
    type Rejection = Error;

    async fn from_request_parts(parts: &mut Parts, app: &App) -> Result<Self, Error> {
        if let Some(configured) = &app.config.server.public_url {
            return Ok(Self(configured.clone()));
        }
        let origin = Address::seen(app, &parts.uri, &parts.headers, &parts.extensions).origin();
        let plain = Url::parse(&origin).ok().filter(|url| url.path() == "/" && url.has_host());
        Ok(Self(plain.unwrap_or_else(|| Url::parse("http://localhost/").expect("a constant URL"))))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn tls_ends_here_or_at_a_proxy_that_is_believed() {
        let mut under_tls = Extensions::new();
        under_tls.insert(UnderTls);
        let plain = Extensions::new();
        let said = |proto: &'static str| HeaderMap::from_iter([(X_FORWARDED_PROTO, proto.parse().unwrap())]);
        let nothing = HeaderMap::new();
        assert_eq!(proto(&plain, &nothing, false), "http");
        assert_eq!(proto(&under_tls, &nothing, false), "https");
        assert_eq!(proto(&plain, &said("https"), false), "http");
        assert_eq!(proto(&plain, &said("HTTPS"), true), "https");
        assert_eq!(proto(&under_tls, &said("http"), true), "http");
    }
}
