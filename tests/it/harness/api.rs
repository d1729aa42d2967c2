//! Calls of the API.

use std::sync::{
    Arc,
    atomic::{AtomicUsize, Ordering},
};

use http::StatusCode;
use reqwest::{Client, Method, RequestBuilder, header::HeaderMap};
use serde_json::Value;

use super::failures;

/// A caller of the API: of one gateway, or by turns of several.
#[derive(Clone)]
pub struct Api {
    client: Client,
    bases: Vec<String>,
    turn: Arc<AtomicUsize>,
    key: Option<String>,
}

/// An answer that was read to its end.
#[derive(Debug)]
pub struct Answer {
    pub status: StatusCode,
    pub headers: HeaderMap,
    pub body: Value,
}

impl Api {
    pub fn new(base: &str, key: &str) -> Self {
        Self::anonymous(base).bearing(key)
    }

    pub fn anonymous(base: &str) -> Self {
        let client = Client::builder().no_proxy().build().expect("a client");
        Self { client, bases: vec![base.to_owned()], turn: Arc::default(), key: None }
    }

    /// The same with a key.
    pub fn bearing(&self, key: &str) -> Self {
        Self { key: Some(key.to_owned()), ..self.clone() }
    }

    /// The same caller by another client.
    pub fn through(&self, client: Client) -> Self {
        Self { client, ..self.clone() }
    }

    /// The same caller at one replica.
    pub fn at(&self, base: &str) -> Self {
        self.spread(&[base.to_owned()])
    }

    /// The same caller at several replicas by turns.
    pub fn spread(&self, bases: &[String]) -> Self {
        Self { bases: bases.to_vec(), ..self.clone() }
    }

    /// The address of a path, at the gateway whose turn it is.
    pub fn url(&self, path: &str) -> String {
        let turn = self.turn.fetch_add(1, Ordering::Relaxed) % self.bases.len();
        format!("{}{path}", self.bases[turn])
    }

    pub fn key(&self) -> &str {
        self.key.as_deref().unwrap_or_default()
    }

    /// A request with the key, to be finished by the test.
    pub fn request(&self, method: Method, path: &str) -> RequestBuilder {
        let request = self.client.request(method, self.url(path));
        match &self.key {
            Some(key) => request.bearer_auth(key),
            None => request,
        }
    }

    pub async fn get(&self, path: &str) -> Answer {
        read(self.request(Method::GET, path)).await
    }

    pub async fn delete(&self, path: &str) -> Answer {
        read(self.request(Method::DELETE, path)).await
    }

    pub async fn post(&self, path: &str, body: &Value) -> Answer {
        read(self.request(Method::POST, path).json(body)).await
    }

    pub async fn patch(&self, path: &str, body: &Value) -> Answer {
        read(self.request(Method::PATCH, path).json(body)).await
    }
}

/// Sends a request and reads its answer; an empty body is null.
pub async fn read(request: RequestBuilder) -> Answer {
    let response = request.send().await.expect("an answer");
    let (status, headers) = (response.status(), response.headers().clone());
    let bytes = response.bytes().await.expect("a whole body");
    let body = if bytes.is_empty() { Value::Null } else { serde_json::from_slice(&bytes).expect("a JSON body") };
    Answer { status, headers, body }
}

impl Answer {
    /// The body of an answer that must have this status.
    #[track_caller]
    pub fn expect(self, status: u16) -> Value {
        assert_eq!(self.status.as_u16(), status, "{:#}\n{}", self.body, failures::behind(&self.body));
        self.body
    }

    /// The problem document of an answer that must have this status and code.
    #[track_caller]
    pub fn problem(self, status: u16, code: &str) -> Value {
        let kind = self.headers.get("content-type").map(|value| value.to_str().expect("text").to_owned());
        let body = self.expect(status);
        assert_eq!(body["code"], code, "{body:#}");
        assert_eq!(body["status"], status, "{body:#}");
        assert_eq!(kind.as_deref(), Some("application/problem+json"));
        assert!(body["request_id"].as_str().is_some_and(|id| !id.is_empty()), "{body:#}");
        body
    }
}
