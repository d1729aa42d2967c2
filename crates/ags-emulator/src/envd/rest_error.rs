//! Errors of the plain HTTP endpoints: `{"code":<status>,"message":"…"}` (`PROTOCOLS` D.8).

use std::io;

use axum::response::{IntoResponse, Response};
use http::{HeaderValue, StatusCode, header};
use nix::errno::Errno;

/// An answer that is an error.
#[derive(Debug)]
pub struct RestError {
    status: StatusCode,
    message: String,
}

impl RestError {
    /// An error with a text for the caller.
    pub fn new(status: StatusCode, message: impl Into<String>) -> Self {
        Self { status, message: message.into() }
    }

    /// 400.
    pub fn bad_request(message: impl Into<String>) -> Self {
        Self::new(StatusCode::BAD_REQUEST, message)
    }

    /// 401.
    pub fn unauthorized(message: impl Into<String>) -> Self {
        Self::new(StatusCode::UNAUTHORIZED, message)
    }

    /// What a failed write means: 507 when the disk is full, else 500 with what was attempted.
    pub fn writing(what: &str, error: &io::Error) -> Self {
        match error.raw_os_error().map(Errno::from_raw) {
            Some(Errno::ENOSPC | Errno::EDQUOT) => Self::no_space(),
            _ => Self::new(StatusCode::INTERNAL_SERVER_ERROR, format!("error {what}: {error}")),
        }
    }

    fn no_space() -> Self {
        let inodes_left = nix::sys::statvfs::statvfs("/").map_or(1, |stat| stat.files_available());
        let message = match inodes_left {
            0 => "not enough inodes available",
            _ => "not enough disk space available",
        };
        Self::new(StatusCode::INSUFFICIENT_STORAGE, message)
    }
}

impl IntoResponse for RestError {
    fn into_response(self) -> Response {
        let body = serde_json::json!({"code": self.status.as_u16(), "message": self.message}).to_string();
        let mut response = (self.status, body).into_response();
        response
            .headers_mut()
            .insert(header::CONTENT_TYPE, HeaderValue::from_static("application/json; charset=utf-8"));
        response
    }
}
