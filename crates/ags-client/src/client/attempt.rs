//! One attempt of a call: turn, credential, signature, exchange, decoding.

use std::time::Duration;

use bytes::Bytes;
use http::header::{AUTHORIZATION, CONTENT_TYPE, HeaderMap, HeaderName, HeaderValue};
use reqwest::Url;
use secrecy::ExposeSecret;
use serde::de::DeserializeOwned;
use tc3::{Credential, Method, Payload, SignRequest};
use tokio::time::{Instant, timeout_at};

use super::Inner;
use super::error::{ErrorKind, Fault, Stage};
use super::limiter::Priority;
use crate::envelope::{self, DecodeError, Decoded};
use crate::{SERVICE, VERSION};

const CONTENT: &str = "application/json";
const X_TC_ACTION: HeaderName = HeaderName::from_static("x-tc-action");
const X_TC_LANGUAGE: HeaderName = HeaderName::from_static("x-tc-language");
const X_TC_REGION: HeaderName = HeaderName::from_static("x-tc-region");
const X_TC_TIMESTAMP: HeaderName = HeaderName::from_static("x-tc-timestamp");
const X_TC_TOKEN: HeaderName = HeaderName::from_static("x-tc-token");
const X_TC_VERSION: HeaderName = HeaderName::from_static("x-tc-version");

/// What all attempts of a call have in common.
pub(super) struct Attempt<'a> {
    pub client: &'a Inner,
    pub priority: Priority,
    pub action: &'static str,
    pub body: Bytes,
    pub deadline: Instant,
    /// The call's whole time, for the error that says it was up.
    pub limit: Duration,
}

type Answer<T> = (T, Option<String>);

impl Attempt<'_> {
    pub(super) async fn make<T: DeserializeOwned>(&self) -> Result<Answer<T>, Fault> {
        let turn = self.client.limiter.turn(self.action, self.priority, self.deadline).await;
        turn.map_err(|_| self.late(Stage::Turn))?;
        let credential = timeout_at(self.deadline, self.client.credentials.credential()).await;
        let credential = credential.map_err(|_| self.late(Stage::Credential))?.map_err(ErrorKind::Credential)?;
        let headers = self.headers(&credential)?;

        let attempt_timeout = self.client.settings.attempt_timeout;
        let attempt_deadline = Instant::now() + attempt_timeout;
        let exchange = self.exchange(headers);
        let (status, body) = if attempt_deadline < self.deadline {
            let late = |_| ErrorKind::Timeout(Stage::Answer, attempt_timeout);
            timeout_at(attempt_deadline, exchange).await.map_err(late)??
        } else {
            timeout_at(self.deadline, exchange).await.map_err(|_| self.late(Stage::Answer))??
        };
        read(status, &body)
    }

    fn late(&self, stage: Stage) -> ErrorKind {
        ErrorKind::Timeout(stage, self.limit)
    }

    /// All headers of the request but `Host`, which the HTTP client writes from the URL.
    fn headers(&self, credential: &Credential) -> Result<HeaderMap, ErrorKind> {
        let settings = &self.client.settings;
        let timestamp = (self.client.clock)().timestamp();
        let host = authority(&settings.endpoint);
        let request = SignRequest {
            method: Method::Post,
            query: "",
            headers: &[("content-type", CONTENT.as_bytes()), ("host", host.as_bytes())],
            payload: Payload::Bytes(&self.body),
            service: SERVICE,
            timestamp,
        };
        let signed = tc3::sign(&request, credential).map_err(unsendable)?;

        let mut headers = HeaderMap::new();
        headers.insert(CONTENT_TYPE, HeaderValue::from_static(CONTENT));
        headers.insert(X_TC_ACTION, HeaderValue::from_static(self.action));
        headers.insert(X_TC_VERSION, HeaderValue::from_static(VERSION));
        headers.insert(X_TC_TIMESTAMP, timestamp.into());
        headers.insert(X_TC_LANGUAGE, value(&settings.language)?);
        headers.insert(AUTHORIZATION, secret(&signed.authorization)?);
        if !settings.region.is_empty() {
            headers.insert(X_TC_REGION, value(&settings.region)?);
        }
        if let Some(token) = &credential.token {
            headers.insert(X_TC_TOKEN, secret(token.expose_secret())?);
        }
        Ok(headers)
    }

    async fn exchange(&self, headers: HeaderMap) -> Result<(u16, Bytes), ErrorKind> {
        let request = self.client.http.post(self.client.settings.endpoint.clone());
        let response = request.headers(headers).body(self.body.clone()).send().await.map_err(network)?;
        let status = response.status().as_u16();
        Ok((status, response.bytes().await.map_err(network)?))
    }
}

/// The value of `Host`: the port only where it is not the scheme's own.
fn authority(url: &Url) -> String {
    let host = url.host_str().unwrap_or_default();
    match url.port() {
        Some(port) => format!("{host}:{port}"),
        None => host.to_owned(),
    }
}

fn value(text: &str) -> Result<HeaderValue, ErrorKind> {
    HeaderValue::from_str(text).map_err(unsendable)
}

fn secret(text: &str) -> Result<HeaderValue, ErrorKind> {
    let mut value = value(text)?;
    value.set_sensitive(true);
    Ok(value)
}

fn unsendable(error: impl std::error::Error + Send + Sync + 'static) -> ErrorKind {
    ErrorKind::Request(Box::new(error))
}

fn network(error: reqwest::Error) -> ErrorKind {
    if error.is_builder() {
        unsendable(error.without_url())
    } else if error.is_connect() {
        ErrorKind::Connect(error.without_url())
    } else {
        ErrorKind::Exchange(error.without_url())
    }
}

/// An envelope is believed whatever the HTTP status; without one the status is all there is.
fn read<T: DeserializeOwned>(status: u16, body: &[u8]) -> Result<Answer<T>, Fault> {
    let (kind, request_id) = match envelope::decode(body) {
        Ok(Decoded::Success { value, request_id }) if status < 300 => return Ok((value, request_id)),
        Ok(Decoded::Success { request_id, .. }) => (ErrorKind::Http { status }, request_id),
        Ok(Decoded::Failure { error, request_id }) => {
            (ErrorKind::Api { code: error.code, message: error.message }, request_id)
        }
        Err(DecodeError::Shape { request_id, source }) if status < 300 => (ErrorKind::Decode(source), request_id),
        Err(DecodeError::Shape { request_id, .. }) => (ErrorKind::Http { status }, request_id),
        Err(DecodeError::NotAnEnvelope(_)) => (ErrorKind::Http { status }, None),
    };
    Err(Fault { kind, http_status: Some(status), request_id })
}
