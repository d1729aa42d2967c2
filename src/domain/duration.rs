//! Durations as callers write them: `"90s"`, `"5m"`, `"1h"`, `"1h30m"`, or integer seconds.

use std::{fmt, time::Duration};

use serde::{Deserialize, Deserializer, de};

/// The text is not a duration.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("expected a duration such as \"90s\", \"5m\", \"1h30m\" or an integer number of seconds")]
pub struct InvalidDuration;

/// A whole number of seconds.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Seconds(pub u32);

impl Seconds {
    #[must_use]
    pub fn to_std(self) -> Duration {
        Duration::from_secs(u64::from(self.0))
    }

    /// Parses `90`, `90s`, `5m`, `1h30m`; units in falling order, each at most once.
    ///
    /// # Errors
    /// [`InvalidDuration`] for anything else, and for more than 2³²-1 seconds.
    pub fn parse(text: &str) -> Result<Self, InvalidDuration> {
        if let Ok(seconds) = text.parse::<u32>() {
            return Ok(Self(seconds));
        }
        let mut rest = text;
        let mut total = 0_u32;
        for (unit, seconds) in [('h', 3600), ('m', 60), ('s', 1)] {
            let Some((number, tail)) = rest.split_once(unit) else { continue };
            if number.is_empty() || !number.bytes().all(|b| b.is_ascii_digit()) {
                return Err(InvalidDuration);
            }
            let part = number.parse::<u32>().ok().and_then(|n| n.checked_mul(seconds)).ok_or(InvalidDuration)?;
            total = total.checked_add(part).ok_or(InvalidDuration)?;
            rest = tail;
        }
        if rest.is_empty() && !text.is_empty() { Ok(Self(total)) } else { Err(InvalidDuration) }
    }
}

struct Visitor;

impl de::Visitor<'_> for Visitor {
    type Value = Seconds;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a duration such as \"90s\", \"5m\", \"1h30m\" or an integer number of seconds")
    }

    fn visit_u64<E: de::Error>(self, value: u64) -> Result<Seconds, E> {
        u32::try_from(value).map(Seconds).map_err(|_| E::custom("the duration is too long"))
    }

    fn visit_i64<E: de::Error>(self, value: i64) -> Result<Seconds, E> {
        u32::try_from(value).map(Seconds).map_err(|_| E::custom("a duration cannot be negative"))
    }

    fn visit_str<E: de::Error>(self, value: &str) -> Result<Seconds, E> {
        Seconds::parse(value).map_err(E::custom)
    }
}

impl<'de> Deserialize<'de> for Seconds {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_any(Visitor)
    }
}

impl utoipa::PartialSchema for Seconds {
    fn schema() -> utoipa::openapi::RefOr<utoipa::openapi::schema::Schema> {
        use utoipa::openapi::schema::{ObjectBuilder, OneOfBuilder, Type};
        OneOfBuilder::new()
            .item(ObjectBuilder::new().schema_type(Type::Integer).minimum(Some(0)).maximum(Some(u32::MAX)))
            .item(
                ObjectBuilder::new().schema_type(Type::String).pattern(Some(
                    "^([0-9]{1,9}s?|[0-9]{1,7}m([0-9]{1,8}s)?|[0-9]{1,5}h([0-9]{1,7}m)?([0-9]{1,8}s)?)$",
                )),
            )
            .description(Some("A duration: integer seconds, or text such as `90s`, `5m`, `1h30m`."))
            .into()
    }
}

impl utoipa::ToSchema for Seconds {
    fn name() -> std::borrow::Cow<'static, str> {
        "Duration".into()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn accepts_the_documented_forms_only() {
        for (text, seconds) in [("90s", 90), ("5m", 300), ("1h", 3600), ("1h30m", 5400), ("90", 90), ("0s", 0)] {
            assert_eq!(Seconds::parse(text), Ok(Seconds(seconds)), "{text}");
        }
        for text in ["", "s", "5 m", "1m1h", "-1s", "1.5h", "1d", "99999999999s", "4294967295h"] {
            assert_eq!(Seconds::parse(text), Err(InvalidDuration), "{text}");
        }
    }

    proptest! {
        #[test]
        fn hours_minutes_and_seconds_add_up(h in 0_u32..1000, m in 0_u32..60, s in 0_u32..60) {
            prop_assert_eq!(Seconds::parse(&format!("{h}h{m}m{s}s")), Ok(Seconds(h * 3600 + m * 60 + s)));
        }

        #[test]
        fn never_panics(text in "\\PC{0,20}") {
            let _ = Seconds::parse(&text);
        }
    }
}
