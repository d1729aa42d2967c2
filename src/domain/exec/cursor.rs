//! Places in the output of a command.

use std::{fmt, str::FromStr};

use super::{Stream, text::Partial};

/// The text is not a cursor.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("is not a cursor of a command's output")]
pub struct InvalidCursor;

/// Per stream the beginning of a character that was read but not told yet.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Carried([Partial; 3]);

impl Carried {
    #[must_use]
    pub fn of(&self, stream: Stream) -> &Partial {
        &self.0[stream.index()]
    }

    pub fn of_mut(&mut self, stream: Stream) -> &mut Partial {
        &mut self.0[stream.index()]
    }

    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.0.iter().all(Partial::is_empty)
    }
}

/// A place in the output of a command: what lies before `position` was told, but for what is `carried`.
///
/// As text it is opaque to callers, at most 50 characters of `[0-9a-z.]`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Cursor {
    /// The owner of the output that counted `position`.
    pub epoch: u32,
    /// Bytes of all streams before it, `started` counting as the first.
    pub position: u64,
    pub carried: Carried,
}

impl fmt::Display for Cursor {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}.{}", self.epoch, self.position)?;
        for stream in Stream::ALL {
            let partial = self.carried.of(stream);
            if !partial.is_empty() {
                write!(f, ".{}{}", tag(stream), hex::encode(partial.as_bytes()))?;
            }
        }
        Ok(())
    }
}

const fn tag(stream: Stream) -> char {
    match stream {
        Stream::Stdout => 'o',
        Stream::Stderr => 'e',
        Stream::Pty => 'p',
    }
}

fn number<T: FromStr>(text: Option<&str>) -> Result<T, InvalidCursor> {
    let text = text.ok_or(InvalidCursor)?;
    let plain = text.bytes().all(|byte| byte.is_ascii_digit());
    if plain { text.parse().map_err(|_| InvalidCursor) } else { Err(InvalidCursor) }
}

impl FromStr for Cursor {
    type Err = InvalidCursor;

    fn from_str(text: &str) -> Result<Self, InvalidCursor> {
        let mut parts = text.split('.');
        let mut cursor =
            Self { epoch: number(parts.next())?, position: number(parts.next())?, carried: Carried::default() };
        for part in parts {
            let stream = Stream::ALL.into_iter().find(|stream| part.starts_with(tag(*stream))).ok_or(InvalidCursor)?;
            let bytes = hex::decode(&part[1..]).map_err(|_| InvalidCursor)?;
            let partial = Partial::new(&bytes).ok_or(InvalidCursor)?;
            let held = cursor.carried.of_mut(stream);
            if partial.is_empty() || !held.is_empty() {
                return Err(InvalidCursor);
            }
            *held = partial;
        }
        Ok(cursor)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn a_cursor_names_what_it_owes() {
        let mut cursor = Cursor { epoch: 1, position: 42, ..Cursor::default() };
        assert_eq!(cursor.to_string(), "1.42");
        *cursor.carried.of_mut(Stream::Stderr) = Partial::new(b"\xe2\x82").unwrap();
        assert_eq!(cursor.to_string(), "1.42.ee282");
        assert_eq!("1.42.ee282".parse(), Ok(cursor));
    }

    #[test]
    fn what_was_not_made_here_is_refused() {
        let bad =
            ["", "1", "1.", ".1", "1.2.", "1.2.x", "1.2.o", "1.2.oe282.oe282", "1.2.o61", "+1.2", "1.-2", "1.2.€"];
        for text in bad {
            assert_eq!(text.parse::<Cursor>(), Err(InvalidCursor), "{text}");
        }
    }

    proptest! {
        #[test]
        fn parsing_never_panics(text in "\\PC{0,30}") {
            let _ = text.parse::<Cursor>();
        }

        #[test]
        fn cursors_round_trip(epoch: u32, position: u64) {
            let cursor = Cursor { epoch, position, ..Cursor::default() };
            prop_assert_eq!(cursor.to_string().parse(), Ok(cursor));
        }
    }
}
