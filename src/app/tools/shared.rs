//! Tools that every account of the cloud has, shared with all teams by `tools.shared` of the configuration.

use crate::{
    app::App,
    error::{Error, Result},
    storage::tools::{self, SharedTool},
};

/// Writes down the configured tools of every upstream, and withdraws those that are no longer configured.
///
/// # Errors
/// The first upstream's failure; the others were done all the same.
pub async fn sync(app: &App) -> Result<()> {
    let mut outcome = Ok(());
    for upstream in app.upstreams.iter() {
        if let Err(error) = sync_one(app, upstream.name()).await {
            tracing::warn!(upstream = upstream.name(), %error, "the shared tools could not be read");
            outcome = outcome.and(Err(error));
        }
    }
    outcome
}

async fn sync_one(app: &App, name: &str) -> Result<(), Error> {
    let wanted = &app.config.tools.shared;
    let found = if wanted.is_empty() { Vec::new() } else { app.upstreams.get(name)?.find_tools(wanted).await? };
    let mut tx = app.pool.begin().await?;
    tools::system_withdraw(&mut tx, name, wanted).await?;
    for seen in found {
        let id = app.ids.next();
        let tool = SharedTool {
            id: &id,
            upstream: name,
            upstream_id: &seen.id,
            name: &seen.name,
            kind: &seen.kind,
            spec: &seen.spec,
            status: &seen.status,
        };
        tools::system_share(&mut tx, &tool).await?;
    }
    Ok(tx.commit().await?)
}
