//! Prometheus metrics of this process. Names and labels: docs/OPERATIONS.md.

use std::{
    collections::HashMap,
    sync::{Arc, PoisonError, RwLock},
    time::Duration,
};

use metrics::{Counter, Histogram};
use metrics_exporter_prometheus::{BuildError, Matcher, PrometheusBuilder, PrometheusHandle};
use tokio_util::sync::CancellationToken;

/// Upper bounds in seconds: from a local hop to a slow start of an instance.
const SECONDS: [f64; 14] = [0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 10.0, 30.0, 120.0];

const UPKEEP: Duration = Duration::from_secs(5);

/// Renders what was recorded; cheap to clone.
#[derive(Clone)]
pub struct Metrics {
    handle: PrometheusHandle,
    requests: Requests,
}

impl Metrics {
    /// Installs the recorder of this process. Histograms named `*_seconds` get fixed buckets.
    ///
    /// # Errors
    /// When a recorder is installed already.
    pub fn install() -> Result<Self, BuildError> {
        let handle = builder()?.install_recorder()?;
        Ok(Self::of(handle))
    }

    /// A recorder of its own, for a test that shares its process with others.
    pub fn detached() -> Self {
        Self::of(PrometheusBuilder::new().build_recorder().handle())
    }

    fn of(handle: PrometheusHandle) -> Self {
        Self { handle, requests: Requests::default() }
    }

    /// Counts a request that was answered. `method` is one of few.
    pub fn count_request(&self, method: &'static str, route: &str, status: u16, elapsed: Duration) {
        let meters = self.requests.of(route, method, status);
        meters.count.increment(1);
        meters.seconds.record(elapsed.as_secs_f64());
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

/// What is counted of the requests of one route, method and status.
struct Meters {
    count: Counter,
    seconds: Histogram,
}

/// Handles of the metrics, looked up once: a look-up by name and labels takes longer than to count.
#[derive(Clone, Default)]
struct Requests(Arc<RwLock<HashMap<String, OfRoute>>>);

type OfRoute = Vec<(&'static str, u16, Arc<Meters>)>;

impl Requests {
    fn of(&self, route: &str, method: &'static str, status: u16) -> Arc<Meters> {
        self.known(route, method, status).unwrap_or_else(|| self.add(route, method, status))
    }

    fn known(&self, route: &str, method: &'static str, status: u16) -> Option<Arc<Meters>> {
        let routes = self.0.read().unwrap_or_else(PoisonError::into_inner);
        let mut of_route = routes.get(route)?.iter();
        let (_, _, meters) = of_route.find(|(known, of, _)| *known == method && *of == status)?;
        Some(Arc::clone(meters))
    }

    fn add(&self, route: &str, method: &'static str, status: u16) -> Arc<Meters> {
        let labels = [("method", method.to_owned()), ("route", route.to_owned()), ("status", status.to_string())];
        // Of the same name and labels there is one, however often it is asked for.
        let meters = Arc::new(Meters {
            count: metrics::counter!("ags_gateway_http_requests_total", &labels),
            seconds: metrics::histogram!("ags_gateway_http_request_seconds", &labels[..2]),
        });
        let mut routes = self.0.write().unwrap_or_else(PoisonError::into_inner);
        routes.entry(route.to_owned()).or_default().push((method, status, Arc::clone(&meters)));
        meters
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
        let metrics = Metrics::of(recorder.handle());
        metrics::with_local_recorder(&recorder, || {
            metrics::histogram!("call_seconds").record(0.003);
            metrics::counter!("calls_total").increment(1);
        });
        let text = metrics.render();
        assert!(text.contains("call_seconds_bucket{le=\"0.005\"} 1"), "{text}");
        assert!(text.contains("calls_total 1"), "{text}");
    }

    #[test]
    fn requests_are_counted_by_route_method_and_status() {
        let recorder = builder().unwrap().build_recorder();
        let metrics = Metrics::of(recorder.handle());
        metrics::with_local_recorder(&recorder, || {
            for (method, route, status) in
                [("GET", "/a", 200), ("GET", "/a", 200), ("GET", "/a", 404), ("PUT", "/a", 200), ("GET", "/b", 200)]
            {
                metrics.count_request(method, route, status, Duration::from_millis(3));
            }
        });
        let text = metrics.render();
        for (labels, count) in [
            (r#"method="GET",route="/a",status="200""#, 2),
            (r#"method="GET",route="/a",status="404""#, 1),
            (r#"method="PUT",route="/a",status="200""#, 1),
            (r#"method="GET",route="/b",status="200""#, 1),
        ] {
            let line = format!("ags_gateway_http_requests_total{{{labels}}} {count}\n");
            assert!(text.contains(&line), "{line} is not in {text}");
        }
        let seconds = r#"ags_gateway_http_request_seconds_count{method="GET",route="/a"} 3"#;
        assert!(text.contains(seconds), "{text}");
    }
}
