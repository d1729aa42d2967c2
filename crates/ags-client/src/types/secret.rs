//! Secrets inside wire objects.

use std::fmt;

use secrecy::{ExposeSecret, SecretString};
use serde::{Deserialize, Deserializer, Serialize, Serializer};

/// A secret string of a response: serialised in the clear, as the wire demands, and redacted in `Debug`.
#[derive(Clone, Default)]
pub struct WireSecret(SecretString);

impl WireSecret {
    /// The secret itself.
    pub fn expose(&self) -> &str {
        self.0.expose_secret()
    }

    pub fn into_secret(self) -> SecretString {
        self.0
    }
}

impl From<String> for WireSecret {
    fn from(value: String) -> Self {
        WireSecret(value.into())
    }
}

impl From<&str> for WireSecret {
    fn from(value: &str) -> Self {
        WireSecret(value.into())
    }
}

impl From<SecretString> for WireSecret {
    fn from(value: SecretString) -> Self {
        WireSecret(value)
    }
}

/// Not in constant time: for tests and comparisons of one's own values, not for checking a credential.
impl PartialEq for WireSecret {
    fn eq(&self, other: &Self) -> bool {
        self.expose() == other.expose()
    }
}

impl fmt::Debug for WireSecret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("[redacted]")
    }
}

impl Serialize for WireSecret {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(self.expose())
    }
}

impl<'de> Deserialize<'de> for WireSecret {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        String::deserialize(deserializer).map(WireSecret::from)
    }
}
