//! Query parameters of operations that take none: unknown ones are errors there too. Operations that take some read them with
//! [`Query`](super::extract::Query), which names those that it does not know.

use std::{collections::HashSet, sync::LazyLock};

use axum::extract::MatchedPath;
use http::{Method, request::Parts};
use utoipa::openapi::{
    RefOr,
    path::{Operation, ParameterIn, PathItem},
};

use super::{activity::WAKE, extract::QueryReader, v1};
use crate::error::Result;

/// Methods and routes of the document whose operations name no parameter of their own.
static BARE: LazyLock<HashSet<(Method, String)>> = LazyLock::new(|| {
    let document = super::openapi::document();
    let routes = document.paths.paths.into_iter().filter(|(route, _)| !v1::is_port_path(route));
    routes.flat_map(|(route, item)| bare(item).map(move |method| (method, route.clone()))).collect()
});

fn bare(item: PathItem) -> impl Iterator<Item = Method> {
    let operations = [
        (Method::GET, item.get),
        (Method::POST, item.post),
        (Method::PUT, item.put),
        (Method::PATCH, item.patch),
        (Method::DELETE, item.delete),
    ];
    operations.into_iter().filter(|(_, operation)| operation.as_ref().is_some_and(takes_none)).map(|(method, _)| method)
}

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
