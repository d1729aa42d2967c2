//! How busy an instance is.

use std::time::Duration;

use envd_client::Measured;

use crate::{app::App, auth::Caller, error::Result, ids::InstanceId};

const PATIENCE: Duration = Duration::from_secs(10);

/// What a running instance uses at this moment.
///
/// # Errors
/// `not_found`, `invalid_state`; what the sandbox says.
pub async fn measure(app: &App, caller: &Caller, id: &InstanceId) -> Result<Measured> {
    let target = super::running(app, caller, id).await?;
    target.call(|envd| async move { envd.measure(PATIENCE).await }).await
}
