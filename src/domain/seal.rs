//! Secrets that must be known again in the clear: sealed with AES-256-GCM under a key of the configuration, and bound to the
//! place where they are kept, so that one is not good in another's.

use rand::Rng;
use ring::aead::{AES_256_GCM, Aad, LessSafeKey, NONCE_LEN, Nonce, UnboundKey};
use secrecy::{ExposeSecret, SecretString};

use super::credential::keyed;

/// The keys: new secrets are sealed under the first, any opens.
pub struct Seals(Vec<LessSafeKey>);

/// A secret that was sealed.
pub struct Unsealed {
    pub secret: SecretString,
    /// Under a key that is not the first any more.
    pub stale: bool,
}

impl Seals {
    /// From the configuration's secrets, the present one first. Each gives a key of its own that nothing else is made from.
    ///
    /// # Panics
    /// Without any secret.
    #[must_use]
    pub fn derive<'a>(secrets: impl IntoIterator<Item = &'a SecretString>) -> Self {
        let key = |secret: &SecretString| {
            let key = keyed(secret.expose_secret().as_bytes(), "seal", b"v1");
            LessSafeKey::new(UnboundKey::new(&AES_256_GCM, &key).expect("the key has the cipher's length"))
        };
        let keys: Vec<_> = secrets.into_iter().map(key).collect();
        assert!(!keys.is_empty(), "there is a secret");
        Self(keys)
    }

    /// Seals a secret for its place: a random nonce, then the ciphertext with its tag.
    #[must_use]
    pub fn seal(&self, place: &str, secret: &SecretString) -> Vec<u8> {
        let mut nonce = [0_u8; NONCE_LEN];
        rand::rng().fill_bytes(&mut nonce);
        let mut text = secret.expose_secret().as_bytes().to_vec();
        let sealed = self.0[0].seal_in_place_append_tag(
            Nonce::assume_unique_for_key(nonce),
            Aad::from(place.as_bytes()),
            &mut text,
        );
        sealed.expect("a secret is no gigabytes long");
        [nonce.as_slice(), &text].concat()
    }

    /// Opens what was sealed for this place; `None` when it was altered, or its key is gone.
    #[must_use]
    pub fn open(&self, place: &str, sealed: &[u8]) -> Option<Unsealed> {
        let (nonce, text) = sealed.split_first_chunk::<NONCE_LEN>()?;
        self.0.iter().enumerate().find_map(|(index, key)| {
            let mut text = text.to_vec();
            let nonce = Nonce::assume_unique_for_key(*nonce);
            let plain = key.open_in_place(nonce, Aad::from(place.as_bytes()), &mut text).ok()?;
            let secret = std::str::from_utf8(plain).ok()?.to_owned().into();
            Some(Unsealed { secret, stale: index > 0 })
        })
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn seals(secrets: &[&str]) -> Seals {
        let secrets: Vec<SecretString> = secrets.iter().map(|&secret| secret.to_owned().into()).collect();
        Seals::derive(&secrets)
    }

    #[test]
    fn a_rotated_key_still_opens_and_says_so() {
        let sealed = seals(&["old"]).seal("here", &"secret".to_owned().into());
        for (keys, expected) in [(&["old"][..], Some(false)), (&["new", "old"], Some(true)), (&["new"], None)] {
            let opened = seals(keys).open("here", &sealed);
            assert_eq!(opened.as_ref().map(|opened| opened.stale), expected, "{keys:?}");
            assert!(opened.is_none_or(|opened| opened.secret.expose_secret() == "secret"));
        }
    }

    #[test]
    fn the_same_secret_never_looks_the_same() {
        let (seals, secret) = (seals(&["one"]), "secret".to_owned().into());
        assert_ne!(seals.seal("here", &secret), seals.seal("here", &secret));
    }

    proptest! {
        #[test]
        fn nothing_altered_or_moved_opens(text in "\\PC{0,80}", at in any::<prop::sample::Index>(), bit in 0_u8..8) {
            let seals = seals(&["one"]);
            let mut sealed = seals.seal("here", &text.clone().into());
            let opened = seals.open("here", &sealed).unwrap();
            prop_assert_eq!(opened.secret.expose_secret(), &text);
            prop_assert!(seals.open("there", &sealed).is_none());
            let at = at.index(sealed.len());
            sealed[at] ^= 1 << bit;
            prop_assert!(seals.open("here", &sealed).is_none());
        }
    }
}
