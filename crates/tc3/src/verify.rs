//! Verification.

use secrecy::SecretString;
use subtle::ConstantTimeEq;

use crate::REQUIRED_HEADERS;
use crate::authorization::Authorization;
use crate::canonical::{Header, Method, Payload, ValueCase, canonical_request, string_to_sign};
use crate::key::{SigningKey, scope_date};

/// Largest difference between the verifier's clock and `X-TC-Timestamp`, in seconds, either way. A request
/// can be replayed within it, as TC3 has no nonce.
pub const MAX_SKEW_SECONDS: u64 = 300;

/// A request as received.
#[derive(Clone, Copy, Debug)]
pub struct VerifyRequest<'a> {
    pub authorization: &'a Authorization,
    pub method: Method,
    /// Raw query string after `?`, undecoded.
    pub query: &'a str,
    /// All headers as received (for HTTP/2 with `host` filled from `:authority`).
    pub headers: &'a [Header<'a>],
    /// Further values to try for `host`, for a gateway behind a proxy that rewrites it.
    pub signing_hosts: &'a [&'a str],
    pub payload: Payload<'a>,
    /// Service the verifier stands for.
    pub service: &'a str,
    /// Value of `X-TC-Timestamp`, Unix seconds.
    pub timestamp: i64,
}

/// Why a request is refused. [`VerifyError::code`] is the API's error code for it.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum VerifyError {
    #[error("the timestamp is more than {MAX_SKEW_SECONDS} seconds off the server's clock")]
    Expired,
    #[error("the scope's date is not the UTC date of the timestamp")]
    ScopeDate,
    #[error("the scope's service is not the one called")]
    ScopeService,
    #[error("header {0:?} is not among the signed headers")]
    HeaderNotSigned(&'static str),
    #[error("signed header {0:?} is absent, or present more than once")]
    HeaderAbsent(String),
    #[error("the signature does not match")]
    Mismatch,
}

impl VerifyError {
    /// The error code that Tencent Cloud API 3.0 answers.
    pub fn code(&self) -> &'static str {
        match self {
            VerifyError::Expired => "AuthFailure.SignatureExpire",
            VerifyError::ScopeDate
            | VerifyError::ScopeService
            | VerifyError::HeaderNotSigned(_)
            | VerifyError::HeaderAbsent(_) => "AuthFailure.InvalidAuthorization",
            VerifyError::Mismatch => "AuthFailure.SignatureFailure",
        }
    }
}

/// Verifies a request against the secret key of `authorization.secret_id`. `now` is in Unix seconds.
pub fn verify(request: &VerifyRequest<'_>, secret_key: &SecretString, now: i64) -> Result<(), VerifyError> {
    check_claims(request, now)?;
    let date = &request.authorization.date;
    verify_signature(request, &SigningKey::derive(secret_key, date, request.service))
}

/// As [`verify`], with a key that the caller derived for `authorization.date` and `service`.
pub fn verify_with(request: &VerifyRequest<'_>, key: &SigningKey, now: i64) -> Result<(), VerifyError> {
    check_claims(request, now)?;
    verify_signature(request, key)
}

fn check_claims(request: &VerifyRequest<'_>, now: i64) -> Result<(), VerifyError> {
    if now.abs_diff(request.timestamp) > MAX_SKEW_SECONDS {
        return Err(VerifyError::Expired);
    }
    let authorization = request.authorization;
    if scope_date(request.timestamp).as_ref() != Some(&authorization.date) {
        return Err(VerifyError::ScopeDate);
    }
    if authorization.service != request.service {
        return Err(VerifyError::ScopeService);
    }
    let unsigned = |name: &&&str| !authorization.signed_headers.iter().any(|h| h == **name);
    match REQUIRED_HEADERS.iter().find(unsigned) {
        Some(name) => Err(VerifyError::HeaderNotSigned(name)),
        None => Ok(()),
    }
}

fn verify_signature(request: &VerifyRequest<'_>, key: &SigningKey) -> Result<(), VerifyError> {
    let mut headers = signed_values(request)?;
    let payload_hash = request.payload.hash();
    let matches = |headers: &[Header<'_>], case| {
        let canonical = canonical_request(request.method, request.query, headers, &payload_hash, case);
        let to_sign = string_to_sign(request.timestamp, &request.authorization.date, request.service, &canonical);
        bool::from(key.sign(&to_sign).ct_eq(&request.authorization.signature))
    };
    let as_received = signed_host(&headers);
    let hosts = request.signing_hosts.iter().map(|host| host.as_bytes());
    for host in as_received.into_iter().chain(hosts) {
        set_host(&mut headers, host);
        if matches(&headers, ValueCase::Verbatim) || matches(&headers, ValueCase::Lower) {
            return Ok(());
        }
    }
    Err(VerifyError::Mismatch)
}

/// The signed headers with their received values, in the order of the signature. A header that occurs twice
/// is refused: the verifier and whoever acts on the request might each look at another one.
fn signed_values<'a>(request: &VerifyRequest<'a>) -> Result<Vec<Header<'a>>, VerifyError> {
    let value_of = |name: &'a String| {
        let mut values = request.headers.iter().filter(|(n, _)| n.eq_ignore_ascii_case(name));
        match (values.next(), values.next()) {
            (Some((_, value)), None) => Ok((name.as_str(), *value)),
            _ => Err(VerifyError::HeaderAbsent(name.clone())),
        }
    };
    request.authorization.signed_headers.iter().map(value_of).collect()
}

fn signed_host<'a>(headers: &[Header<'a>]) -> Option<&'a [u8]> {
    headers.iter().find(|(name, _)| *name == "host").map(|(_, value)| *value)
}

fn set_host<'a>(headers: &mut [Header<'a>], host: &'a [u8]) {
    for (name, value) in headers {
        if *name == "host" {
            *value = host;
        }
    }
}
