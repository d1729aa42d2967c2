//! The one place where the parts are put together.

use std::{net::SocketAddr, sync::Arc};

use anyhow::Context;
use axum::Router;
use secrecy::ExposeSecret;
use sqlx::{
    PgPool,
    postgres::{PgConnectOptions, PgPoolOptions},
};
use tokio::net::TcpListener;

use crate::{
    access::Access,
    app::{
        App, Parts, Upkeep,
        exec::{self, Execs},
    },
    auth::{Authenticator, Tickets},
    clock::{self, SharedClock},
    config::{Config, Database},
    domain::credential::Peppers,
    http,
    ids::Ids,
    jobs,
    lifecycle::Lifecycle,
    storage,
    telemetry::metrics::Metrics,
    upstream::Upstreams,
};

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
        .connect_with(options.application_name("ags-gateway").options([("statement_timeout", timeout)]))
        .await
        .context("the database cannot be reached")
}

/// A gateway that accepts requests.
pub struct Running {
    pub local_addr: SocketAddr,
    pub app: App,
    server: tokio::task::JoinHandle<std::io::Result<()>>,
}

impl Running {
    /// Waits until the server has ended: after the lifecycle was told to drain, or by a failure of the socket.
    ///
    /// # Errors
    /// When the server failed.
    pub async fn wait(self) -> anyhow::Result<()> {
        self.server.await.context("the server's task was lost")?.context("the server failed")
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
    Ok(App::new(Parts {
        execs: Execs::new(&ids.token()),
        ids,
        auth: Authenticator::new(pool.clone(), Arc::clone(&peppers)),
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
    let pool = connect(&config.database).await?;
    let app = build(Arc::clone(&config), pool, metrics, lifecycle.clone()).await?;
    let listener = TcpListener::bind(config.server.listen)
        .await
        .with_context(|| format!("cannot listen on {}", config.server.listen))?;
    let local_addr = listener.local_addr()?;
    if let Some(address) = config.server.metrics_listen {
        let metrics = TcpListener::bind(address).await.with_context(|| format!("cannot listen on {address}"))?;
        lifecycle.spawn("metrics", serve_on(metrics, http::metrics_router(&app), lifecycle.clone()));
    }
    let router = http::router(&app);
    lifecycle.spawn("exec-leases", exec::leases::keep(app.clone()));
    let server = lifecycle.spawn("http", serve_on(listener, router, lifecycle.clone()));
    jobs::start(&app);
    tracing::info!(%local_addr, "listening");
    Ok(Running { local_addr, app, server })
}

async fn serve_on(listener: TcpListener, router: Router, lifecycle: Lifecycle) -> std::io::Result<()> {
    let listener = axum::serve::ListenerExt::tap_io(listener, |stream| {
        if let Err(error) = stream.set_nodelay(true) {
            tracing::debug!(%error, "TCP_NODELAY refused");
        }
    });
    let service = router.into_make_service_with_connect_info::<SocketAddr>();
    axum::serve(listener, service).with_graceful_shutdown(async move { lifecycle.draining().cancelled().await }).await
}
