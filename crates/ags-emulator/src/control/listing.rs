//! Filters and pages (PROTOCOLS B.1, B.6, B.7): AND across filters, OR within one.

use ags_client::types::Filter;

use super::error::{ApiError, ApiResult};

/// At most this many ids, and this many rows, in one request.
pub const MAX_ROWS: usize = 100;

const DEFAULT_LIMIT: usize = 20;
const MAX_OFFSET: usize = 10_000;

/// Checks filters against the names an action knows.
///
/// # Errors
/// `InvalidParameter` for a filter without a known name or without values.
pub fn check_filters(filters: &[Filter], known: &[&str]) -> ApiResult<()> {
    for filter in filters {
        let name = &filter.name;
        if !known.contains(&name.as_str()) {
            let message = format!("Filter `{name}` is not one of {}.", known.join(", "));
            return Err(ApiError::invalid(message));
        }
        if filter.values.is_empty() {
            return Err(ApiError::invalid(format!("Filter `{name}` has no values.")));
        }
    }
    Ok(())
}

/// Whether a row passes all filters; `field` gives the row's value under a filter name.
pub fn passes<'a>(filters: &[Filter], field: impl Fn(&str) -> &'a str) -> bool {
    filters.iter().all(|filter| {
        let actual = field(&filter.name);
        filter.values.iter().any(|wanted| wanted == actual)
    })
}

/// A window on a listing.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Page {
    offset: usize,
    limit: usize,
}

impl Page {
    /// # Errors
    /// `InvalidParameter` for a negative offset or a limit outside 0 to 100;
    /// `InvalidParameterValue.OffsetTooLarge` beyond 10,000.
    pub fn new(offset: Option<i64>, limit: Option<i64>) -> ApiResult<Self> {
        let offset = usize::try_from(offset.unwrap_or(0)).map_err(|_| ApiError::invalid("Offset is negative."))?;
        if offset > MAX_OFFSET {
            return Err(ApiError::value("OffsetTooLarge", "Offset is beyond 10000."));
        }
        let limit = match limit {
            None => DEFAULT_LIMIT,
            Some(limit) => usize::try_from(limit)
                .ok()
                .filter(|&limit| limit <= MAX_ROWS)
                .ok_or_else(|| ApiError::invalid("Limit is outside 0 to 100."))?,
        };
        Ok(Self { offset, limit })
    }

    /// The rows in the window.
    pub fn cut<T>(self, rows: Vec<T>) -> Vec<T> {
        rows.into_iter().skip(self.offset).take(self.limit).collect()
    }
}

/// # Errors
/// `InvalidParameterValue.<what>` for more than 100 ids or an empty one.
pub fn check_ids(what: &str, ids: &[String]) -> ApiResult<()> {
    if ids.len() > MAX_ROWS {
        return Err(ApiError::value(what, format!("{what} holds more than 100 ids.")));
    }
    if ids.iter().any(|id| id.is_empty() || id.len() > 64) {
        return Err(ApiError::value(what, format!("{what} holds a malformed id.")));
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn strings(values: &[&str]) -> Vec<String> {
        values.iter().map(|v| (*v).to_owned()).collect()
    }

    fn filter(name: &str, values: &[&str]) -> Filter {
        Filter { name: name.to_owned(), values: strings(values) }
    }

    #[test]
    fn and_across_or_within() {
        let filters = [filter("Status", &["RUNNING", "PAUSED"]), filter("ToolName", &["a"])];
        assert_eq!(check_filters(&filters, &["Status", "ToolName"]), Ok(()));
        let row = |status: &'static str, tool: &'static str| {
            passes(&filters, |name| if name == "Status" { status } else { tool })
        };
        assert!(row("RUNNING", "a"));
        assert!(row("PAUSED", "a"));
        assert!(!row("STOPPED", "a"));
        assert!(!row("RUNNING", "b"));
    }

    #[test]
    fn unknown_and_empty_filters_are_refused() {
        for given in [filter("Colour", &["x"]), filter("", &["x"]), filter("Status", &[])] {
            assert_eq!(check_filters(&[given], &["Status"]).unwrap_err().code, "InvalidParameter");
        }
    }

    #[test]
    fn pages_have_bounds() {
        let rows: Vec<u32> = (0..50).collect();
        assert_eq!(Page::new(None, None).unwrap().cut(rows.clone()).len(), 20);
        assert_eq!(Page::new(Some(45), Some(100)).unwrap().cut(rows.clone()), [45, 46, 47, 48, 49]);
        assert!(Page::new(Some(99), Some(0)).unwrap().cut(rows).is_empty());
        assert_eq!(Page::new(Some(-1), None).unwrap_err().code, "InvalidParameter");
        assert_eq!(Page::new(None, Some(101)).unwrap_err().code, "InvalidParameter");
        let error = Page::new(Some(10_001), None).unwrap_err();
        assert_eq!(error.code, "InvalidParameterValue.OffsetTooLarge");
    }

    #[test]
    fn ids_are_bounded() {
        assert!(check_ids("ToolIds", &strings(&["sdt-aaaaaaaa"])).is_ok());
        let many = vec!["x".to_owned(); 101];
        assert_eq!(check_ids("InstanceIds", &many).unwrap_err().code, "InvalidParameterValue.InstanceIds");
        assert!(check_ids("ToolIds", &strings(&[""])).is_err());
    }
}
