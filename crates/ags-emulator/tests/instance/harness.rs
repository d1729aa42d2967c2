//! Launches instances and talks HTTP to what runs inside.

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::sync::Arc;

use ags_emulator::instance::inside::Isolation;
use ags_emulator::instance::{Instance, InstanceSpec, Launch as _, Launcher, LauncherSettings};
use anyhow::Context as _;

/// A launcher with a state directory of its own.
pub struct Machine {
    pub launcher: Launcher,
    pub state: tempfile::TempDir,
}

impl Machine {
    /// With the best isolation of this machine.
    pub async fn best() -> anyhow::Result<Self> {
        Self::with(None).await
    }

    /// Every kind of isolation that this machine allows, none included.
    pub async fn all() -> Vec<Self> {
        let mut machines = Vec::new();
        for isolation in [Isolation::Namespaces, Isolation::UserNamespace, Isolation::None] {
            machines.extend(Self::with(Some(isolation)).await.ok());
        }
        machines
    }

    async fn with(isolation: Option<Isolation>) -> anyhow::Result<Self> {
        let state = tempfile::tempdir()?;
        let settings = LauncherSettings {
            executable: PathBuf::from(env!("CARGO_BIN_EXE_ags-emulator")),
            scratch_dir: state.path().to_owned(),
            hidden: vec![state.path().to_owned()],
            exposed: Vec::new(),
            isolation,
        };
        Ok(Self { launcher: Launcher::detect(settings).await?, state })
    }

    pub fn isolated(&self) -> bool {
        self.launcher.isolation() != Isolation::None
    }

    /// Root and user are different people inside.
    pub fn users_are_real(&self) -> bool {
        nix::unistd::geteuid().is_root() && self.launcher.isolation() != Isolation::UserNamespace
    }

    pub fn spec(&self, id: &str) -> InstanceSpec {
        InstanceSpec {
            id: id.into(),
            state_dir: self.state.path().join(id),
            envs: BTreeMap::from([("WIDE".into(), "of the sandbox".into())]),
            command: Vec::new(),
            args: Vec::new(),
            probe: None,
            cpu: None,
            memory: None,
            network: false,
            envd_version: "0.5.14".into(),
            envd_token: None,
            code_interpreter: false,
        }
    }

    pub async fn launch(&self, spec: InstanceSpec) -> anyhow::Result<Arc<dyn Instance>> {
        let instance = self.launcher.launch(spec).await?;
        instance.ready().await.context("readiness")?;
        Ok(instance)
    }

    pub async fn instance(&self, id: &str) -> anyhow::Result<Arc<dyn Instance>> {
        self.launch(self.spec(id)).await
    }
}
