//! What runs inside a sandbox instance, seen from outside: launched, dialled, frozen and stopped.
//!
//! The control plane and the edge know an instance only through [`Launch`] and [`Instance`], so that
//! they work the same over real namespaces and over the simulated instances of tests and benches.

mod handle;
pub mod inside;
mod launcher;
pub mod link;
mod network;
mod probe;

pub use handle::remove_state;
pub use launcher::{Launcher, LauncherSettings};

/// The search path inside, as the official images have it.
pub const SEARCH_PATH: &str = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin";

use std::collections::BTreeMap;
use std::io;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use futures_util::future::BoxFuture;
use secrecy::SecretString;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio_util::sync::CancellationToken;

/// Everything the launcher needs to bring one instance up.
#[derive(Clone, Debug)]
pub struct InstanceSpec {
    /// Lower-case alphanumeric, no `-`: it becomes part of a DNS label.
    pub id: String,
    /// A directory of its own, made by the launcher and removed with the instance.
    pub state_dir: PathBuf,
    /// Sandbox-wide environment, in every process and at `GET /envs`.
    pub envs: BTreeMap<String, String>,
    /// Entry point of a custom tool, with [`args`](Self::args) appended; empty: only the daemon runs.
    pub command: Vec<String>,
    pub args: Vec<String>,
    /// Honoured only when [`command`](Self::command) is not empty.
    pub probe: Option<Probe>,
    /// Cores, where cgroups allow a limit.
    pub cpu: Option<f64>,
    /// Bytes, where cgroups allow a limit.
    pub memory: Option<u64>,
    /// False for network mode `SANDBOX`: loopback only.
    pub network: bool,
    /// The version that the daemon behaves like, such as `0.5.14`.
    pub envd_version: String,
    /// Access token that the daemon itself checks, file signatures included. `None`, as behind the edge of AGS: it
    /// checks nothing.
    pub envd_token: Option<SecretString>,
    /// Whether the code interpreter is served on port 49999.
    pub code_interpreter: bool,
}

/// An HTTP readiness probe (`ProbeConfiguration` of the AGS API).
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Probe {
    pub path: String,
    pub port: u16,
    /// `HTTP` or `HTTPS`.
    pub scheme: String,
    /// How long the instance may take until the probe has succeeded often enough.
    pub ready_timeout: Duration,
    /// How long one attempt may take.
    pub timeout: Duration,
    pub period: Duration,
    pub success_threshold: u32,
    pub failure_threshold: u32,
}

/// Why an instance could not be brought up; the text becomes its `StatusReason` in the log.
#[derive(Debug, thiserror::Error)]
pub enum LaunchError {
    #[error("the daemon could not be started")]
    Spawn(#[source] io::Error),
    #[error("the daemon ended while starting: {0}")]
    Exited(String),
    #[error("the readiness probe did not succeed: {0}")]
    Probe(String),
    #[error("the daemon did not answer in time")]
    Timeout,
}

/// A byte stream into an instance.
pub trait Io: AsyncRead + AsyncWrite + Send + Unpin {}
impl<T: AsyncRead + AsyncWrite + Send + Unpin> Io for T {}

/// A boxed [`Io`]. Nagle is already off where it is a TCP stream.
pub type BoxIo = Box<dyn Io>;

/// Brings instances up.
pub trait Launch: Send + Sync {
    /// Starts the processes of an instance. It may not be ready yet: see [`Instance::ready`].
    fn launch(&self, spec: InstanceSpec) -> BoxFuture<'_, Result<Arc<dyn Instance>, LaunchError>>;
}

/// A launched instance.
pub trait Instance: Send + Sync {
    /// Opens a connection to a port inside.
    ///
    /// # Errors
    /// `ConnectionRefused` when nothing listens there, anything else when the instance is gone.
    fn dial(&self, port: u16) -> BoxFuture<'_, io::Result<BoxIo>>;

    /// Waits until the probe succeeds, or without one until the daemon answers.
    ///
    /// # Errors
    /// The probe gave up, or the daemon ended.
    fn ready(&self) -> BoxFuture<'_, Result<(), LaunchError>>;

    /// Freezes every process inside and returns when they stand still, which is a matter of a millisecond. Until [`resume`](Self::resume), dialling
    /// fails and open connections are silent.
    ///
    /// # Errors
    /// The instance is gone or cannot be frozen.
    fn pause(&self) -> io::Result<()>;

    /// Thaws what [`pause`](Self::pause) froze, and any process that was stopped before.
    ///
    /// # Errors
    /// The instance is gone.
    fn resume(&self) -> io::Result<()>;

    /// Kills everything inside, frozen or not, and removes the state directory. Idempotent; returns
    /// when nothing is left.
    fn stop(&self) -> BoxFuture<'_, ()>;

    /// Cancelled once the daemon has ended, whether by itself or through [`stop`](Self::stop).
    fn exited(&self) -> CancellationToken;
}
