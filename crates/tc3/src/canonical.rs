//! The canonical request and the string to sign.

use sha2::{Digest, Sha256};

use crate::{ALGORITHM, TERMINATOR};

/// Value of `X-TC-Content-SHA256` for a request whose body is not covered by the signature.
pub const UNSIGNED_PAYLOAD: &str = "UNSIGNED-PAYLOAD";

/// A header as it is on the wire. The name is matched without regard to case.
pub type Header<'a> = (&'a str, &'a [u8]);

/// The two methods of the API.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Method {
    Get,
    Post,
}

impl Method {
    /// The method as written in the canonical request.
    pub fn as_str(self) -> &'static str {
        match self {
            Method::Get => "GET",
            Method::Post => "POST",
        }
    }
}

/// What the signature says about the body.
#[derive(Clone, Copy, Debug)]
pub enum Payload<'a> {
    /// The raw body, exactly as sent. Empty for GET.
    Bytes(&'a [u8]),
    /// SHA-256 of the raw body, for a body that was hashed while it streamed in.
    Sha256([u8; 32]),
    /// The literal `UNSIGNED-PAYLOAD` stands in for the body.
    Unsigned,
}

impl Payload<'_> {
    /// The last line of the canonical request, in lower-case hex.
    pub(crate) fn hash(&self) -> String {
        match self {
            Payload::Bytes(bytes) => hex::encode(Sha256::digest(bytes)),
            Payload::Sha256(digest) => hex::encode(digest),
            Payload::Unsigned => hex::encode(Sha256::digest(UNSIGNED_PAYLOAD)),
        }
    }
}

/// How header values enter the canonical request. The SDKs sign them verbatim, the document says to
/// lower-case them; for the usual `content-type` and `host` it is the same.
#[derive(Clone, Copy)]
pub(crate) enum ValueCase {
    Verbatim,
    Lower,
}

/// `headers` are in the order of the signed header list, names in lower case.
pub(crate) fn canonical_request(
    method: Method,
    query: &str,
    headers: &[Header<'_>],
    payload_hash: &str,
    case: ValueCase,
) -> Vec<u8> {
    let mut out = Vec::with_capacity(256);
    out.extend_from_slice(method.as_str().as_bytes());
    out.extend_from_slice(b"\n/\n");
    out.extend_from_slice(query.as_bytes());
    out.push(b'\n');
    for (name, value) in headers {
        out.extend_from_slice(name.as_bytes());
        out.push(b':');
        let value = value.trim_ascii();
        match case {
            ValueCase::Verbatim => out.extend_from_slice(value),
            ValueCase::Lower => out.extend(value.iter().map(u8::to_ascii_lowercase)),
        }
        out.push(b'\n');
    }
    out.push(b'\n');
    out.extend_from_slice(signed_headers(headers).as_bytes());
    out.push(b'\n');
    out.extend_from_slice(payload_hash.as_bytes());
    out
}

pub(crate) fn signed_headers(headers: &[Header<'_>]) -> String {
    let names: Vec<&str> = headers.iter().map(|(name, _)| *name).collect();
    names.join(";")
}

pub(crate) fn string_to_sign(timestamp: i64, date: &str, service: &str, canonical_request: &[u8]) -> String {
    let digest = hex::encode(Sha256::digest(canonical_request));
    format!("{ALGORITHM}\n{timestamp}\n{date}/{service}/{TERMINATOR}\n{digest}")
}
