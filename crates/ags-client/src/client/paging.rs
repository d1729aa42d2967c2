//! Whole lists out of pages that move while they are read.

use std::collections::HashSet;

use futures_util::{Stream, TryStreamExt};

use super::{AgsClient, AgsError};
use crate::Action;
use crate::types::*;

/// Most entries the API puts on a page.
pub const MAX_PAGE: i64 = 100;

/// Stops a listing whose total never comes into reach. The API refuses offsets over 10 000 long before.
const MAX_PAGES: usize = 1000;

/// An action that lists by offset and limit.
pub trait Listing: Action {
    type Item: Send;

    fn offset(&self) -> i64;
    fn set_page(&mut self, offset: i64, limit: i64);
    /// The entries and the count of all matches.
    fn entries(page: Self::Output) -> (Vec<Self::Item>, i64);
    fn id(item: &Self::Item) -> &str;
}

macro_rules! listing {
    ($request:ident, $item:ident, $set:ident, $id:ident) => {
        impl Listing for $request {
            type Item = $item;

            fn offset(&self) -> i64 {
                self.offset.unwrap_or(0)
            }

            fn set_page(&mut self, offset: i64, limit: i64) {
                self.offset = Some(offset);
                self.limit = Some(limit);
            }

            fn entries(page: Self::Output) -> (Vec<$item>, i64) {
                (page.$set, page.total_count)
            }

            fn id(item: &$item) -> &str {
                &item.$id
            }
        }
    };
}

listing!(DescribeSandboxInstanceListRequest, SandboxInstance, instance_set, instance_id);
listing!(DescribeSandboxToolListRequest, SandboxTool, sandbox_tool_set, tool_id);

impl AgsClient {
    /// All entries from the request's offset on, each once, page by page as they are asked for; `limit` is
    /// ignored. Entries may come and go meanwhile: what was there all along is found even when others before it
    /// vanish (the shrinking total tells), but absence from a single listing proves nothing about one entry. An
    /// error ends the stream.
    pub fn list<L: Listing>(&self, request: L) -> impl Stream<Item = Result<L::Item, AgsError>> + Send + use<L> {
        let client = self.clone();
        async_stream::try_stream! {
            let mut request = request;
            let mut cursor = Cursor::at(request.offset());
            while let Some(offset) = cursor.next {
                request.set_page(offset, MAX_PAGE);
                let (entries, total) = L::entries(client.call(&request).await?.value);
                for entry in cursor.take(entries, total, L::id) {
                    yield entry;
                }
            }
        }
    }

    /// [`list`](Self::list) in one piece, with the least and the most that the cloud said there was meanwhile: a whole
    /// listing has no fewer entries, and no more.
    pub async fn list_counted<L: Listing>(&self, mut request: L) -> Result<Counted<L::Item>, AgsError> {
        let mut cursor = Cursor::at(request.offset());
        let mut counted = Counted { items: Vec::new(), least: i64::MAX, most: 0 };
        while let Some(offset) = cursor.next {
            request.set_page(offset, MAX_PAGE);
            let (entries, total) = L::entries(self.call(&request).await?.value);
            counted.least = counted.least.min(total);
            counted.most = counted.most.max(total);
            counted.items.extend(cursor.take(entries, total, L::id));
        }
        Ok(counted)
    }

    /// [`list`](Self::list) in one piece.
    pub async fn list_all<L: Listing>(&self, request: L) -> Result<Vec<L::Item>, AgsError> {
        self.list(request).try_collect().await
    }
}

/// A listing, and what the cloud said about its length.
#[derive(Clone, Debug, PartialEq)]
pub struct Counted<T> {
    pub items: Vec<T>,
    pub least: i64,
    pub most: i64,
}

impl<T> Counted<T> {
    /// What speaks against the listing; `None` when nothing does.
    #[must_use]
    pub fn doubt(&self) -> Option<String> {
        let Self { items, least, most } = self;
        let count = i64::try_from(items.len()).unwrap_or(i64::MAX);
        (count < *least || count > *most)
            .then(|| format!("{count} entries were listed, and the total said {least} to {most}"))
    }
}

/// Where a listing stands.
struct Cursor {
    /// Offset of the next page; `None` at the end.
    next: Option<i64>,
    /// End of the furthest page so far.
    reached: i64,
    total: Option<i64>,
    seen: HashSet<String>,
    pages: usize,
}

impl Cursor {
    fn at(offset: i64) -> Cursor {
        Cursor { next: Some(offset), reached: offset, total: None, seen: HashSet::new(), pages: 0 }
    }

    /// Takes a page in: returns what is new on it and decides on the next.
    fn take<T>(&mut self, entries: Vec<T>, total: i64, id: impl Fn(&T) -> &str) -> Vec<T> {
        let count = i64::try_from(entries.len()).unwrap_or(i64::MAX);
        let fresh: Vec<T> = entries.into_iter().filter(|entry| self.seen.insert(id(entry).to_owned())).collect();
        self.pages += 1;
        self.next = self.next.and_then(|offset| self.offset_after(offset, count, total, fresh.is_empty()));
        self.total = Some(total);
        fresh
    }

    fn offset_after(&mut self, offset: i64, count: i64, total: i64, stale: bool) -> Option<i64> {
        let vanished = self.total.map_or(0, |before| before.saturating_sub(total).max(0));
        let end = offset.saturating_add(count);
        let repeated = stale && end > self.reached;
        self.reached = self.reached.max(end);
        if self.pages >= MAX_PAGES {
            return None;
        }
        if vanished > 0 {
            // As many entries may have slid below this page unread.
            return Some(offset.saturating_sub(vanished).max(0)).filter(|next| *next < total);
        }
        // An empty page is the end, and so is a page beyond all others with nothing new on it: some filters ignore
        // the offset. A full page beyond the total says that the total cannot be relied on.
        let more = end < total || (end > total && count >= MAX_PAGE);
        (count > 0 && !repeated && more).then_some(end)
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    struct Entry(String);

    impl Entry {
        fn id(&self) -> &str {
            &self.0
        }
    }

    fn entries(numbers: &[u32]) -> Vec<Entry> {
        numbers.iter().map(|n| Entry(n.to_string())).collect()
    }

    /// Reads `list` page by page; `change` may alter it between two pages.
    fn read(list: &mut Vec<u32>, mut change: impl FnMut(usize, &mut Vec<u32>)) -> Vec<u32> {
        let mut cursor = Cursor::at(0);
        let mut found = Vec::new();
        while let Some(offset) = cursor.next {
            let begin = list.len().min(offset as usize);
            let end = list.len().min(begin + MAX_PAGE as usize);
            let fresh = cursor.take(entries(&list[begin..end]), list.len() as i64, Entry::id);
            found.extend(fresh.iter().map(|entry| entry.0.parse::<u32>().unwrap()));
            change(cursor.pages, list);
        }
        found
    }

    proptest! {
        #[test]
        fn what_stays_is_found_once_while_others_vanish(
            length in 0_u32..600,
            vanishing in proptest::collection::vec(proptest::collection::vec(0_u32..600, 0..80), 0..8),
        ) {
            let mut list: Vec<u32> = (0..length).collect();
            let found = read(&mut list, |page, list| {
                if let Some(gone) = vanishing.get(page - 1) {
                    list.retain(|n| !gone.contains(n));
                }
            });
            let mut unique = found.clone();
            unique.sort_unstable();
            unique.dedup();
            prop_assert_eq!(unique.len(), found.len(), "an entry is found twice");
            for stayed in list {
                prop_assert!(unique.contains(&stayed), "{} stayed and is missing", stayed);
            }
        }

        #[test]
        fn what_stays_is_found_once_while_others_appear(
            length in 0_u32..600,
            appearing in proptest::collection::vec((any::<prop::sample::Index>(), 1_u32..40), 0..8),
        ) {
            let mut list: Vec<u32> = (0..length).collect();
            let mut next = 1000;
            let mut found = read(&mut list, |page, list| {
                if let Some((at, count)) = appearing.get(page - 1) {
                    let at = at.index(list.len() + 1);
                    list.splice(at..at, next..next + count);
                    next += count;
                }
            });
            found.retain(|n| *n < 1000);
            found.sort_unstable();
            prop_assert_eq!(found, (0..length).collect::<Vec<_>>());
        }
    }

    #[test]
    fn a_listing_that_contradicts_itself_is_doubted() {
        let counted = |count: usize, least, most| Counted { items: vec![(); count], least, most }.doubt().is_some();
        assert!(!counted(0, 0, 0));
        assert!(!counted(105, 100, 110));
        assert!(counted(0, 3, 3), "an empty page with a total");
        assert!(counted(99, 100, 110));
        assert!(counted(100, 0, 0), "more than there are");
    }

    #[test]
    fn a_total_that_lies_neither_cuts_the_list_nor_runs_forever() {
        let mut cursor = Cursor::at(0);
        let full: Vec<u32> = (0..100).collect();
        cursor.take(entries(&full), 0, Entry::id);
        assert_eq!(cursor.next, Some(100), "a full page with a total of zero");
        cursor.take(entries(&full), 0, Entry::id);
        assert_eq!(cursor.next, None, "nothing new");
    }
}
