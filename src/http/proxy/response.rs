//! What an answer of a sandbox looks like to the client.

use http::{HeaderMap, HeaderName, HeaderValue, header};

use super::{
    Call, Plane,
    host::COOKIES,
    request::{is_hop_by_hop, named_by_connection},
};
use crate::{
    app::ports::Passage,
    http::{address::Address, request_log::REQUEST_ID},
};

/// On the API's origin nothing of a sandbox's may run, load, frame or be framed, whoever gets it to be shown.
static HARMLESS: [(HeaderName, &str); 5] = [
    (
        header::CONTENT_SECURITY_POLICY,
        "sandbox; default-src 'none'; frame-ancestors 'none'; base-uri 'none'; form-action 'none'",
    ),
    (header::X_CONTENT_TYPE_OPTIONS, "nosniff"),
    (header::X_FRAME_OPTIONS, "DENY"),
    (HeaderName::from_static("cross-origin-resource-policy"), "same-origin"),
    (header::CONTENT_DISPOSITION, "attachment"),
];

/// Rewrites an answer's head for the client.
pub fn prepare(headers: &mut HeaderMap, call: &Call, passage: &Passage, address: &Address) {
    let mut unfit = named_by_connection(headers);
    let path = matches!(call.plane, Plane::Path { .. });
    unfit.extend(headers.keys().filter(|name| is_unfit(name, path, passage)).cloned());
    for name in unfit {
        headers.remove(name);
    }
    for name in [header::LOCATION, header::CONTENT_LOCATION] {
        relocate(headers, name, call, passage, address);
    }
    if path { make_harmless(headers) } else { own_cookies(headers) }
}

/// What becomes of a field of an answer's head, where it can be said of that field alone.
pub enum Fate {
    Passes,
    Goes,
    /// It takes [`prepare`], and all of the head.
    Unsaid,
}

/// What [`prepare`] makes of a field. The body's length is told by whoever writes the answer, its request id by the gateway.
pub fn fate(name: &HeaderName, value: &[u8], call: &Call, passage: &Passage) -> Fate {
    let path = matches!(call.plane, Plane::Path { .. });
    match *name {
        header::LOCATION | header::CONTENT_LOCATION | header::SET_COOKIE | header::CONTENT_DISPOSITION => Fate::Unsaid,
        header::CONNECTION if !is_plain_option(value) => Fate::Unsaid,
        header::CONTENT_LENGTH => Fate::Goes,
        _ if *name == REQUEST_ID || is_unfit(name, path, passage) => Fate::Goes,
        _ => Fate::Passes,
    }
}

/// Whether a field of a server's answer is not for its client, whatever else is in the head.
fn is_unfit(name: &HeaderName, path: bool, passage: &Passage) -> bool {
    is_hop_by_hop(name)
        // It would send browsers elsewhere for a host that is the gateway's.
        || *name == header::ALT_SVC
        || passage.destination.is_token(name)
        || (path && speaks_for_origin(name))
}

/// Whether `Connection` names no other field: of these names there is none.
fn is_plain_option(value: &[u8]) -> bool {
    value.eq_ignore_ascii_case(b"keep-alive") || value.eq_ignore_ascii_case(b"close")
}

/// What is added to an answer without a `Content-Disposition`.
pub fn added(call: &Call) -> &'static [(HeaderName, &'static str)] {
    if matches!(call.plane, Plane::Path { .. }) { &HARMLESS } else { &[] }
}

/// Headers with which an answer speaks for its whole origin: on the API's, a sandbox does not.
fn speaks_for_origin(name: &HeaderName) -> bool {
    let name = name.as_str();
    name.starts_with("access-control-")
        || matches!(
            name,
            "set-cookie"
                | "set-cookie2"
                | "clear-site-data"
                | "strict-transport-security"
                | "public-key-pins"
                | "service-worker-allowed"
                | "report-to"
                | "reporting-endpoints"
                | "nel"
                | "origin-agent-cluster"
                | "accept-ch"
                | "critical-ch"
                | "refresh"
                | "content-security-policy"
                | "content-security-policy-report-only"
                | "x-frame-options"
                | "x-content-type-options"
                | "cross-origin-resource-policy"
                | "speculation-rules"
                | "sourcemap"
                | "x-request-id"
        )
}

fn make_harmless(headers: &mut HeaderMap) {
    let attached =
        |value: &HeaderValue| value.as_bytes().get(..10).is_some_and(|kind| kind.eq_ignore_ascii_case(b"attachment"));
    let attached = headers.get(header::CONTENT_DISPOSITION).is_some_and(attached);
    for (name, value) in &HARMLESS {
        if *name != header::CONTENT_DISPOSITION || !attached {
            headers.insert(name, HeaderValue::from_static(value));
        }
    }
}

/// Cookies of a port are its own host's: a `Domain` would hand them to other sandboxes, and the preview's is the gateway's.
fn own_cookies(headers: &mut HeaderMap) {
    if !headers.contains_key(header::SET_COOKIE) {
        return;
    }
    let set: Vec<HeaderValue> = headers.get_all(header::SET_COOKIE).iter().cloned().collect();
    headers.remove(header::SET_COOKIE);
    for cookie in set {
        let kept = without_domain(cookie.as_bytes());
        if let Some(value) = kept.and_then(|kept| HeaderValue::from_bytes(&kept).ok()) {
            headers.append(header::SET_COOKIE, value);
        }
    }
}

/// `None` for a cookie of the gateway's name.
fn without_domain(cookie: &[u8]) -> Option<Vec<u8>> {
    let mut parts = cookie.split(|byte| *byte == b';');
    let pair = parts.next().unwrap_or_default();
    let name = pair.split(|byte| *byte == b'=').next().unwrap_or_default().trim_ascii();
    if COOKIES.iter().any(|own| name.eq_ignore_ascii_case(own.as_bytes())) {
        return None;
    }
    let is_domain = |part: &&[u8]| {
        part.split(|byte| *byte == b'=').next().unwrap_or_default().trim_ascii().eq_ignore_ascii_case(b"domain")
    };
    let kept: Vec<&[u8]> = std::iter::once(pair).chain(parts.filter(|part| !is_domain(part))).collect();
    Some(kept.join(&b";"[..]))
}

/// Redirects that name the cloud's host, or a path of the server's own, lead back to where the client is.
fn relocate(headers: &mut HeaderMap, name: HeaderName, call: &Call, passage: &Passage, address: &Address) {
    let Some(location) = headers.get(&name).and_then(|value| value.to_str().ok()) else { return };
    let Some(host) = passage.destination.authority(call.port) else { return };
    let Some(location) = relocated(location, &host, &call.plane, address) else { return };
    if let Ok(value) = HeaderValue::from_str(&location) {
        headers.insert(name, value);
    }
}

fn relocated(location: &str, host: &str, plane: &Plane, address: &Address) -> Option<String> {
    let own = below(location, host);
    match plane {
        // Absolute, so that `//x` in it stays a path.
        Plane::Host => own.map(|rest| format!("{}{}", address.origin(), rooted(rest))),
        Plane::Path { prefix } => {
            let rest = own.or_else(|| Some(location).filter(|path| path.starts_with('/') && !path.starts_with("//")));
            rest.map(|rest| format!("{prefix}{}", rooted(rest)))
        }
    }
}

/// What follows `host` in an absolute URL of it.
fn below<'a>(location: &'a str, host: &str) -> Option<&'a str> {
    let rest = location.split_once("://").filter(|(scheme, _)| matches!(*scheme, "http" | "https"))?.1;
    let end = rest.find(['/', '?', '#']).unwrap_or(rest.len());
    let (authority, path) = rest.split_at(end);
    let bare = |text: &str| text.trim_end_matches(":443").trim_end_matches(":80").to_ascii_lowercase();
    (bare(authority) == bare(host)).then_some(path)
}

fn rooted(rest: &str) -> String {
    if rest.starts_with('/') { rest.to_owned() } else { format!("/{rest}") }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn cookies_lose_their_domain_and_nothing_else() {
        let kept = |cookie: &str| without_domain(cookie.as_bytes()).map(|kept| String::from_utf8(kept).unwrap());
        for (cookie, expected) in [
            ("a=b", Some("a=b")),
            ("a=domain=x; Path=/; Domain=.example.com; HttpOnly", Some("a=domain=x; Path=/; HttpOnly")),
            ("a=b;DOMAIN = example.com", Some("a=b")),
            ("domain=x; domain; Secure", Some("domain=x; Secure")),
            ("__Host-ags-preview=stolen; Path=/; Secure", None),
            (" ags-preview =x", None),
        ] {
            assert_eq!(kept(cookie).as_deref(), expected, "{cookie}");
        }
    }

    fn address() -> Address {
        Address::at("8080-ins1.sandbox.example", "https")
    }

    #[test]
    fn redirects_lead_back_to_where_the_client_is() {
        let host = "8080-up1.cloud.example";
        let on_host = |location: &str| relocated(location, host, &Plane::Host, &address());
        assert_eq!(on_host("http://8080-up1.cloud.example/a?b#c").unwrap(), "https://8080-ins1.sandbox.example/a?b#c");
        assert_eq!(on_host("https://8080-UP1.cloud.example:443").unwrap(), "https://8080-ins1.sandbox.example/");
        assert_eq!(
            on_host("http://8080-up1.cloud.example//evil.example").unwrap(),
            "https://8080-ins1.sandbox.example//evil.example"
        );
        for other in
            ["/a", "a", "https://elsewhere.example/", "//elsewhere.example", "http://8080-up1.cloud.example.evil/"]
        {
            assert_eq!(on_host(other), None, "{other}");
        }
        let plane = Plane::Path { prefix: "/v1/instances/ins1/ports/8080".into() };
        let on_path = |location: &str| relocated(location, host, &plane, &address());
        assert_eq!(on_path("/a?b").unwrap(), "/v1/instances/ins1/ports/8080/a?b");
        assert_eq!(on_path("http://8080-up1.cloud.example?x").unwrap(), "/v1/instances/ins1/ports/8080/?x");
        for other in ["a", "//elsewhere.example/", "https://elsewhere.example/"] {
            assert_eq!(on_path(other), None, "{other}");
        }
    }
}
