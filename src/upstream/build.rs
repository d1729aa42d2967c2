//! Clients from configuration.

use std::{
    net::SocketAddr,
    num::NonZeroU32,
    sync::{Arc, atomic::AtomicU8},
    time::Duration,
};

use ags_client::{AgsClient, Credential, Rates, Settings, StaticCredentials};
use anyhow::Context;
use envd_client::{Endpoint, Transport, TransportSettings};
use http::uri::{Authority, Scheme};

use super::{Reachable, Upstream};
use crate::config;

const POOL_IDLE: Duration = Duration::from_secs(15);
/// A busy server in a sandbox is called over many connections at once; those beyond this are made anew each time.
const KEPT_PER_PORT: usize = 256;
const USER_AGENT: &str = concat!("ags-gateway/", env!("CARGO_PKG_VERSION"));

pub(super) fn upstream(config: &config::Upstream) -> anyhow::Result<Upstream> {
    let named = || format!("upstream {:?}", config.name);
    let control = control(config).with_context(named)?;
    Ok(Upstream {
        background: control.in_background(),
        control,
        data: data(config).with_context(named)?,
        config: config.clone(),
        reachable: AtomicU8::new(Reachable::Unknown as u8),
    })
}

fn control(config: &config::Upstream) -> anyhow::Result<AgsClient> {
    let mut http = reqwest::Client::builder()
        .user_agent(USER_AGENT)
        .connect_timeout(config.connect_timeout)
        // A kept connection that has died puts a call in doubt: do not keep them long.
        .pool_idle_timeout(POOL_IDLE)
        // A signed request is for one host only.
        .redirect(reqwest::redirect::Policy::none())
        .tls_danger_accept_invalid_certs(config.skip_ssl_verify)
        .no_proxy();
    if let Some(address) = &config.endpoint_connect_to {
        let host = config.endpoint.host_str().context("the endpoint has no host")?;
        let address: SocketAddr = address.parse().context("endpoint_connect_to is not an address and port")?;
        http = http.resolve(host, address);
    }
    let mut settings = Settings::new(config.endpoint.clone(), &config.region);
    settings.language.clone_from(&config.language);
    settings.attempt_timeout = config.attempt_timeout;
    settings.deadline = config.deadline;
    settings.rates = Rates::uniform(NonZeroU32::new(config.qps).context("qps must be above zero")?);
    let credentials = &config.credentials;
    let credential = Credential {
        secret_id: credentials.secret_id.clone(),
        secret_key: credentials.secret_key.clone(),
        token: credentials.token.clone(),
    };
    Ok(AgsClient::new(settings, http.build()?, Arc::new(StaticCredentials(credential)))?)
}

fn data(config: &config::Upstream) -> anyhow::Result<Transport> {
    let scheme: Scheme = config.scheme.parse().context("scheme")?;
    let domain: Authority = config.domain.parse().context("domain")?;
    let mut endpoint = Endpoint::new(scheme, domain);
    endpoint.connect_to = config.connect_to.as_deref().map(str::parse).transpose().context("connect_to")?;
    endpoint.skip_ssl_verify = config.skip_ssl_verify;
    let settings = TransportSettings {
        connect_timeout: config.connect_timeout,
        pool_max_idle: KEPT_PER_PORT,
        ..TransportSettings::default()
    };
    Ok(Transport::new(endpoint, settings)?)
}
