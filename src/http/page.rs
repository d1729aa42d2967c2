//! Lists, page by page.

use axum::response::{IntoResponse, Response};
use http::StatusCode;
use serde::Serialize;
use utoipa::{IntoParams, ToSchema};

use super::extract::{FromQuery, Json, QueryReader};
use crate::domain::page::{DEFAULT_LIMIT, MAX_LIMIT, Page, PageRequest, decode_cursor, encode_cursor};

/// Which part of a list.
#[derive(Debug, IntoParams)]
#[into_params(parameter_in = Query)]
pub struct PageQuery {
    /// How many items at most.
    #[param(value_type = Option<u32>, minimum = 1, maximum = 100, default = 20)]
    limit: u32,
    /// `next_cursor` of the page before.
    #[param(rename = "cursor", value_type = Option<String>)]
    before: Option<String>,
}

impl FromQuery for PageQuery {
    fn from_query(query: &mut QueryReader) -> Self {
        let limit = query.parsed("limit").unwrap_or(DEFAULT_LIMIT);
        if !(1..=MAX_LIMIT).contains(&limit) {
            query.error("limit", format!("must lie between 1 and {MAX_LIMIT}"));
        }
        let before = query.text("cursor").filter(|cursor| !cursor.is_empty()).and_then(|cursor| {
            let id = decode_cursor(&cursor);
            if id.is_none() {
                query.error("cursor", "is not a cursor of this list");
            }
            id
        });
        Self { limit, before }
    }
}

impl From<PageQuery> for PageRequest {
    fn from(query: PageQuery) -> Self {
        Self { limit: query.limit, before: query.before }
    }
}

/// A page of a list.
#[derive(Debug, Serialize, ToSchema)]
pub struct List<T> {
    pub items: Vec<T>,
    /// Pass it as `cursor` for the next page; null on the last one.
    pub next_cursor: Option<String>,
}

impl<T> List<T> {
    /// From a page of the application's type.
    pub fn of<U>(page: Page<U>, dto: impl FnMut(U) -> T) -> Self {
        let page = page.map(dto);
        Self { items: page.items, next_cursor: page.next.as_deref().map(encode_cursor) }
    }
}

impl<T: Serialize> IntoResponse for List<T> {
    fn into_response(self) -> Response {
        (StatusCode::OK, Json(self)).into_response()
    }
}
