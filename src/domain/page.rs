//! Cursor paging, newest first.

use base64::{Engine, prelude::BASE64_URL_SAFE_NO_PAD};

pub const DEFAULT_LIMIT: u32 = 20;
pub const MAX_LIMIT: u32 = 100;

/// Which part of a list is wanted: at most `limit` items whose id sorts before `before`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PageRequest {
    pub limit: u32,
    pub before: Option<String>,
}

impl Default for PageRequest {
    fn default() -> Self {
        Self { limit: DEFAULT_LIMIT, before: None }
    }
}

impl PageRequest {
    /// One more than wanted: its presence says that there is a next page.
    #[must_use]
    pub fn fetch(&self) -> i64 {
        i64::from(self.limit) + 1
    }
}

/// A page of a list.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Page<T> {
    pub items: Vec<T>,
    /// The id after which the next page starts; `None` on the last page.
    pub next: Option<String>,
}

impl<T> Page<T> {
    /// From up to `limit + 1` fetched rows.
    pub fn from_fetched(mut items: Vec<T>, request: &PageRequest, id: impl Fn(&T) -> String) -> Self {
        let limit = request.limit as usize;
        let next = (items.len() > limit).then(|| {
            items.truncate(limit);
            items.last().map(&id)
        });
        Self { items, next: next.flatten() }
    }

    pub fn map<U>(self, f: impl FnMut(T) -> U) -> Page<U> {
        Page { items: self.items.into_iter().map(f).collect(), next: self.next }
    }
}

/// The opaque form of a cursor.
#[must_use]
pub fn encode_cursor(id: &str) -> String {
    BASE64_URL_SAFE_NO_PAD.encode(id)
}

/// The id within a cursor, or `None` when it was not made by [`encode_cursor`].
#[must_use]
pub fn decode_cursor(cursor: &str) -> Option<String> {
    let id = String::from_utf8(BASE64_URL_SAFE_NO_PAD.decode(cursor).ok()?).ok()?;
    id.bytes().all(|b| b.is_ascii_alphanumeric()).then_some(id)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_further_row_makes_a_cursor_and_is_not_shown() {
        let request = PageRequest { limit: 2, before: None };
        let page = Page::from_fetched(vec![9, 8, 7], &request, ToString::to_string);
        assert_eq!(page, Page { items: vec![9, 8], next: Some("8".into()) });
        let last = Page::from_fetched(vec![9, 8], &request, ToString::to_string);
        assert_eq!(last.next, None);
    }

    #[test]
    fn cursors_round_trip_and_junk_is_none() {
        assert_eq!(decode_cursor(&encode_cursor("ins01abc")).as_deref(), Some("ins01abc"));
        assert_eq!(decode_cursor("%%%"), None);
        assert_eq!(decode_cursor(&encode_cursor("a'; drop")), None);
    }
}
