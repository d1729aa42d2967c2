//! How busy an instance is (PROTOCOLS D.8).

use std::time::Duration;

use http::{Method, StatusCode};
use serde::Deserialize;

use crate::client::EnvdClient;
use crate::error::{Dialect, EnvdError};
use crate::rpc::{read_up_to, refusal, within_deadline};
use crate::transport::empty;

/// The figures are a handful of numbers.
const LONGEST: usize = 64 * 1024;

/// Figures of one moment, sizes in bytes. What a daemon does not tell is 0.
#[derive(Clone, Debug, Default, PartialEq, Deserialize)]
#[serde(default)]
pub struct Measured {
    /// Seconds since the epoch.
    pub ts: i64,
    pub cpu_count: u32,
    /// Of all cores.
    pub cpu_used_pct: f64,
    pub mem_total: u64,
    pub mem_used: u64,
    pub mem_cache: u64,
    pub disk_used: u64,
    pub disk_total: u64,
}

impl EnvdClient {
    /// What the instance uses at this moment (`GET /metrics`).
    ///
    /// # Errors
    /// `Gone` once the instance is; `Deadline` after `deadline`; `Protocol` for what are no figures.
    pub async fn measure(&self, deadline: Duration) -> Result<Measured, EnvdError> {
        let request = self.request(Method::GET, "/metrics", empty())?;
        within_deadline(deadline, async {
            let mut response = self.send(request).await?;
            if response.status() != StatusCode::OK {
                return Err(refusal(Dialect::Rest, response).await);
            }
            let body = read_up_to(response.body_mut(), LONGEST).await?;
            let figures = body.and_then(|bytes| serde_json::from_slice(&bytes).ok());
            figures.ok_or_else(|| EnvdError::protocol("the daemon's figures cannot be read"))
        })
        .await
    }
}
