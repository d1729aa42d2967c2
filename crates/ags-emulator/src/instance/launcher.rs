//! Brings instances up as child processes of this one.

use std::ffi::OsString;
use std::io;
use std::os::fd::OwnedFd;
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::sync::Arc;
use std::time::Duration;

use futures_util::FutureExt as _;
use futures_util::future::BoxFuture;
use secrecy::ExposeSecret as _;
use tokio::process::Command;

use super::handle::{Parts, Running};
use super::inside::{DAEMON_LOG, Isolation, Plan};
use super::link::{self, Link};
use super::network::Stack;
use super::{Instance, InstanceSpec, Launch, LaunchError, SEARCH_PATH};

/// How long an instance may take while the launcher finds out what the machine allows.
const TRIAL: Duration = Duration::from_secs(10);

/// How long freezing and thawing may take.
const COMMAND_LIMIT: Duration = Duration::from_secs(2);

/// What the launcher needs to know of its surroundings.
#[derive(Clone, Debug)]
pub struct LauncherSettings {
    /// The `ags-emulator` binary, whose `daemon` command runs inside.
    pub executable: PathBuf,
    /// Where [`Launcher::detect`] makes its trial instance; removed afterwards.
    pub scratch_dir: PathBuf,
    /// Files and directories of this machine that must not be seen inside: state and secrets.
    pub hidden: Vec<PathBuf>,
    /// Files and directories under `/home`, `/root` or `/tmp`, which are replaced inside, that stay
    /// visible there read-only.
    pub exposed: Vec<PathBuf>,
    /// At most this isolation; `None`: the best that the machine allows.
    pub isolation: Option<Isolation>,
}

/// Brings instances up with the isolation that this machine allows.
pub struct Launcher {
    settings: LauncherSettings,
    isolation: Isolation,
    stack: Option<Stack>,
    search_path: OsString,
}

impl Launcher {
    /// Finds out by trial which isolation this machine allows, and logs it.
    ///
    /// # Errors
    /// Not even an instance without isolation starts; the text says why.
    pub async fn detect(mut settings: LauncherSettings) -> Result<Self, LaunchError> {
        std::fs::create_dir_all(&settings.scratch_dir).map_err(LaunchError::Spawn)?;
        for path in settings.hidden.iter_mut().chain(&mut settings.exposed) {
            *path = std::path::absolute(&*path).map_err(LaunchError::Spawn)?;
        }
        let candidates = match settings.isolation {
            Some(wanted) => vec![wanted],
            None if nix::unistd::geteuid().is_root() => {
                vec![Isolation::Namespaces, Isolation::UserNamespace, Isolation::None]
            }
            None => vec![Isolation::UserNamespace, Isolation::None],
        };
        let mut failure = LaunchError::Timeout;
        for isolation in candidates {
            let launcher = Self::with(settings.clone(), isolation);
            match launcher.trial().await {
                Ok(report) => {
                    launcher.announce(&report);
                    return Ok(launcher);
                }
                Err(error) => {
                    tracing::info!(%isolation, %error, "isolation not available");
                    failure = error;
                }
            }
        }
        Err(failure)
    }

    fn with(settings: LauncherSettings, isolation: Isolation) -> Self {
        let search_path = std::env::var_os("PATH").unwrap_or_else(|| SEARCH_PATH.into());
        Self {
            stack: Stack::find(&search_path).filter(|_| isolation != Isolation::None),
            search_path: match isolation {
                Isolation::None => search_path,
                _ => SEARCH_PATH.into(),
            },
            settings,
            isolation,
        }
    }

    /// The isolation that instances get.
    #[must_use]
    pub fn isolation(&self) -> Isolation {
        self.isolation
    }

    async fn trial(&self) -> Result<String, LaunchError> {
        let directory = tempfile::Builder::new()
            .prefix("trial-")
            .tempdir_in(&self.settings.scratch_dir)
            .map_err(LaunchError::Spawn)?;
        let spec = InstanceSpec {
            id: "trial".into(),
            state_dir: directory.path().to_owned(),
            envs: std::collections::BTreeMap::new(),
            command: Vec::new(),
            args: Vec::new(),
            probe: None,
            cpu: None,
            memory: None,
            network: false,
            envd_version: "0.5.14".into(),
            envd_token: None,
            code_interpreter: false,
        };
        let instance = self.start(spec)?;
        let report = tokio::time::timeout(TRIAL, instance.daemon_ready()).await;
        let report = report.unwrap_or(Err(LaunchError::Timeout));
        instance.stop().await;
        report
    }

    fn announce(&self, report: &str) {
        match self.isolation {
            Isolation::None => {
                tracing::warn!("this machine allows no namespaces: instances share its files, ports and processes")
            }
            _ => tracing::info!(isolation = report, "instances are isolated"),
        }
        match (&self.stack, self.isolation) {
            (Some(stack), _) => tracing::info!(program = %stack, "instances reach the network"),
            (None, Isolation::None) => {}
            (None, _) => tracing::info!("neither pasta nor slirp4netns is installed: instances have loopback only"),
        }
    }

    fn start(&self, spec: InstanceSpec) -> Result<Arc<Running>, LaunchError> {
        let state_dir = prepare(&spec.state_dir).map_err(LaunchError::Spawn)?;
        let stack = self.stack.clone().filter(|_| spec.network);
        let plan = self.plan(&spec, &state_dir, stack.as_ref());
        let spawned = self.spawn(&plan).map_err(LaunchError::Spawn)?;
        Ok(Running::start(Parts {
            child: spawned.child,
            link: spawned.link,
            commands: spawned.commands,
            isolation: self.isolation,
            state_dir,
            stack,
            probe: spec.probe.filter(|_| !plan.command.is_empty()),
        }))
    }

    fn plan(&self, spec: &InstanceSpec, state_dir: &Path, stack: Option<&Stack>) -> Plan {
        let command = match spec.command.as_slice() {
            [] => Vec::new(),
            command => [command, &spec.args].concat(),
        };
        Plan {
            id: spec.id.clone(),
            isolation: self.isolation,
            state_dir: state_dir.to_owned(),
            hidden: self.settings.hidden.clone(),
            exposed: self.settings.exposed.clone(),
            resolv_conf: stack.map(Stack::resolv_conf),
            envs: spec.envs.clone(),
            command,
            envd_version: spec.envd_version.clone(),
            token: spec.envd_token.as_ref().map(|token| token.expose_secret().to_owned()),
            code_interpreter: spec.code_interpreter,
            cpu: spec.cpu,
            memory: spec.memory,
        }
    }

    fn spawn(&self, plan: &Plan) -> io::Result<Spawned> {
        let path = plan.state_dir.join("plan.json");
        write_private(&path, &serde_json::to_vec(plan)?)?;
        let (control, inherited_control) = link::pair()?;
        let (commands, inherited_commands) = UnixStream::pair()?;
        commands.set_read_timeout(Some(COMMAND_LIMIT))?;
        commands.set_write_timeout(Some(COMMAND_LIMIT))?;
        let log = std::fs::File::create(plan.state_dir.join(DAEMON_LOG))?;
        let child = Command::new(&self.settings.executable)
            .arg("daemon")
            .arg("--plan")
            .arg(&path)
            .env_clear()
            .env("PATH", &self.search_path)
            .current_dir("/")
            .stdin(Stdio::from(inherited_control))
            .stdout(Stdio::from(OwnedFd::from(inherited_commands)))
            .stderr(Stdio::from(log))
            .kill_on_drop(true)
            .spawn()?;
        Ok(Spawned { child, link: Link::new(control)?, commands })
    }
}

impl Launch for Launcher {
    fn launch(&self, spec: InstanceSpec) -> BoxFuture<'_, Result<Arc<dyn Instance>, LaunchError>> {
        async move { self.start(spec).map(|running| running as Arc<dyn Instance>) }.boxed()
    }
}

struct Spawned {
    child: tokio::process::Child,
    link: Link,
    commands: UnixStream,
}

/// A fresh state directory: what an instance of the same id left is removed.
fn prepare(state_dir: &Path) -> io::Result<PathBuf> {
    let state_dir = std::path::absolute(state_dir)?;
    super::handle::remove_state(&state_dir)?;
    std::fs::create_dir_all(&state_dir)?;
    state_dir.canonicalize()
}

fn write_private(path: &Path, content: &[u8]) -> io::Result<()> {
    use std::io::Write as _;
    use std::os::unix::fs::OpenOptionsExt as _;
    let mut options = std::fs::File::options();
    options.write(true).create(true).truncate(true).mode(0o600);
    options.open(path)?.write_all(content)
}
