//! Tools that are being created or deleted, and the shared ones.

use super::driver::{Job, More};
use crate::{
    app::{App, tools},
    error::Result,
};

#[derive(Default)]
pub(super) struct Settle {
    shared: bool,
}

impl Job for Settle {
    const NAME: &'static str = "settle";

    async fn run(&mut self, app: &App) -> Result<More> {
        tools::settle(app).await?;
        if !self.shared {
            // Its failures are in the log; it is tried again.
            self.shared = tools::sync_shared(app).await.is_ok();
        }
        Ok(More::Later)
    }
}
