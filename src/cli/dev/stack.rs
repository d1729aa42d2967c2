//! The three processes: started in order, restarted one by one, stopped in reverse.

use std::{
    fmt, io,
    net::{Ipv4Addr, SocketAddr, TcpListener},
    process::ExitStatus,
    time::Duration,
};

use anyhow::{Context, bail};
use devstack::{Child, Postgres, files, postgres::Options};
use secrecy::{ExposeSecret, SecretString};
use serde_json::json;

use super::{
    config::{self, DEFAULT_TOOL, DOMAIN, REGION, SECRET_ID},
    https::Https,
    programs::{self, Programs},
    service::{Ready, Service},
    state::{Record, State},
    tenants::{self, Keys},
};

const DATABASE: &str = "ags_gateway";
/// More than the cloud's default of 10: a developer's instances share one account.
const MAX_INSTANCES: &str = "100";
const CALL_TIMEOUT: Duration = Duration::from_secs(30);

/// One of the three.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Part {
    Postgres,
    Emulator,
    Gateway,
}

impl fmt::Display for Part {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Postgres => "PostgreSQL",
            Self::Emulator => "the emulator",
            Self::Gateway => "the gateway",
        })
    }
}

/// A part ended without being told to, or did not come back.
#[derive(Clone, Copy, Debug)]
pub(super) struct Death {
    pub part: Part,
    status: Option<ExitStatus>,
}

impl Death {
    async fn of(part: Part, child: Option<&Child>) -> Self {
        let status = match child {
            Some(child) => Some(child.exited().await),
            None => None,
        };
        Self { part, status }
    }
}

impl fmt::Display for Death {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.status {
            Some(status) => write!(f, "{} ended ({status})", self.part),
            None => write!(f, "{} does not run", self.part),
        }
    }
}

/// The stack. Dropping it kills all three, nobody before those who work with it.
pub(super) struct Stack {
    gateway: Option<Service>,
    emulator: Option<Service>,
    postgres: Option<Postgres>,
    state: State,
    programs: Programs,
    keys: Keys,
    emulator_key: SecretString,
    database_url: String,
    https: Option<Https>,
    gateway_address: SocketAddr,
    emulator_address: SocketAddr,
    emulator_admin_address: SocketAddr,
}

impl Stack {
    /// Nothing runs yet.
    pub(super) fn new(state: State, programs: Programs, port: u16, tls: bool) -> anyhow::Result<Self> {
        let free = free_port(port)?;
        let https = tls.then(|| Https::prepare(&state.path("tls"), free)).transpose()?;
        let port = if tls { 0 } else { port };
        state.secret("auth.key")?;
        let emulator_key = state.secret("emulator.key")?.into();
        let any_port = SocketAddr::from((Ipv4Addr::LOCALHOST, 0));
        Ok(Self {
            gateway: None,
            emulator: None,
            postgres: None,
            state,
            programs,
            keys: Keys::default(),
            emulator_key,
            database_url: String::new(),
            https,
            gateway_address: SocketAddr::from((Ipv4Addr::LOCALHOST, port)),
            emulator_address: any_port,
            emulator_admin_address: any_port,
        })
    }

    pub(super) async fn start(&mut self) -> anyhow::Result<()> {
        self.start_postgres().await?;
        self.start_emulator().await?;
        self.keys = tenants::prepare(&self.state.path("gateway.toml")).await?;
        self.start_gateway().await?;
        if let Err(error) = self.ensure_default_tool().await {
            println!("there is no default tool: {error:#}");
        }
        self.write_dev_env()
    }

    async fn start_postgres(&mut self) -> anyhow::Result<()> {
        // The old one goes first: both would use the same socket directory.
        self.postgres = None;
        let options = Options { data: self.state.path("postgres"), log: self.state.log("postgres"), durable: true };
        let postgres = Postgres::start(&options).await?;
        postgres.create_database(DATABASE).await?;
        self.database_url = postgres.url(DATABASE);
        self.postgres = Some(postgres);
        self.record()
    }

    async fn start_emulator(&mut self) -> anyhow::Result<()> {
        let (ready_file, log) = (self.state.path("emulator.ready"), self.state.log("emulator"));
        let mut command = programs::command(&self.programs.emulator, &log)?;
        command.arg("serve").arg("--listen").arg(self.emulator_address.to_string());
        command.arg("--admin-listen").arg(self.emulator_admin_address.to_string());
        command.arg("--state").arg(self.state.path("emulator")).args(["--domain", DOMAIN, "--region", REGION]);
        command.args(["--max-instances", MAX_INSTANCES, "--secret-id", SECRET_ID]);
        command.arg("--secret-key-file").arg(self.state.path("emulator.key")).arg("--ready-file").arg(&ready_file);
        files::remove_file(&ready_file)?;
        self.emulator = None;
        let service = self.emulator.insert(Service::spawn("emulator", command).await?);
        self.state.record(&running(self.gateway.as_ref(), Some(service), self.postgres.as_ref()))?;
        let ready = service.ready(&ready_file, &log).await?;
        self.emulator_address = address_of(&ready.url)?;
        self.emulator_admin_address = address_of(ready.admin_url.as_ref().context("the emulator has no admin port")?)?;
        let config = config::render(&self.database_url, self.emulator_address, self.https.as_ref())?;
        Ok(files::write_private(&self.state.path("gateway.toml"), &config)?)
    }

    async fn start_gateway(&mut self) -> anyhow::Result<()> {
        let (ready_file, log) = (self.state.path("gateway.ready"), self.state.log("gateway"));
        let mut command = programs::command(&self.programs.gateway, &log)?;
        command.arg("serve").arg("--config").arg(self.state.path("gateway.toml"));
        command.arg("--listen").arg(self.gateway_address.to_string()).arg("--ready-file").arg(&ready_file);
        if let Some(https) = &self.https {
            // Not in the file: replicas with the same configuration would want the same port.
            command.env("AGS_GATEWAY__SERVER__TLS__LISTEN", https.address().to_string());
        }
        files::remove_file(&ready_file)?;
        self.gateway = None;
        let service = self.gateway.insert(Service::spawn("gateway", command).await?);
        self.state.record(&running(Some(service), self.emulator.as_ref(), self.postgres.as_ref()))?;
        let Ready { url, .. } = service.ready(&ready_file, &log).await?;
        self.gateway_address = address_of(&url)?;
        Ok(())
    }

    /// Starts one part again, on the port it had.
    pub(super) async fn restart(&mut self, part: Part) -> anyhow::Result<()> {
        match part {
            Part::Postgres => self.start_postgres().await?,
            Part::Emulator => self.start_emulator().await?,
            Part::Gateway => self.start_gateway().await?,
        }
        self.write_dev_env()
    }

    /// Waits until one of the three is not there.
    pub(super) async fn next_death(&self) -> Death {
        tokio::select! {
            biased;
            death = Death::of(Part::Postgres, self.postgres.as_ref().map(Postgres::child)) => death,
            death = Death::of(Part::Emulator, self.emulator.as_ref().map(Service::child)) => death,
            death = Death::of(Part::Gateway, self.gateway.as_ref().map(Service::child)) => death,
        }
    }

    /// Stops what runs, and forgets that it did.
    pub(super) async fn stop(mut self) -> anyhow::Result<()> {
        if let Some(gateway) = self.gateway.take() {
            gateway.stop().await;
        }
        if let Some(emulator) = self.emulator.take() {
            emulator.stop().await;
        }
        if let Some(postgres) = self.postgres.take() {
            postgres.stop().await;
        }
        self.state.forget_run()
    }

    fn record(&self) -> anyhow::Result<()> {
        self.state.record(&running(self.gateway.as_ref(), self.emulator.as_ref(), self.postgres.as_ref()))
    }

    /// The tool that instances get when they name none; kept from earlier runs.
    async fn ensure_default_tool(&self) -> anyhow::Result<()> {
        let client = reqwest::Client::builder().no_proxy().timeout(CALL_TIMEOUT).build()?;
        let url = format!("{}/v1/tools?wait=20s", self.plain_url());
        let body = json!({"name": DEFAULT_TOOL, "type": "custom", "description": "The local stack's default tool."});
        let response = client.post(&url).bearer_auth(self.key()).json(&body).send().await?;
        let status = response.status();
        if status.is_success() || status == http::StatusCode::CONFLICT {
            return Ok(());
        }
        bail!("the default tool cannot be made: {status} {}", response.text().await?)
    }

    fn write_dev_env(&self) -> anyhow::Result<()> {
        self.record()?;
        let lines: String =
            self.variables().iter().map(|(name, value)| format!("{name}={}\n", shell_word(value))).collect();
        Ok(files::write_private(&self.state.path("dev.env"), &lines)?)
    }

    fn variables(&self) -> Vec<(&'static str, String)> {
        let pid = self.gateway.as_ref().map(|service| service.child().id().pid.to_string());
        let of_tls = self.https.iter().flat_map(|https| {
            let key = self.key().trim_start_matches("agsk_");
            let own = [("AGS_GATEWAY_HTTP_URL", self.plain_url()), ("E2B_API_KEY", format!("e2b_{key}"))];
            own.into_iter().chain(https.variables())
        });
        let always = [
            ("AGS_GATEWAY_URL", self.url()),
            ("AGS_GATEWAY_KEY", self.key().to_owned()),
            ("AGS_GATEWAY_ADMIN_KEY", self.keys.admin.expose_secret().to_owned()),
            ("AGS_GATEWAY_SECRET_ID", self.keys.pair.secret_id.clone()),
            ("AGS_GATEWAY_SECRET_KEY", self.keys.pair.secret_key.expose_secret().to_owned()),
            ("AGS_GATEWAY_PID", pid.unwrap_or_default()),
            ("AGS_GATEWAY_CONFIG", self.state.path("gateway.toml").display().to_string()),
            ("AGS_EMULATOR_URL", format!("http://{}", self.emulator_address)),
            ("AGS_EMULATOR_SECRET_ID", SECRET_ID.to_owned()),
            ("AGS_EMULATOR_SECRET_KEY", self.emulator_key.expose_secret().to_owned()),
            ("AGS_EMULATOR_ADMIN_URL", format!("http://{}", self.emulator_admin_address)),
            ("DATABASE_URL", self.database_url.clone()),
        ];
        always.into_iter().chain(of_tls).collect()
    }

    /// For clients.
    pub(super) fn url(&self) -> String {
        self.https.as_ref().map_or_else(|| self.plain_url(), Https::url)
    }

    fn plain_url(&self) -> String {
        format!("http://{}", self.gateway_address)
    }

    pub(super) fn https(&self) -> Option<&Https> {
        self.https.as_ref()
    }

    pub(super) fn key(&self) -> &str {
        self.keys.team.expose_secret()
    }

    pub(super) fn state(&self) -> &State {
        &self.state
    }
}

/// In the order in which leftovers are to be ended.
fn running(gateway: Option<&Service>, emulator: Option<&Service>, postgres: Option<&Postgres>) -> Vec<Record> {
    let services = gateway.into_iter().chain(emulator).map(|service| (service.name(), service.child()));
    services
        .chain(postgres.map(|postgres| ("postgres", postgres.child())))
        .map(|(name, child)| Record { name: name.to_owned(), process: child.id().clone() })
        .collect()
}

/// A taken port is found before anything is started. For 0, one that is free.
fn free_port(port: u16) -> anyhow::Result<u16> {
    match TcpListener::bind((Ipv4Addr::LOCALHOST, port)) {
        Ok(listener) => Ok(listener.local_addr()?.port()),
        Err(error) if error.kind() == io::ErrorKind::AddrInUse => {
            bail!("port {port} is in use: choose another with --port, or --port 0 for any free one")
        }
        Err(error) => Err(error).with_context(|| format!("port {port} cannot be used")),
    }
}

/// Both services listen on an IP address, and say so.
fn address_of(url: &str) -> anyhow::Result<SocketAddr> {
    let address = url.strip_prefix("http://").and_then(|rest| rest.trim_end_matches('/').parse().ok());
    address.with_context(|| format!("{url} is not the address of a service"))
}

/// As a shell reads it back. Plain values stay as they are, for readers that are no shell.
fn shell_word(value: &str) -> String {
    let plain = |c: char| c.is_ascii_alphanumeric() || "/:.,_-+=@%?".contains(c);
    if value.chars().all(plain) { value.to_owned() } else { format!("'{}'", value.replace('\'', r"'\''")) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_what_needs_quotes_is_quoted() {
        assert_eq!(shell_word("postgres://p@localhost/d?host=/tmp/x"), "postgres://p@localhost/d?host=/tmp/x");
        assert_eq!(shell_word("/home/o'neil/my state"), r"'/home/o'\''neil/my state'");
    }

    #[test]
    fn a_taken_port_is_one_sentence() {
        let taken = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).unwrap();
        let port = taken.local_addr().unwrap().port();
        let error = free_port(port).unwrap_err().to_string();
        assert_eq!(error, format!("port {port} is in use: choose another with --port, or --port 0 for any free one"));
    }
}
