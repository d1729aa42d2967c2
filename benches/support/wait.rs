//! Waiting for what another process does.

use std::time::{Duration, Instant};

use anyhow::{Result, bail};

const PATIENCE: Duration = Duration::from_secs(60);
const PAUSE: Duration = Duration::from_millis(20);

/// What `look` sees once it sees something.
pub async fn eventually<T>(look: impl Fn() -> Option<T>) -> Result<T> {
    let since = Instant::now();
    while since.elapsed() < PATIENCE {
        if let Some(seen) = look() {
            return Ok(seen);
        }
        tokio::time::sleep(PAUSE).await;
    }
    bail!("nothing to see after {} s", PATIENCE.as_secs())
}
