//! Errors as callers see them: RFC 9457 problem documents.

use std::error::Error as StdError;

use axum::response::{IntoResponse, Response};
use http::{HeaderValue, StatusCode, header};
use serde::Serialize;
use utoipa::ToSchema;

use crate::{
    error::{Code, Error, FieldError, Inner, LimitRef, SandboxRef, UpstreamRef},
    telemetry::request::current_request_id,
};

pub const CONTENT_TYPE: &str = "application/problem+json";

/// A failed call (RFC 9457).
#[derive(Clone, Debug, Serialize, ToSchema)]
pub struct Problem {
    /// A URI that names the kind of problem: `urn:ags-gateway:problem:` and the code.
    #[serde(rename = "type")]
    #[schema(example = "urn:ags-gateway:problem:not_found")]
    pub kind: String,
    pub title: &'static str,
    pub status: u16,
    /// What happened, and what to do next where that is known.
    pub detail: String,
    pub code: Code,
    pub request_id: String,
    /// Whether the same call may succeed if it is repeated.
    pub retryable: bool,
    /// The fields at fault.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    #[schema(required = false)]
    pub errors: Vec<FieldError>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub upstream: Option<UpstreamRef>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub sandbox: Option<SandboxRef>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub limit: Option<LimitRef>,
    /// Number in the line for an instance: 1 is next. See `?queue=`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub queue_position: Option<u64>,
}

impl Problem {
    /// The document for an error of this request.
    #[must_use]
    pub fn of(inner: &Inner) -> Self {
        Self {
            kind: format!("urn:ags-gateway:problem:{}", inner.code.as_str()),
            title: inner.code.title(),
            status: inner.code.status(),
            detail: inner.detail.clone(),
            code: inner.code,
            request_id: current_request_id(),
            retryable: inner.retryable,
            errors: inner.fields.clone(),
            upstream: inner.upstream.clone(),
            sandbox: inner.sandbox.clone(),
            limit: inner.limit.clone(),
            queue_position: inner.queue_position,
        }
    }
}

/// What the access log says of a failed call: put into the response's extensions.
#[derive(Clone, Debug)]
pub struct Cause {
    pub code: Code,
    pub chain: String,
    /// The cloud's id of the call that failed.
    pub upstream_request_id: Option<String>,
}

impl Cause {
    /// The cause that a kept document tells of.
    #[must_use]
    pub fn of_document(document: &serde_json::Value) -> Option<Self> {
        let text = |pointer: &str| document.pointer(pointer)?.as_str().map(str::to_owned);
        let code = text("/code")?;
        Some(Self {
            code: *Code::ALL.iter().find(|known| known.as_str() == code)?,
            chain: text("/detail").unwrap_or_default(),
            upstream_request_id: text("/upstream/request_id"),
        })
    }

    fn of(inner: &Inner) -> Self {
        let mut chain = inner.detail.clone();
        let mut source = inner.source.as_deref().map(|source| source as &dyn StdError);
        while let Some(error) = source {
            chain.push_str(": ");
            chain.push_str(&error.to_string());
            source = error.source();
        }
        let upstream_request_id = inner.upstream.as_ref().and_then(|upstream| upstream.request_id.clone());
        Self { code: inner.code, chain, upstream_request_id }
    }
}

impl IntoResponse for Error {
    fn into_response(self) -> Response {
        let inner = self.into_inner();
        let problem = Problem::of(&inner);
        let status = StatusCode::from_u16(problem.status).unwrap_or(StatusCode::INTERNAL_SERVER_ERROR);
        let body = serde_json::to_vec(&problem).unwrap_or_default();
        let mut response = (status, [(header::CONTENT_TYPE, CONTENT_TYPE)], body).into_response();
        let retry_after = inner.retry_after.or_else(|| {
            let asks_to_wait = matches!(status, StatusCode::TOO_MANY_REQUESTS | StatusCode::SERVICE_UNAVAILABLE);
            asks_to_wait.then(|| std::time::Duration::from_secs(1))
        });
        if let Some(after) = retry_after {
            let seconds = after.as_secs().max(1);
            response.headers_mut().insert(header::RETRY_AFTER, HeaderValue::from(seconds));
        }
        if status == StatusCode::UNAUTHORIZED {
            response.headers_mut().insert(header::WWW_AUTHENTICATE, HeaderValue::from_static("Bearer"));
        }
        response.extensions_mut().insert(Cause::of(&inner));
        response
    }
}
