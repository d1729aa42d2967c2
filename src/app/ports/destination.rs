//! Where requests for an instance's ports go: looked up once for many of them.

use std::{sync::Arc, time::Duration};

use envd_client::Transport;
use http::{HeaderMap, HeaderName, HeaderValue};
use moka::future::Cache;
use secrecy::{ExposeSecret, SecretString};
use tokio::time::Instant;

use super::{
    ENVD_PORT,
    limits::{Gauges, Permit},
};
use crate::{
    access::Token,
    app::{
        App,
        instances::{self, Target},
    },
    domain::{instance::Instance, port::Port},
    error::{Error, Result},
    ids::{InstanceId, TeamId},
};

/// How long an instance is believed to run without asking the database.
const BELIEF: Duration = Duration::from_millis(900);
const REMEMBERED: u64 = 10_000;

const ACCESS_TOKEN: HeaderName = HeaderName::from_static("x-access-token");
/// Auth mode in which only envd's port asks for a token.
const PUBLIC: &str = "PUBLIC";

/// A running instance and what its ports ask for.
pub struct Destination {
    target: Target,
    token: Option<Arc<Token>>,
    access: Option<HeaderValue>,
    traffic: Option<HeaderValue>,
    traffic_header: HeaderName,
    gauges: Gauges,
    believed_until: Instant,
}

impl Destination {
    async fn find(app: &App, team: &TeamId, id: &InstanceId) -> Result<Self> {
        let believed_until = Instant::now() + BELIEF;
        let target = instances::running_of(app, team, id).await?;
        let token = target.token().await?;
        let header = |secret: Option<&SecretString>| secret.map(header_of).transpose();
        let traffic_header = &target.upstream().config.traffic_token_header;
        Ok(Self {
            access: header(token.as_ref().map(|token| &token.access))?,
            traffic: header(token.as_ref().and_then(|token| token.traffic.as_ref()))?,
            traffic_header: traffic_header.parse().map_err(Error::internal)?,
            gauges: app.ports.limits.of(team, id, &app.activity),
            token,
            target,
            believed_until,
        })
    }

    #[must_use]
    pub fn instance(&self) -> &Instance {
        &self.target.instance
    }

    /// The way into the instance.
    #[must_use]
    pub fn target(&self) -> &Target {
        &self.target
    }

    #[must_use]
    pub fn upstream_id(&self) -> &str {
        self.target.upstream_id()
    }

    /// The way there.
    #[must_use]
    pub fn transport(&self) -> &Transport {
        &self.target.upstream().data
    }

    /// The port's name in the cloud: `Host` as the sandbox sees it.
    #[must_use]
    pub fn authority(&self, port: Port) -> Option<String> {
        let named = self.transport().endpoint().authority(self.upstream_id(), port.get());
        named.ok().map(|authority| authority.as_str().to_owned())
    }

    /// How long it is believed without asking again, unless it is forgotten before.
    #[must_use]
    pub(super) fn believed_until(&self) -> Instant {
        self.believed_until
    }

    /// Puts the cloud's tokens on a request, where the port asks for one.
    pub fn add_tokens(&self, port: Port, headers: &mut HeaderMap) {
        let envd = port.get() == ENVD_PORT;
        if !envd && self.instance().auth_mode == PUBLIC {
            return;
        }
        if let Some(access) = &self.access {
            headers.insert(ACCESS_TOKEN, access.clone());
        }
        if let Some(traffic) = self.traffic.as_ref().filter(|_| !envd) {
            headers.insert(&self.traffic_header, traffic.clone());
        }
    }

    /// Whether a header of an answer may hold one of the cloud's tokens, should a sandbox have found and returned them.
    #[must_use]
    pub fn is_token(&self, name: &HeaderName) -> bool {
        *name == ACCESS_TOKEN || *name == self.traffic_header
    }

    /// How long ago the cloud gave the token; `None` without one.
    #[must_use]
    pub fn token_age(&self) -> Option<Duration> {
        self.token.as_ref().map(|token| token.age())
    }

    pub(super) async fn reject_token(&self) {
        if let Some(token) = &self.token {
            self.target.reject(token).await;
        }
    }

    pub(super) fn permit(&self) -> Result<Permit> {
        self.gauges.permit()
    }
}

fn header_of(secret: &SecretString) -> Result<HeaderValue> {
    let mut value = HeaderValue::from_str(secret.expose_secret()).map_err(Error::internal)?;
    value.set_sensitive(true);
    Ok(value)
}

/// Destinations in use.
#[derive(Clone)]
pub(super) struct Destinations(Cache<(TeamId, InstanceId), Arc<Destination>>);

impl Destinations {
    pub(super) fn new() -> Self {
        Self(Cache::builder().max_capacity(REMEMBERED).time_to_live(BELIEF).build())
    }

    pub(super) async fn find(&self, app: &App, team: &TeamId, id: &InstanceId) -> Result<Arc<Destination>> {
        let key = (team.clone(), id.clone());
        if let Some(found) = self.0.get(&key).await.filter(|found| found.believed_until > Instant::now()) {
            return Ok(found);
        }
        // Boxed: what is rare does not make what is moved for each request larger.
        Box::pin(async {
            // The cache counts from when it is told; what was looked up slowly may be over before.
            self.0.invalidate(&key).await;
            let look_up = async { Destination::find(app, team, id).await.map(Arc::new) };
            self.0.try_get_with(key, look_up).await.map_err(|shared: Arc<Error>| shared.copy())
        })
        .await
    }

    pub(super) fn forget_all(&self) {
        self.0.invalidate_all();
    }

    pub(super) async fn forget(&self, team: &TeamId, id: &InstanceId) {
        self.0.invalidate(&(team.clone(), id.clone())).await;
    }
}
