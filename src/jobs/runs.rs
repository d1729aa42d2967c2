//! Runs whose gateway is gone.

use super::driver::{Job, More};
use crate::{
    app::{App, runs},
    error::Result,
};

pub(super) struct Adopt;

impl Job for Adopt {
    const NAME: &'static str = "runs";

    async fn run(&mut self, app: &App) -> Result<More> {
        let taken = runs::adopt(app).await?;
        Ok(if taken as u64 >= runs::BATCH.unsigned_abs() { More::Now } else { More::Later })
    }
}
