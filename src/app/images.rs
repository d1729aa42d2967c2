//! Images that the cloud fetches before anybody needs them.

use ags_client::types::{
    CreatePreCacheImageTaskRequest, CreatePreCacheImageTaskResponse, DescribePreCacheImageTaskRequest,
    DescribePreCacheImageTaskResponse,
};

use super::App;
use crate::{
    error::{Error, Result},
    upstream::Upstream,
};

/// Has an image cached. `upstream`: by name, else the default one.
///
/// # Errors
/// `validation_failed` for an unknown upstream; what the cloud says.
pub async fn precache(
    app: &App,
    upstream: Option<&str>,
    request: &CreatePreCacheImageTaskRequest,
) -> Result<CreatePreCacheImageTaskResponse> {
    Ok(chosen(app, upstream)?.precache(request).await?)
}

/// How caching an image is getting on.
///
/// # Errors
/// As [`precache`].
pub async fn precached(
    app: &App,
    upstream: Option<&str>,
    request: &DescribePreCacheImageTaskRequest,
) -> Result<DescribePreCacheImageTaskResponse> {
    Ok(chosen(app, upstream)?.precached(request).await?)
}

fn chosen<'a>(app: &'a App, upstream: Option<&str>) -> Result<&'a Upstream> {
    let name = upstream.unwrap_or_else(|| app.upstreams.default_name());
    if !app.upstreams.contains(name) {
        return Err(Error::field("upstream", "there is no upstream of that name"));
    }
    app.upstreams.get(name).map(AsRef::as_ref)
}
