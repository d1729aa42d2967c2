//! Ports on hosts of their own: `{port}-{instance}.{sandbox_domain}`, for programs with a key and browsers with a preview.

use std::sync::Arc;

use axum::{
    body::Body,
    response::{IntoResponse, Redirect, Response},
};
use http::{HeaderMap, HeaderValue, Method, Request, header, uri::PathAndQuery};
use secrecy::ExposeSecret;

use super::{Call, Plane, page};
use crate::{
    app::{
        App,
        ports::{self, Visitor},
    },
    auth::{self, Recognised},
    domain::{
        port::{Port, SandboxHost},
        preview::Preview,
    },
    error::{Code, Error, Result},
    http::address::{Address, authority},
    ids::InstanceId,
    telemetry::request::RequestLog,
};

/// What a browser gets for a link. The prefix binds it to this very host and to TLS (RFC 6265bis, 4.1.3.2), or to
/// `*.localhost`, which Chromium trusts as much.
const COOKIE: &str = "__Host-ags-preview";
/// Without TLS browsers refuse the prefix anywhere else: a development setup of that kind goes without.
const COOKIE_WITHOUT_TLS: &str = "ags-preview";
/// The gateway's own cookies: no sandbox sees or sets them.
pub const COOKIES: [&str; 2] = [COOKIE, COOKIE_WITHOUT_TLS];
/// The query parameter of a link: on any path of the host.
pub const LINK: &str = "ags_preview";

/// Whose host a request names.
pub enum Place {
    Api,
    /// `api.{domain}`, where clients of E2B look for its API.
    E2b,
    Port(Port, InstanceId),
}

/// Reads the host, before anything else of the request counts.
///
/// # Errors
/// `invalid_request` when the request contradicts itself; `not_found` for a host below the domain that names no port.
pub fn place<B>(app: &App, request: &Request<B>) -> Result<Place> {
    let Some(domain) = &app.config.server.sandbox_domain else { return Ok(Place::Api) };
    let headers = request.headers();
    let hosts = headers.get_all(header::HOST);
    let named = authority(request.uri(), headers).unwrap_or_default();
    if hosts.iter().any(|host| !host.as_bytes().eq_ignore_ascii_case(named.as_bytes())) {
        return Err(Error::new(Code::InvalidRequest, "The request names two hosts."));
    }
    match SandboxHost::read(named, domain) {
        SandboxHost::Port(port, instance) => Ok(Place::Port(port, instance)),
        SandboxHost::Other => Ok(Place::Api),
        SandboxHost::Api if is_own(app, named) && is_own_path(request.uri().path()) => Ok(Place::Api),
        SandboxHost::Api => Ok(Place::E2b),
        SandboxHost::Unknown if is_own(app, named) => Ok(Place::Api),
        SandboxHost::Unknown => {
            let detail = format!("Hosts here are of the form {{port}}-{{instance}}.{domain}, with an instance's id.");
            Err(Error::new(Code::NotFound, detail))
        }
    }
}

/// Whether the API itself was put below the domain.
fn is_own(app: &App, named: &str) -> bool {
    let own = app.config.server.public_url.as_ref().and_then(|url| url.host_str());
    own.is_some_and(|own| named.split(':').next().is_some_and(|name| name.eq_ignore_ascii_case(own)))
}

/// Whether a path is one of the gateway's own API, not of E2B's: there is no other overlap.
#[must_use]
pub fn is_own_path(path: &str) -> bool {
    let first = path.split('/').nth(1).unwrap_or_default();
    matches!(first, "v1" | "docs" | "openapi.json" | "healthz" | "readyz" | "metrics" | "e2b")
}

/// Answers a request to a port's own host.
pub async fn answer(app: &App, port: Port, instance: InstanceId, request: Request<Body>) -> Response {
    let page = super::wants_page(&request);
    match handle(app, port, instance, request).await {
        Ok(response) => response,
        Err(error) if page => page::of(error),
        Err(error) => error.into_response(),
    }
}

async fn handle(app: &App, port: Port, instance: InstanceId, request: Request<Body>) -> Result<Response> {
    let address = Address::of(app, &request);
    if let Some((token, clean)) = link(&request) {
        // Boxed, like what else is rare: it does not make what is moved for each request larger.
        return Box::pin(exchange(app, port, &instance, request.headers(), &token, &clean, &address)).await;
    }
    let log = request.extensions().get::<RequestLog>().cloned();
    let (visitor, recognised) = match cookie(request.headers(), &address) {
        Some(cookie) if !auth::presents_key(request.headers()) => {
            let preview = Box::pin(ports::visit(app, &cookie)).await?;
            same_site(&request, &address)?;
            (Visitor::Preview(preview), None)
        }
        _ => {
            let Recognised { caller, header, believed_until } =
                app.auth.recognise(request.headers()).await.map_err(advised)?;
            (Visitor::Key(caller), Some((header, believed_until)))
        }
    };
    if let Some(log) = log {
        log.note(visitor.team(), visitor.key_id());
    }
    let target = request.uri().path_and_query().cloned().unwrap_or(PathAndQuery::from_static("/"));
    let (credential, believed_until) = recognised.unzip();
    let plane = Plane::Host;
    let call = Call { plane, instance, port, visitor, credential, believed_until, target, may_half_close: true };
    super::pass(app, call, request).await
}

/// People who come without a link are told how to get one.
fn advised(error: Error) -> Error {
    let inner = error.inner();
    let detail = format!("{} In a browser, open a link from POST /v1/instances/{{id}}/previews.", inner.detail);
    Error::new(inner.code, detail)
}

/// The preview's cookie.
fn cookie(headers: &HeaderMap, address: &Address) -> Option<String> {
    let name = cookie_name(address);
    let lines = headers.get_all(header::COOKIE).iter().filter_map(|line| line.to_str().ok());
    let mut pairs = lines.flat_map(|line| line.split(';')).filter_map(|pair| pair.split_once('='));
    pairs.find(|(key, _)| key.trim() == name).map(|(_, value)| value.trim().to_owned())
}

fn cookie_name(address: &Address) -> &'static str {
    if is_secure(address) { COOKIE } else { COOKIE_WITHOUT_TLS }
}

/// Whether browsers take `Secure` cookies from here.
fn is_secure(address: &Address) -> bool {
    let name = address.authority.split(':').next().unwrap_or_default().trim_end_matches('.');
    address.proto == "https" || name.to_ascii_lowercase().ends_with(".localhost")
}

/// The proof in a link, and the path and query without it.
fn link(request: &Request<Body>) -> Option<(String, String)> {
    let query = request.uri().query().filter(|query| query.contains(LINK))?;
    let own = |pair: &&str| pair.split_once('=').is_some_and(|(name, _)| name == LINK);
    let token = query.split('&').find(own)?.split_once('=')?.1.to_owned();
    if request.method() != Method::GET {
        return None;
    }
    let rest: Vec<&str> = query.split('&').filter(|pair| !own(pair)).collect();
    // One slash at the start: two would name another host.
    let path = format!("/{}", request.uri().path().trim_start_matches(['/', '\\']));
    let clean = if rest.is_empty() { path } else { format!("{path}?{}", rest.join("&")) };
    Some((token, clean))
}

/// Exchanges a link for a cookie and leads on to the path without it. A browser that has done so before is let through.
async fn exchange(
    app: &App,
    port: Port,
    instance: &InstanceId,
    headers: &HeaderMap,
    token: &str,
    clean: &str,
    address: &Address,
) -> Result<Response> {
    let opened = match (ports::open(app, token, instance, port).await, cookie(headers, address)) {
        (Ok(opened), _) => Some(opened),
        (Err(refused), Some(cookie)) => {
            let preview = ports::visit(app, &cookie).await.map_err(|_| refused)?;
            if !is_for(&preview, instance, port) {
                return Err(Error::new(Code::Unauthenticated, "This preview is for another port."));
            }
            None
        }
        (Err(refused), None) => return Err(refused),
    };
    let mut response = Redirect::to(clean).into_response();
    let headers = response.headers_mut();
    headers.insert(header::CACHE_CONTROL, HeaderValue::from_static("no-store"));
    headers.insert(header::REFERRER_POLICY, HeaderValue::from_static("no-referrer"));
    if let Some((preview, secret)) = opened {
        let left = (preview.expires_at - app.clock.now()).num_seconds().max(1);
        let secure = if is_secure(address) { "; Secure" } else { "" };
        let cookie = format!(
            "{}={}; Path=/; Max-Age={left}; HttpOnly; SameSite=Lax{secure}",
            cookie_name(address),
            secret.expose_secret(),
        );
        let mut value = HeaderValue::from_str(&cookie).map_err(Error::internal)?;
        value.set_sensitive(true);
        headers.insert(header::SET_COOKIE, value);
    }
    Ok(response)
}

fn is_for(preview: &Arc<Preview>, instance: &InstanceId, port: Port) -> bool {
    preview.instance_id == *instance && preview.port == port.get()
}

/// A browser sends the cookie whoever made it call, and other sandboxes count as the same site. Pages of this very host may;
/// others may only lead here.
fn same_site(request: &Request<Body>, address: &Address) -> Result<()> {
    let headers = request.headers();
    let text = |name: header::HeaderName| headers.get(name).and_then(|value| value.to_str().ok());
    let named = |name: &'static str| headers.get(name).and_then(|value| value.to_str().ok()).unwrap_or_default();
    let foreign = || {
        let detail = "Only pages of this very host may call it with a preview.";
        Err(Error::new(Code::OriginNotAllowed, detail))
    };
    let upgrades = headers.contains_key(header::UPGRADE) || request.method() == Method::CONNECT;
    match text(header::ORIGIN) {
        Some(origin) if origin.eq_ignore_ascii_case(&address.origin()) => return Ok(()),
        Some(_) => return foreign(),
        None if upgrades => return foreign(),
        None => {}
    }
    let elsewhere = matches!(named("sec-fetch-site"), "cross-site" | "same-site");
    let leads = named("sec-fetch-mode") == "navigate" && matches!(*request.method(), Method::GET | Method::HEAD);
    if elsewhere && !leads { foreign() } else { Ok(()) }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn get(uri: &str) -> Request<Body> {
        Request::get(uri).body(Body::empty()).unwrap()
    }

    #[test]
    fn a_link_is_taken_off_whatever_path_it_stands_on() {
        for (uri, clean) in [
            ("/?ags_preview=t", "/"),
            ("/a%20b?x=1&ags_preview=t&y=%2F", "/a%20b?x=1&y=%2F"),
            ("//evil.example?ags_preview=t", "/evil.example"),
        ] {
            assert_eq!(link(&get(uri)), Some(("t".to_owned(), clean.to_owned())), "{uri}");
        }
        for uri in ["/", "/?x=ags_preview", "/?my_ags_preview=t", "/ags_preview=t"] {
            assert_eq!(link(&get(uri)), None, "{uri}");
        }
    }

    #[test]
    fn cookies_are_bound_to_their_host_wherever_browsers_allow() {
        for (authority, proto, name) in [
            ("80-x.sandbox.example", "https", COOKIE),
            ("80-x.localhost:9000", "http", COOKIE),
            ("80-x.LOCALHOST.:9000", "http", COOKIE),
            ("80-x.sandbox.example", "http", COOKIE_WITHOUT_TLS),
            ("80-x.notlocalhost", "http", COOKIE_WITHOUT_TLS),
        ] {
            assert_eq!(cookie_name(&Address::at(authority, proto)), name, "{proto}://{authority}");
        }
    }

    #[test]
    fn a_preview_is_used_by_its_own_pages_only() {
        let address = Address::at("80-x.localhost:9000", "http");
        let asked = |pairs: &[(&str, &str)]| {
            let mut request = get("/");
            for (name, value) in pairs {
                request.headers_mut().insert(http::HeaderName::try_from(*name).unwrap(), value.parse().unwrap());
            }
            same_site(&request, &address).is_ok()
        };
        let own = "http://80-x.localhost:9000";
        assert!(asked(&[]));
        assert!(asked(&[("origin", own)]));
        assert!(asked(&[("upgrade", "websocket"), ("origin", own)]));
        assert!(asked(&[("sec-fetch-site", "same-origin"), ("sec-fetch-mode", "cors")]));
        assert!(asked(&[("sec-fetch-site", "cross-site"), ("sec-fetch-mode", "navigate")]));
        assert!(!asked(&[("sec-fetch-site", "same-site"), ("sec-fetch-mode", "no-cors")]));
        assert!(!asked(&[("upgrade", "websocket")]));
        for origin in ["http://81-x.localhost:9000", "http://80-x.localhost", "https://80-x.localhost:9000", "null"] {
            assert!(!asked(&[("origin", origin)]), "{origin}");
        }
    }
}
