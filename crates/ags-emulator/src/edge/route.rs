//! Where a request belongs: Host first, then headers, then the path (PROTOCOLS C.1, D.11, F.9).

use http::HeaderMap;

use crate::envd;

/// How the instance was named.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Style {
    /// `{port}-{instance}.{domain}`
    Host,
    /// `E2b-Sandbox-Id` and `E2b-Sandbox-Port`
    Header,
}

/// A port of an instance.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Target {
    pub instance: String,
    pub port: u16,
    pub style: Style,
}

/// Who answers.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Route {
    Data(Target),
    E2b,
    Control,
    /// 404: a host below the domain that means nothing.
    UnknownHost,
    /// 400: what is missing or malformed.
    Bad(&'static str),
}

const E2B_PATHS: [&str; 8] =
    ["/sandboxes", "/v2/sandboxes", "/templates", "/v2/templates", "/v3/templates", "/snapshots", "/volumes", "/teams"];

/// Decides by `Host` (or `:authority`), headers and path.
pub fn route(host: &str, headers: &HeaderMap, path: &str, domain: &str) -> Route {
    let name = without_port(host).to_ascii_lowercase();
    if let Some(label) = name.strip_suffix(domain).and_then(|rest| rest.strip_suffix('.')) {
        return match label {
            "api" => Route::E2b,
            "sandbox" => by_header(headers),
            _ => by_label(label),
        };
    }
    let names_sandbox = headers.contains_key("e2b-sandbox-id") || headers.contains_key("e2b-sandbox-port");
    if is_e2b_path(path) && (!names_sandbox || is_e2b_call(headers)) {
        return Route::E2b;
    }
    if names_sandbox {
        return by_header(headers);
    }
    if path == "/" { Route::Control } else { Route::Bad("missing header E2b-Sandbox-Id") }
}

fn without_port(host: &str) -> &str {
    match host.rsplit_once(':') {
        Some((name, port)) if port.bytes().all(|b| b.is_ascii_digit()) => name,
        _ => host,
    }
}

fn by_label(label: &str) -> Route {
    let target = label.split_once('-').and_then(|(port, instance)| target(port, instance, Style::Host));
    target.map_or(Route::UnknownHost, Route::Data)
}

fn by_header(headers: &HeaderMap) -> Route {
    let text = |name: &str| headers.get(name).and_then(|value| value.to_str().ok());
    match (text("e2b-sandbox-id"), text("e2b-sandbox-port")) {
        (None, _) => Route::Bad("missing header E2b-Sandbox-Id"),
        (_, None) => Route::Bad("missing header E2b-Sandbox-Port"),
        (Some(id), Some(port)) => target(port, id, Style::Header)
            .map_or(Route::Bad("malformed E2b-Sandbox-Id or E2b-Sandbox-Port"), Route::Data),
    }
}

fn target(port: &str, instance: &str, style: Style) -> Option<Target> {
    let digits = port.bytes().all(|b| b.is_ascii_digit());
    let port = port.parse().ok().filter(|port| digits && *port > 0)?;
    let plain = !instance.is_empty() && instance.bytes().all(|b| b.is_ascii_alphanumeric());
    plain.then(|| Target { instance: instance.to_owned(), port, style })
}

/// SDKs of 2025 send the sandbox headers, with envd's port, on connect too; envd has no such path.
fn is_e2b_call(headers: &HeaderMap) -> bool {
    let envd_port = headers.get("e2b-sandbox-port").and_then(|port| port.to_str().ok()?.parse().ok());
    headers.contains_key("x-api-key") && envd_port == Some(envd::PORT)
}

fn is_e2b_path(path: &str) -> bool {
    E2B_PATHS
        .iter()
        .any(|prefix| path.strip_prefix(prefix).is_some_and(|rest| rest.is_empty() || rest.starts_with('/')))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn headers(pairs: &[(&'static str, &'static str)]) -> HeaderMap {
        pairs.iter().map(|(n, v)| (n.parse().unwrap(), v.parse().unwrap())).collect()
    }

    fn on(host: &str, pairs: &[(&'static str, &'static str)], path: &str) -> Route {
        route(host, &headers(pairs), path, "ags.localhost")
    }

    fn data(instance: &str, port: u16, style: Style) -> Route {
        Route::Data(Target { instance: instance.into(), port, style })
    }

    #[test]
    fn hosts_win() {
        assert_eq!(on("49983-abc.ags.localhost:80", &[], "/health"), data("abc", 49983, Style::Host));
        let named = [("e2b-sandbox-id", "other"), ("e2b-sandbox-port", "1")];
        assert_eq!(on("8000-abc.AGS.localhost", &named, "/"), data("abc", 8000, Style::Host));
        assert_eq!(on("api.ags.localhost", &[], "/sandboxes"), Route::E2b);
        for host in [
            "x.ags.localhost",
            "0-abc.ags.localhost",
            "70000-abc.ags.localhost",
            "1-.ags.localhost",
            "+1-a.ags.localhost",
        ] {
            assert_eq!(on(host, &[], "/"), Route::UnknownHost, "{host}");
        }
    }

    #[test]
    fn headers_come_second() {
        let named = [("e2b-sandbox-id", "abc"), ("e2b-sandbox-port", "49983")];
        for host in ["127.0.0.1:3", "localhost", "[::1]:80", "emulator:8080", "sandbox.ags.localhost"] {
            assert_eq!(on(host, &named, "/sandboxes"), data("abc", 49983, Style::Header), "{host}");
        }
        assert!(matches!(on("localhost", &named[..1], "/"), Route::Bad(text) if text.ends_with("Port")));
        assert!(matches!(on("localhost", &named[1..], "/"), Route::Bad(text) if text.ends_with("Id")));
    }

    #[test]
    fn an_older_sdk_names_the_sandbox_when_it_connects() {
        let named = [("e2b-sandbox-id", "abc"), ("e2b-sandbox-port", "49983"), ("x-api-key", "k")];
        assert_eq!(on("127.0.0.1:3", &named, "/sandboxes/abc/connect"), Route::E2b);
        assert_eq!(on("127.0.0.1:3", &named, "/files"), data("abc", 49983, Style::Header));
        let other_port = [("e2b-sandbox-id", "abc"), ("e2b-sandbox-port", "8000"), ("x-api-key", "k")];
        assert_eq!(on("127.0.0.1:3", &other_port, "/sandboxes"), data("abc", 8000, Style::Header));
    }

    #[test]
    fn paths_come_last() {
        assert_eq!(on("127.0.0.1:3", &[], "/"), Route::Control);
        assert_eq!(on("127.0.0.1:3", &[], "/v2/sandboxes/x/connect"), Route::E2b);
        assert!(matches!(on("127.0.0.1:3", &[], "/sandboxesx"), Route::Bad(_)));
        assert!(matches!(on("127.0.0.1:3", &[], "/files"), Route::Bad(_)));
    }
}
