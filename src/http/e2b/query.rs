//! The list's query (PROTOCOLS F.5): states, thrice-encoded metadata, order and page token.

use std::collections::BTreeMap;

use chrono::{DateTime, Utc};
use percent_encoding::percent_decode_str;

use crate::{
    app::instances::Order,
    domain::{
        instance::InstanceStatus,
        page::{MAX_LIMIT, PageRequest, decode_cursor},
    },
    error::{Error, Result},
    storage::instances::InstanceFilter,
};

/// States that E2B has no words for in between: what is on its way to one counts as there.
pub const RUNNING: [InstanceStatus; 3] = [InstanceStatus::Starting, InstanceStatus::Running, InstanceStatus::Resuming];
pub const PAUSED: [InstanceStatus; 2] = [InstanceStatus::Pausing, InstanceStatus::Paused];

/// Which sandboxes, and which part of their list.
#[derive(Debug)]
pub struct Wanted {
    pub filter: InstanceFilter,
    pub order: Order,
    pub page: PageRequest,
}

impl Wanted {
    /// Parameters that are not known are left to later versions.
    ///
    /// # Errors
    /// `validation_failed` that names the parameter.
    pub fn read(query: &str) -> Result<Self> {
        let mut wanted = Self {
            filter: InstanceFilter::default(),
            order: Order::NewestFirst,
            page: PageRequest { limit: MAX_LIMIT, before: None },
        };
        let mut states = Vec::new();
        for (name, value) in url::form_urlencoded::parse(query.as_bytes()) {
            let bad = |message: &str| Error::field(name.as_ref(), message);
            match name.as_ref() {
                "state" => states.extend(value.split(',').map(str::to_owned)),
                "metadata" => {
                    wanted.filter.metadata = metadata(&value).ok_or_else(|| bad("is not encoded metadata"))?
                }
                "limit" => {
                    let limit = value.parse().ok().filter(|limit| (1..=MAX_LIMIT).contains(limit));
                    wanted.page.limit = limit.ok_or_else(|| bad("must lie between 1 and 100"))?;
                }
                "nextToken" => {
                    wanted.page.before = Some(decode_cursor(&value).ok_or_else(|| bad("is not a token of this list"))?);
                }
                "order" => wanted.order = order(&value).ok_or_else(|| bad("must be asc or desc"))?,
                "startedAfter" => {
                    wanted.filter.started_from = Some(time(&value).ok_or_else(|| bad("must be a time of RFC 3339"))?);
                }
                "template" => wanted.filter.tools.push(value.into_owned()),
                _ => {}
            }
        }
        wanted.filter.statuses = statuses(&states)?;
        Ok(wanted)
    }
}

fn statuses(states: &[String]) -> Result<Vec<String>> {
    let mut statuses = Vec::new();
    for state in states {
        match state.as_str() {
            "running" => statuses.extend(RUNNING),
            "paused" => statuses.extend(PAUSED),
            _ => return Err(Error::field("state", "must be running or paused")),
        }
    }
    if statuses.is_empty() {
        statuses.extend(RUNNING.into_iter().chain(PAUSED));
    }
    Ok(statuses.iter().map(ToString::to_string).collect())
}

fn order(text: &str) -> Option<Order> {
    match text {
        "asc" => Some(Order::OldestFirst),
        "desc" => Some(Order::NewestFirst),
        _ => None,
    }
}

fn time(text: &str) -> Option<DateTime<Utc>> {
    DateTime::parse_from_rfc3339(text).ok().map(|time| time.to_utc())
}

/// The second and third decoding: a form, then percent escapes in keys and values (without `+`).
fn metadata(form: &str) -> Option<BTreeMap<String, Vec<String>>> {
    let plain = |text: &str| percent_decode_str(text).decode_utf8().ok().map(|text| text.into_owned());
    let pairs = url::form_urlencoded::parse(form.as_bytes());
    pairs.map(|(key, value)| Some((plain(&key)?, vec![plain(&value)?]))).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::domain::page::encode_cursor;
    use proptest::prelude::*;

    #[test]
    fn the_query_of_the_sdks_is_read() {
        let wanted = Wanted::read("metadata=a%252520k%3Db%252526c&state=running%2Cpaused&limit=5&later=1").unwrap();
        assert_eq!(wanted.filter.metadata, BTreeMap::from([("a k".to_owned(), vec!["b&c".to_owned()])]));
        assert_eq!(wanted.filter.statuses, ["STARTING", "RUNNING", "RESUMING", "PAUSING", "PAUSED"]);
        assert_eq!((wanted.page.limit, wanted.order), (5, Order::NewestFirst));
    }

    #[test]
    fn states_may_repeat_and_absence_means_both() {
        assert_eq!(Wanted::read("state=paused").unwrap().filter.statuses, ["PAUSING", "PAUSED"]);
        assert_eq!(Wanted::read("state=paused&state=running").unwrap().filter.statuses.len(), 5);
        assert_eq!(Wanted::read("").unwrap().filter.statuses.len(), 5);
    }

    #[test]
    fn the_newest_sdks_order_and_bound_the_list() {
        let token = encode_cursor("ins01abc");
        let query = format!("order=asc&startedAfter=2026-01-01T00%3A00%3A00%2B08%3A00&template=base&nextToken={token}");
        let wanted = Wanted::read(&query).unwrap();
        assert_eq!(wanted.order, Order::OldestFirst);
        assert_eq!(wanted.filter.started_from.unwrap().to_rfc3339(), "2025-12-31T16:00:00+00:00");
        assert_eq!(
            (wanted.filter.tools, wanted.page.before.unwrap()),
            (vec!["base".to_owned()], "ins01abc".to_owned())
        );
    }

    #[test]
    fn what_cannot_be_read_is_named() {
        for (query, field) in [
            ("limit=0", "limit"),
            ("limit=101", "limit"),
            ("nextToken=%25", "nextToken"),
            ("order=up", "order"),
            ("state=gone", "state"),
            ("startedAfter=yesterday", "startedAfter"),
            ("metadata=a%3D%2525FF", "metadata"),
        ] {
            let error = Wanted::read(query).unwrap_err();
            assert_eq!(error.inner().fields[0].field, field, "{query}");
        }
    }

    proptest! {
        #[test]
        fn reading_never_panics(query in "\\PC{0,60}") {
            let _ = Wanted::read(&query);
        }
    }
}
