//! `serve`: the gateway itself.

use std::{net::SocketAddr, path::PathBuf, sync::Arc, time::Duration};

use anyhow::Context;
use clap::Args;
use devstack::files;

use super::ConfigFile;
use crate::{
    bootstrap,
    config::{Config, Environment},
    lifecycle::Lifecycle,
    telemetry::{logs, metrics::Metrics},
};

/// How long readiness waits for what the last run left to be looked into.
const RECONCILE_PATIENCE: Duration = Duration::from_secs(8);

#[derive(Args)]
pub(super) struct Arguments {
    #[command(flatten)]
    config: ConfigFile,
    /// Address and port of the API, instead of `server.listen`.
    #[arg(long, value_name = "ADDRESS")]
    listen: Option<SocketAddr>,
    /// Port of the API, instead of the configured one; 0 takes any free port.
    #[arg(long)]
    port: Option<u16>,
    /// A file that is written when requests are taken and the last run's leftovers are settled: {"url": …, "pid": …}, and "tls_url" with HTTPS.
    #[arg(long, value_name = "FILE")]
    ready_file: Option<PathBuf>,
}

impl Arguments {
    fn apply(&self, config: &mut Config) {
        if let Some(listen) = self.listen {
            config.server.listen = listen;
        }
        if let Some(port) = self.port {
            config.server.listen.set_port(port);
        }
    }
}

pub(super) async fn run(arguments: Arguments, environment: &Environment) -> anyhow::Result<()> {
    let mut config = arguments.config.load(environment)?;
    arguments.apply(&mut config);
    let _flush = logs::init(&config.log)?;
    let metrics = Metrics::install()?;
    let lifecycle = Lifecycle::default();
    lifecycle.drain_on_signal()?;
    lifecycle.spawn("metrics_upkeep", metrics.clone().upkeep(lifecycle.draining()));

    let drain_timeout = config.server.drain_timeout;
    let running = bootstrap::serve(Arc::new(config), metrics, lifecycle.clone()).await?;
    let ready = arguments.ready_file.as_deref();
    let draining = lifecycle.draining();
    // A cloud that cannot be reached does not keep the gateway from serving: it goes on reconciling.
    let reconciled = tokio::time::timeout(RECONCILE_PATIENCE, running.app.upkeep.reconciled());
    let serves = draining.run_until_cancelled(reconciled).await.is_some();
    if let Some(path) = ready.filter(|_| serves) {
        let mut content =
            serde_json::json!({"url": format!("http://{}", running.local_addr), "pid": std::process::id()});
        if let Some(address) = running.tls_addr {
            content["tls_url"] = format!("https://{address}").into();
        }
        files::write_private(path, &format!("{content}\n"))
            .with_context(|| format!("cannot write {}", path.display()))?;
    }
    let server = lifecycle.spawn("server", running.wait());
    draining.cancelled().await;
    if let Some(path) = ready {
        files::remove_file(path).with_context(|| format!("cannot remove {}", path.display()))?;
    }
    if let Err(cut) = lifecycle.ended(drain_timeout).await {
        tracing::warn!(%cut, "the drain took too long");
        return Ok(());
    }
    server.await?
}
