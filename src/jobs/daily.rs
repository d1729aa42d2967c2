//! Teams that have used up their instance-seconds of the day.

use super::driver::{Job, More};
use crate::{
    app::{App, daily},
    error::Result,
};

pub(super) struct Enforce;

impl Job for Enforce {
    const NAME: &'static str = "daily";

    async fn run(&mut self, app: &App) -> Result<More> {
        daily::enforce(app).await?;
        Ok(More::Later)
    }
}
