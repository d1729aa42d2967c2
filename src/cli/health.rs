//! `health`: asks a running gateway whether it is ready; for container health checks.

use std::time::Duration;

use anyhow::{Context, ensure};
use clap::Args;
use url::Url;

const PATIENCE: Duration = Duration::from_secs(3);

#[derive(Args)]
pub(super) struct Arguments {
    #[arg(default_value = "http://127.0.0.1:8080/readyz")]
    url: Url,
}

pub(super) async fn run(arguments: Arguments) -> anyhow::Result<()> {
    let client = reqwest::Client::builder().no_proxy().timeout(PATIENCE).build()?;
    let response = client.get(arguments.url).send().await.context("no answer")?;
    let status = response.status();
    ensure!(status.is_success(), "{status}: {}", response.text().await?);
    Ok(())
}
