//! One server for the run, one migrated template, one database per test.

use std::sync::{
    LazyLock,
    atomic::{AtomicU32, Ordering},
};

use devstack::postgres::Temporary;
use sqlx::{PgPool, postgres::PgPoolOptions};
use tokio::{runtime::Runtime, sync::OnceCell};

const TEMPLATE: &str = "template_gateway";

static RUNTIME: LazyLock<Runtime> = LazyLock::new(|| {
    let _ = rustls::crypto::ring::default_provider().install_default();
    tokio::runtime::Builder::new_multi_thread().enable_all().build().expect("a runtime")
});
static SERVER: OnceCell<Temporary> = OnceCell::const_new();
static NEXT: AtomicU32 = AtomicU32::new(0);

pub fn runtime() -> &'static Runtime {
    &RUNTIME
}

async fn start() -> Temporary {
    let server = Temporary::start().await.expect("a temporary Postgres");
    server.postgres().create_database(TEMPLATE).await.expect("the template");
    let pool = PgPool::connect(&server.postgres().url(TEMPLATE)).await.expect("a connection to the template");
    ags_gateway::storage::migrate(&pool).await.expect("the migrations");
    pool.close().await;
    server
}

/// The URL of a fresh, migrated database.
pub async fn fresh() -> String {
    let server = SERVER.get_or_init(start).await.postgres();
    let name = format!("test_{}", NEXT.fetch_add(1, Ordering::Relaxed));
    let admin = PgPoolOptions::new().max_connections(1).connect(&server.url("postgres")).await.expect("a connection");
    // The names are made here.
    let create = format!("CREATE DATABASE {name} TEMPLATE {TEMPLATE}");
    sqlx::raw_sql(sqlx::AssertSqlSafe(create)).execute(&admin).await.expect("a database");
    admin.close().await;
    server.url(&name)
}
