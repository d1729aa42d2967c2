//! Identifiers and secrets in the shapes the cloud gives them (PROTOCOLS B.2, B.3, B.7, B.8).

use rand::RngExt as _;
use sha2::{Digest as _, Sha256};

const LOWER_ALNUM: &[u8] = b"abcdefghijklmnopqrstuvwxyz0123456789";
const ALNUM: &[u8] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789";

fn random(alphabet: &[u8], length: usize) -> String {
    let mut rng = rand::rng();
    (0..length).map(|_| char::from(alphabet[rng.random_range(0..alphabet.len())])).collect()
}

/// 32 lower-case hex characters: fits a DNS label behind `65535-`.
pub fn instance() -> String {
    uuid::Uuid::new_v4().simple().to_string()
}

/// `sdt-` and 8 lower-case alphanumeric characters.
pub fn tool() -> String {
    format!("sdt-{}", random(LOWER_ALNUM, 8))
}

/// `ark-` and 8 characters: names a key, opens nothing.
pub fn api_key_id() -> String {
    format!("ark-{}", random(LOWER_ALNUM, 8))
}

/// `ark_` and 40 characters.
pub fn api_key() -> String {
    format!("ark_{}", random(ALNUM, 40))
}

/// `sit_` and 48 characters.
pub fn access_token() -> String {
    format!("sit_{}", random(ALNUM, 48))
}

/// 64 lower-case hex characters.
pub fn traffic_token() -> String {
    hex::encode(rand::rng().random::<[u8; 32]>())
}

/// A secret of 32 characters for an account made on first start.
pub fn secret_key() -> String {
    random(ALNUM, 32)
}

/// `AKID` and 32 characters.
pub fn secret_id() -> String {
    format!("AKID{}", random(ALNUM, 32))
}

/// A version 4 UUID.
pub fn request() -> String {
    uuid::Uuid::new_v4().to_string()
}

/// The digest an image reference always resolves to here: nothing is pulled.
pub fn image_digest(image: &str) -> String {
    format!("sha256:{}", hex::encode(Sha256::digest(image.as_bytes())))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn shapes_follow_the_cloud() {
        let id = instance();
        assert_eq!(id.len(), 32);
        assert!(id.bytes().all(|b| b.is_ascii_digit() || b.is_ascii_lowercase()));
        assert_eq!(tool().len(), 12);
        assert!(access_token().starts_with("sit_"));
        assert_eq!(traffic_token().len(), 64);
        assert_ne!(api_key(), api_key());
        assert_eq!(image_digest("python:3.11"), image_digest("python:3.11"));
    }
}
