//! `{"Response": {…, "RequestId": "…"}}`: what every response is wrapped in, success and error alike.

use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};
use serde_json::value::RawValue;

/// A whole response body.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Envelope<T> {
    #[serde(rename = "Response")]
    pub response: T,
}

/// A successful response.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Success<T> {
    #[serde(flatten)]
    pub value: T,
    #[serde(rename = "RequestId")]
    pub request_id: String,
}

/// A refused or failed request; it comes with HTTP 200 all the same.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "PascalCase")]
pub struct Failure {
    pub error: ErrorBody,
    pub request_id: String,
}

/// The error itself. The codes are in [`crate::codes`].
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "PascalCase")]
pub struct ErrorBody {
    pub code: String,
    #[serde(default)]
    pub message: String,
}

impl<T> Envelope<Success<T>> {
    pub fn success(value: T, request_id: impl Into<String>) -> Self {
        let request_id = request_id.into();
        Envelope { response: Success { value, request_id } }
    }
}

impl Envelope<Failure> {
    pub fn failure(code: impl Into<String>, message: impl Into<String>, request_id: impl Into<String>) -> Self {
        let error = ErrorBody { code: code.into(), message: message.into() };
        Envelope { response: Failure { error, request_id: request_id.into() } }
    }
}

/// What a response body turned out to be.
#[derive(Debug)]
pub enum Decoded<T> {
    Success { value: T, request_id: Option<String> },
    Failure { error: ErrorBody, request_id: Option<String> },
}

/// Why a response body could not be read.
#[derive(Debug, thiserror::Error)]
pub enum DecodeError {
    /// Not the API speaking: a proxy's page, or a body cut short.
    #[error("the body is not a response envelope")]
    NotAnEnvelope(#[source] serde_json::Error),
    /// The API spoke, but not the object that the action promises.
    #[error("the response is not what the action promises")]
    Shape {
        request_id: Option<String>,
        #[source]
        source: serde_json::Error,
    },
}

/// The members that every response may have.
#[derive(Deserialize)]
#[serde(rename_all = "PascalCase")]
struct Head {
    error: Option<ErrorBody>,
    request_id: Option<String>,
}

/// Reads a response body.
pub fn decode<T: DeserializeOwned>(body: &[u8]) -> Result<Decoded<T>, DecodeError> {
    let not_an_envelope = DecodeError::NotAnEnvelope;
    let envelope: Envelope<&RawValue> = serde_json::from_slice(body).map_err(not_an_envelope)?;
    let raw = envelope.response.get();
    let Head { error, request_id } = serde_json::from_str(raw).map_err(not_an_envelope)?;
    if let Some(error) = error {
        return Ok(Decoded::Failure { error, request_id });
    }
    match serde_json::from_str(raw) {
        Ok(value) => Ok(Decoded::Success { value, request_id }),
        Err(source) => Err(DecodeError::Shape { request_id, source }),
    }
}
