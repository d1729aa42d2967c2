//! The `Authorization` header.

use std::fmt;

use crate::{ALGORITHM, TERMINATOR};

/// A parsed `Authorization: TC3-HMAC-SHA256 Credential=<id>/<date>/<service>/tc3_request, SignedHeaders=<a;b>,
/// Signature=<hex>`. Parsing says nothing about validity: [`crate::verify`] does.
#[derive(Clone, PartialEq, Eq)]
pub struct Authorization {
    pub secret_id: String,
    /// `YYYY-MM-DD` by shape; not necessarily a day of the calendar.
    pub date: String,
    pub service: String,
    /// Lower case, without duplicates, in the order in which they were signed.
    pub signed_headers: Vec<String>,
    pub signature: [u8; 32],
}

/// Why an `Authorization` header could not be read. The API answers `AuthFailure.InvalidAuthorization`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum ParseError {
    #[error("the algorithm is not {ALGORITHM}")]
    Algorithm,
    #[error("a part is not of the form Name=value, or is unknown")]
    Part,
    #[error("a part is given twice")]
    Duplicate,
    #[error("Credential, SignedHeaders or Signature is missing")]
    Missing,
    #[error("Credential is not <secret id>/<date>/<service>/{TERMINATOR}")]
    Credential,
    #[error("SignedHeaders is not a list of distinct lower-case header names")]
    SignedHeaders,
    #[error("Signature is not 64 lower-case hex digits")]
    Signature,
}

impl Authorization {
    /// Reads the value of an `Authorization` header.
    pub fn parse(value: &str) -> Result<Authorization, ParseError> {
        let rest = value.trim().strip_prefix(ALGORITHM).ok_or(ParseError::Algorithm)?;
        if !rest.starts_with([' ', '\t']) {
            return Err(ParseError::Algorithm);
        }
        let (mut credential, mut headers, mut signature) = (None, None, None);
        for part in rest.split(',') {
            let (name, value) = part.trim().split_once('=').ok_or(ParseError::Part)?;
            let slot = match name {
                "Credential" => &mut credential,
                "SignedHeaders" => &mut headers,
                "Signature" => &mut signature,
                _ => return Err(ParseError::Part),
            };
            if slot.replace(value).is_some() {
                return Err(ParseError::Duplicate);
            }
        }
        let (secret_id, date, service) = parse_credential(credential.ok_or(ParseError::Missing)?)?;
        Ok(Authorization {
            secret_id,
            date,
            service,
            signed_headers: parse_headers(headers.ok_or(ParseError::Missing)?)?,
            signature: parse_signature(signature.ok_or(ParseError::Missing)?)?,
        })
    }
}

impl fmt::Display for Authorization {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            f,
            "{ALGORITHM} Credential={}/{}/{}/{TERMINATOR}, SignedHeaders={}, Signature={}",
            self.secret_id,
            self.date,
            self.service,
            self.signed_headers.join(";"),
            hex::encode(self.signature),
        )
    }
}

/// A signature can be replayed for five minutes, so it stays out of logs.
impl fmt::Debug for Authorization {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Authorization")
            .field("secret_id", &self.secret_id)
            .field("date", &self.date)
            .field("service", &self.service)
            .field("signed_headers", &self.signed_headers)
            .finish_non_exhaustive()
    }
}

fn parse_credential(value: &str) -> Result<(String, String, String), ParseError> {
    let mut parts = value.split('/');
    let (Some(id), Some(date), Some(service), Some(TERMINATOR), None) =
        (parts.next(), parts.next(), parts.next(), parts.next(), parts.next())
    else {
        return Err(ParseError::Credential);
    };
    let printable = |s: &str| !s.is_empty() && s.bytes().all(|b| b.is_ascii_graphic());
    if !printable(id) || !printable(service) || !is_date(date) {
        return Err(ParseError::Credential);
    }
    Ok((id.to_owned(), date.to_owned(), service.to_owned()))
}

fn is_date(value: &str) -> bool {
    value.len() == 10
        && value.bytes().enumerate().all(|(i, b)| match i {
            4 | 7 => b == b'-',
            _ => b.is_ascii_digit(),
        })
}

fn parse_headers(value: &str) -> Result<Vec<String>, ParseError> {
    let mut names: Vec<String> = Vec::new();
    for name in value.split(';') {
        if !is_header_name(name) || names.iter().any(|seen| seen == name) {
            return Err(ParseError::SignedHeaders);
        }
        names.push(name.to_owned());
    }
    Ok(names)
}

/// A lower-case token of RFC 9110.
pub(crate) fn is_header_name(name: &str) -> bool {
    let allowed = |b: u8| b.is_ascii_lowercase() || b.is_ascii_digit() || b"!#$%&'*+-.^_`|~".contains(&b);
    !name.is_empty() && name.bytes().all(allowed)
}

fn parse_signature(value: &str) -> Result<[u8; 32], ParseError> {
    if value.bytes().any(|b| b.is_ascii_uppercase()) {
        return Err(ParseError::Signature);
    }
    let mut signature = [0; 32];
    hex::decode_to_slice(value, &mut signature).map_err(|_| ParseError::Signature)?;
    Ok(signature)
}
