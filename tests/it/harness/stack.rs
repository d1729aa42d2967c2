//! An emulator and a gateway of a test's own.

use std::{
    path::{Path, PathBuf},
    process::{Command, Stdio},
    sync::Arc,
};

use ags_emulator::{
    Emulator,
    settings::{Account, Backing, Settings},
};
use ags_gateway::{
    app::{self, App, idempotency::Intent, keys::Mint},
    auth::Trail,
    bootstrap,
    config::{Config, Environment},
    domain::{
        credential::KeyKind,
        scope::Scopes,
        team::{Grants, Quotas},
    },
    lifecycle::Lifecycle,
    telemetry::metrics::Metrics,
};
use secrecy::ExposeSecret;
use tempfile::TempDir;

use super::{Api, database, setting};

const SECRET_ID: &str = "AKIDTESTTESTTESTTEST";
const SECRET_KEY: &str = "not-a-secret-of-anything";
const AUTH_SECRET: &str = "0123456789abcdef0123456789abcdef-for-tests-only";
/// What no log may hold.
pub const SECRETS: [&str; 2] = [SECRET_KEY, AUTH_SECRET];
const DOMAIN: &str = "ags.localhost";

/// What differs from test to test.
#[derive(Clone, Default)]
pub struct Options {
    /// Configuration on top of the test's own: `("SERVER__MAX_JSON_BODY", "1KiB")`.
    pub config: Vec<(&'static str, String)>,
    /// No processes behind the instances: for tests of the lifecycle alone.
    pub simulated: bool,
    /// What the daemons claim to be, where it matters.
    pub envd_version: Option<&'static str>,
}

impl Options {
    pub fn simulated() -> Self {
        Self { simulated: true, ..Self::default() }
    }

    pub fn with(mut self, key: &'static str, value: impl Into<String>) -> Self {
        self.config.push((key, value.into()));
        self
    }
}

/// A gateway in front of an emulator. Dropping it ends both.
pub struct Stack {
    pub emulator: Emulator,
    pub app: App,
    /// Of the gateway whose app this is.
    pub url: String,
    /// Asks all gateways by turns: one, or `AGS_TEST_GATEWAYS`.
    anybody: Api,
    others: Vec<App>,
    pub database_url: String,
    /// A key of team `dev` with every team scope.
    pub key: String,
    /// A key of the administrators' team with every scope.
    pub admin_key: String,
    options: Options,
    _state: TempDir,
}

/// The emulator's binary, next to this test's: built with the workspace.
fn daemon() -> PathBuf {
    let mut path = std::env::current_exe().expect("the test's own path");
    path.pop();
    if path.ends_with("deps") {
        path.pop();
    }
    let path = path.join("ags-emulator");
    assert!(path.exists(), "{} is missing: run `cargo build --workspace` first", path.display());
    path
}

impl Stack {
    pub async fn start() -> Self {
        Self::with(Options::default()).await
    }

    pub async fn with(options: Options) -> Self {
        let state = TempDir::new().expect("a directory");
        let mut settings = Settings::new(state.path());
        settings.accounts =
            vec![Account { secret_id: SECRET_ID.into(), secret_key: SECRET_KEY.to_owned().into(), token: None }];
        settings.domain = DOMAIN.into();
        settings.backing =
            if options.simulated { Backing::Nothing } else { Backing::Processes { daemon: Some(daemon()) } };
        if let Some(version) = options.envd_version {
            settings.envd_version = version.into();
        }
        let emulator = Emulator::start(settings).await.expect("an emulator");
        let database_url = database::fresh().await;
        let (app, url) = serve(config(&database_url, &emulator, &options)).await;
        let (mut urls, mut others) = (vec![url.clone()], Vec::new());
        for _ in 1..setting("AGS_TEST_GATEWAYS", 1) {
            let (app, url) = serve(config(&database_url, &emulator, &options)).await;
            urls.push(url);
            others.push(app);
        }
        let key = make_key(&app, "dev", Scopes::team()).await;
        let admin_key = make_key(&app, "admin", Scopes::all()).await;
        let anybody = Api::anonymous(&url).spread(&urls);
        Self { emulator, app, url, anybody, others, database_url, key, admin_key, options, _state: state }
    }

    /// A further replica on the same database and emulator: its app and its URL.
    pub async fn replica(&self) -> (App, String) {
        serve(config(&self.database_url, &self.emulator, &self.options)).await
    }

    /// As [`replica`](Self::replica), with one setting of its own.
    pub async fn replica_with(&self, key: &'static str, value: &str) -> (App, String) {
        self.replica_as(&[(key, value)]).await
    }

    /// As [`replica`](Self::replica), with settings of its own.
    pub async fn replica_as(&self, settings: &[(&'static str, &str)]) -> (App, String) {
        let options = settings.iter().fold(self.options.clone(), |options, (key, value)| options.with(key, *value));
        serve(config(&self.database_url, &self.emulator, &options)).await
    }

    /// The API as the bearer of a key.
    pub fn bearer(&self, key: &str) -> Api {
        self.anybody.bearing(key)
    }

    /// The API as team `dev`.
    pub fn api(&self) -> Api {
        self.bearer(&self.key)
    }

    /// The API as an administrator.
    pub fn admin(&self) -> Api {
        self.bearer(&self.admin_key)
    }

    /// A program `ags-gateway serve` on the same database and emulator.
    pub fn program(&self, ready_file: &Path) -> Command {
        let mut command = self.command(&["serve", "--ready-file"]);
        command.arg(ready_file).stdout(Stdio::null()).stderr(Stdio::null());
        command
    }

    /// A program `ags-gateway` with these arguments on the same database and emulator.
    pub fn command(&self, arguments: &[&str]) -> Command {
        let mut command = Command::new(env!("CARGO_BIN_EXE_ags-gateway"));
        command.env_clear().envs(variables(&self.database_url, &self.emulator, &self.options)).args(arguments);
        command
    }

    /// The API as a fresh team of that name.
    pub async fn team(&self, name: &str) -> Api {
        self.bearer(&make_key(&self.app, name, Scopes::team()).await)
    }
}

impl Drop for Stack {
    fn drop(&mut self) {
        self.app.lifecycle.drain();
        for other in &self.others {
            other.lifecycle.drain();
        }
    }
}

fn variables(database_url: &str, emulator: &Emulator, options: &Options) -> Vec<(String, String)> {
    let own = [
        ("SERVER__LISTEN", "127.0.0.1:0".to_owned()),
        ("DATABASE__URL", database_url.to_owned()),
        ("DATABASE__MAX_CONNECTIONS", "8".to_owned()),
        ("AUTH__SECRET", AUTH_SECRET.to_owned()),
        ("UPSTREAM_DEFAULTS__REGION", "ap-guangzhou".to_owned()),
        ("UPSTREAM_DEFAULTS__ENDPOINT", emulator.url()),
        ("UPSTREAM_DEFAULTS__DOMAIN", DOMAIN.to_owned()),
        ("UPSTREAM_DEFAULTS__SCHEME", "http".to_owned()),
        ("UPSTREAM_DEFAULTS__CONNECT_TO", emulator.address().to_string()),
        ("UPSTREAM_DEFAULTS__QPS", "1000".to_owned()),
        ("UPSTREAM_DEFAULTS__CREDENTIALS__SECRET_ID", SECRET_ID.to_owned()),
        ("UPSTREAM_DEFAULTS__CREDENTIALS__SECRET_KEY", SECRET_KEY.to_owned()),
    ];
    let all = own.into_iter().chain(options.config.iter().cloned());
    all.map(|(key, value)| (format!("AGS_GATEWAY__{key}"), value)).collect()
}

fn config(database_url: &str, emulator: &Emulator, options: &Options) -> Config {
    let variables = variables(database_url, emulator, options);
    Config::load(&Environment::new(variables), None).expect("a valid configuration")
}

async fn serve(config: Config) -> (App, String) {
    let running =
        bootstrap::serve(Arc::new(config), Metrics::detached(), Lifecycle::default()).await.expect("a gateway");
    (running.app.clone(), format!("http://{}", running.local_addr))
}

async fn make_key(app: &App, team: &str, scopes: Scopes) -> String {
    let team = match app::teams::get(&app.pool, team).await {
        Ok(team) => team,
        Err(_) => {
            // Tests ask as fast as they can.
            let quotas = Quotas { requests_per_second: 1_000_000, ..Quotas::default() };
            let grants = Grants { tokens: true, imports: true, ..Grants::default() };
            let (trail, noted) = (Trail::default(), Intent::default());
            app::teams::create(&app.pool, &app.ids, team, &quotas, &grants, &trail, &noted).await.expect("a team")
        }
    };
    let mut connection = app.pool.acquire().await.expect("a connection");
    let wanted =
        app::keys::Wanted { name: "test".into(), scopes, expires_at: None, instance: None, kind: KeyKind::Api };
    let minted = app::keys::mint(&mut connection, Mint::of(app), &team.id, None, &wanted).await.expect("a key");
    minted.secret.into_key().expect("a key").expose_secret().to_owned()
}
