//! An emulator and a gateway of a test's own.

use std::{path::PathBuf, sync::Arc};

use ags_emulator::{
    Emulator,
    settings::{Account, Backing, Settings},
};
use ags_gateway::{
    app::{self, App},
    bootstrap,
    config::{Config, Environment},
    domain::{
        scope::Scopes,
        team::{Grants, Quotas},
    },
    lifecycle::Lifecycle,
    telemetry::metrics::Metrics,
};
use secrecy::ExposeSecret;
use tempfile::TempDir;

use super::{Api, database};

const SECRET_ID: &str = "AKIDTESTTESTTESTTEST";
const SECRET_KEY: &str = "not-a-secret-of-anything";
const AUTH_SECRET: &str = "0123456789abcdef0123456789abcdef-for-tests-only";
const DOMAIN: &str = "ags.localhost";

/// What differs from test to test.
#[derive(Clone, Default)]
pub struct Options {
    /// Configuration on top of the test's own: `("SERVER__MAX_JSON_BODY", "1KiB")`.
    pub config: Vec<(&'static str, String)>,
    /// No processes behind the instances: for tests of the lifecycle alone.
    pub simulated: bool,
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
    pub url: String,
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
        let emulator = Emulator::start(settings).await.expect("an emulator");
        let database_url = database::fresh().await;
        let config = config(&database_url, &emulator, &options);
        let (app, url) = serve(config).await;
        let key = make_key(&app, "dev", Scopes::team()).await;
        let admin_key = make_key(&app, "admin", Scopes::all()).await;
        Self { emulator, app, url, database_url, key, admin_key, options, _state: state }
    }

    /// A further replica on the same database and emulator: its app and its URL.
    pub async fn replica(&self) -> (App, String) {
        serve(config(&self.database_url, &self.emulator, &self.options)).await
    }

    /// As [`replica`](Self::replica), with one setting of its own.
    pub async fn replica_with(&self, key: &'static str, value: &str) -> (App, String) {
        let options = self.options.clone().with(key, value);
        serve(config(&self.database_url, &self.emulator, &options)).await
    }

    /// The API as team `dev`.
    pub fn api(&self) -> Api {
        Api::new(&self.url, &self.key)
    }

    /// The API as an administrator.
    pub fn admin(&self) -> Api {
        Api::new(&self.url, &self.admin_key)
    }

    /// The API as a fresh team of that name.
    pub async fn team(&self, name: &str) -> Api {
        Api::new(&self.url, &make_key(&self.app, name, Scopes::team()).await)
    }
}

impl Drop for Stack {
    fn drop(&mut self) {
        self.app.lifecycle.drain();
    }
}

fn config(database_url: &str, emulator: &Emulator, options: &Options) -> Config {
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
    let variables = own
        .into_iter()
        .chain(options.config.iter().cloned())
        .map(|(key, value)| (format!("AGS_GATEWAY__{key}"), value));
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
            app::teams::create(&app.pool, &app.ids, team, &Quotas::default(), &Grants::default()).await.expect("a team")
        }
    };
    let mut connection = app.pool.acquire().await.expect("a connection");
    let wanted = app::keys::Wanted { name: "test".into(), scopes, expires_at: None, instance: None };
    let minted =
        app::keys::mint(&mut connection, &app.ids, &app.peppers, &team.id, None, &wanted).await.expect("a key");
    minted.secret.expose_secret().to_owned()
}
