//! The face of Tencent Cloud's own API (PROTOCOLS A, B): its SDKs, unmodified, with a pair that signs. Translation only; what
//! is done is done by the same calls as for v1.
//!
//! The API has one path, and names the action in a header: each action is a route of its own here, below [`MOUNT`].

mod access;
mod call;
mod convert;
mod envelope;
mod instances;
mod keys;
mod listing;
mod tools;

use axum::{Router, extract::Request, response::Response, routing::any};
use http::{HeaderName, Method, Uri};

use self::call::Call;
use super::front::Answer;
use crate::{
    app::{App, wait},
    error::Result,
    telemetry::request::carried,
};

const MOUNT: &str = "/tencent";
const UNKNOWN: &str = "/tencent/unknown";
const ACTION: HeaderName = HeaderName::from_static("x-tc-action");

/// The actions that change something, by the ids of the gateway's own operations.
const OPERATIONS: [(&str, &str); 11] = [
    ("AcquireSandboxInstanceToken", "create_instance_token"),
    ("CreateAPIKey", "create_key"),
    ("CreateSandboxTool", "create_tool"),
    ("DeleteAPIKey", "delete_key"),
    ("DeleteSandboxTool", "delete_tool"),
    ("PauseSandboxInstance", "pause_instance"),
    ("ResumeSandboxInstance", "resume_instance"),
    ("StartSandboxInstance", "create_instance"),
    ("StopSandboxInstance", "delete_instance"),
    ("UpdateSandboxInstance", "update_instance"),
    ("UpdateSandboxTool", "update_tool"),
];

/// The routes; [`answer`] leads to them.
pub fn routes() -> Router<App> {
    let path = |action: &str| format!("{MOUNT}/{action}");
    Router::new()
        .route(&path("AcquireSandboxInstanceToken"), any(access::acquire))
        .route(&path("CreateAPIKey"), any(keys::create))
        .route(&path("CreatePreCacheImageTask"), any(access::precache))
        .route(&path("CreateSandboxTool"), any(tools::create))
        .route(&path("DeleteAPIKey"), any(keys::delete))
        .route(&path("DeleteSandboxTool"), any(tools::delete))
        .route(&path("DescribeAPIKeyList"), any(keys::list))
        .route(&path("DescribePreCacheImageTask"), any(access::precached))
        .route(&path("DescribeSandboxInstanceList"), any(instances::list))
        .route(&path("DescribeSandboxToolList"), any(tools::list))
        .route(&path("PauseSandboxInstance"), any(instances::pause))
        .route(&path("ResumeSandboxInstance"), any(instances::resume))
        .route(&path("StartSandboxInstance"), any(instances::start))
        .route(&path("StopSandboxInstance"), any(instances::stop))
        .route(&path("UpdateSandboxInstance"), any(instances::update))
        .route(&path("UpdateSandboxTool"), any(tools::update))
        .route(UNKNOWN, any(call::unknown))
}

/// The operations as the history calls them, by method and route.
pub fn operations() -> impl Iterator<Item = ((Method, String), String)> {
    let changing = OPERATIONS.into_iter().map(|(action, id)| (format!("{MOUNT}/{action}"), id.to_owned()));
    changing.flat_map(|(path, id)| [Method::POST, Method::GET].map(|method| ((method, path.clone()), id.clone())))
}

/// Whether a request speaks the cloud's API.
#[must_use]
pub fn is_call(request: &Request) -> bool {
    request.uri().path() == "/" && request.headers().contains_key(ACTION)
}

/// Runs a change to its end, whoever hangs up.
async fn lasting<T, F>(app: App, work: impl FnOnce(App) -> F) -> Result<T>
where
    T: Send + 'static,
    F: Future<Output = Result<T>> + Send + 'static,
{
    // Boxed: changes are large, and are handed from layer to layer.
    let work = carried(Box::pin(work(app.clone())));
    wait::detached(&app, "tencent", work).await
}

/// Answers a call in the cloud's envelope.
pub async fn answer(api: Router, mut request: Request) -> Response {
    let action = request.headers().get(ACTION).and_then(|value| value.to_str().ok()).unwrap_or_default().to_owned();
    let known = ags_client::ACTIONS.iter().find(|known| **known == action);
    let path = known.map_or_else(|| UNKNOWN.to_owned(), |known| format!("{MOUNT}/{known}"));
    *request.uri_mut() = below(request.uri(), &path);
    envelope::wrapped(api.answer(request).await, &action).await
}

/// An address with another path; what is signed is the query.
fn below(uri: &Uri, path: &str) -> Uri {
    let query = uri.query().map(|query| format!("?{query}")).unwrap_or_default();
    let mut parts = uri.clone().into_parts();
    parts.path_and_query = format!("{path}{query}").parse().ok();
    Uri::from_parts(parts).unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_query_is_kept_as_it_was_signed() {
        for (uri, expected) in [
            ("/", "/tencent/X"),
            ("/?Limit=5&Filters.0.Name=%20a", "/tencent/X?Limit=5&Filters.0.Name=%20a"),
            ("http://gw.example:80/?a=b", "http://gw.example:80/tencent/X?a=b"),
        ] {
            assert_eq!(below(&uri.parse().unwrap(), "/tencent/X").to_string(), expected);
        }
    }

    #[test]
    fn what_changes_something_is_an_action() {
        for (action, _) in OPERATIONS {
            assert!(ags_client::ACTIONS.contains(&action), "{action}");
        }
    }
}
