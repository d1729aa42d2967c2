//! Timeout strings with the API's bounds (PROTOCOLS B.5).

use std::time::Duration;

use ags_client::timeout::{self, MAX, MIN};

use super::error::{ApiError, ApiResult};

/// # Errors
/// `InvalidParameterValue.Timeout` for anything but a timeout string, and for spans outside 30 s to 24 h.
pub fn parse(text: &str) -> ApiResult<Duration> {
    let span = timeout::parse(text).map_err(|error| ApiError::value("Timeout", format!("`{text}`: {error}.")))?;
    if !(MIN..=MAX).contains(&span) {
        return Err(ApiError::value("Timeout", format!("Timeout `{text}` is outside 30s to 24h.")));
    }
    Ok(span)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_bounds_are_inclusive() {
        assert_eq!(parse("30s"), Ok(MIN));
        assert_eq!(parse("24h0m0s"), Ok(MAX));
        for text in ["29s", "24h1s", "", "300", "soon"] {
            assert_eq!(parse(text).unwrap_err().code, "InvalidParameterValue.Timeout", "{text}");
        }
    }
}
