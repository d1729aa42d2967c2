//! Signing.

use crate::REQUIRED_HEADERS;
use crate::authorization::{Authorization, is_header_name};
use crate::canonical::{Header, Method, Payload, ValueCase, canonical_request, string_to_sign};
use crate::key::{Credential, SigningKey, scope_date};

/// What a signature covers. The path is always `/`.
#[derive(Clone, Copy, Debug)]
pub struct SignRequest<'a> {
    pub method: Method,
    /// Raw query string as it will stand after `?`; empty for POST.
    pub query: &'a str,
    /// Headers to sign: lower-case names, values as they will be sent. Must include `content-type` and
    /// `host` (with its port where that is not the scheme's default).
    pub headers: &'a [Header<'a>],
    pub payload: Payload<'a>,
    /// Service of the credential scope, `ags` for AGS.
    pub service: &'a str,
    /// Unix seconds, also sent as `X-TC-Timestamp`.
    pub timestamp: i64,
}

/// A signature with the text it was made of.
#[derive(Clone, Debug)]
pub struct Signed {
    /// Value of the `Authorization` header.
    pub authorization: String,
    /// Lower-case hex.
    pub signature: String,
    pub canonical_request: Vec<u8>,
    pub string_to_sign: String,
}

/// A request that cannot be signed: a fault of the caller, never of the remote side.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum SignError {
    #[error("header {0:?} must be signed")]
    HeaderMissing(&'static str),
    #[error("{0:?} is not a lower-case header name, or is given twice")]
    HeaderName(String),
    #[error("timestamp {0} has no four-digit year")]
    Timestamp(i64),
}

/// Signs a request with a key derived on the spot.
pub fn sign(request: &SignRequest<'_>, credential: &Credential) -> Result<Signed, SignError> {
    let date = scope_date(request.timestamp).ok_or(SignError::Timestamp(request.timestamp))?;
    let key = SigningKey::derive(&credential.secret_key, &date, request.service);
    sign_with(request, &credential.secret_id, &key)
}

/// Signs a request with a derived key, which the caller vouches is of the timestamp's date and of the service.
pub fn sign_with(request: &SignRequest<'_>, secret_id: &str, key: &SigningKey) -> Result<Signed, SignError> {
    check_headers(request.headers)?;
    let date = scope_date(request.timestamp).ok_or(SignError::Timestamp(request.timestamp))?;
    let canonical =
        canonical_request(request.method, request.query, request.headers, &request.payload.hash(), ValueCase::Verbatim);
    let to_sign = string_to_sign(request.timestamp, &date, request.service, &canonical);
    let authorization = Authorization {
        secret_id: secret_id.to_owned(),
        date,
        service: request.service.to_owned(),
        signed_headers: request.headers.iter().map(|(name, _)| (*name).to_owned()).collect(),
        signature: *key.sign(&to_sign),
    };
    Ok(Signed {
        authorization: authorization.to_string(),
        signature: hex::encode(authorization.signature),
        canonical_request: canonical,
        string_to_sign: to_sign,
    })
}

fn check_headers(headers: &[Header<'_>]) -> Result<(), SignError> {
    for required in REQUIRED_HEADERS {
        if !headers.iter().any(|(name, _)| *name == required) {
            return Err(SignError::HeaderMissing(required));
        }
    }
    for (i, (name, _)) in headers.iter().enumerate() {
        if !is_header_name(name) || headers[..i].iter().any(|(seen, _)| seen == name) {
            return Err(SignError::HeaderName((*name).to_owned()));
        }
    }
    Ok(())
}
