//! Where the data plane of a region is, and what its instances are called there.

use http::uri::{Authority, Scheme};

use crate::error::EnvdError;

/// The port envd listens on within every instance (PROTOCOLS C.1).
pub const ENVD_PORT: u16 = 49983;

/// The edge of one region: `{scheme}://{port}-{instance}.{domain}` (PROTOCOLS C.1).
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Endpoint {
    /// `https`, or `http` for a local stand-in.
    pub scheme: Scheme,
    /// `ap-guangzhou.tencentags.com`, with `:port` where it is not the scheme's own.
    pub domain: Authority,
    /// Dial this `host:port` whatever the name in the URL says. Host header and SNI stay those of the URL.
    pub connect_to: Option<Authority>,
    /// Accept any certificate. For a test environment and nothing else.
    pub skip_ssl_verify: bool,
}

impl Endpoint {
    /// An endpoint reached by its own name, with certificates verified.
    pub fn new(scheme: Scheme, domain: Authority) -> Self {
        Self { scheme, domain, connect_to: None, skip_ssl_verify: false }
    }

    /// Host of `port` within `instance`.
    ///
    /// Fails with `InvalidArgument` if `instance` is anything but letters, digits and dashes: the id
    /// must not be able to name another host.
    pub fn authority(&self, instance: &str, port: u16) -> Result<Authority, EnvdError> {
        let label = |c: char| c.is_ascii_alphanumeric() || c == '-';
        if instance.is_empty() || !instance.chars().all(label) {
            return Err(EnvdError::invalid("not an instance id"));
        }
        Authority::try_from(format!("{port}-{instance}.{}", self.domain))
            .map_err(|e| EnvdError::invalid("not a host name").with_source(e))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::EnvdErrorKind;

    fn endpoint(domain: &'static str) -> Endpoint {
        Endpoint::new(Scheme::HTTPS, Authority::from_static(domain))
    }

    #[test]
    fn a_port_of_an_instance_is_a_host() {
        let host = endpoint("ap-guangzhou.tencentags.com").authority("ins-1", ENVD_PORT).unwrap();
        assert_eq!(host, "49983-ins-1.ap-guangzhou.tencentags.com");
        let host = endpoint("ags.localhost:8080").authority("ins-1", 80).unwrap();
        assert_eq!(host, "80-ins-1.ags.localhost:8080");
    }

    #[test]
    fn an_id_cannot_leave_its_domain() {
        for id in ["", "a.evil.example/", "a@b", "a:1", "x.y", "a b", "ü", "a/../b", "a#"] {
            let error = endpoint("d.example").authority(id, 80).unwrap_err();
            assert_eq!(error.kind(), EnvdErrorKind::InvalidArgument, "{id:?}");
        }
    }
}
