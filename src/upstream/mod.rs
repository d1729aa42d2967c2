//! The cloud, in the gateway's terms: one [`Upstream`] per configured region.

mod build;
pub mod error;
pub(crate) mod foreign;
mod images;
mod instances;
pub mod lane;
pub mod seen;
mod stamp;
mod tools;
pub(crate) mod wire;

use std::{
    collections::BTreeMap,
    num::NonZeroU32,
    sync::{
        Arc,
        atomic::{AtomicU8, Ordering},
    },
    time::Duration,
};

use ags_client::{Action, AgsClient, AgsError, Counted, Reply};
use envd_client::Transport;
use serde::Serialize;
use utoipa::ToSchema;

pub use self::{
    foreign::ForeignTool,
    instances::{SeenInstance, Start},
    stamp::instance_metadata,
    tools::{ListedTool, SeenTool},
};
use crate::{config, error::Error};

/// One region of the cloud, with the account's credentials.
pub struct Upstream {
    pub config: config::Upstream,
    /// The management API.
    pub control: AgsClient,
    /// The same for calls that nobody waits for.
    background: AgsClient,
    /// The way to what runs inside instances.
    pub data: Transport,
    /// A [`Reachable`].
    reachable: AtomicU8,
}

/// Whether the cloud answered the last call to it, whatever it said.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, ToSchema)]
#[serde(rename_all = "lowercase")]
pub enum Reachable {
    /// Nothing was asked yet.
    Unknown,
    Yes,
    No,
}

/// All that an account has of something.
pub struct Listed<T> {
    pub items: Vec<T>,
    /// What speaks against the list.
    pub doubt: Option<String>,
}

impl<T> Listed<T> {
    fn of<W>(counted: Counted<W>, read: impl Fn(W) -> T) -> Self {
        let doubt = counted.doubt();
        Self { items: counted.items.into_iter().map(read).collect(), doubt }
    }
}

impl Upstream {
    #[must_use]
    pub fn name(&self) -> &str {
        &self.config.name
    }

    /// The client for the present task.
    fn client(&self) -> &AgsClient {
        if lane::is_background() { &self.background } else { &self.control }
    }

    /// Calls an action, and notes the call's id for the history.
    async fn call<A: Action>(&self, request: &A) -> Result<Reply<A::Output>, AgsError> {
        let outcome = self.client().call(request).await;
        self.note::<A>(&outcome);
        outcome
    }

    async fn call_within<A: Action>(&self, request: &A, limit: Duration) -> Result<Reply<A::Output>, AgsError> {
        let outcome = self.client().call_within(request, limit).await;
        self.note::<A>(&outcome);
        outcome
    }

    fn note<A: Action>(&self, outcome: &Result<Reply<A::Output>, AgsError>) {
        seen::note::<A, _>(outcome);
        let answered = outcome.as_ref().map_or_else(|error| error.code().is_some(), |_| true);
        let reachable = if answered { Reachable::Yes } else { Reachable::No };
        self.reachable.store(reachable as u8, Ordering::Relaxed);
    }

    #[must_use]
    pub fn reachable(&self) -> Reachable {
        let last = self.reachable.load(Ordering::Relaxed);
        [Reachable::Yes, Reachable::No].into_iter().find(|one| *one as u8 == last).unwrap_or(Reachable::Unknown)
    }
}

/// The configured upstreams.
#[derive(Clone)]
pub struct Upstreams {
    all: Arc<BTreeMap<String, Arc<Upstream>>>,
    default: String,
}

impl Upstreams {
    /// Builds a client for each. Nothing is called yet.
    ///
    /// # Errors
    /// When a client cannot be built from its configuration.
    pub fn build(config: &config::Config) -> anyhow::Result<Self> {
        let mut all = BTreeMap::new();
        for (name, upstream) in &config.upstreams {
            all.insert(name.clone(), Arc::new(build::upstream(upstream)?));
        }
        Ok(Self { all: Arc::new(all), default: config.default_upstream.clone() })
    }

    /// The upstream that is used when none is named.
    #[must_use]
    pub fn default_name(&self) -> &str {
        &self.default
    }

    /// # Errors
    /// An internal error: a row names an upstream that is no longer configured.
    pub fn get(&self, name: &str) -> Result<&Arc<Upstream>, Error> {
        self.all.get(name).ok_or_else(|| Error::internal(format!("the upstream {name:?} is not configured")))
    }

    #[must_use]
    pub fn contains(&self, name: &str) -> bool {
        self.all.contains_key(name)
    }

    /// Tells how many replicas call the accounts: each keeps to its part of the rate that they allow.
    pub fn share(&self, replicas: NonZeroU32) {
        for upstream in self.iter() {
            upstream.control.limiter().divide(replicas);
        }
    }

    pub fn iter(&self) -> impl Iterator<Item = &Arc<Upstream>> {
        self.all.values()
    }
}
