//! HTTPS at the gateway of the local stack.

use std::{
    net::{Ipv4Addr, SocketAddr},
    path::Path,
};

use super::certificates::Certificates;

/// Ports of sandboxes are below it. A wildcard needs two labels behind it: OpenSSL takes `*.localhost` for no name at all.
pub(super) const DOMAIN: &str = "sandbox.localhost";

/// HTTPS at the gateway.
pub(super) struct Https {
    port: u16,
    pub certificates: Certificates,
}

impl Https {
    pub(super) fn prepare(directory: &Path, port: u16) -> anyhow::Result<Self> {
        Ok(Self { port, certificates: Certificates::prepare(directory, DOMAIN)? })
    }

    pub(super) fn url(&self) -> String {
        format!("https://{}", self.address())
    }

    pub(super) fn address(&self) -> SocketAddr {
        (Ipv4Addr::LOCALHOST, self.port).into()
    }

    /// What clients of several kinds need to know.
    pub(super) fn variables(&self) -> [(&'static str, String); 6] {
        let Certificates { authority, bundle, .. } = &self.certificates;
        let bundle = bundle.display().to_string();
        [
            ("SSL_CERT_FILE", bundle.clone()),
            ("REQUESTS_CA_BUNDLE", bundle.clone()),
            ("CURL_CA_BUNDLE", bundle),
            ("NODE_EXTRA_CA_CERTS", authority.display().to_string()),
            ("E2B_DOMAIN", format!("{DOMAIN}:{}", self.port)),
            ("AGS_GATEWAY_SANDBOX_DOMAIN", format!("{DOMAIN}:{}", self.port)),
        ]
    }
}
