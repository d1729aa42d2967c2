//! Errors of the AGS API: a documented code (PROTOCOLS A.8, B.12) and a text.

use std::borrow::Cow;

/// What becomes `Response.Error` of the envelope.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{code}: {message}")]
pub struct ApiError {
    pub code: Cow<'static, str>,
    pub message: Cow<'static, str>,
}

/// The answer of an action.
pub type ApiResult<T> = Result<T, ApiError>;

impl ApiError {
    pub fn new(code: impl Into<Cow<'static, str>>, message: impl Into<Cow<'static, str>>) -> Self {
        Self { code: code.into(), message: message.into() }
    }

    pub fn missing(field: &str) -> Self {
        Self::new("MissingParameter", format!("The request lacks the parameter `{field}`."))
    }

    pub fn invalid(message: impl Into<Cow<'static, str>>) -> Self {
        Self::new("InvalidParameter", message)
    }

    /// `InvalidParameterValue.<what>`
    pub fn value(what: &str, message: impl Into<Cow<'static, str>>) -> Self {
        Self::new(format!("InvalidParameterValue.{what}"), message)
    }

    pub fn no_instance(id: &str) -> Self {
        let message = format!("Sandbox instance `{id}` does not exist.");
        Self::new("ResourceNotFound.SandboxInstance", message)
    }

    pub fn no_tool(name: &str) -> Self {
        let message = format!("Sandbox tool `{name}` does not exist.");
        Self::new("ResourceNotFound.SandboxTool", message)
    }

    /// The instance is in a state that does not allow this.
    pub fn wrong_state(id: &str, status: &str) -> Self {
        let message = format!("Sandbox instance `{id}` is {status}.");
        Self::new("UnsupportedOperation.SandboxInstance", message)
    }

    pub fn instance_quota(kind: &str, limit: usize) -> Self {
        let message = format!("The quota of {limit} {kind} sandbox instances is used up.");
        Self::new("LimitExceeded.SandboxInstance", message)
    }

    pub fn throttled(action: &str, limit: u32) -> Self {
        let message = format!("{action} is limited to {limit} requests per second.");
        Self::new("RequestLimitExceeded", message)
    }
}
