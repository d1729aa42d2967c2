//! The OpenAPI document, generated from the routes.

use std::collections::BTreeMap;

use utoipa::{
    IntoResponses, Modify, OpenApi, PartialSchema, ToSchema,
    openapi::{
        ContentBuilder, RefOr, ResponseBuilder,
        response::Response,
        security::{ApiKey, ApiKeyValue, HttpAuthScheme, HttpBuilder, SecurityScheme},
    },
};

use super::problem::{self, Problem};

/// The failures every operation may answer with, as one row instead of many copies.
pub struct Failures;

impl IntoResponses for Failures {
    fn responses() -> BTreeMap<String, RefOr<Response>> {
        let content =
            ContentBuilder::new().schema(Some(utoipa::openapi::Ref::from_schema_name(Problem::name()))).build();
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
        description = "Sandboxes for AI agents: tools (templates), instances (running sandboxes), commands and files in them.\n\nAuthorize with `Authorization: Bearer agsk_…`. Errors are RFC 9457 problem documents with a stable `code`.",
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
        (name = "files", description = "Files in instances."),
        (name = "keys", description = "API keys and tickets."),
        (name = "teams", description = "Teams, their quotas and grants."),
    )
)]
pub struct Base;

/// The whole document.
#[must_use]
pub fn document() -> utoipa::openapi::OpenApi {
    super::api().split_for_parts().1
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
