//! Credentials and the key chain.

use std::fmt;

use hmac::{Hmac, KeyInit, Mac};
use secrecy::{ExposeSecret, SecretString};
use sha2::Sha256;
use zeroize::Zeroizing;

use crate::TERMINATOR;

/// A key pair, with the session token that temporary credentials carry.
#[derive(Clone)]
pub struct Credential {
    pub secret_id: String,
    pub secret_key: SecretString,
    /// Sent as `X-TC-Token`; not part of the signature.
    pub token: Option<SecretString>,
}

impl fmt::Debug for Credential {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Credential")
            .field("secret_id", &self.secret_id)
            .field("secret_key", &"[redacted]")
            .field("token", &self.token.as_ref().map(|_| "[redacted]"))
            .finish()
    }
}

/// The derived key of one secret key, UTC date and service. It can sign everything of that day and service,
/// so it is as secret as its origin; it may be cached until the date changes.
#[derive(Clone)]
pub struct SigningKey(Zeroizing<[u8; 32]>);

impl SigningKey {
    /// `date` is the UTC date of the request's timestamp as [`scope_date`] writes it.
    pub fn derive(secret_key: &SecretString, date: &str, service: &str) -> SigningKey {
        let origin = Zeroizing::new(format!("TC3{}", secret_key.expose_secret()));
        let k_date = hmac(origin.as_bytes(), date.as_bytes());
        let k_service = hmac(k_date.as_slice(), service.as_bytes());
        SigningKey(hmac(k_service.as_slice(), TERMINATOR.as_bytes()))
    }

    pub(crate) fn sign(&self, string_to_sign: &str) -> Zeroizing<[u8; 32]> {
        hmac(self.0.as_slice(), string_to_sign.as_bytes())
    }

    #[cfg(test)]
    pub(crate) fn bytes(&self) -> &[u8] {
        self.0.as_slice()
    }
}

impl fmt::Debug for SigningKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("SigningKey([redacted])")
    }
}

/// HMAC-SHA256. The result may be key material, hence wiped on drop.
pub(crate) fn hmac(key: &[u8], message: &[u8]) -> Zeroizing<[u8; 32]> {
    let mut mac = Hmac::<Sha256>::new_from_slice(key).expect("HMAC-SHA256 takes keys of any length");
    mac.update(message);
    Zeroizing::new(mac.finalize().into_bytes().into())
}

/// The UTC date of a Unix timestamp as the credential scope writes it (`2025-10-09`); `None` outside
/// years 0-9999, which the four-digit form cannot say.
pub fn scope_date(timestamp: i64) -> Option<String> {
    let time = chrono::DateTime::from_timestamp(timestamp, 0)?;
    let date = time.format("%Y-%m-%d").to_string();
    (date.len() == 10).then_some(date)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The intermediate keys of the worked vector of the official Python SDK.
    #[test]
    fn the_key_chain_is_as_documented() {
        let k_date = hmac(b"TC3SKEXAMPLE00000000000000000000000", b"2025-10-09");
        assert_eq!(hex::encode(*k_date), "a7d24d7b677525bbef77b2491a3a5991c4f3c04f4e8f5ddd8ba4458e756fa336");
        assert_eq!(
            hex::encode(*hmac(&*k_date, b"ags")),
            "3f9e61c54caf5cad7af9b78cbf97cd180d63dc064e7ee783f379918e3341a400"
        );
        let key = SigningKey::derive(&"SKEXAMPLE00000000000000000000000".into(), "2025-10-09", "ags");
        assert_eq!(hex::encode(key.bytes()), "c84e27577a0ca24779c4d398342d47f52087663debaf59cef4c0aab5e0b6105d");
    }

    #[test]
    fn the_scope_date_is_utc_and_has_four_digit_years() {
        assert_eq!(scope_date(1_760_000_000).as_deref(), Some("2025-10-09"));
        assert_eq!(scope_date(-1).as_deref(), Some("1969-12-31"));
        assert_eq!(scope_date(253_402_300_800), None);
        assert_eq!(scope_date(i64::MIN), None);
    }

    #[test]
    fn debug_shows_no_secret() {
        let credential = Credential { secret_id: "AKID".into(), secret_key: "hush".into(), token: Some("hush".into()) };
        let key = SigningKey::derive(&credential.secret_key, "2025-10-09", "ags");
        assert!(!format!("{credential:?} {key:?}").contains("hush"));
        assert!(!format!("{key:?}").contains(&hex::encode(key.bytes())));
    }
}
