//! What a request looks like to the server in the sandbox.

use axum::body::Body;
use base64::{Engine, prelude::BASE64_STANDARD};
use http::{HeaderMap, HeaderName, HeaderValue, Method, Request, Uri, Version, header, request::Parts};
use hyper::{ext::Protocol, upgrade::OnUpgrade};
use rand::Rng;

use super::{Call, Plane, body::Gate, host::COOKIES};
use crate::{
    app::ports::Passage,
    error::{Code, Error, Result},
    http::{
        address::{Address, X_FORWARDED_PROTO},
        client_io::SendingSide,
    },
};

const X_FORWARDED_FOR: HeaderName = HeaderName::from_static("x-forwarded-for");
const X_FORWARDED_HOST: HeaderName = HeaderName::from_static("x-forwarded-host");
const X_FORWARDED_PREFIX: HeaderName = HeaderName::from_static("x-forwarded-prefix");
const WEBSOCKET_KEY_BYTES: usize = 16;

/// A client's wish to leave HTTP behind on its connection.
pub struct Upgrade {
    pub client: OnUpgrade,
    protocol: HeaderValue,
    /// HTTP/2 opens a tunnel with CONNECT (RFC 8441) and is answered with 200; HTTP/1.1 with GET and 101.
    pub extended_connect: bool,
    /// Of the client's connection.
    pub side: Option<SendingSide>,
}

impl Upgrade {
    /// The upgrade that a request asks for.
    ///
    /// # Errors
    /// `method_not_allowed` for a plain CONNECT: this is no open proxy.
    pub fn of(request: &mut Request<Body>) -> Result<Option<Self>> {
        let side = request.extensions().get::<SendingSide>().cloned();
        if request.method() == Method::CONNECT {
            let protocol = request.extensions().get::<Protocol>().and_then(|name| name.as_str().parse().ok());
            let detail = "CONNECT opens WebSockets over HTTP/2 here (with `:protocol`), and nothing else.";
            let protocol = protocol.ok_or_else(|| Error::new(Code::MethodNotAllowed, detail))?;
            return Ok(Some(Self { client: hyper::upgrade::on(request), protocol, extended_connect: true, side }));
        }
        let headers = request.headers();
        let Some(protocol) = headers.get(header::UPGRADE).filter(|_| request.version() == Version::HTTP_11) else {
            return Ok(None);
        };
        // Offers of HTTP/2 concern this connection alone and may be ignored (RFC 9113, 3.1).
        let own = protocol.as_bytes().eq_ignore_ascii_case(b"h2c");
        if own || !connection_options(headers).any(|option| option.eq_ignore_ascii_case("upgrade")) {
            return Ok(None);
        }
        let protocol = protocol.clone();
        Ok(Some(Self { client: hyper::upgrade::on(request), protocol, extended_connect: false, side }))
    }
}

/// Rewrites a request's head for the sandbox. Answers a gate for the body if the client waits for `100 Continue`.
pub fn prepare(
    parts: &mut Parts,
    call: &Call,
    passage: &Passage,
    address: &Address,
    upgrade: Option<&Upgrade>,
) -> Option<Gate> {
    let headers = &mut parts.headers;
    let waits = expects_continue(headers);
    let trailers = takes_trailers(headers);
    remove_unfit(headers, call, address.trusted);
    one_cookie_header(headers);
    forwarded(headers, call, address);
    same_origin(headers, call, passage, address);
    if trailers {
        headers.insert(header::TE, HeaderValue::from_static("trailers"));
        headers.insert(header::CONNECTION, HeaderValue::from_static("te"));
    }
    if waits {
        headers.insert(header::EXPECT, HeaderValue::from_static("100-continue"));
    }
    if let Some(upgrade) = upgrade {
        ask_for_upgrade(parts, upgrade);
    }
    passage.destination.add_tokens(call.port, &mut parts.headers);
    parts.uri = Uri::from(call.target.clone());
    // What this server noted of the request is not for the client's connection.
    parts.extensions.clear();
    waits.then(Gate::new)
}

fn ask_for_upgrade(parts: &mut Parts, upgrade: &Upgrade) {
    let headers = &mut parts.headers;
    headers.insert(header::CONNECTION, HeaderValue::from_static("upgrade"));
    headers.insert(header::UPGRADE, upgrade.protocol.clone());
    if upgrade.extended_connect {
        parts.method = Method::GET;
        if upgrade.protocol.as_bytes().eq_ignore_ascii_case(b"websocket") {
            let mut key = [0_u8; WEBSOCKET_KEY_BYTES];
            rand::rng().fill_bytes(&mut key);
            if let Ok(key) = HeaderValue::from_str(&BASE64_STANDARD.encode(key)) {
                headers.insert(header::SEC_WEBSOCKET_KEY, key);
            }
        }
    }
}

/// The options that `Connection` names.
pub fn connection_options(headers: &HeaderMap) -> impl Iterator<Item = &str> {
    let lines = headers.get_all(header::CONNECTION).iter().filter_map(|value| value.to_str().ok());
    lines.flat_map(|line| line.split(',')).map(str::trim).filter(|option| !option.is_empty())
}

/// Whether a header is about one connection only (RFC 9110, 7.6.1). `Trailer` is not: the next hop needs it.
pub fn is_hop_by_hop(name: &HeaderName) -> bool {
    matches!(
        name.as_str(),
        "connection"
            | "keep-alive"
            | "proxy-authenticate"
            | "proxy-authorization"
            | "proxy-connection"
            | "te"
            | "transfer-encoding"
            | "upgrade"
            | "http2-settings"
    )
}

/// The headers that `Connection` makes hop-by-hop. A client cannot have what the gateway itself adds or needs removed so.
pub fn named_by_connection(headers: &HeaderMap) -> Vec<HeaderName> {
    if !headers.contains_key(header::CONNECTION) {
        return Vec::new();
    }
    connection_options(headers).filter_map(|option| option.parse().ok()).collect()
}

fn remove_unfit(headers: &mut HeaderMap, call: &Call, trusted: bool) {
    let mut unfit = named_by_connection(headers);
    let path = matches!(call.plane, Plane::Path { .. });
    unfit.extend(headers.keys().filter(|name| is_unfit(name, path, trusted)).cloned());
    unfit.extend(call.credential.clone());
    for name in unfit {
        headers.remove(name);
    }
    if !path {
        remove_own_cookies(headers);
    }
}

fn is_unfit(name: &HeaderName, path: bool, trusted: bool) -> bool {
    if is_hop_by_hop(name) {
        return true;
    }
    match name.as_str() {
        "host" | "expect" => true,
        // Cookies of the API's origin are none of a sandbox's business.
        "cookie" => path,
        // Who the client is, is said by the gateway: one spelling, so that no server believes another.
        "forwarded" | "x-real-ip" | "x-forwarded-port" | "x-forwarded-server" | "x-forwarded-prefix"
        | "x-forwarded-for" | "x-forwarded-host" | "x-forwarded-proto" => !trusted,
        _ => false,
    }
}

fn expects_continue(headers: &HeaderMap) -> bool {
    headers.get(header::EXPECT).is_some_and(|value| value.as_bytes().eq_ignore_ascii_case(b"100-continue"))
}

fn takes_trailers(headers: &HeaderMap) -> bool {
    let lines = headers.get_all(header::TE).iter().filter_map(|value| value.to_str().ok());
    lines.flat_map(|line| line.split(',')).any(|coding| coding.trim().eq_ignore_ascii_case("trailers"))
}

fn remove_own_cookies(headers: &mut HeaderMap) {
    let own = |value: &HeaderValue| COOKIES.iter().any(|name| contains(value.as_bytes(), name.as_bytes()));
    if !headers.get_all(header::COOKIE).iter().any(own) {
        return;
    }
    let lines: Vec<HeaderValue> = headers.get_all(header::COOKIE).iter().cloned().collect();
    headers.remove(header::COOKIE);
    for line in lines {
        let kept = without_own(line.as_bytes());
        if let Some(line) = HeaderValue::from_bytes(&kept).ok().filter(|line| !line.is_empty()) {
            headers.append(header::COOKIE, line);
        }
    }
}

fn without_own(line: &[u8]) -> Vec<u8> {
    let name_of = |pair: &[u8]| pair.split(|byte| *byte == b'=').next().unwrap_or_default().trim_ascii().to_vec();
    let kept =
        line.split(|byte| *byte == b';').filter(|pair| !COOKIES.iter().any(|own| name_of(pair) == own.as_bytes()));
    kept.map(<[u8]>::trim_ascii).collect::<Vec<_>>().join(&b"; "[..])
}

fn contains(line: &[u8], name: &[u8]) -> bool {
    line.windows(name.len()).any(|window| window == name)
}

/// HTTP/2 may split cookies over several headers, HTTP/1.1 must not (RFC 9113, 8.2.3).
fn one_cookie_header(headers: &mut HeaderMap) {
    let mut lines = headers.get_all(header::COOKIE).iter();
    let (Some(first), Some(second)) = (lines.next(), lines.next()) else { return };
    let rest = lines.map(HeaderValue::as_bytes);
    let all: Vec<&[u8]> = [first.as_bytes(), second.as_bytes()].into_iter().chain(rest).collect();
    if let Ok(joined) = HeaderValue::from_bytes(&all.join(&b"; "[..])) {
        headers.insert(header::COOKIE, joined);
    }
}

fn forwarded(headers: &mut HeaderMap, call: &Call, address: &Address) {
    if let Some(peer) = address.peer {
        let peer = peer.ip().to_canonical();
        // From a trusted proxy the list goes on; from anybody else it starts here.
        let before = headers.get_all(X_FORWARDED_FOR).iter().filter_map(|line| line.to_str().ok());
        let mut hops = before.collect::<Vec<_>>().join(", ");
        if !hops.is_empty() {
            hops.push_str(", ");
        }
        hops.push_str(&peer.to_string());
        if let Ok(hops) = HeaderValue::from_str(&hops) {
            headers.insert(X_FORWARDED_FOR, hops);
        }
    }
    headers.insert(X_FORWARDED_PROTO, HeaderValue::from_static(address.proto));
    if !headers.contains_key(X_FORWARDED_HOST)
        && let Ok(host) = HeaderValue::from_str(&address.authority)
    {
        headers.insert(X_FORWARDED_HOST, host);
    }
    if let Plane::Path { prefix } = &call.plane
        && !prefix.is_empty()
        && let Ok(prefix) = HeaderValue::from_str(prefix)
    {
        headers.insert(X_FORWARDED_PREFIX, prefix);
    }
}

/// Servers compare `Origin` with `Host` or with `X-Forwarded-Host`. `Host` is the cloud's name for the port, so that a page
/// of this very host would look foreign: for its requests all three name the cloud's host.
fn same_origin(headers: &mut HeaderMap, call: &Call, passage: &Passage, address: &Address) {
    let Some(origin) = headers.get(header::ORIGIN) else { return };
    if matches!(call.plane, Plane::Path { .. }) || !origin.as_bytes().eq_ignore_ascii_case(address.origin().as_bytes())
    {
        return;
    }
    let Some(host) = passage.destination.authority(call.port) else { return };
    let origin = HeaderValue::from_str(&format!("{}://{host}", address.proto));
    if let (Ok(origin), Ok(host)) = (origin, HeaderValue::from_str(&host)) {
        headers.insert(header::ORIGIN, origin);
        headers.insert(X_FORWARDED_HOST, host);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn the_previews_cookie_goes_and_the_others_stay() {
        for (line, kept) in [
            ("a=1; __Host-ags-preview=x; b=2", "a=1; b=2"),
            ("ags-preview=x", ""),
            ("__Host-ags-preview=x;a=1", "a=1"),
            ("my-ags-preview=x; a=\"ags-preview=1\"", "my-ags-preview=x; a=\"ags-preview=1\""),
        ] {
            assert_eq!(String::from_utf8(without_own(line.as_bytes())).unwrap(), kept, "{line}");
        }
    }

    #[test]
    fn split_cookies_are_one_header_again() {
        let mut headers = HeaderMap::new();
        for line in ["a=1", "b=2", "c=3"] {
            headers.append(header::COOKIE, line.parse().unwrap());
        }
        one_cookie_header(&mut headers);
        assert_eq!(headers.get_all(header::COOKIE).iter().collect::<Vec<_>>(), ["a=1; b=2; c=3"]);
    }

    #[test]
    fn connection_names_what_goes_no_further() {
        let mut headers = HeaderMap::new();
        headers.append(header::CONNECTION, "close, X-Secret".parse().unwrap());
        headers.append(header::CONNECTION, "upgrade,,".parse().unwrap());
        let named: Vec<String> = named_by_connection(&headers).iter().map(ToString::to_string).collect();
        assert_eq!(named, ["close", "x-secret", "upgrade"]);
    }

    proptest! {
        #[test]
        fn no_spelling_of_cookies_smuggles_ours(line in "[ -~]{0,60}", at in 0_usize..8) {
            let mut pairs: Vec<&str> = line.split(';').collect();
            let at = at.min(pairs.len());
            pairs.insert(at, " __Host-ags-preview=secret ");
            let kept = without_own(pairs.join(";").as_bytes());
            prop_assert!(!contains(&kept, b"__Host-ags-preview=secret") || line.contains("__Host-ags-preview"));
        }
    }
}
