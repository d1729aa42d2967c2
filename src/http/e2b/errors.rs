//! Errors in the form that E2B's SDKs read (PROTOCOLS F.6, D.11): an integer `code` that equals the status, and a `message`.

use axum::{
    body::Body,
    response::{IntoResponse, Response},
};
use http::{HeaderName, HeaderValue, StatusCode, header};
use serde::{Deserialize, Serialize};

use crate::{
    error::{Code, Error, Inner},
    http::problem::Cause,
    ids::InstanceId,
};

/// Whether the SDK may repeat a call by itself; without it creations are repeated after 502, 503 and 504.
const SHOULD_RETRY: HeaderName = HeaderName::from_static("should-retry");
/// The gateway's own documents are short.
const LONGEST: usize = 64 * 1024;

/// What the face needs of a problem document.
#[derive(Deserialize)]
struct Document {
    detail: String,
    retryable: bool,
}

/// An error as SDKs read it.
#[derive(Serialize)]
struct Message<'a> {
    #[serde(rename = "sandboxId", skip_serializing_if = "Option::is_none")]
    sandbox: Option<&'a str>,
    code: u16,
    message: &'a str,
    #[serde(skip_serializing_if = "Option::is_none")]
    port: Option<u16>,
}

/// SDKs know few statuses: what is wrong with a field is 400 to them.
fn status_of(code: Code, own: StatusCode) -> StatusCode {
    match code {
        Code::ValidationFailed => StatusCode::BAD_REQUEST,
        _ => own,
    }
}

fn replace(response: &mut Response, status: StatusCode, message: &Message<'_>) {
    *response.status_mut() = status;
    *response.body_mut() = Body::from(serde_json::to_vec(message).unwrap_or_default());
    let headers = response.headers_mut();
    headers.insert(header::CONTENT_TYPE, HeaderValue::from_static("application/json"));
    headers.remove(header::CONTENT_LENGTH);
}

/// A problem document of the control plane, translated; anything else as it is.
pub async fn translated(response: Response) -> Response {
    let Some(code) = response.extensions().get::<Cause>().map(|cause| cause.code) else { return response };
    let (parts, body) = response.into_parts();
    let bytes = axum::body::to_bytes(body, LONGEST).await.unwrap_or_default();
    let document = serde_json::from_slice::<Document>(&bytes);
    let Document { detail, retryable } =
        document.unwrap_or_else(|_| Document { detail: code.title().to_owned(), retryable: false });
    let status = status_of(code, parts.status);
    let mut response = Response::from_parts(parts, Body::empty());
    replace(&mut response, status, &Message { sandbox: None, code: status.as_u16(), message: &detail, port: None });
    let repeated = matches!(status.as_u16(), 429 | 502..=504);
    if repeated && !retryable {
        response.headers_mut().insert(SHOULD_RETRY, HeaderValue::from_static("false"));
    }
    response
}

/// An error of the data plane, as E2B's edge says it of a sandbox.
pub fn of_sandbox(error: Error, sandbox: Option<&InstanceId>, port: Option<u16>) -> Response {
    let said = Said::of(error.inner(), port);
    let (status, text, port) = (said.status, said.text, said.port);
    let sandbox = sandbox.map(InstanceId::as_str).filter(|_| status != StatusCode::UNAUTHORIZED);
    let mut response = error.into_response();
    replace(&mut response, status, &Message { sandbox, code: status.as_u16(), message: &text, port });
    response
}

struct Said {
    status: StatusCode,
    text: String,
    port: Option<u16>,
}

impl Said {
    /// SDKs tell a sandbox that is over, and a port that is closed, by these very texts.
    fn of(inner: &Inner, port: Option<u16>) -> Self {
        let own = StatusCode::from_u16(inner.code.status()).unwrap_or(StatusCode::INTERNAL_SERVER_ERROR);
        match inner.code {
            Code::NotFound | Code::InvalidState => {
                Self { status: StatusCode::BAD_GATEWAY, text: "The sandbox was not found".to_owned(), port: None }
            }
            Code::PortNotOpen => {
                let text = "The sandbox is running but port is not open".to_owned();
                Self { status: StatusCode::BAD_GATEWAY, text, port }
            }
            code => Self { status: status_of(code, own), text: inner.detail.clone(), port: None },
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    async fn read(response: Response) -> serde_json::Value {
        serde_json::from_slice(&axum::body::to_bytes(response.into_body(), LONGEST).await.unwrap()).unwrap()
    }

    #[tokio::test]
    async fn problems_become_codes_and_messages() {
        let response = translated(Error::field("timeout", "is too long").into_response()).await;
        assert_eq!(response.status(), 400);
        assert_eq!(response.headers()["content-type"], "application/json");
        assert_eq!(read(response).await, serde_json::json!({"code": 400, "message": "timeout: is too long"}));
    }

    #[tokio::test]
    async fn what_may_have_taken_effect_is_not_repeated() {
        let said = |error: Error| async {
            let response = translated(error.into_response()).await;
            response.headers().get(SHOULD_RETRY).map(|value| value.to_str().unwrap().to_owned())
        };
        assert_eq!(said(Error::new(Code::UpstreamError, "x")).await.as_deref(), Some("false"));
        assert_eq!(said(Error::new(Code::UpstreamThrottled, "x")).await, None);
        assert_eq!(said(Error::not_found("x")).await, None);
        assert_eq!(translated(().into_response()).await.status(), 200);
    }

    #[tokio::test]
    async fn sandboxes_are_spoken_of_as_the_edge_does() {
        let ended = of_sandbox(Error::new(Code::InvalidState, "The instance is STOPPED."), None, Some(80));
        assert_eq!(ended.status(), 502);
        assert_eq!(read(ended).await, serde_json::json!({"code": 502, "message": "The sandbox was not found"}));
        let closed = of_sandbox(Error::new(Code::PortNotOpen, "x"), None, Some(80));
        assert_eq!(read(closed).await["port"], 80);
    }
}
