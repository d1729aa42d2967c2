//! The local stack with an instance, and the way to its daemon without the gateway.

use std::{
    collections::BTreeMap,
    fs,
    path::Path,
    process::{Child, Command, Stdio},
};

use ags_client::types::AcquireSandboxInstanceTokenRequest;
use ags_gateway::{
    config::{Config, Environment},
    upstream::Upstreams,
};
use anyhow::{Context, Result};
use envd_client::Transport;
use secrecy::SecretString;
use serde_json::{Value, json};

use crate::{measure::Process, wait::eventually};

/// The stack of `ags-gateway dev`, stopped in good order.
pub struct Stack {
    supervisor: Child,
    variables: BTreeMap<String, String>,
    _directory: tempfile::TempDir,
}

impl Stack {
    pub async fn start() -> Result<Self> {
        let directory = tempfile::tempdir()?;
        let mut command = Command::new(env!("CARGO_BIN_EXE_ags-gateway"));
        command
            .args(["dev", "--port", "0", "--state"])
            .arg(directory.path())
            .stdin(Stdio::null())
            .stdout(Stdio::null());
        let supervisor = command.spawn().context("the stack")?;
        let file = directory.path().join("dev.env");
        let read = || fs::read_to_string(&file).ok().filter(|text| text.contains("DATABASE_URL="));
        let mut stack = Self { supervisor, variables: BTreeMap::new(), _directory: directory };
        stack.variables = variables(&eventually(read).await?);
        Ok(stack)
    }

    fn get(&self, name: &str) -> Result<&str> {
        self.variables.get(name).map(String::as_str).with_context(|| format!("{name} is missing in dev.env"))
    }

    /// Of the API.
    pub fn url(&self) -> Result<&str> {
        self.get("AGS_GATEWAY_URL")
    }

    pub fn key(&self) -> Result<&str> {
        self.get("AGS_GATEWAY_KEY")
    }

    pub fn gateway(&self) -> Result<Process> {
        Ok(Process::new(self.get("AGS_GATEWAY_PID")?.parse()?))
    }

    /// Starts an instance.
    pub async fn instance(&self) -> Result<Instance> {
        let client = reqwest::Client::builder().no_proxy().build()?;
        let request = client.post(format!("{}/v1/instances", self.url()?)).bearer_auth(self.key()?);
        let body = json!({"tool": "code-interpreter-v1", "timeout": "1h"});
        let created: Value = request.json(&body).send().await?.error_for_status()?.json().await?;
        let text = |field: &str| created[field].as_str().map(str::to_owned).context("an instance");
        let (transport, token) = straight(Path::new(self.get("AGS_GATEWAY_CONFIG")?), &text("upstream_id")?).await?;
        Ok(Instance { id: text("id")?, upstream_id: text("upstream_id")?, transport, token })
    }
}

impl Drop for Stack {
    fn drop(&mut self) {
        let pid = nix::unistd::Pid::from_raw(self.supervisor.id().cast_signed());
        // It stops its children before it ends itself.
        let _sent = nix::sys::signal::kill(pid, nix::sys::signal::Signal::SIGTERM);
        let _status = self.supervisor.wait();
    }
}

fn variables(text: &str) -> BTreeMap<String, String> {
    let unquoted = |value: &str| value.trim_matches('\'').to_owned();
    text.lines().filter_map(|line| line.split_once('=')).map(|(name, value)| (name.into(), unquoted(value))).collect()
}

/// An instance: what the gateway calls it, and what its daemon asks for.
pub struct Instance {
    pub id: String,
    pub upstream_id: String,
    pub transport: Transport,
    pub token: SecretString,
}

async fn straight(config: &Path, instance: &str) -> Result<(Transport, SecretString)> {
    let config = Config::load(&Environment::new(Vec::<(String, String)>::new()), Some(config))
        .map_err(|errors| anyhow::anyhow!("{errors}"))?;
    let upstreams = Upstreams::build(&config)?;
    let upstream = upstreams.get(upstreams.default_name())?;
    let request = AcquireSandboxInstanceTokenRequest { instance_id: instance.to_owned() };
    let token = upstream.control.call(&request).await?.value.token.into_secret();
    Ok((upstream.data.clone(), token))
}
