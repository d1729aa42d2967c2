//! `[server]`: listeners, what browsers and proxies may do, limits of requests.

use std::net::{Ipv4Addr, SocketAddr};
use std::path::PathBuf;
use std::str::FromStr;
use std::time::Duration;

use url::Url;

use super::parse::Cidr;
use super::section::Section;

#[derive(Clone, Debug)]
pub struct Server {
    pub listen: SocketAddr,
    /// A second listener for `/metrics`; without it they are on the API and need a key.
    pub metrics_listen: Option<SocketAddr>,
    /// HTTPS, beside `listen`.
    pub tls: Option<Tls>,
    /// How clients reach the API, without a trailing slash; the request's own address when absent.
    pub public_url: Option<Url>,
    /// How other replicas reach this one; the address it listens on when absent and that is a particular one.
    pub replica_url: Option<Url>,
    /// Ports of sandboxes are served at `{port}-{instance}.<sandbox_domain>`.
    pub sandbox_domain: Option<String>,
    /// Further hosts that clients may have signed for.
    pub signing_hosts: Vec<String>,
    pub trusted_proxies: Vec<Cidr>,
    pub cors_origins: Vec<AllowedOrigin>,
    pub websocket_origins: Vec<AllowedOrigin>,
    /// Bytes.
    pub max_json_body: u64,
    pub header_timeout: Duration,
    /// A client may take nothing of what is to be sent for this long.
    pub write_timeout: Duration,
    /// Nothing of an answer may move for this long when the client has closed its sending side.
    pub half_closed_timeout: Duration,
    pub drain_timeout: Duration,
}

/// `[server.tls]`: a listener of its own, under a certificate that is read again when it changes.
#[derive(Clone, Debug)]
pub struct Tls {
    pub listen: SocketAddr,
    /// The certificate and what leads to its root, in PEM.
    pub cert_file: PathBuf,
    pub key_file: PathBuf,
}

impl Tls {
    fn read(mut section: Section<'_>) -> Option<Self> {
        let listen = section.optional_as("listen", "an address and port such as \"0.0.0.0:8443\"");
        let (cert_file, key_file) = (section.file("cert_file"), section.file("key_file"));
        let tls = match (listen, cert_file, key_file) {
            (Some(listen), Some(cert_file), Some(key_file)) => Some(Self { listen, cert_file, key_file }),
            (Some(_), _, _) => {
                section.problem("listen", "needs cert_file and key_file beside it");
                None
            }
            (None, _, _) => None,
        };
        section.finish();
        tls
    }
}

impl Server {
    pub(super) fn read(mut section: Section<'_>) -> Self {
        let unspecified = SocketAddr::from((Ipv4Addr::LOCALHOST, 0));
        let origin = "an origin such as \"https://app.example.com\", \"http://localhost:*\" or \"*\"";
        let server = Self {
            listen: section.parsed("listen", "an address and port such as \"127.0.0.1:8080\"", unspecified),
            metrics_listen: section.optional_as("metrics_listen", "an address and port such as \"127.0.0.1:9090\""),
            tls: Tls::read(section.section("tls")),
            public_url: section.optional_with("public_url", "an http(s) URL without path", public_url),
            replica_url: section.optional_with("replica_url", "an http URL without path", replica_url),
            sandbox_domain: section.optional_with("sandbox_domain", "a host name", host_name),
            signing_hosts: section.list("signing_hosts", "a host, with its port where it is not the usual", authority),
            trusted_proxies: section
                .list("trusted_proxies", "a network such as \"10.0.0.0/8\"", |text| text.parse().ok()),
            cors_origins: section.list("cors_origins", origin, |text| text.parse().ok()),
            websocket_origins: section.list("websocket_origins", origin, |text| text.parse().ok()),
            max_json_body: section.size("max_json_body"),
            header_timeout: section.duration("header_timeout"),
            write_timeout: section.duration("write_timeout"),
            half_closed_timeout: section.duration("half_closed_timeout"),
            drain_timeout: section.duration("drain_timeout"),
        };
        section.finish();
        server
    }
}

/// A host as it stands in `Host`.
fn authority(text: &str) -> Option<String> {
    text.parse::<http::uri::Authority>().ok().filter(|host| !host.as_str().contains('@')).map(|_| text.to_owned())
}

fn public_url(text: &str) -> Option<Url> {
    let url = Url::parse(text).ok()?;
    let plain = matches!(url.scheme(), "http" | "https")
        && url.path() == "/"
        && url.query().is_none()
        && url.fragment().is_none()
        && url.username().is_empty();
    plain.then_some(url)
}

fn replica_url(text: &str) -> Option<Url> {
    public_url(text).filter(|url| url.scheme() == "http")
}

/// A host name in lower case: labels of letters, digits and hyphens.
pub(super) fn host_name(text: &str) -> Option<String> {
    let label = |label: &str| {
        (1..=63).contains(&label.len()) && label.bytes().all(|byte| byte.is_ascii_alphanumeric() || byte == b'-')
    };
    (text.len() <= 253 && text.split('.').all(label)).then(|| text.to_ascii_lowercase())
}

/// An origin of the browser that is let in: exact, with any port (`http://localhost:*`), or `*` for all.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct AllowedOrigin {
    scheme_and_host: String,
    port: OriginPort,
}

#[derive(Clone, Debug, PartialEq, Eq)]
enum OriginPort {
    Same(Option<String>),
    Any,
    AnyOrigin,
}

impl AllowedOrigin {
    /// Whether the value of an `Origin` header is let in.
    pub fn matches(&self, origin: &str) -> bool {
        let (scheme_and_host, port) = split_port(origin);
        match &self.port {
            OriginPort::AnyOrigin => true,
            OriginPort::Any => self.scheme_and_host.eq_ignore_ascii_case(scheme_and_host),
            OriginPort::Same(own) => {
                self.scheme_and_host.eq_ignore_ascii_case(scheme_and_host) && own.as_deref() == port
            }
        }
    }
}

/// `https://host:443` in two: up to the host, and the port. The colons of an IPv6 address are inside brackets.
fn split_port(origin: &str) -> (&str, Option<&str>) {
    match origin.rsplit_once(':') {
        Some((head, port)) if !port.starts_with("//") && !port.ends_with(']') => (head, Some(port)),
        _ => (origin, None),
    }
}

impl FromStr for AllowedOrigin {
    type Err = ();

    fn from_str(text: &str) -> Result<Self, ()> {
        if text == "*" {
            return Ok(Self { scheme_and_host: String::new(), port: OriginPort::AnyOrigin });
        }
        let (scheme_and_host, port) = split_port(text);
        let parsed = Url::parse(scheme_and_host).map_err(drop)?;
        let only_host = parsed.host().is_some() && parsed.path() == "/" && !scheme_and_host.ends_with('/');
        if !matches!(parsed.scheme(), "http" | "https") || !only_host {
            return Err(());
        }
        let port = match port {
            Some("*") => OriginPort::Any,
            Some(port) => OriginPort::Same(Some(port.parse::<u16>().map_err(drop)?.to_string())),
            None => OriginPort::Same(None),
        };
        Ok(Self { scheme_and_host: scheme_and_host.to_ascii_lowercase(), port })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn allowed(text: &str) -> AllowedOrigin {
        text.parse().unwrap()
    }

    #[test]
    fn an_origin_matches_exactly_or_with_any_port() {
        assert!(allowed("https://app.example.com").matches("https://app.example.com"));
        assert!(!allowed("https://app.example.com").matches("https://app.example.com:8443"));
        assert!(!allowed("https://app.example.com").matches("http://app.example.com"));
        assert!(allowed("http://localhost:*").matches("http://localhost:5173"));
        assert!(allowed("http://localhost:*").matches("http://localhost"));
        assert!(!allowed("http://localhost:*").matches("http://localhost.evil.example"));
        assert!(!allowed("http://localhost:*").matches("http://localhost.evil.example:80"));
        assert!(allowed("http://[::1]:*").matches("http://[::1]:3000"));
        assert!(allowed("*").matches("https://anything.example"));
        assert!(!allowed("https://a.example").matches("null"));
    }

    #[test]
    fn what_is_no_origin_is_refused() {
        for bad in ["", "localhost", "https://a.example/path", "https://a.example/", "ftp://a.example", "https://a:b"] {
            assert!(bad.parse::<AllowedOrigin>().is_err(), "{bad:?}");
        }
    }
}
