//! The OpenAPI document, generated from the routes.

use std::collections::BTreeMap;

use http::Method;
use utoipa::{
    IntoResponses, Modify, OpenApi, PartialSchema, ToSchema,
    openapi::{
        ContentBuilder, ObjectBuilder, Ref, RefOr, ResponseBuilder, Schema, Type,
        path::{Operation, Parameter, ParameterBuilder, ParameterIn, PathItem},
        response::Response,
        security::{ApiKey, ApiKeyValue, HttpAuthScheme, HttpBuilder, SecurityScheme},
    },
};

use super::{
    activity,
    problem::{self, Problem},
};
use crate::domain::duration::Seconds;

/// The failures every operation may answer with, as one row instead of many copies.
pub struct Failures;

impl IntoResponses for Failures {
    fn responses() -> BTreeMap<String, RefOr<Response>> {
        let content = ContentBuilder::new().schema(Some(Ref::from_schema_name(Problem::name()))).build();
        let response = |text: &str| {
            ResponseBuilder::new().description(text).content(problem::CONTENT_TYPE, content.clone()).build().into()
        };
        [
            ("4XX", "The call was refused; `code` says why, `errors` names the fields."),
            ("5XX", "The gateway or the cloud failed; `retryable` says whether to try again."),
        ]
        .into_iter()
        .map(|(status, text)| (status.to_owned(), response(text)))
        .collect()
    }
}

struct Security;

impl Modify for Security {
    fn modify(&self, document: &mut utoipa::openapi::OpenApi) {
        let components = document.components.get_or_insert_default();
        let bearer = HttpBuilder::new().scheme(HttpAuthScheme::Bearer).bearer_format("agsk_<hex>").build();
        components.add_security_scheme("bearer", SecurityScheme::Http(bearer));
        let header = ApiKey::Header(ApiKeyValue::new("X-API-Key"));
        components.add_security_scheme("api_key", SecurityScheme::ApiKey(header));
        components.schemas.insert(Problem::name().into_owned(), Problem::schema());
        let mut schemas = Vec::new();
        Problem::schemas(&mut schemas);
        components.schemas.extend(schemas);
    }
}

/// What the routes do not say themselves.
#[derive(OpenApi)]
#[openapi(
    info(
        title = "ags-gateway",
        description = "Sandboxes for AI agents: tools (templates), instances (running sandboxes), commands and files in them.\n\nAuthorize with `Authorization: Bearer agsk_…`. Errors are RFC 9457 problem documents with a stable `code`.\n\nEvery answer has `X-Request-Id` (a request's own is taken over, and `traceparent` is honoured), and one to a team's key `RateLimit` and `RateLimit-Policy`. 429 and 503 have `Retry-After`. A creating call with `Idempotency-Key` is answered again with `Idempotency-Replayed: true`. `X-On-Behalf-Of` names the end user in the history. Prometheus metrics are at `/metrics`, for holders of any key, or on a listener of their own.",
        license(name = "MIT", identifier = "MIT"),
        contact()
    ),
    modifiers(&Security),
    security(("bearer" = []), ("api_key" = [])),
    tags(
        (name = "service", description = "Health, and who you are."),
        (name = "tools", description = "Templates of sandboxes."),
        (name = "instances", description = "Running sandboxes, and those that ran."),
        (name = "exec", description = "Commands in instances: waiting, streaming, over WebSocket."),
        (name = "code", description = "Code in the interpreter of instances of tools of type code-interpreter, and its contexts."),
        (name = "runs", description = "An instance for one command or piece of code, with files in and out, that is gone after it."),
        (name = "files", description = "Files in instances."),
        (name = "ports", description = "What listens in instances: for programs, and as previews for browsers."),
        (name = "keys", description = "API keys and tickets."),
        (name = "history", description = "Who did what, and what was used. Both outlive what they tell of."),
        (name = "teams", description = "Teams, their quotas and grants, and the upkeep of the account."),
    )
)]
pub struct Base;

/// Says that calls into an instance may wake it: `?wake=`, or a header in calls of ports.
pub(super) fn describe_wake(document: &mut utoipa::openapi::OpenApi) {
    for (path, item) in &mut document.paths.paths {
        let parameter = if activity::goes_inside(path) {
            wake_parameter(activity::WAKE, ParameterIn::Query)
        } else if super::v1::is_port_path(path) {
            wake_parameter(activity::WAKE_HEADER.as_str(), ParameterIn::Header)
        } else {
            continue;
        };
        for operation in operations_of(item) {
            operation.parameters.get_or_insert_default().push(parameter.clone().into());
        }
    }
}

/// Says what parameters are that mean the same wherever they stand.
pub(super) fn describe_parameters(document: &mut utoipa::openapi::OpenApi) {
    for operation in document.paths.paths.values_mut().flat_map(operations_of) {
        for parameter in operation.parameters.iter_mut().flatten() {
            let RefOr::T(parameter) = parameter else { continue };
            if let Some(schema) = schema_of(&parameter.name) {
                parameter.schema = Some(schema);
            }
        }
    }
}

/// The operations of a path, by method.
pub(super) fn methods_of(item: &PathItem) -> impl Iterator<Item = (Method, &Operation)> {
    let operations = [
        (Method::GET, &item.get),
        (Method::PUT, &item.put),
        (Method::POST, &item.post),
        (Method::PATCH, &item.patch),
        (Method::DELETE, &item.delete),
    ];
    operations.into_iter().filter_map(|(method, operation)| Some((method, operation.as_ref()?)))
}

fn operations_of(item: &mut PathItem) -> impl Iterator<Item = &mut Operation> {
    let operations = [
        &mut item.get,
        &mut item.put,
        &mut item.post,
        &mut item.delete,
        &mut item.patch,
        &mut item.head,
        &mut item.options,
    ];
    operations.into_iter().flatten()
}

fn schema_of(parameter: &str) -> Option<RefOr<Schema>> {
    let text = |longest, pattern: &str| {
        let schema = ObjectBuilder::new().schema_type(Type::String).pattern(Some(pattern));
        schema.min_length(Some(1)).max_length(Some(longest))
    };
    Some(match parameter {
        "wait" | "queue" | "unused_for" => Ref::from_schema_name(Seconds::name()).into(),
        "Idempotency-Key" => text(255, "^[!-~]([ -~]*[!-~])?$").into(),
        "user" => text(64, "^[^:\\x00-\\x1f\\x7f-\\x9f]+$").into(),
        "metadata" => pairs("^metadata\\.").into(),
        "tag" => pairs("^tag\\.").into(),
        _ => return None,
    })
}

/// Parameters whose names begin alike.
fn pairs(names: &str) -> ObjectBuilder {
    let text = || ObjectBuilder::new().schema_type(Type::String);
    let pairs = ObjectBuilder::new().schema_type(Type::Object).additional_properties(Some(text()));
    pairs.property_names(Some(text().pattern(Some(names)).build()))
}

fn wake_parameter(name: &str, place: ParameterIn) -> Parameter {
    let text = "Wakes a paused instance, and waits so long for it to run. Without it a paused instance is an `invalid_state`. \
                Its `expires_at` stays.";
    let schema = Ref::from_schema_name(Seconds::name());
    let parameter = ParameterBuilder::new().name(name).parameter_in(place).description(Some(text));
    parameter.schema(Some(schema)).example(Some(serde_json::json!("30s"))).build()
}

/// The whole document.
#[must_use]
pub fn document() -> utoipa::openapi::OpenApi {
    super::api_parts().1
}

/// The document as committed under `openapi/`.
///
/// # Errors
/// When it cannot be serialised.
pub fn document_json() -> serde_json::Result<String> {
    document().to_pretty_json().map(|mut text| {
        text.push('\n');
        text
    })
}
