//! The list query (PROTOCOLS F.5): states, thrice-encoded metadata, order and page token.

use std::collections::BTreeMap;

use chrono::{DateTime, Utc};
use percent_encoding::percent_decode_str;

use super::error::Problem;

/// Default and largest page.
const MAX_LIMIT: usize = 100;

/// What to list.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Query {
    pub running: bool,
    pub paused: bool,
    /// All must match.
    pub metadata: Vec<(String, String)>,
    pub limit: usize,
    /// Sequence number of the last row already seen.
    pub after: Option<u64>,
    pub ascending: bool,
    pub started_after: Option<DateTime<Utc>>,
    pub template: Option<String>,
}

impl Query {
    /// # Errors
    /// 400 for a value that cannot be read.
    pub fn parse(raw: &str) -> Result<Self, Problem> {
        let mut query = Self {
            running: true,
            paused: true,
            metadata: Vec::new(),
            limit: MAX_LIMIT,
            after: None,
            ascending: false,
            started_after: None,
            template: None,
        };
        let mut states: Vec<String> = Vec::new();
        for (name, value) in url::form_urlencoded::parse(raw.as_bytes()) {
            let bad = || Problem::bad(format!("query parameter `{name}` has an invalid value"));
            match name.as_ref() {
                "state" => states.extend(value.split(',').map(str::to_owned)),
                "metadata" => query.metadata = decode_metadata(&value).ok_or_else(bad)?,
                "limit" => query.limit = value.parse().ok().filter(|n| (1..=MAX_LIMIT).contains(n)).ok_or_else(bad)?,
                "nextToken" => {
                    query.after = Some(value.strip_prefix('s').and_then(|n| n.parse().ok()).ok_or_else(bad)?)
                }
                "order" => query.ascending = value == "asc",
                "startedAfter" => {
                    query.started_after = Some(DateTime::parse_from_rfc3339(&value).map_err(|_| bad())?.to_utc());
                }
                "template" => query.template = Some(value.into_owned()),
                _ => {}
            }
        }
        if !states.is_empty() {
            query.running = states.iter().any(|state| state == "running");
            query.paused = states.iter().any(|state| state == "paused");
        }
        Ok(query)
    }

    /// Whether a row comes behind those already seen.
    pub fn unseen(&self, sequence: u64) -> bool {
        self.after.is_none_or(|after| if self.ascending { sequence > after } else { sequence < after })
    }

    /// Whether all wanted pairs are there.
    pub fn metadata_fits(&self, metadata: &BTreeMap<String, String>) -> bool {
        self.metadata.iter().all(|(key, value)| metadata.get(key) == Some(value))
    }
}

/// What `nextToken` sends back.
pub fn token(sequence: u64) -> String {
    format!("s{sequence}")
}

/// The second and third decoding: a form, then percent escapes in keys and values (without `+`).
fn decode_metadata(form: &str) -> Option<Vec<(String, String)>> {
    let plain = |text: &str| percent_decode_str(text).decode_utf8().ok().map(|text| text.into_owned());
    url::form_urlencoded::parse(form.as_bytes()).map(|(key, value)| Some((plain(&key)?, plain(&value)?))).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_captured_query_is_read() {
        let query = Query::parse("metadata=a%252520k%3Db%252526c&state=running%2Cpaused&limit=5").unwrap();
        assert_eq!(query.metadata, [("a k".into(), "b&c".into())]);
        assert_eq!((query.limit, query.running, query.paused), (5, true, true));
        let metadata = BTreeMap::from([("a k".into(), "b&c".into()), ("other".into(), "1".into())]);
        assert!(query.metadata_fits(&metadata));
        assert!(!query.metadata_fits(&BTreeMap::new()));
    }

    #[test]
    fn states_may_repeat() {
        let query = Query::parse("state=paused&state=paused").unwrap();
        assert_eq!((query.running, query.paused), (false, true));
    }

    #[test]
    fn tokens_continue_either_way() {
        let down = Query::parse(&format!("nextToken={}", token(5))).unwrap();
        assert_eq!([4, 5, 6].map(|n| down.unseen(n)), [true, false, false]);
        let up = Query::parse("order=asc&nextToken=s5").unwrap();
        assert_eq!([4, 5, 6].map(|n| up.unseen(n)), [false, false, true]);
    }

    #[test]
    fn bad_values_are_400() {
        for raw in ["limit=0", "limit=101", "limit=x", "nextToken=abc", "startedAfter=yesterday"] {
            assert_eq!(Query::parse(raw).unwrap_err().status, 400, "{raw}");
        }
    }
}
