//! Query parameters of operations that take none: unknown ones are errors there too. Operations that take some read them with
//! [`Query`](super::extract::Query), which names those that it does not know.

use std::{collections::HashSet, sync::LazyLock};

use axum::extract::MatchedPath;
use http::{Method, request::Parts};
use utoipa::openapi::{
    RefOr,
    path::{Operation, ParameterIn},
};

use super::{activity::WAKE, extract::QueryReader, openapi::methods_of, v1};
use crate::error::Result;

/// Methods and routes of the document whose operations name no parameter of their own.
static BARE: LazyLock<HashSet<(Method, String)>> = LazyLock::new(|| {
    let document = super::openapi::document();
    let routes = document.paths.paths.iter().filter(|(route, _)| !v1::is_port_path(route));
    let bare = routes.flat_map(|(route, item)| {
        let bare = methods_of(item).filter(|(_, operation)| takes_none(operation));
        bare.map(move |(method, _)| (method, route.clone()))
    });
    bare.collect()
});

fn takes_none(operation: &Operation) -> bool {
    let parameters = operation.parameters.iter().flatten();
    !parameters
        .filter_map(|parameter| match parameter {
            RefOr::T(parameter) => Some(parameter),
            RefOr::Ref(_) => None,
        })
        .any(|parameter| matches!(parameter.parameter_in, ParameterIn::Query) && parameter.name != WAKE)
}

/// # Errors
/// `validation_failed` for parameters of an operation that takes none.
pub fn check(parts: &Parts) -> Result<()> {
    let Some(query) = parts.uri.query().filter(|query| !query.is_empty()) else { return Ok(()) };
    let Some(route) = parts.extensions.get::<MatchedPath>() else { return Ok(()) };
    if !BARE.contains(&(parts.method.clone(), route.as_str().to_owned())) {
        return Ok(());
    }
    let mut reader = QueryReader::new(query);
    // Read where it is acted upon.
    reader.text(WAKE);
    reader.finish()
}
