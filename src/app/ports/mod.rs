//! Ports of instances: who may reach them, and where they are.
//!
//! A request that only passes through costs no query: what was looked up is believed for under a second, as credentials
//! are, so that a stop and a revocation hold on every replica within that time. Streams that last longer are ended by
//! [`watch`](super::holds::watch).

mod destination;
mod limits;
mod previews;

use std::sync::{
    Arc,
    atomic::{AtomicU64, Ordering},
};

use tokio::time::Instant;

pub use self::{
    destination::Destination,
    limits::Permit,
    previews::{Link, Wanted, create, get, list, open, revoke, visit},
};
use self::{destination::Destinations, limits::Limits, previews::Visits};
pub use super::holds::{Hold, HoldLater};
use super::{
    App,
    instances::{self, Target},
};
use crate::{
    auth::Caller,
    config,
    domain::{port::Port, preview::Preview, scope::Scope},
    error::{Code, Error, Result},
    ids::{InstanceId, KeyId, TeamId},
    storage::holders::Holder,
};

/// envd's own port: commands and files.
pub const ENVD_PORT: u16 = envd_client::ENVD_PORT;
/// The code interpreter's.
const CODE_PORT: u16 = 49_999;
const CODE_INTERPRETER: &str = "code-interpreter";

/// What this process knows of ports in use.
#[derive(Clone)]
pub struct Ports {
    destinations: Destinations,
    visits: Visits,
    limits: Limits,
    pub meters: Meters,
    /// How often something was forgotten, of whatever instance: who went by it looks again.
    forgotten: Arc<AtomicU64>,
}

impl Ports {
    #[must_use]
    pub fn new(config: &config::Ports) -> Self {
        Self {
            destinations: Destinations::new(),
            visits: Visits::new(),
            limits: Limits::new(config),
            meters: Meters::new(),
            forgotten: Arc::default(),
        }
    }

    /// Forgets all that was believed.
    pub(super) fn forget_all(&self) {
        self.destinations.forget_all();
        self.visits.forget_all();
        // Afterwards: who counted before may have found what is not there any more.
        self.forgotten.fetch_add(1, Ordering::AcqRel);
    }

    /// Forgets what was believed of an instance: it changed on this replica.
    pub async fn forget(&self, team: &TeamId, instance: &InstanceId) {
        self.destinations.forget(team, instance).await;
        self.forgotten.fetch_add(1, Ordering::AcqRel);
    }
}

/// Handles of the metrics, looked up once.
#[derive(Clone)]
pub struct Meters {
    pub to_sandbox: metrics::Counter,
    pub to_client: metrics::Counter,
    pub requests: metrics::Gauge,
    pub repeats: metrics::Counter,
    pub tunnels: metrics::Gauge,
}

impl Meters {
    fn new() -> Self {
        let bytes =
            |direction: &'static str| metrics::counter!("ags_gateway_port_bytes_total", "direction" => direction);
        let streams = |kind: &'static str| metrics::gauge!("ags_gateway_port_streams", "kind" => kind);
        Self {
            to_sandbox: bytes("to_sandbox"),
            to_client: bytes("to_client"),
            requests: streams("request"),
            repeats: metrics::counter!("ags_gateway_port_repeats_total"),
            tunnels: streams("tunnel"),
        }
    }
}

/// Who reaches for a port.
#[derive(Clone)]
pub enum Visitor {
    Key(Arc<Caller>),
    /// A browser with a preview's cookie.
    Preview(Arc<Preview>),
}

impl Visitor {
    fn team_id(&self) -> &TeamId {
        match self {
            Self::Key(caller) => caller.team_id(),
            Self::Preview(preview) => &preview.team_id,
        }
    }

    /// The key that answers for it.
    #[must_use]
    pub fn key_id(&self) -> &KeyId {
        match self {
            Self::Key(caller) => &caller.key_id,
            Self::Preview(preview) => &preview.key_id,
        }
    }

    /// The team that it belongs to.
    #[must_use]
    pub fn team(&self) -> &TeamId {
        self.team_id()
    }

    fn require(&self, instance: &InstanceId, port: Port) -> Result<()> {
        match self {
            Self::Key(caller) => {
                caller.require_any(&[Scope::Ports])?;
                caller.require_instance(instance)
            }
            Self::Preview(preview) if preview.instance_id == *instance && preview.port == port.get() => Ok(()),
            Self::Preview(_) => Err(Error::new(Code::Unauthenticated, "This preview is for another port.")),
        }
    }

    /// Behind these ports are the commands, files and code that have scopes of their own.
    fn require_power(&self, destination: &Destination, port: Port) -> Result<()> {
        let needed: &[Scope] = match port.get() {
            ENVD_PORT => &[Scope::Exec, Scope::FilesRead, Scope::FilesWrite],
            CODE_PORT if destination.instance().tool_type == CODE_INTERPRETER => &[Scope::Exec],
            _ => return Ok(()),
        };
        match self {
            Self::Key(caller) => needed.iter().try_for_each(|scope| caller.require_any(&[*scope])),
            Self::Preview(_) => Err(Error::new(Code::ScopeMissing, "This port is not for previews.")),
        }
    }
}

/// A request's leave to go to a port: what it needs on its way, and its place among those under way.
pub struct Passage {
    pub destination: Arc<Destination>,
    pub port: Port,
    permit: Permit,
    hold: HoldLater,
    begun: Instant,
}

impl Passage {
    /// When it was given.
    #[must_use]
    pub fn begun(&self) -> Instant {
        self.begun
    }

    /// For a stream that turns out to last.
    #[must_use]
    pub fn hold_later(&self) -> HoldLater {
        self.hold.clone()
    }

    /// For requests that differ from this one in nothing that admitted it. `beliefs` are those from before it was looked at, `until`
    /// says how long whoever makes it is believed.
    #[must_use]
    pub fn leave(&self, beliefs: Beliefs, until: Instant) -> Leave {
        let (destination, hold) = (Arc::clone(&self.destination), self.hold.clone());
        let until = until.min(destination.believed_until());
        Leave { destination, port: self.port, hold, beliefs, until }
    }

    /// To be kept until the last byte.
    #[must_use]
    pub fn permit(&self) -> Permit {
        self.permit.clone()
    }
}

/// What was believed at a moment: as long as nothing was forgotten since, it may go on to be.
#[derive(Clone, Copy, PartialEq, Eq)]
pub struct Beliefs {
    keys: u64,
    ports: u64,
}

impl Beliefs {
    /// Those of this moment.
    #[must_use]
    pub fn of(app: &App) -> Self {
        Self { keys: app.auth.forgotten(), ports: app.ports.forgotten.load(Ordering::Acquire) }
    }
}

/// What admitted a request, for more of the same kind.
pub struct Leave {
    destination: Arc<Destination>,
    port: Port,
    hold: HoldLater,
    beliefs: Beliefs,
    until: Instant,
}

impl Leave {
    /// Admits another. `None` when it has to be asked again whether that may be, or why not.
    #[must_use]
    pub fn passage(&self, app: &App) -> Option<Passage> {
        let begun = Instant::now();
        if Beliefs::of(app) != self.beliefs || self.until <= begun {
            return None;
        }
        let (destination, hold) = (Arc::clone(&self.destination), self.hold.clone());
        Some(Passage { permit: destination.permit().ok()?, destination, port: self.port, hold, begun })
    }
}

/// Admits a visitor to a port of a running instance.
///
/// # Errors
/// `scope_missing`; `not_found` for another team's instance; `invalid_state` for one that does not run; `quota_exceeded`
/// with the limit's name; what the cloud says when it gives no token.
pub async fn admit(app: &App, visitor: &Visitor, instance: &InstanceId, port: Port) -> Result<Passage> {
    visitor.require(instance, port)?;
    if let Visitor::Key(caller) = visitor {
        instances::wake_if_asked(app, caller, instance).await?;
    }
    let ports = &app.ports;
    let destination = ports.destinations.find(app, visitor.team_id(), instance).await?;
    visitor.require_power(&destination, port)?;
    let permit = destination.permit()?;
    let preview = match visitor {
        Visitor::Preview(preview) => Some(preview.id.clone()),
        Visitor::Key(_) => None,
    };
    let holder = Holder { instance: Some(instance.clone()), key: visitor.key_id().clone(), preview };
    let hold = HoldLater::new(holder, &app.holders);
    Ok(Passage { destination, port, permit, hold, begun: Instant::now() })
}

/// The way into an instance that ran a moment ago: no query for each of many calls. Who makes one and fails asks again
/// whether it runs.
///
/// # Errors
/// As [`instances::running`](super::instances::running); what the cloud says when it gives no token.
pub async fn believed(app: &App, caller: &Caller, instance: &InstanceId) -> Result<Target> {
    caller.require_instance(instance)?;
    let destination = app.ports.destinations.find(app, caller.team_id(), instance).await?;
    Ok(destination.target().clone())
}

/// Admits again after the token was refused: once, with a fresh one.
///
/// # Errors
/// As [`admit`]; an instance that ended meanwhile is said to have.
pub async fn readmit(app: &App, visitor: &Visitor, passage: &Passage) -> Result<Passage> {
    let instance = &passage.destination.instance().id;
    passage.destination.reject_token().await;
    app.ports.forget(visitor.team_id(), instance).await;
    admit(app, visitor, instance, passage.port).await
}
