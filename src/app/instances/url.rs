//! Where a port of an instance is reached, and the cloud's own token.

use std::sync::Arc;

use super::wrong_state;
use crate::{
    access::Token,
    app::App,
    auth::Caller,
    domain::instance::{Instance, InstanceStatus},
    error::{Code, Error, Result},
    ids::InstanceId,
};

/// Addresses of a port through the gateway.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Address {
    pub port: u16,
    /// For programs that send a key.
    pub url: String,
    /// On a host of its own, where a `sandbox_domain` is configured.
    pub host_url: Option<String>,
}

/// The addresses of a port of a live instance. `base` is the gateway's own, as clients reach it, without a path.
///
/// # Errors
/// `not_found`, `invalid_state` for one that has ended.
pub async fn url(app: &App, caller: &Caller, id: &InstanceId, port: Option<u16>, base: &url::Url) -> Result<Address> {
    let instance = super::get(app, caller, id).await?;
    if instance.status.is_ending() {
        return Err(wrong_state(&instance, ""));
    }
    let port = port.unwrap_or(app.config.instances.port);
    Ok(address(&instance.id, port, base, app.config.server.sandbox_domain.as_deref()))
}

fn address(id: &InstanceId, port: u16, base: &url::Url, domain: Option<&str>) -> Address {
    let origin = base.as_str().trim_end_matches('/');
    Address {
        port,
        url: format!("{origin}/v1/instances/{id}/ports/{port}/"),
        host_url: domain.map(|domain| host_url(id, port, base, domain)),
    }
}

/// A port's own host, with the scheme and the port of the gateway's own address.
#[must_use]
pub fn host_url(id: &InstanceId, port: u16, base: &url::Url, domain: &str) -> String {
    let base_port = base.port().map(|port| format!(":{port}")).unwrap_or_default();
    format!("{}://{port}-{id}.{domain}{base_port}/", base.scheme())
}

/// The cloud's own access to an instance.
pub struct Tokens {
    pub token: Arc<Token>,
    pub instance: Instance,
    /// Ports are at `{port}-{upstream_id}.{domain}`.
    pub domain: String,
    pub scheme: String,
}

/// The cloud's own token of a running instance.
///
/// # Errors
/// `not_granted` when the caller's team was not granted tokens; `not_found`, `invalid_state`; what the cloud says.
pub async fn token(app: &App, caller: &Caller, id: &InstanceId) -> Result<Tokens> {
    if !caller.team.grants.tokens {
        let detail = "Your team was not granted the cloud's own tokens. Ask the gateway's operators for it.";
        return Err(Error::new(Code::NotGranted, detail));
    }
    let instance = super::get(app, caller, id).await?;
    let upstream_id = match (&instance.status, &instance.upstream_id) {
        (InstanceStatus::Running, Some(upstream_id)) => upstream_id,
        _ => return Err(wrong_state(&instance, "It must be RUNNING.")),
    };
    if instance.auth_mode == "NONE" {
        return Err(Error::new(Code::InvalidState, "The instance's auth mode is NONE: there is no token.")
            .with_sandbox(instance.reference()));
    }
    let upstream = app.upstreams.get(&instance.upstream)?;
    let token = app.access.token(upstream, upstream_id).await?;
    let (domain, scheme) = (upstream.config.domain.clone(), upstream.config.scheme.clone());
    Ok(Tokens { token, instance, domain, scheme })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{clock, ids::Ids};

    #[test]
    fn a_port_has_a_path_and_where_configured_a_host() {
        let id: InstanceId = Ids::new(Arc::new(clock::System)).next();
        let base: url::Url = "https://gw.example.com:8443/".parse().unwrap();
        let plain = address(&id, 80, &base, None);
        assert_eq!(plain.url, format!("https://gw.example.com:8443/v1/instances/{id}/ports/80/"));
        assert_eq!(plain.host_url, None);
        let hosted = address(&id, 80, &base, Some("sandbox.example.com")).host_url;
        assert_eq!(hosted, Some(format!("https://80-{id}.sandbox.example.com:8443/")));
    }
}
