//! API keys as rules: their texts, their digests, what a key may mint.

use chrono::{DateTime, Utc};
use hmac::{Hmac, KeyInit, Mac};
use rand::Rng;
use secrecy::{ExposeSecret, SecretBox, SecretString};
use sha2::Sha256;
use subtle::ConstantTimeEq;

use super::scope::Scopes;
use crate::ids::{InstanceId, KeyId, TeamId};

const KEY_PREFIX: &str = "agsk_";
/// E2B SDKs of several versions insist on `e2b_` and hex: the same hex is the same key.
const E2B_PREFIX: &str = "e2b_";
const SECRET_BYTES: usize = 32;

/// A key, or its beginning, in the form that E2B's SDKs take.
#[must_use]
pub fn e2b_form(key: &str) -> String {
    format!("{E2B_PREFIX}{}", key.strip_prefix(KEY_PREFIX).unwrap_or(key))
}

/// How much of a key is kept to recognise it by: `agsk_` and eight hex digits.
const SHOWN_HEX: usize = 8;

/// HMAC-SHA256 of a credential under a pepper.
pub type Digest = [u8; 32];

/// A key's row, without its secret.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ApiKey {
    pub id: KeyId,
    pub team_id: TeamId,
    pub name: String,
    pub kind: KeyKind,
    pub prefix: String,
    pub scopes: Scopes,
    pub issuer_id: Option<KeyId>,
    pub instance_id: Option<InstanceId>,
    pub created_at: DateTime<Utc>,
    pub expires_at: Option<DateTime<Utc>>,
    pub revoked_at: Option<DateTime<Utc>>,
    pub last_used_at: Option<DateTime<Utc>>,
}

/// A key's secret as presented, reduced to its hex digits.
#[derive(Clone)]
pub struct PresentedKey(SecretString);

impl PresentedKey {
    /// `agsk_<lower hex>` or `e2b_<the same>`; `None` for anything else.
    #[must_use]
    pub fn parse(text: &str) -> Option<Self> {
        let hex = text.strip_prefix(KEY_PREFIX).or_else(|| text.strip_prefix(E2B_PREFIX))?;
        let valid = hex.len() == SECRET_BYTES * 2 && hex.bytes().all(|b| matches!(b, b'0'..=b'9' | b'a'..=b'f'));
        valid.then(|| Self(hex.to_owned().into()))
    }

    /// A fresh random key.
    pub fn generate(rng: &mut impl Rng) -> Self {
        let mut bytes = [0_u8; SECRET_BYTES];
        rng.fill_bytes(&mut bytes);
        Self(hex::encode(bytes).into())
    }

    /// The whole key, to be shown once.
    #[must_use]
    pub fn reveal(&self) -> SecretString {
        format!("{KEY_PREFIX}{}", self.0.expose_secret()).into()
    }

    /// The part that may be shown for ever.
    #[must_use]
    pub fn shown_prefix(&self) -> String {
        format!("{KEY_PREFIX}{}", &self.0.expose_secret()[..SHOWN_HEX])
    }
}

/// What speaks with a key.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum KeyKind {
    /// The key itself: this API, and E2B's.
    #[default]
    Api,
    /// Signatures made with a pair: the API of the cloud.
    Tencent,
}

impl KeyKind {
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Api => "api",
            Self::Tencent => "tencent",
        }
    }

    /// The kind of a stored key.
    #[must_use]
    pub fn of(text: &str) -> Self {
        if text == Self::Tencent.as_str() { Self::Tencent } else { Self::Api }
    }
}

const SECRET_ID_PREFIX: &str = "AKID";
const SECRET_ID_BYTES: usize = 16;

/// A pair that signs requests (TC3).
#[derive(Default)]
pub struct SigningPair {
    pub secret_id: String,
    pub secret_key: SecretString,
}

impl SigningPair {
    /// A fresh random pair, in the form of the cloud's: `AKID` and 32 characters, and a key of 64.
    pub fn generate(rng: &mut impl Rng) -> Self {
        let (mut id, mut key) = ([0_u8; SECRET_ID_BYTES], [0_u8; SECRET_BYTES]);
        rng.fill_bytes(&mut id);
        rng.fill_bytes(&mut key);
        Self { secret_id: format!("{SECRET_ID_PREFIX}{}", hex::encode(id)), secret_key: hex::encode(key).into() }
    }
}

/// The peppers: the current one, under which new digests are made, and the previous one while it is being replaced.
pub struct Peppers {
    current: SecretBox<Digest>,
    previous: Option<SecretBox<Digest>>,
}

impl Peppers {
    /// Derived from the deployment's secret, so that the secret itself signs other things too without overlap.
    #[must_use]
    pub fn derive(secret: &SecretString, previous: Option<&SecretString>) -> Self {
        let derive = |secret: &SecretString| {
            SecretBox::new(Box::new(keyed(secret.expose_secret().as_bytes(), "api-key-pepper", b"v1")))
        };
        Self { current: derive(secret), previous: previous.map(derive) }
    }

    /// The digest to store.
    #[must_use]
    pub fn digest(&self, key: &PresentedKey) -> Digest {
        keyed(self.current.expose_secret(), "api-key", key.0.expose_secret().as_bytes())
    }

    /// The digest of a one-use ticket, to be stored.
    #[must_use]
    pub fn ticket_digest(&self, ticket: &str) -> Digest {
        keyed(self.current.expose_secret(), "ticket", ticket.as_bytes())
    }

    /// The digests under which a ticket may be stored, the current one first.
    #[must_use]
    pub fn ticket_digests(&self, ticket: &str) -> Vec<Digest> {
        self.all().map(|pepper| keyed(pepper.expose_secret(), "ticket", ticket.as_bytes())).collect()
    }

    /// Signs a text for one purpose.
    #[must_use]
    pub fn sign(&self, purpose: &str, message: &[u8]) -> Digest {
        keyed(self.current.expose_secret(), purpose, message)
    }

    /// The signatures of a text for one purpose, the current pepper's first.
    #[must_use]
    pub fn signatures(&self, purpose: &str, message: &[u8]) -> Vec<Digest> {
        self.all().map(|pepper| keyed(pepper.expose_secret(), purpose, message)).collect()
    }

    /// Whether a text was signed for that purpose. Takes the same time wherever the signature differs.
    #[must_use]
    pub fn verify(&self, purpose: &str, message: &[u8], signature: &[u8]) -> bool {
        let expected = |pepper: &SecretBox<Digest>| keyed(pepper.expose_secret(), purpose, message);
        self.all().fold(false, |found, pepper| found | bool::from(expected(pepper).as_slice().ct_eq(signature)))
    }

    /// The signature of a preview's link, in hex. `place` is what the link is good for.
    #[must_use]
    pub fn preview_signature(&self, place: &str) -> String {
        hex::encode(self.sign("preview-link", place.as_bytes()))
    }

    /// Whether a signature is one of ours for that place.
    #[must_use]
    pub fn signed_preview(&self, place: &str, signature: &str) -> bool {
        hex::decode(signature).is_ok_and(|given| self.verify("preview-link", place.as_bytes(), &given))
    }

    /// The digests under which a preview's cookie may be stored, the current one first.
    #[must_use]
    pub fn cookie_digests(&self, cookie: &str) -> Vec<Digest> {
        self.all().map(|pepper| keyed(pepper.expose_secret(), "preview-cookie", cookie.as_bytes())).collect()
    }

    /// The digests under which a presented key may be stored, the current one first.
    #[must_use]
    pub fn candidates(&self, key: &PresentedKey) -> Vec<Digest> {
        self.all().map(|pepper| keyed(pepper.expose_secret(), "api-key", key.0.expose_secret().as_bytes())).collect()
    }

    fn all(&self) -> impl Iterator<Item = &SecretBox<Digest>> {
        std::iter::once(&self.current).chain(&self.previous)
    }
}

pub(super) fn keyed(key: &[u8], purpose: &str, message: &[u8]) -> Digest {
    let mut mac = Hmac::<Sha256>::new_from_slice(key).expect("HMAC takes keys of any length");
    mac.update(purpose.as_bytes());
    mac.update(&[0]);
    mac.update(message);
    mac.finalize().into_bytes().into()
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn peppers(secret: &str, previous: Option<&str>) -> Peppers {
        Peppers::derive(&secret.to_owned().into(), previous.map(|text| text.to_owned().into()).as_ref())
    }

    #[test]
    fn both_spellings_are_one_key() {
        let key = PresentedKey::generate(&mut rand::rng());
        let text = key.reveal().expose_secret().to_owned();
        let e2b = PresentedKey::parse(&text.replace("agsk_", "e2b_")).unwrap();
        let peppers = peppers("one", None);
        assert_eq!(peppers.digest(&key), peppers.digest(&e2b));
        assert!(text.starts_with(&key.shown_prefix()));
    }

    #[test]
    fn a_digest_of_the_previous_pepper_is_still_a_candidate() {
        let key = PresentedKey::generate(&mut rand::rng());
        let old = peppers("old", None).digest(&key);
        assert!(peppers("new", Some("old")).candidates(&key).contains(&old));
        assert!(!peppers("new", None).candidates(&key).contains(&old));
    }

    #[test]
    fn a_link_is_good_for_its_place_and_under_both_peppers() {
        let signed = peppers("old", None).preview_signature("prev1 ins1 80");
        assert!(peppers("old", None).signed_preview("prev1 ins1 80", &signed));
        assert!(peppers("new", Some("old")).signed_preview("prev1 ins1 80", &signed));
        assert!(!peppers("new", None).signed_preview("prev1 ins1 80", &signed));
        for (place, signature) in [
            ("prev1 ins1 81", signed.as_str()),
            ("prev1 ins1 80", &signed[2..]),
            ("prev1 ins1 80", ""),
            ("prev1 ins1 80", "zz"),
        ] {
            assert!(!peppers("old", None).signed_preview(place, signature), "{place} {signature}");
        }
    }

    #[test]
    fn a_signature_is_for_one_purpose_and_outlives_one_rotation() {
        let old = peppers("old", None);
        let signature = old.sign("a", b"text");
        assert!(old.verify("a", b"text", &signature));
        assert!(!old.verify("b", b"text", &signature));
        assert!(!old.verify("a", b"texT", &signature));
        assert!(!old.verify("a", b"text", &signature[1..]));
        assert!(peppers("new", Some("old")).verify("a", b"text", &signature));
        assert!(!peppers("new", None).verify("a", b"text", &signature));
    }

    proptest! {
        #[test]
        fn parsing_never_panics_and_takes_only_lower_hex(text in "(agsk_|e2b_)?[0-9a-zA-Z]{0,70}") {
            let hex = text.strip_prefix("agsk_").or_else(|| text.strip_prefix("e2b_"));
            let valid = hex.is_some_and(|h| h.len() == 64 && h.chars().all(|c| "0123456789abcdef".contains(c)));
            prop_assert_eq!(PresentedKey::parse(&text).is_some(), valid);
        }
    }
}
