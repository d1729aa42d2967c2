//! Answers as the cloud's SDKs read them: always 200, in one envelope, errors by code (PROTOCOLS A.7, A.8).

use ags_client::{codes, envelope::Envelope};
use axum::{
    body::Body,
    response::{IntoResponse, Response},
};
use http::{StatusCode, header};
use http_body_util::BodyExt;
use serde_json::Value;

use crate::{error::Code, http::request_log::REQUEST_ID};

/// What the cloud would say, of an answer that carries our own words.
#[derive(Clone, Debug)]
pub struct Refusal {
    pub code: &'static str,
    pub message: String,
}

/// An answer of the gateway's in the cloud's form.
pub async fn wrapped(response: Response, action: &str) -> Response {
    let (mut parts, body) = response.into_parts();
    let id = parts.headers.get(&REQUEST_ID).and_then(|id| id.to_str().ok()).unwrap_or_default().to_owned();
    // Whatever cannot be read as JSON is told apart below: as an answer that says nothing it would be a success.
    let document: Value = match body.collect().await {
        Ok(body) => read(&body.to_bytes()),
        Err(_) => Value::Null,
    };
    let envelope = match parts.extensions.get::<Refusal>() {
        Some(refusal) => to_bytes(&Envelope::failure(refusal.code, &refusal.message, id)),
        None if parts.status.is_success() => answered(document, id, action),
        None => {
            let (code, message) = translated(&document, action);
            to_bytes(&Envelope::failure(code, message, id))
        }
    };
    parts.status = StatusCode::OK;
    for name in [header::CONTENT_LENGTH, header::CONTENT_TYPE, header::WWW_AUTHENTICATE] {
        parts.headers.remove(name);
    }
    // SDKs compare the whole value, and miss errors when it says more.
    ([(header::CONTENT_TYPE, "application/json")], Response::from_parts(parts, Body::from(envelope))).into_response()
}

fn to_bytes(envelope: &impl serde::Serialize) -> Vec<u8> {
    serde_json::to_vec(envelope).unwrap_or_default()
}

/// No content is an empty object, and what is no JSON nothing at all.
fn read(body: &[u8]) -> Value {
    if body.is_empty() {
        return Value::Object(serde_json::Map::new());
    }
    serde_json::from_slice(body).unwrap_or_default()
}

/// A success: an object is what it says. Anything else is a mistake of the gateway's, and no success.
fn answered(document: Value, id: String, action: &str) -> Vec<u8> {
    match document {
        Value::Object(fields) => to_bytes(&Envelope::success(fields, id)),
        _ => {
            tracing::error!(action, "an answer cannot be put into the cloud's form");
            to_bytes(&Envelope::failure(codes::INTERNAL_ERROR, "The gateway's answer is no object.", id))
        }
    }
}

/// Code and message for a problem document.
fn translated(problem: &Value, action: &str) -> (String, String) {
    let text = |pointer: &str| problem.pointer(pointer).and_then(Value::as_str);
    let detail = text("/detail").unwrap_or("The gateway failed.");
    let fields = problem["errors"].as_array().into_iter().flatten();
    let faults: Vec<String> =
        fields.map(|fault| format!("{}: {}", said(&fault["field"]), said(&fault["message"]))).collect();
    let message = if faults.is_empty() { detail.to_owned() } else { format!("{detail} ({})", faults.join("; ")) };
    if let Some(upstream) = text("/upstream/code") {
        return (upstream.to_owned(), message);
    }
    let code = text("/code").and_then(|code| Code::ALL.iter().find(|known| known.as_str() == code));
    let field = text("/errors/0/field").unwrap_or_default();
    (code_of(code.copied().unwrap_or(Code::Internal), field, action).to_owned(), message)
}

fn said(value: &Value) -> &str {
    value.as_str().unwrap_or_default()
}

fn code_of(code: Code, field: &str, action: &str) -> &'static str {
    // An instance is started from a tool: what is wrong then is wrong with that.
    let of_tool = action.contains("Tool") || action == "StartSandboxInstance";
    match code {
        Code::Unauthenticated => codes::AUTH_SECRET_ID_NOT_FOUND,
        Code::ScopeMissing | Code::NotGranted | Code::OriginNotAllowed => codes::UNAUTHORIZED_OPERATION,
        Code::NotFound if of_tool => codes::SANDBOX_TOOL_NOT_FOUND,
        Code::NotFound if action.contains("Instance") => codes::SANDBOX_INSTANCE_NOT_FOUND,
        Code::NotFound => codes::RESOURCE_NOT_FOUND,
        Code::NameTaken => codes::INVALID_SANDBOX_TOOL,
        Code::ToolInUse => codes::SANDBOX_TOOL_IN_USE,
        Code::InvalidState if of_tool => codes::SANDBOX_TOOL_UNAVAILABLE,
        Code::InvalidState => codes::SANDBOX_INSTANCE_STATE,
        Code::ValidationFailed => code_of_field(field),
        Code::MalformedJson | Code::InvalidRequest => codes::INVALID_PARAMETER,
        Code::BodyTooLarge => codes::REQUEST_SIZE_LIMIT_EXCEEDED,
        Code::IdempotencyKeyReused => codes::DUPLICATE_REQUEST,
        Code::IdempotencyInProgress => codes::REQUEST_IN_PROGRESS,
        Code::QuotaExceeded => codes::LIMIT_SANDBOX_INSTANCE,
        Code::RateLimited | Code::UpstreamThrottled => codes::REQUEST_LIMIT_EXCEEDED,
        Code::UpstreamTimeout | Code::UpstreamUnavailable => codes::DEPENDENCY_UNAVAILABLE,
        Code::UpstreamError | Code::InstanceStartFailed => codes::FAILED_OPERATION,
        Code::Unavailable => codes::SERVICE_UNAVAILABLE,
        Code::Internal => codes::INTERNAL_ERROR,
        _ => codes::UNSUPPORTED_OPERATION,
    }
}

/// The cloud has a code of its own for what is often wrong.
fn code_of_field(field: &str) -> &'static str {
    let top = field.split(['.', '[']).next().unwrap_or_default();
    match top {
        "timeout" | "default_timeout" => codes::INVALID_TIMEOUT,
        "type" => codes::INVALID_TOOL_TYPE,
        "name" => codes::INVALID_SANDBOX_TOOL,
        "mounts" => codes::INVALID_MOUNT_OPTION,
        "storage_mounts" => codes::INVALID_STORAGE_MOUNT,
        "role_arn" => codes::INVALID_ROLE_ARN,
        "tool" => codes::MISSING_PARAMETER,
        "instance_ids" => codes::INVALID_INSTANCE_IDS,
        "tool_ids" => codes::INVALID_TOOL_IDS,
        _ => codes::INVALID_PARAMETER,
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn our_errors_are_the_clouds() {
        for (code, field, action, expected) in [
            ("not_found", None, "StopSandboxInstance", "ResourceNotFound.SandboxInstance"),
            ("not_found", None, "StartSandboxInstance", "ResourceNotFound.SandboxTool"),
            ("not_found", None, "UpdateSandboxTool", "ResourceNotFound.SandboxTool"),
            ("validation_failed", Some("timeout"), "StartSandboxInstance", "InvalidParameterValue.Timeout"),
            (
                "validation_failed",
                Some("storage_mounts[0].name"),
                "CreateSandboxTool",
                "InvalidParameterValue.StorageMount",
            ),
            ("quota_exceeded", None, "StartSandboxInstance", "LimitExceeded.SandboxInstance"),
            ("idempotency_in_progress", None, "StartSandboxInstance", "FailedOperation.RequestInProgress"),
            ("scope_missing", None, "StopSandboxInstance", "UnauthorizedOperation"),
            ("something new", None, "StopSandboxInstance", "InternalError"),
        ] {
            let mut problem = json!({"code": code, "detail": "What happened."});
            if let Some(field) = field {
                problem["errors"] = json!([{"field": field, "message": "is wrong"}]);
            }
            let (translated, message) = translated(&problem, action);
            assert_eq!(translated, expected, "{code} {action}");
            assert!(message.starts_with("What happened."), "{message}");
            assert_eq!(message.contains("is wrong"), field.is_some());
        }
    }

    #[test]
    fn only_an_object_is_a_success() {
        for (body, expected) in [
            ("", None),
            (r#"{"TotalCount":0}"#, None),
            ("[]", Some("InternalError")),
            ("null", Some("InternalError")),
            ("<html>", Some("InternalError")),
        ] {
            let envelope = answered(read(body.as_bytes()), "id".into(), "StopSandboxInstance");
            let told: Value = serde_json::from_slice(&envelope).unwrap();
            assert_eq!(told["Response"]["Error"]["Code"].as_str(), expected, "{body}");
            assert_eq!(told["Response"]["RequestId"], "id");
        }
    }

    #[test]
    fn what_the_cloud_said_is_passed_on() {
        let problem = json!({"code": "upstream_error", "detail": "d", "upstream": {"code": "ResourceInsufficient"}});
        assert_eq!(translated(&problem, "StartSandboxInstance").0, "ResourceInsufficient");
    }
}
