//! The one place where the parts are put together.

use std::{net::SocketAddr, sync::Arc, time::Duration};

use anyhow::Context;
use secrecy::ExposeSecret;
use sqlx::{
    Connection, PgConnection, PgPool,
    pool::PoolConnectionMetadata,
    postgres::{PgConnectOptions, PgPoolOptions},
};
use tokio::net::TcpListener;
use tokio_rustls::TlsAcceptor;

use crate::{
    access::Access,
    app::{
        App, Parts, Upkeep,
        activity::{self, Activity},
        audit::{self, History},
        exec::{self, Execs},
        holds::{self, Holders},
        instances::Lines,
        peers::Peers,
        ports::Ports,
        rates::{self, Rates},
        runs::Runs,
        sockets::Sockets,
    },
    auth::{Authenticator, Grants, Signers, Tickets},
    clock::{self, SharedClock},
    config::{Config, Database},
    domain::credential::Peppers,
    failover,
    http::{self, tls::Certificates},
    ids::Ids,
    jobs,
    lifecycle::Lifecycle,
    storage,
    telemetry::metrics::Metrics,
    upstream::Upstreams,
};

/// How long a connection to the database is believed to stand after it was used.
const BELIEVED: Duration = Duration::from_secs(1);

/// Connects to the database.
///
/// # Errors
/// When the URL is malformed or the server does not answer within the acquire timeout.
pub async fn connect(database: &Database) -> anyhow::Result<PgPool> {
    let options: PgConnectOptions = database.url.expose_secret().parse().context("the database URL is malformed")?;
    let timeout = format!("{}ms", database.statement_timeout.as_millis());
    PgPoolOptions::new()
        .max_connections(database.max_connections)
        .acquire_timeout(database.acquire_timeout)
        .test_before_acquire(false)
        .before_acquire(|connection, meta| Box::pin(tested(connection, meta)))
        .connect_with(options.application_name("ags-gateway").options([("statement_timeout", timeout)]))
        .await
        .context("the database cannot be reached")
}

/// Asks a connection whether it still stands, unless it did a moment ago: each query would wait for two answers. One that may
/// lead to a server that takes no writes any more is given up.
async fn tested(connection: &mut PgConnection, meta: PoolConnectionMetadata) -> sqlx::Result<bool> {
    if failover::is_suspect(meta.age) {
        return Ok(false);
    }
    if meta.idle_for > BELIEVED {
        connection.ping().await?;
    }
    Ok(true)
}

/// A gateway that accepts requests.
pub struct Running {
    pub local_addr: SocketAddr,
    /// Of the listener for HTTPS.
    pub tls_addr: Option<SocketAddr>,
    pub app: App,
    server: tokio::task::JoinHandle<()>,
}

impl Running {
    /// Waits until no more connections are taken: after the lifecycle was told to drain.
    ///
    /// # Errors
    /// When the server's task was lost.
    pub async fn wait(self) -> anyhow::Result<()> {
        self.server.await.context("the server's task was lost")
    }
}

/// Puts the operations together. Nothing listens yet.
///
/// # Errors
/// When the database fails, or its schema is not the one of this version.
pub async fn build(config: Arc<Config>, pool: PgPool, metrics: Metrics, lifecycle: Lifecycle) -> anyhow::Result<App> {
    let applied = storage::applied_migrations(&pool).await.unwrap_or_default();
    let known = storage::MIGRATIONS.iter().count();
    anyhow::ensure!(
        applied >= known,
        "the database has {applied} of {known} migrations: run `ags-gateway migrate` first"
    );
    let deployment = storage::deployment_id(&mut *pool.acquire().await?).await?;
    let clock: SharedClock = Arc::new(clock::System);
    let ids = Ids::new(Arc::clone(&clock));
    let peppers = Arc::new(Peppers::derive(&config.auth.secret, config.auth.previous_secret.as_ref()));
    let replica = ids.token();
    let (history, pending) = History::new(config.audit.commands);
    lifecycle.spawn_last("history", audit::write(pool.clone(), pending, lifecycle.closing()));
    let grants = Grants::new(pool.clone(), Arc::clone(&peppers), Arc::clone(&clock), &replica);
    Ok(App::new(Parts {
        execs: Execs::new(&replica, config.exec.memory_reserve),
        sockets: Sockets::default(),
        peers: Peers::default(),
        ports: Ports::new(&config.ports),
        runs: Runs::default(),
        rates: Rates::default(),
        lines: Lines::default(),
        holders: Holders::default(),
        activity: Activity::default(),
        history,
        ids,
        auth: Authenticator::new(pool.clone(), Arc::clone(&peppers), grants.clone()),
        grants,
        signers: Signers::new(pool.clone(), Arc::new(config.auth.seals())),
        tickets: Tickets::new(pool.clone(), Arc::clone(&peppers), config.auth.ticket_ttl),
        upstreams: Upstreams::build(&config)?,
        access: Access::new(Arc::clone(&clock), &config.instances),
        upkeep: Upkeep::new(config.jobs.claim),
        clock,
        peppers,
        config,
        pool,
        metrics,
        lifecycle,
        deployment,
    }))
}

/// Builds the gateway, opens its port and serves until the lifecycle drains.
///
/// # Errors
/// When the database is not usable or the port is taken.
pub async fn serve(config: Arc<Config>, metrics: Metrics, lifecycle: Lifecycle) -> anyhow::Result<Running> {
    let certificates = config.server.tls.as_ref().map(Certificates::load).transpose()?;
    let pool = connect(&config.database).await?;
    let app = build(Arc::clone(&config), pool, metrics, lifecycle.clone()).await?;
    let listener = TcpListener::bind(config.server.listen)
        .await
        .with_context(|| format!("cannot listen on {}", config.server.listen))?;
    let local_addr = listener.local_addr()?;
    let https = match certificates {
        Some(certificates) => Some(Https::bind(certificates).await?),
        None => None,
    };
    if let Some(address) = config.server.metrics_listen {
        let metrics = TcpListener::bind(address).await.with_context(|| format!("cannot listen on {address}"))?;
        lifecycle.spawn("metrics", http::serve::serve(metrics, None, http::metrics_router(&app), &app));
    }
    let front = http::front::Front::new(&app);
    let url = advertised(&config, local_addr);
    let me = exec::leases::begin(&app, url).await;
    lifecycle.spawn("exec-leases", exec::leases::keep(app.clone(), me));
    lifecycle.spawn("exec-slots", exec::slots::keep(app.clone()));
    lifecycle.spawn("rates", rates::report(app.clone()));
    lifecycle.spawn("activity", activity::keep(app.clone()));
    lifecycle.spawn("open-streams", holds::watch(app.clone()));
    lifecycle.spawn("access-changes", holds::listen(app.clone()));
    let tls_addr = https.map(|https| https.serve(&app, front.clone()));
    let server = lifecycle.spawn("http", http::serve::serve(listener, None, front, &app));
    jobs::start(&app);
    tracing::info!(%local_addr, ?tls_addr, "listening");
    Ok(Running { local_addr, tls_addr, app, server })
}

/// A listener for HTTPS that takes no connections yet.
struct Https {
    listener: TcpListener,
    address: SocketAddr,
    certificates: Arc<Certificates>,
    acceptor: TlsAcceptor,
}

impl Https {
    async fn bind(certificates: Arc<Certificates>) -> anyhow::Result<Self> {
        let (acceptor, wanted) = (certificates.acceptor()?, certificates.listen());
        let listener = TcpListener::bind(wanted).await.with_context(|| format!("cannot listen on {wanted}"))?;
        Ok(Self { address: listener.local_addr()?, listener, certificates, acceptor })
    }

    /// Takes connections from now on. Where it listens.
    fn serve(self, app: &App, front: http::front::Front) -> SocketAddr {
        let Self { listener, address, certificates, acceptor } = self;
        app.lifecycle.spawn("https", http::serve::serve(listener, Some(acceptor), front, app));
        app.lifecycle.spawn("tls-certificates", certificates.keep(app.lifecycle.clone()));
        address
    }
}

/// Where other replicas reach this one. An address that is only its own host's is known to those on it.
fn advertised(config: &Config, local: SocketAddr) -> Option<String> {
    if let Some(url) = &config.server.replica_url {
        return Some(url.as_str().trim_end_matches('/').to_owned());
    }
    (!local.ip().is_unspecified()).then(|| format!("http://{local}"))
}
