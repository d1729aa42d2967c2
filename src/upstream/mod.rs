//! The cloud, in the gateway's terms: one [`Upstream`] per configured region.

mod build;
pub mod error;
mod instances;
mod stamp;
mod tools;
mod wire;

use std::{collections::BTreeMap, sync::Arc};

use ags_client::AgsClient;
use envd_client::Transport;

pub use self::{
    instances::{SeenInstance, Start},
    stamp::instance_metadata,
    tools::SeenTool,
};
use crate::{config, error::Error};

/// One region of the cloud, with the account's credentials.
pub struct Upstream {
    pub config: config::Upstream,
    /// The management API.
    pub control: AgsClient,
    /// The way to what runs inside instances.
    pub data: Transport,
}

impl Upstream {
    #[must_use]
    pub fn name(&self) -> &str {
        &self.config.name
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

    pub fn iter(&self) -> impl Iterator<Item = &Arc<Upstream>> {
        self.all.values()
    }
}
