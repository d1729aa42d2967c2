//! Prometheus metrics of this process. Names and labels: docs/OPERATIONS.md.

use std::time::Duration;

use metrics_exporter_prometheus::{BuildError, Matcher, PrometheusBuilder, PrometheusHandle};
use tokio_util::sync::CancellationToken;

/// Upper bounds in seconds: from a local hop to a slow start of an instance.
const SECONDS: [f64; 14] = [0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 10.0, 30.0, 120.0];

const UPKEEP: Duration = Duration::from_secs(5);

/// Renders what was recorded; cheap to clone.
#[derive(Clone)]
pub struct Metrics {
    handle: PrometheusHandle,
}

impl Metrics {
    /// Installs the recorder of this process. Histograms named `*_seconds` get fixed buckets.
    ///
    /// # Errors
    /// When a recorder is installed already.
    pub fn install() -> Result<Self, BuildError> {
        let handle = builder()?.install_recorder()?;
        Ok(Self { handle })
    }

    /// A recorder of its own, for a test that shares its process with others.
    pub fn detached() -> Self {
        Self { handle: PrometheusBuilder::new().build_recorder().handle() }
    }

    /// The text exposition format.
    pub fn render(&self) -> String {
        self.handle.render()
    }

    /// Moves samples out of the write buffers until cancelled; without it they grow until somebody scrapes.
    pub async fn upkeep(self, stop: CancellationToken) {
        let mut timer = tokio::time::interval(UPKEEP);
        while stop.run_until_cancelled(timer.tick()).await.is_some() {
            self.handle.run_upkeep();
        }
    }
}

fn builder() -> Result<PrometheusBuilder, BuildError> {
    PrometheusBuilder::new().set_buckets_for_metric(Matcher::Suffix("_seconds".to_owned()), &SECONDS)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn durations_are_rendered_in_buckets() {
        let recorder = builder().unwrap().build_recorder();
        let metrics = Metrics { handle: recorder.handle() };
        metrics::with_local_recorder(&recorder, || {
            metrics::histogram!("call_seconds").record(0.003);
            metrics::counter!("calls_total").increment(1);
        });
        let text = metrics.render();
        assert!(text.contains("call_seconds_bucket{le=\"0.005\"} 1"), "{text}");
        assert!(text.contains("calls_total 1"), "{text}");
    }
}
