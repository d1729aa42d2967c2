//! How often a silent stream says that it lives (`PROTOCOLS` D.4).

use std::time::Duration;

use http::HeaderMap;

/// Silence after which a keep-alive is sent when the caller does not say.
const DEFAULT: Duration = Duration::from_secs(90);

/// The interval that `Keepalive-Ping-Interval` asks for, in whole seconds.
#[must_use]
pub fn interval(headers: &HeaderMap) -> Duration {
    let asked = headers.get("keepalive-ping-interval").and_then(|value| value.to_str().ok()?.parse().ok());
    asked.filter(|seconds| *seconds > 0).map_or(DEFAULT, Duration::from_secs)
}

#[cfg(test)]
mod tests {
    use http::HeaderValue;

    use super::*;

    #[test]
    fn what_is_no_interval_is_the_default() {
        let of = |value: &'static str| {
            let mut headers = HeaderMap::new();
            headers.insert("keepalive-ping-interval", HeaderValue::from_static(value));
            interval(&headers).as_secs()
        };
        assert_eq!((of("50"), of("0"), of("-1"), of("soon")), (50, 90, 90, 90));
        assert_eq!(interval(&HeaderMap::new()).as_secs(), 90);
    }
}
