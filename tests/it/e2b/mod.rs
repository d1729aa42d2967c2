//! The face of E2B. What its SDKs make of it is seen in `tests/clients`; here are its edges.

mod control;
mod data;
mod files;

use http::Method;
use reqwest::RequestBuilder;
use serde_json::{Value, json};

use crate::harness::{Answer, Api, Options, Stack};

pub const DOMAIN: &str = "sandbox.localhost";

/// A sandbox as an SDK knows it.
pub struct Sandbox {
    pub id: String,
    pub access: String,
    pub traffic: String,
}

impl Sandbox {
    fn of(body: &Value) -> Self {
        let text = |field: &str| body[field].as_str().expect(field).to_owned();
        Self { id: text("sandboxID"), access: text("envdAccessToken"), traffic: text("trafficAccessToken") }
    }

    pub async fn create(api: &Api, body: Value) -> Self {
        Self::of(&api.post("/e2b/v2/sandboxes", &body).await.expect(201))
    }

    /// A request to one of its ports with an SDK's headers, but for the token.
    pub fn named(&self, request: RequestBuilder, port: u16) -> RequestBuilder {
        request.header("e2b-sandbox-id", &self.id).header("e2b-sandbox-port", port.to_string())
    }

    /// A request to envd.
    pub fn envd(&self, api: &Api, method: Method, path: &str) -> RequestBuilder {
        self.named(api.request(method, path), 49_983).header("x-access-token", &self.access)
    }
}

/// A stack with processes behind its sandboxes.
pub async fn stack() -> Stack {
    let options = Options::default().with("TOOLS__SHARED", "base,code-interpreter-v1");
    Stack::with(options.with("SERVER__SANDBOX_DOMAIN", DOMAIN)).await
}

/// What an SDK is told of a refusal.
#[track_caller]
pub fn refused(answer: Answer, status: u16) -> String {
    assert_eq!(answer.headers["content-type"], "application/json", "{:#}", answer.body);
    let body = answer.expect(status);
    assert_eq!(body["code"], json!(status), "{body:#}");
    body["message"].as_str().expect("a message").to_owned()
}
