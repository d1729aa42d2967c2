//! Images that the cloud fetches before anybody needs them.

use std::sync::Arc;

use ags_client::types::{CreatePreCacheImageTaskRequest, DescribePreCacheImageTaskRequest, ImageRegistryType};
use axum::{extract::State, response::Response};
use http::StatusCode;
use serde::{Deserialize, Serialize};
use utoipa::{IntoParams, ToSchema};
use utoipa_axum::{router::OpenApiRouter, routes};

use crate::{
    app::{App, images},
    auth::Caller,
    domain::{checks::Checks, scope::scope, spec::Container},
    error::Result,
    http::{
        extract::{Authorized, FromQuery, Json, Query, QueryReader},
        idempotency::{Created, Creation, Keyed, lost, once},
        openapi::Failures,
    },
};

/// An image to be fetched.
#[derive(Debug, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
#[schema(example = json!({"image": "python:3.11", "image_registry_type": "enterprise"}))]
pub struct PrecacheImage {
    #[schema(min_length = 1, max_length = 512, pattern = "^[^\\s\\x00-\\x1f\\x7f-\\x9f]+$")]
    pub image: String,
    /// Default by configuration, as for tools.
    #[schema(pattern = "^(enterprise|personal|custom|system)$")]
    pub image_registry_type: Option<String>,
    /// Whose cache; by default the default upstream's.
    pub upstream: Option<String>,
}

/// Which image.
#[derive(Debug, IntoParams)]
#[into_params(parameter_in = Query)]
pub struct PrecachedQuery {
    #[param(value_type = String, example = "python:3.11", min_length = 1)]
    image: String,
    /// As the call answered that has it fetched.
    #[param(value_type = String, min_length = 1)]
    image_digest: String,
    /// Default by configuration, as for tools.
    #[param(value_type = Option<String>, pattern = "^(enterprise|personal|custom|system)$")]
    image_registry_type: Option<String>,
    /// Whose cache; by default the default upstream's.
    #[param(value_type = Option<String>)]
    upstream: Option<String>,
}

impl FromQuery for PrecachedQuery {
    fn from_query(query: &mut QueryReader) -> Self {
        let mut required = |name: &str| {
            let text = query.text(name).unwrap_or_default();
            if text.is_empty() {
                query.error(name, "is required");
            }
            text
        };
        let (image, image_digest) = (required("image"), required("image_digest"));
        let (image_registry_type, upstream) = (query.text("image_registry_type"), query.text("upstream"));
        Self { image, image_digest, image_registry_type, upstream }
    }
}

/// An image that is fetched, or was.
#[derive(Debug, Serialize, ToSchema)]
pub struct PrecachedImage {
    pub image: String,
    pub image_digest: String,
    pub image_registry_type: String,
    /// As the cloud says it, for example `Success`; null when it was not asked yet.
    pub status: Option<String>,
    pub message: Option<String>,
}

impl Creation for PrecachedImage {}

pub fn routes() -> OpenApiRouter<App> {
    OpenApiRouter::new().routes(routes!(precache_image, get_precached_image))
}

/// What is said of an image, checked, with what is left out.
fn registry(app: &App, image: &str, asked: Option<String>) -> Result<ImageRegistryType> {
    let registry = asked.unwrap_or_else(|| app.config.tools.image_registry_type.clone());
    let container = Container {
        image: Some(image.to_owned()),
        image_registry_type: Some(registry.clone()),
        ..Container::default()
    };
    let mut checks = Checks::default();
    container.check(&mut checks);
    checks.finish()?;
    Ok(ImageRegistryType::from(registry.as_str()))
}

/// Has the cloud fetch an image, so that the first instance with it starts sooner. Asked again for the same image, it answers with
/// the same digest.
#[utoipa::path(post, path = "/v1/images/precache", operation_id = "precache_image", tag = "tools", request_body = PrecacheImage,
    params(("Idempotency-Key" = Option<String>, Header, description = "Makes a repetition safe for 24 h.")),
    responses((status = 202, body = PrecachedImage, description = "It is being fetched."), Failures))]
async fn precache_image(
    State(app): State<App>,
    caller: Authorized<scope::Admin>,
    Keyed { body, key }: Keyed<PrecacheImage>,
) -> Result<Response> {
    caller.require_unbound()?;
    let image_registry_type = registry(&app, &body.image, body.image_registry_type)?;
    let request = CreatePreCacheImageTaskRequest { image: body.image, image_registry_type };
    let first = move |app: App, _: Arc<Caller>, _| async move {
        let task = images::precache(&app, body.upstream.as_deref(), &request).await?;
        let answer = PrecachedImage {
            image: task.image,
            image_digest: task.image_digest,
            image_registry_type: task.image_registry_type.to_string(),
            status: None,
            message: None,
        };
        Ok((StatusCode::ACCEPTED, answer))
    };
    // Nothing is noted with the key: a call that died is made again, to the same effect.
    let again = |_: App, _: Arc<Caller>, _| async { Err::<Created<PrecachedImage>, _>(lost()) };
    once(&app, caller.into_caller(), key, first, again).await
}

/// How fetching an image is getting on.
#[utoipa::path(get, path = "/v1/images/precache", operation_id = "get_precached_image", tag = "tools", params(PrecachedQuery),
    responses((status = 200, body = PrecachedImage), Failures))]
async fn get_precached_image(
    State(app): State<App>,
    caller: Authorized<scope::Admin>,
    Query(query): Query<PrecachedQuery>,
) -> Result<Json<PrecachedImage>> {
    caller.require_unbound()?;
    let image_registry_type = registry(&app, &query.image, query.image_registry_type)?;
    let request =
        DescribePreCacheImageTaskRequest { image: query.image, image_digest: query.image_digest, image_registry_type };
    let task = images::precached(&app, query.upstream.as_deref(), &request).await?;
    Ok(Json(PrecachedImage {
        image: task.image,
        image_digest: task.image_digest,
        image_registry_type: task.image_registry_type.to_string(),
        status: task.status,
        message: task.message,
    }))
}
