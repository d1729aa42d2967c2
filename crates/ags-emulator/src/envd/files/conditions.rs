//! Conditional requests and ranges (RFC 9110), for files that have a date and no entity tag.

use chrono::{DateTime, Utc};
use http::{HeaderMap, HeaderName, header};

/// What is to be sent.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Answer {
    Whole,
    /// Of this many bytes from this offset.
    Part {
        offset: u64,
        length: u64,
    },
    NotModified,
    PreconditionFailed,
    /// 416.
    NotSatisfiable,
}

const CONDITIONS: [HeaderName; 5] =
    [header::IF_MATCH, header::IF_NONE_MATCH, header::IF_MODIFIED_SINCE, header::IF_UNMODIFIED_SINCE, header::IF_RANGE];

/// Whether a request has a range or a condition, which rule compression out.
#[must_use]
pub fn present(headers: &HeaderMap) -> bool {
    headers.contains_key(header::RANGE) || CONDITIONS.iter().any(|name| headers.contains_key(name))
}

/// Evaluates a request for a file of `size` bytes, last modified at `modified` (whole seconds).
#[must_use]
pub fn evaluate(headers: &HeaderMap, size: u64, modified: DateTime<Utc>) -> Answer {
    let text = |name: HeaderName| headers.get(name).and_then(|value| value.to_str().ok());
    let date = |name: HeaderName| text(name).and_then(parse_date);
    let failed = match text(header::IF_MATCH) {
        Some(tags) => tags.trim() != "*",
        None => date(header::IF_UNMODIFIED_SINCE).is_some_and(|date| modified > date),
    };
    if failed {
        return Answer::PreconditionFailed;
    }
    let unchanged = match text(header::IF_NONE_MATCH) {
        Some(tags) => tags.trim() == "*",
        None => date(header::IF_MODIFIED_SINCE).is_some_and(|date| modified <= date),
    };
    if unchanged {
        return Answer::NotModified;
    }
    let range_applies = match text(header::IF_RANGE) {
        Some(value) => parse_date(value) == Some(modified),
        None => true,
    };
    match text(header::RANGE) {
        Some(range) if range_applies => part(range, size),
        _ => Answer::Whole,
    }
}

/// One range of bytes. Several at once, other units and nonsense get the whole file, as the RFC allows.
fn part(range: &str, size: u64) -> Answer {
    let Some((first, last)) = range.trim().strip_prefix("bytes=").and_then(|range| range.split_once('-')) else {
        return Answer::Whole;
    };
    match (first.trim(), last.trim()) {
        ("", suffix) => match suffix.parse::<u64>() {
            Ok(0) => Answer::NotSatisfiable,
            Ok(_) if size == 0 => Answer::NotSatisfiable,
            Ok(length) => {
                let length = length.min(size);
                Answer::Part { offset: size - length, length }
            }
            Err(_) => Answer::Whole,
        },
        (first, last) => {
            let end = if last.is_empty() { Ok(u64::MAX) } else { last.parse::<u64>() };
            match (first.parse::<u64>(), end) {
                (Ok(first), Ok(last)) if first > last => Answer::Whole,
                (Ok(first), Ok(_)) if first >= size => Answer::NotSatisfiable,
                (Ok(first), Ok(last)) => Answer::Part { offset: first, length: last.min(size - 1) - first + 1 },
                _ => Answer::Whole,
            }
        }
    }
}

fn parse_date(text: &str) -> Option<DateTime<Utc>> {
    let date = DateTime::parse_from_rfc2822(&text.trim().replace("GMT", "+0000"));
    date.ok().map(|date| date.with_timezone(&Utc))
}

/// A date as `Last-Modified` has it.
#[must_use]
pub fn format_date(date: DateTime<Utc>) -> String {
    date.format("%a, %d %b %Y %H:%M:%S GMT").to_string()
}

#[cfg(test)]
mod tests {
    use http::HeaderValue;
    use proptest::prelude::*;

    use super::*;

    const MODIFIED: &str = "Sat, 21 Nov 2026 10:00:00 GMT";

    fn answer(headers: &[(HeaderName, &str)], size: u64) -> Answer {
        let headers = headers
            .iter()
            .filter_map(|(name, value)| Some((name.clone(), HeaderValue::from_str(value).ok()?)))
            .collect();
        evaluate(&headers, size, parse_date(MODIFIED).unwrap_or_default())
    }

    #[test]
    fn ranges_are_cut_to_the_file() {
        let range = |value: &str| answer(&[(header::RANGE, value)], 10);
        assert_eq!(range("bytes=0-3"), Answer::Part { offset: 0, length: 4 });
        assert_eq!(range("bytes=8-99"), Answer::Part { offset: 8, length: 2 });
        assert_eq!(range("bytes=4-"), Answer::Part { offset: 4, length: 6 });
        assert_eq!(range("bytes=-3"), Answer::Part { offset: 7, length: 3 });
        assert_eq!(range("bytes=-30"), Answer::Part { offset: 0, length: 10 });
        assert_eq!(range("bytes=10-"), Answer::NotSatisfiable);
        assert_eq!(range("bytes=-0"), Answer::NotSatisfiable);
        assert_eq!(range("bytes=5-2"), Answer::Whole);
        assert_eq!(range("bytes=0-1,4-5"), Answer::Whole);
        assert_eq!(range("lines=0-1"), Answer::Whole);
        assert_eq!(answer(&[(header::RANGE, "bytes=-1")], 0), Answer::NotSatisfiable);
    }

    #[test]
    fn conditions_come_before_ranges() {
        let earlier = "Sat, 21 Nov 2026 09:59:59 GMT";
        assert_eq!(answer(&[(header::IF_MODIFIED_SINCE, MODIFIED)], 1), Answer::NotModified);
        assert_eq!(answer(&[(header::IF_MODIFIED_SINCE, earlier)], 1), Answer::Whole);
        assert_eq!(answer(&[(header::IF_UNMODIFIED_SINCE, earlier)], 1), Answer::PreconditionFailed);
        assert_eq!(answer(&[(header::IF_NONE_MATCH, "*")], 1), Answer::NotModified);
        assert_eq!(answer(&[(header::IF_MATCH, "\"tag\"")], 1), Answer::PreconditionFailed);
        let ranged = |date| answer(&[(header::RANGE, "bytes=0-0"), (header::IF_RANGE, date)], 2);
        assert_eq!(ranged(MODIFIED), Answer::Part { offset: 0, length: 1 });
        assert_eq!(ranged(earlier), Answer::Whole);
        assert_eq!(parse_date(MODIFIED).map(format_date).as_deref(), Some(MODIFIED));
    }

    proptest! {
        #[test]
        fn a_part_lies_in_the_file(range in "bytes=[0-9]{0,4}-[0-9]{0,4}", size in 0u64..2000) {
            if let Answer::Part { offset, length } = answer(&[(header::RANGE, &range)], size) {
                prop_assert!(length > 0 && offset + length <= size);
            }
        }
    }
}
