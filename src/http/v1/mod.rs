//! The gateway's own API, version 1: DTOs and handlers of about ten lines.

mod exec;
mod files;
mod instances;
mod keys;
mod me;
mod teams;
mod tickets;
mod tools;

pub use exec::Framing;
use utoipa_axum::router::OpenApiRouter;

use crate::app::App;

/// The routes under `/v1`.
pub fn routes() -> OpenApiRouter<App> {
    OpenApiRouter::new()
        .merge(me::routes())
        .merge(teams::routes())
        .merge(keys::routes())
        .merge(tickets::routes())
        .merge(tools::routes())
        .merge(instances::routes())
        .merge(exec::routes())
        .merge(files::routes())
}
