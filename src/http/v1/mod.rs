//! The gateway's own API, version 1: DTOs and handlers of about ten lines.

mod audit;
mod code;
mod events;
mod exec;
mod files;
#[cfg(fuzzing)]
pub mod fuzzing;
mod images;
mod instances;
mod keys;
mod me;
mod ports;
mod queue;
mod reconciliation;
mod runs;
mod teams;
mod tickets;
mod tools;
mod usage;

pub use exec::Framing;
pub use ports::{PORT_ROUTE, is_port_path, proxy_port};
use utoipa_axum::router::OpenApiRouter;

use crate::app::App;

/// The routes under `/v1`.
pub fn routes() -> OpenApiRouter<App> {
    OpenApiRouter::new()
        .merge(me::routes())
        .merge(teams::routes())
        .merge(reconciliation::routes())
        .merge(keys::routes())
        .merge(tickets::routes())
        .merge(audit::routes())
        .merge(usage::routes())
        .merge(tools::routes())
        .merge(images::routes())
        .merge(instances::routes())
        .merge(events::routes())
        .merge(exec::routes())
        .merge(code::routes())
        .merge(files::routes())
        .merge(ports::routes())
        .merge(runs::routes())
}
