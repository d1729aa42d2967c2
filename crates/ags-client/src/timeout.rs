//! Timeout strings: `5m`, `300s`, `1h`, and what Go's `Duration.String()` writes (`5m0s`, `1h0m0s`).

use std::time::Duration;

/// Shortest timeout of an instance that the API accepts.
pub const MIN: Duration = Duration::from_secs(30);
/// Longest timeout of an instance that the API accepts.
pub const MAX: Duration = Duration::from_secs(24 * 60 * 60);
/// Timeout of an instance when neither the call nor the tool says one.
pub const DEFAULT: Duration = Duration::from_secs(5 * 60);

/// A string that is no timeout.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("a timeout is written as numbers with the units h, m, s or ms, such as 300s or 1h30m")]
pub struct ParseTimeoutError;

/// Reads any concatenation of `<whole number>(h|m|s|ms)`. The range is not checked: see [`MIN`] and [`MAX`].
pub fn parse(text: &str) -> Result<Duration, ParseTimeoutError> {
    if text.is_empty() {
        return Err(ParseTimeoutError);
    }
    let mut rest = text;
    let mut total = Duration::ZERO;
    while !rest.is_empty() {
        let digits = split_while(&mut rest, |c| c.is_ascii_digit());
        let unit = split_while(&mut rest, |c| c.is_ascii_alphabetic());
        let number: u64 = digits.parse().map_err(|_| ParseTimeoutError)?;
        let milliseconds = match unit {
            "h" => 3_600_000,
            "m" => 60_000,
            "s" => 1000,
            "ms" => 1,
            _ => return Err(ParseTimeoutError),
        };
        let part = number.checked_mul(milliseconds).map(Duration::from_millis);
        total = part.and_then(|part| total.checked_add(part)).ok_or(ParseTimeoutError)?;
    }
    Ok(total)
}

/// Writes `<n>s`, rounded up to whole seconds so that nothing ends early.
pub fn format(timeout: Duration) -> String {
    let seconds = timeout.as_secs().saturating_add(u64::from(timeout.subsec_nanos() > 0));
    format!("{seconds}s")
}

fn split_while<'a>(rest: &mut &'a str, wanted: impl Fn(char) -> bool) -> &'a str {
    let end = rest.find(|c| !wanted(c)).unwrap_or(rest.len());
    let (head, tail) = rest.split_at(end);
    *rest = tail;
    head
}
