//! The face of E2B (PROTOCOLS F): its SDKs, unmodified, with a key of the gateway. Translation only; what is done is done by
//! the same calls as for v1.
//!
//! The control plane is below `/e2b` and on `api.{sandbox_domain}`, the data plane wherever its headers stand ([`data`]).

mod body;
mod custom_config;
pub mod data;
mod dto;
mod errors;
mod query;
mod sandboxes;
mod templates;

use axum::{
    Router,
    extract::Request,
    response::Response,
    routing::{any, get, post},
};
use http::{Method, Uri};

use super::{extract::Authenticated, front::Answer};
use crate::{
    app::App,
    error::{Code, Error, Result},
};

/// Where the face is mounted.
pub const MOUNT: &str = "/e2b";

/// The versions of routes that SDKs use side by side.
const VERSIONS: [&str; 2] = ["", "/v2"];

/// What each route does, by the ids of the gateway's own operations.
const OPERATIONS: [(Method, &str, &str); 7] = [
    (Method::POST, "/sandboxes", "create_instance"),
    (Method::DELETE, "/sandboxes/{id}", "delete_instance"),
    (Method::POST, "/sandboxes/{id}/connect", "resume_instance"),
    (Method::POST, "/sandboxes/{id}/resume", "resume_instance"),
    (Method::POST, "/sandboxes/{id}/pause", "pause_instance"),
    (Method::POST, "/sandboxes/{id}/timeout", "update_instance"),
    (Method::POST, "/sandboxes/{id}/refreshes", "update_instance"),
];

/// The routes, to be nested below [`MOUNT`].
pub fn routes() -> Router<App> {
    let versions = VERSIONS.into_iter().fold(Router::new(), |router, version| {
        let path = |path: &str| format!("{version}{path}");
        router
            .route(&path("/sandboxes"), post(sandboxes::create).get(sandboxes::list))
            .route(&path("/sandboxes/{id}"), get(sandboxes::info).delete(sandboxes::kill))
            .route(&path("/sandboxes/{id}/connect"), post(sandboxes::connect))
            .route(&path("/sandboxes/{id}/resume"), post(sandboxes::resume))
            .route(&path("/sandboxes/{id}/pause"), post(sandboxes::pause))
            .route(&path("/sandboxes/{id}/timeout"), post(sandboxes::set_timeout))
            .route(&path("/sandboxes/{id}/refreshes"), post(sandboxes::refresh))
            .route(&path("/sandboxes/{id}/metrics"), get(sandboxes::metrics))
            .route(&path("/templates"), get(templates::list))
    });
    versions
        .route("/templates/aliases/{alias}", get(templates::alias))
        .route("/{*rest}", any(elsewhere))
        .method_not_allowed_fallback(elsewhere)
}

/// The operations as the history calls them, by method and route.
pub fn operations() -> impl Iterator<Item = ((Method, String), String)> {
    VERSIONS.into_iter().flat_map(|version| {
        OPERATIONS
            .into_iter()
            .map(move |(method, path, id)| ((method, format!("{MOUNT}{version}{path}")), id.to_owned()))
    })
}

async fn elsewhere(_: Authenticated) -> Result<()> {
    let detail = "Agent Sandbox has no counterpart to this part of E2B: volumes, secrets, snapshots, forks, network rules, logs, \
                  and builds of templates (make tools with the gateway's own API instead).";
    Err(Error::new(Code::NotSupported, detail))
}

/// Whether a path is the face's.
#[must_use]
pub fn is_below_mount(path: &str) -> bool {
    path.strip_prefix(MOUNT).is_some_and(|rest| rest.is_empty() || rest.starts_with('/'))
}

/// Answers a request to the control plane, errors in the form that SDKs read.
pub async fn answer(api: Router, mut request: Request) -> Response {
    if !is_below_mount(request.uri().path())
        && let Some(mounted) = mounted(request.uri())
    {
        *request.uri_mut() = mounted;
    }
    errors::translated(api.answer(request).await).await
}

/// An address of `api.{sandbox_domain}` below the mount.
fn mounted(uri: &Uri) -> Option<Uri> {
    let path = uri.path_and_query().map_or("/", |path| path.as_str());
    let mut parts = uri.clone().into_parts();
    parts.path_and_query = Some(format!("{MOUNT}{path}").parse().ok()?);
    Uri::from_parts(parts).ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn addresses_of_the_apis_own_host_are_put_below_the_mount() {
        for (uri, expected) in [
            ("/sandboxes?limit=5", "/e2b/sandboxes?limit=5"),
            ("http://api.example.com/v2/sandboxes", "http://api.example.com/e2b/v2/sandboxes"),
            ("/", "/e2b/"),
        ] {
            assert_eq!(mounted(&uri.parse().unwrap()).unwrap().to_string(), expected);
        }
        for (path, below) in [("/e2b", true), ("/e2b/x", true), ("/e2bx", false), ("/v1/e2b", false)] {
            assert_eq!(is_below_mount(path), below, "{path}");
        }
    }
}
