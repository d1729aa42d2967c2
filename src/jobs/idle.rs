//! The idle policy's schedule.

use super::driver::{Job, More};
use crate::{
    app::{App, instances::idle_batch},
    error::Result,
};

pub(super) struct Idle;

impl Job for Idle {
    const NAME: &'static str = "idle";

    async fn run(&mut self, app: &App) -> Result<More> {
        let idled = idle_batch(app).await?;
        let full = idled.taken >= app.config.jobs.reap_batch as usize;
        Ok(if full { More::Now } else { More::Later })
    }
}
