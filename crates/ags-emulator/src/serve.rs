//! `ags-emulator serve`.

use std::fmt;
use std::io::IsTerminal as _;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};

use anyhow::{Context as _, bail, ensure};
use clap::Args;
use secrecy::SecretString;
use serde_json::json;
use tokio::signal::unix::{SignalKind, signal};
use tracing_subscriber::EnvFilter;

use crate::clock::Mode;
use crate::server::Emulator;
use crate::settings::{Account, Backing, Settings};

/// Options of `serve`.
#[derive(Args)]
pub struct ServeArgs {
    /// Address of control plane, E2B endpoint and data plane.
    #[arg(long, default_value = "127.0.0.1:0")]
    listen: SocketAddr,
    /// Address of the admin port, which has no authentication.
    #[arg(long, default_value = "127.0.0.1:0")]
    admin_listen: SocketAddr,
    /// Where tools and API keys are kept.
    #[arg(long)]
    state: PathBuf,
    /// Data-plane hosts are {port}-{instance}.DOMAIN.
    #[arg(long, default_value = "ags.localhost")]
    domain: String,
    /// The region that requests must name.
    #[arg(long, default_value = "ap-guangzhou")]
    region: String,
    /// Id of the account; without one an account is made on first start.
    #[arg(long, env = "AGS_EMULATOR_SECRET_ID")]
    secret_id: Option<String>,
    /// A file with the account's key.
    #[arg(long, conflicts_with = "secret_key")]
    secret_key_file: Option<PathBuf>,
    /// The account's key; meant for the environment, as arguments can be seen by other users.
    #[arg(long, env = "AGS_EMULATOR_SECRET_KEY", hide_env_values = true, hide = true)]
    secret_key: Option<SecretString>,
    /// A key that the E2B endpoint accepts besides those of CreateAPIKey.
    #[arg(long, env = "AGS_EMULATOR_API_KEY", hide_env_values = true, hide = true)]
    api_key: Option<SecretString>,
    /// Who moves the clock at first.
    #[arg(long, value_enum, default_value_t)]
    clock: Mode,
    /// What the daemons claim to be.
    #[arg(long, default_value = "0.5.14")]
    envd_version: String,
    /// Instances that may be starting or running at once.
    #[arg(long)]
    max_instances: Option<usize>,
    /// Start nothing behind instances: only the control plane works.
    #[arg(long)]
    simulate: bool,
    /// A JSON file written once both ports are open, and removed at the end.
    #[arg(long)]
    ready_file: Option<PathBuf>,
}

impl fmt::Debug for ServeArgs {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ServeArgs").field("listen", &self.listen).field("state", &self.state).finish_non_exhaustive()
    }
}

impl ServeArgs {
    fn settings(&self) -> anyhow::Result<Settings> {
        let mut settings = Settings::new(std::path::absolute(&self.state)?);
        settings.listen = self.listen;
        settings.admin_listen = self.admin_listen;
        settings.domain = self.domain.to_ascii_lowercase();
        settings.region.clone_from(&self.region);
        settings.accounts.extend(self.account()?);
        settings.api_keys.extend(self.api_key.clone());
        settings.hidden.extend(self.secret_key_file.clone());
        settings.clock = self.clock;
        settings.envd_version.clone_from(&self.envd_version);
        if self.simulate {
            settings.backing = Backing::Nothing;
        }
        if let Some(max) = self.max_instances {
            settings.tunables.max_instances = max;
        }
        Ok(settings)
    }

    fn account(&self) -> anyhow::Result<Option<Account>> {
        let secret_key = match (&self.secret_key, &self.secret_key_file) {
            (Some(key), _) => Some(key.clone()),
            (None, Some(path)) => Some(read_secret(path)?),
            (None, None) => None,
        };
        match (self.secret_id.clone(), secret_key) {
            (None, None) => Ok(None),
            (Some(secret_id), Some(secret_key)) => Ok(Some(Account { secret_id, secret_key, token: None })),
            (Some(_), None) => bail!("--secret-id needs --secret-key-file or AGS_EMULATOR_SECRET_KEY"),
            (None, Some(_)) => bail!("a secret key needs --secret-id or AGS_EMULATOR_SECRET_ID"),
        }
    }
}

fn read_secret(path: &Path) -> anyhow::Result<SecretString> {
    let text = std::fs::read_to_string(path).with_context(|| format!("cannot read {}", path.display()))?;
    let text = text.trim();
    ensure!(!text.is_empty(), "{} is empty", path.display());
    Ok(text.into())
}

/// Serves until SIGINT or SIGTERM.
///
/// # Errors
/// The options contradict each other, or the emulator cannot start.
pub fn run(args: ServeArgs) -> anyhow::Result<()> {
    let filter = EnvFilter::try_from_default_env().unwrap_or_else(|_| EnvFilter::new("info"));
    tracing_subscriber::fmt()
        .with_env_filter(filter)
        .with_writer(std::io::stderr)
        .with_ansi(std::io::stderr().is_terminal())
        .init();
    let settings = args.settings()?;
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build()?;
    runtime.block_on(serve(settings, args.ready_file.as_deref()))
}

async fn serve(settings: Settings, ready_file: Option<&Path>) -> anyhow::Result<()> {
    let (mut interrupt, mut terminate) = (signal(SignalKind::interrupt())?, signal(SignalKind::terminate())?);
    if let Some(path) = ready_file {
        remove(path)?;
    }
    let made_account = settings.accounts.is_empty();
    let state_dir = settings.state_dir.clone();
    let emulator = Emulator::start(settings).await?;
    let (url, admin_url) = (emulator.url(), emulator.admin_url());
    if made_account {
        tracing::info!(file = %state_dir.join("emulator.json").display(), "the account's key is in the state file");
    }
    tracing::info!(%url, %admin_url, "ready");
    if let Some(path) = ready_file {
        let ready = json!({"url": url, "admin_url": admin_url, "pid": std::process::id()});
        replace(path, &ready.to_string()).with_context(|| format!("cannot write {}", path.display()))?;
    }
    tokio::select! {
        _ = interrupt.recv() => tracing::info!("interrupted"),
        _ = terminate.recv() => tracing::info!("terminated"),
    }
    emulator.shutdown().await;
    ready_file.map_or(Ok(()), remove)
}

fn remove(path: &Path) -> anyhow::Result<()> {
    match std::fs::remove_file(path) {
        Err(error) if error.kind() != std::io::ErrorKind::NotFound => {
            Err(error).with_context(|| format!("cannot remove {}", path.display()))
        }
        _ => Ok(()),
    }
}

/// Whoever waits for the file must not see half of it.
fn replace(path: &Path, text: &str) -> std::io::Result<()> {
    let next = path.with_extension("next");
    std::fs::write(&next, text)?;
    std::fs::rename(next, path)
}
