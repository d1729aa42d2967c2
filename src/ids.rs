//! Identifiers: lower-case, time-sortable, prefixed, and a valid DNS label (an instance id stands in host names).
//!
//! An id is a prefix and 26 characters of Crockford base 32, the 128 bits of a version 7 UUID (RFC 9562).

use std::{fmt, str::FromStr};

use chrono::{DateTime, Utc};
use rand::Rng;
use serde::{Deserialize, Serialize};
use uuid::{Builder, Uuid};

use crate::clock::SharedClock;

const ALPHABET: &[u8; 32] = b"0123456789abcdefghjkmnpqrstvwxyz";
const LENGTH: usize = 26;

/// The text is not an id of the expected kind.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("not a valid id")]
pub struct InvalidId;

fn encode(value: u128) -> String {
    (0..LENGTH).rev().map(|digit| char::from(ALPHABET[(value >> (digit * 5)) as usize & 31])).collect()
}

fn is_encoded(text: &str) -> bool {
    // 26 digits hold 130 bits: the first may only use the lowest three.
    text.len() == LENGTH
        && text.bytes().all(|byte| ALPHABET.contains(&byte))
        && text.starts_with(|first: char| ('0'..='7').contains(&first))
}

/// Milliseconds since 1970 that an encoded value begins with.
fn millis(encoded: &str) -> i64 {
    let digit = |byte| ALPHABET.iter().position(|known| *known == byte).unwrap_or_default() as u128;
    let value = encoded.bytes().fold(0_u128, |value, byte| (value << 5) | digit(byte));
    i64::try_from(value >> 80).unwrap_or_default()
}

/// Makes ids. The time part comes from the clock, the rest is random.
#[derive(Clone)]
pub struct Ids {
    clock: SharedClock,
}

impl Ids {
    #[must_use]
    pub fn new(clock: SharedClock) -> Self {
        Self { clock }
    }

    /// A new id of the wanted kind.
    #[must_use]
    pub fn next<I: Id>(&self) -> I {
        I::from_encoded(&encode(self.uuid().as_u128()))
    }

    /// A new id of a request.
    #[must_use]
    pub fn request(&self) -> String {
        self.uuid().to_string()
    }

    /// From a generator that is seeded now and then: asking the system each time costs more than the rest.
    fn uuid(&self) -> Uuid {
        let now = self.clock.now();
        let millis = u64::try_from(now.timestamp_millis()).unwrap_or_default();
        let mut random = [0; 10];
        rand::rng().fill_bytes(&mut random);
        Builder::from_unix_timestamp_millis(millis, &random).into_uuid()
    }

    /// A random token without meaning (AGS ClientToken and the like): 32 hex digits.
    #[must_use]
    pub fn token(&self) -> String {
        Uuid::new_v4().simple().to_string()
    }
}

/// A kind of id.
pub trait Id: Sized {
    const PREFIX: &'static str;
    fn from_encoded(encoded: &str) -> Self;
}

macro_rules! id_types {
    ($($(#[$doc:meta])* $name:ident = $prefix:literal;)*) => {$(
        $(#[$doc])*
        #[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize, sqlx::Type)]
        #[serde(try_from = "String", into = "String")]
        #[sqlx(transparent)]
        pub struct $name(String);

        impl $name {
            #[must_use]
            pub fn as_str(&self) -> &str {
                &self.0
            }

            /// When it was made, by the clock of the replica that made it.
            #[must_use]
            pub fn made_at(&self) -> DateTime<Utc> {
                DateTime::from_timestamp_millis(millis(&self.0[$prefix.len()..])).unwrap_or_default()
            }
        }

        impl Id for $name {
            const PREFIX: &'static str = $prefix;
            fn from_encoded(encoded: &str) -> Self {
                Self(format!("{}{encoded}", $prefix))
            }
        }

        impl FromStr for $name {
            type Err = InvalidId;
            fn from_str(text: &str) -> Result<Self, InvalidId> {
                match text.strip_prefix($prefix) {
                    Some(rest) if is_encoded(rest) => Ok(Self(text.to_owned())),
                    _ => Err(InvalidId),
                }
            }
        }

        impl TryFrom<String> for $name {
            type Error = InvalidId;
            fn try_from(text: String) -> Result<Self, InvalidId> {
                text.parse()
            }
        }

        /// For rows: the database holds only ids that were made here.
        impl From<$name> for String {
            fn from(id: $name) -> Self {
                id.0
            }
        }

        impl utoipa::PartialSchema for $name {
            fn schema() -> utoipa::openapi::RefOr<utoipa::openapi::schema::Schema> {
                utoipa::openapi::ObjectBuilder::new()
                    .schema_type(utoipa::openapi::schema::Type::String)
                    .pattern(Some(concat!("^", $prefix, "[0-7][0-9a-hjkmnp-tv-z]{25}$")))
                    .into()
            }
        }

        impl utoipa::ToSchema for $name {
            fn name() -> std::borrow::Cow<'static, str> {
                stringify!($name).into()
            }
        }

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str(&self.0)
            }
        }
    )*};
}

id_types! {
    /// A team.
    TeamId = "team";
    /// An API key.
    KeyId = "key";
    /// A tool (sandbox template).
    ToolId = "tool";
    /// An instance (sandbox).
    InstanceId = "ins";
    /// A command in an instance.
    ExecId = "exec";
    /// A run: an instance made for one command or piece of code.
    RunId = "run";
    /// A browser's leave to see a port of an instance.
    PreviewId = "prev";
    /// An event of the history.
    AuditId = "aud";
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use super::*;
    use crate::clock;
    use proptest::prelude::*;

    #[test]
    fn ids_sort_by_time_and_fit_a_dns_label() {
        let clock = clock::Mock::at("2026-01-01T00:00:00Z".parse().unwrap());
        let ids = Ids::new(Arc::clone(&clock) as SharedClock);
        let first: InstanceId = ids.next();
        clock.advance(chrono::Duration::milliseconds(1));
        let second: InstanceId = ids.next();
        assert!(first < second);
        assert_eq!(first.as_str().len(), 29);
        assert!(format!("65535-{first}").len() <= 63);
        assert_eq!(first.as_str().parse::<InstanceId>().as_ref(), Ok(&first));
        assert_eq!(first.made_at().to_rfc3339(), "2026-01-01T00:00:00+00:00");
    }

    proptest! {
        #[test]
        fn encoded_values_parse_and_keep_their_order(a: u128, b: u128) {
            let (x, y) = (encode(a), encode(b));
            prop_assert!(is_encoded(&x));
            prop_assert_eq!(millis(&x), (a >> 80) as i64);
            prop_assert_eq!(a.cmp(&b), x.cmp(&y));
        }

        #[test]
        fn parsing_never_panics(text in "\\PC{0,40}") {
            let _: Result<TeamId, _> = text.parse();
        }
    }

    #[test]
    fn other_kinds_are_refused() {
        let ids = Ids::new(Arc::new(clock::System));
        let tool: ToolId = ids.next();
        assert_eq!(tool.as_str().parse::<InstanceId>(), Err(InvalidId));
    }
}
