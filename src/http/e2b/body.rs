//! Bodies as E2B's SDKs send them: left out, empty, or JSON with fields that a later version knows.

use axum::extract::{FromRequest, Request};
use serde::de::DeserializeOwned;

use crate::{
    app::{App, idempotency::Key},
    error::{Error, Result},
    http::{
        extract::{from_json, read_body},
        idempotency::IDEMPOTENCY_KEY,
    },
};

/// A body; one that is not there reads as `{}`.
pub struct Given<T> {
    pub body: T,
    /// Of a creating call.
    pub key: Option<Key>,
}

impl<T: DeserializeOwned> FromRequest<App> for Given<T> {
    type Rejection = Error;

    async fn from_request(request: Request, app: &App) -> Result<Self> {
        let (method, path) = (request.method().clone(), request.uri().path().to_owned());
        let header = request.headers().get(IDEMPOTENCY_KEY).cloned();
        let bytes = read_body(request, app.config.server.max_json_body).await?;
        let key = header.map(|value| Key::new(value.to_str().unwrap_or_default(), method.as_str(), &path, &bytes));
        let json = if bytes.trim_ascii().is_empty() { b"{}".as_slice() } else { &bytes };
        Ok(Self { body: from_json(json)?, key: key.transpose()? })
    }
}
