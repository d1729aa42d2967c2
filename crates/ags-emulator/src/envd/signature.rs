//! Signatures of file URLs (`PROTOCOLS` D.8).

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD_NO_PAD;
use secrecy::{ExposeSecret as _, SecretString};
use sha2::{Digest as _, Sha256};
use subtle::ConstantTimeEq as _;

/// What the URL allows.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Operation {
    Read,
    Write,
}

impl Operation {
    fn as_str(self) -> &'static str {
        match self {
            Self::Read => "read",
            Self::Write => "write",
        }
    }
}

/// What is signed, as in the query: unresolved, absent values empty.
#[derive(Clone, Copy, Debug)]
pub struct Signed<'a> {
    pub path: &'a str,
    pub operation: Operation,
    pub username: &'a str,
    /// Seconds since the epoch.
    pub expiration: Option<i64>,
}

/// Why a request without the token header is refused; the texts are what clients compare.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum SignatureError {
    #[error("missing signature query parameter")]
    Missing,
    #[error("invalid signature")]
    Invalid,
    #[error("signature is already expired")]
    Expired,
}

impl Signed<'_> {
    /// The signature for a token.
    #[must_use]
    pub fn sign(&self, token: &SecretString) -> String {
        let mut hash = Sha256::new();
        hash.update(self.path);
        hash.update(":");
        hash.update(self.operation.as_str());
        hash.update(":");
        hash.update(self.username);
        hash.update(":");
        hash.update(token.expose_secret());
        if let Some(expiration) = self.expiration {
            hash.update(format!(":{expiration}"));
        }
        format!("v1_{}", STANDARD_NO_PAD.encode(hash.finalize()))
    }

    /// Checks a signature at a time in seconds since the epoch.
    ///
    /// # Errors
    /// It is missing, not for this token and these values, or expired.
    pub fn verify(&self, signature: Option<&str>, token: &SecretString, now: i64) -> Result<(), SignatureError> {
        let signature = signature.ok_or(SignatureError::Missing)?;
        let equal = self.sign(token).as_bytes().ct_eq(signature.as_bytes());
        if !bool::from(equal) {
            return Err(SignatureError::Invalid);
        }
        match self.expiration {
            Some(expiration) if expiration < now => Err(SignatureError::Expired),
            _ => Ok(()),
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const VECTOR: Signed<'_> =
        Signed { path: "hello.txt", operation: Operation::Read, username: "user", expiration: None };

    fn token() -> SecretString {
        "0tQG31xiMp0IOQfaz9dcwi72L1CPo8e0".into()
    }

    #[test]
    fn the_published_vector_is_met() {
        assert_eq!(VECTOR.sign(&token()), "v1_gUtH/s9YCJWgCizjfUxuWfhFE4QSydOWEIIvfLwDr6E");
    }

    #[test]
    fn refusals_say_why() {
        let signed = Signed { expiration: Some(100), ..VECTOR };
        let signature = signed.sign(&token());
        assert_eq!(signed.verify(Some(&signature), &token(), 100), Ok(()));
        assert_eq!(signed.verify(Some(&signature), &token(), 101), Err(SignatureError::Expired));
        assert_eq!(signed.verify(None, &token(), 0), Err(SignatureError::Missing));
        assert_eq!(VECTOR.verify(Some(&signature), &token(), 0), Err(SignatureError::Invalid));
        assert_eq!(signed.verify(Some(&signature), &"other".into(), 0), Err(SignatureError::Invalid));
    }

    proptest! {
        #[test]
        fn a_signature_is_good_for_one_path_user_and_operation(path in ".{0,20}", user in "[a-z]{0,8}") {
            let signed = Signed { path: &path, operation: Operation::Write, username: &user, expiration: None };
            let signature = signed.sign(&token());
            prop_assert_eq!(signed.verify(Some(&signature), &token(), 0), Ok(()));
            let read = Signed { operation: Operation::Read, ..signed };
            prop_assert_eq!(read.verify(Some(&signature), &token(), 0), Err(SignatureError::Invalid));
            let other = format!("{path}x");
            let longer = Signed { path: &other, ..signed };
            prop_assert_eq!(longer.verify(Some(&signature), &token(), 0), Err(SignatureError::Invalid));
        }
    }
}
