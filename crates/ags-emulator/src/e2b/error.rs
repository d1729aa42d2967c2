//! Errors of the E2B endpoint (PROTOCOLS F.6): an integer code that equals the status, and a text.

use http::{Response, StatusCode, header};
use serde_json::json;

use crate::body::{self, Body};
use crate::control::error::ApiError;

/// A status and a text.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Problem {
    pub status: StatusCode,
    pub message: String,
}

impl Problem {
    pub fn new(status: StatusCode, message: impl Into<String>) -> Self {
        Self { status, message: message.into() }
    }

    pub fn bad(message: impl Into<String>) -> Self {
        Self::new(StatusCode::BAD_REQUEST, message)
    }

    pub fn no_sandbox(id: &str) -> Self {
        Self::new(StatusCode::NOT_FOUND, format!("Sandbox \"{id}\" doesn't exist or you don't have access to it"))
    }

    pub fn into_response(self) -> Response<Body> {
        let mut response = body::json(self.status, &json!({"code": self.status.as_u16(), "message": self.message}));
        if self.status == StatusCode::TOO_MANY_REQUESTS {
            response.headers_mut().insert(header::RETRY_AFTER, header::HeaderValue::from_static("1"));
        }
        response
    }
}

/// PROTOCOLS F.10.
impl From<ApiError> for Problem {
    fn from(error: ApiError) -> Self {
        let family = error.code.split('.').next().unwrap_or_default();
        let status = match (family, error.code.as_ref()) {
            ("ResourceNotFound", _) => StatusCode::NOT_FOUND,
            ("LimitExceeded" | "RequestLimitExceeded", _) => StatusCode::TOO_MANY_REQUESTS,
            ("InvalidParameter" | "InvalidParameterValue" | "MissingParameter", _) => StatusCode::BAD_REQUEST,
            ("UnsupportedOperation", _)
            | (_, "FailedOperation.RequestInProgress" | "FailedOperation.DuplicateRequest") => StatusCode::CONFLICT,
            ("ResourceUnavailable" | "ResourceInsufficient", _) | (_, "FailedOperation.DependencyUnavailable") => {
                StatusCode::SERVICE_UNAVAILABLE
            }
            _ => StatusCode::INTERNAL_SERVER_ERROR,
        };
        Self::new(status, error.message)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn families_become_statuses() {
        let status = |code: &'static str| Problem::from(ApiError::new(code, "x")).status.as_u16();
        assert_eq!(status("ResourceNotFound.SandboxInstance"), 404);
        assert_eq!(status("LimitExceeded.SandboxInstance"), 429);
        assert_eq!(status("InvalidParameterValue.Timeout"), 400);
        assert_eq!(status("UnsupportedOperation.SandboxInstance"), 409);
        assert_eq!(status("ResourceUnavailable.SandboxTool"), 503);
        assert_eq!(status("InternalError"), 500);
    }
}
