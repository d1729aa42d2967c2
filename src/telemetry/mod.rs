//! Logs, metrics, and what never appears in them.

mod human;
mod json;
pub mod logs;
pub mod metrics;
pub mod redact;
pub mod request;
mod sink;

/// Milliseconds, for a line of the log. Divided, not multiplied: so they have no digits that the time has not.
#[must_use]
pub fn milliseconds(time: std::time::Duration) -> f64 {
    time.as_nanos() as f64 / 1e6
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn milliseconds_have_the_digits_of_the_time() {
        let of = |nanos| milliseconds(std::time::Duration::from_nanos(nanos)).to_string();
        assert_eq!([of(2_629_469), of(100_000), of(7), of(3_000_000_000)], ["2.629469", "0.1", "0.000007", "3000"]);
    }
}
