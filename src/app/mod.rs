//! Use cases over a [`Caller`](crate::auth::Caller): each operation reads as one function with one error path.

pub mod activity;
pub mod audit;
pub mod code;
pub mod daily;
pub mod exec;
pub mod files;
pub mod holds;
pub mod idempotency;
pub mod images;
pub mod instances;
pub mod keys;
pub mod lease;
pub mod peers;
pub mod ports;
pub mod rates;
pub mod reconciliation;
pub mod runs;
pub mod sockets;
mod tally;
pub mod teams;
pub mod tools;
pub mod upkeep;
pub mod wait;

use std::{ops::Deref, sync::Arc};

use sqlx::PgPool;

pub use self::upkeep::Upkeep;
use self::{
    activity::Activity, audit::History, exec::Execs, holds::Holders, instances::Lines, peers::Peers, ports::Ports,
    rates::Rates, runs::Runs, sockets::Sockets,
};
use crate::{
    access::Access,
    auth::{Authenticator, Grants, Signers, Tickets},
    clock::SharedClock,
    config::Config,
    domain::credential::Peppers,
    ids::Ids,
    lifecycle::Lifecycle,
    telemetry::metrics::Metrics,
    upstream::Upstreams,
};

/// What the operations work with. Cheap to clone.
#[derive(Clone)]
pub struct App(Arc<Parts>);

/// The parts of [`App`], put together by [`bootstrap`](crate::bootstrap).
pub struct Parts {
    pub config: Arc<Config>,
    pub pool: PgPool,
    pub clock: SharedClock,
    pub ids: Ids,
    pub peppers: Arc<Peppers>,
    pub auth: Authenticator,
    pub tickets: Tickets,
    pub signers: Signers,
    pub grants: Grants,
    pub upstreams: Upstreams,
    pub access: Access,
    pub execs: Execs,
    pub ports: Ports,
    pub rates: Rates,
    /// Who waits for an instance.
    pub lines: Lines,
    pub runs: Runs,
    pub holders: Holders,
    pub activity: Activity,
    pub history: History,
    pub sockets: Sockets,
    /// Requests to other replicas.
    pub peers: Peers,
    pub lifecycle: Lifecycle,
    pub metrics: Metrics,
    /// The identity stamped on what this deployment makes in the cloud.
    pub deployment: String,
    pub upkeep: Upkeep,
}

impl App {
    #[must_use]
    pub fn new(parts: Parts) -> Self {
        Self(Arc::new(parts))
    }
}

impl Deref for App {
    type Target = Parts;
    fn deref(&self) -> &Parts {
        &self.0
    }
}
