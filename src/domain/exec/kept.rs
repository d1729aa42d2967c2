//! What is kept of output for an answer.

use base64::{Engine, prelude::BASE64_STANDARD};

/// How bytes that are no text stand in a text.
pub const BASE64: &str = "base64";

/// The start of a stream's output, up to a limit.
#[derive(Default)]
pub struct Kept {
    bytes: Vec<u8>,
    cut: bool,
}

impl Kept {
    pub fn add(&mut self, data: &[u8], limit: usize) {
        let room = limit.saturating_sub(self.bytes.len());
        self.bytes.extend_from_slice(&data[..data.len().min(room)]);
        self.cut |= data.len() > room;
    }

    /// Whether there was more than the limit.
    #[must_use]
    pub fn cut(&self) -> bool {
        self.cut
    }

    /// Text is cut between characters.
    #[must_use]
    pub fn finish(mut self) -> (String, Option<&'static str>) {
        if self.cut
            && let Err(error) = std::str::from_utf8(&self.bytes)
            && error.error_len().is_none()
        {
            self.bytes.truncate(error.valid_up_to());
        }
        as_text(self.bytes)
    }
}

/// Bytes as text; in base64, told by the second, when they are none.
#[must_use]
pub fn as_text(bytes: Vec<u8>) -> (String, Option<&'static str>) {
    match String::from_utf8(bytes) {
        Ok(text) => (text, None),
        Err(error) => (BASE64_STANDARD.encode(error.as_bytes()), Some(BASE64)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_kept_is_cut_between_characters_and_said_to_be() {
        let mut kept = Kept::default();
        kept.add("aé".as_bytes(), 2);
        assert!(kept.cut());
        assert_eq!(kept.finish(), ("a".to_owned(), None));
        let mut kept = Kept::default();
        kept.add(b"ab", 2);
        kept.add(b"", 2);
        assert!(!kept.cut());
        kept.add(b"c", 2);
        assert!(kept.cut());
        let mut kept = Kept::default();
        kept.add(b"a\xe9", 10);
        assert_eq!(kept.finish(), ("Yek=".to_owned(), Some("base64")));
    }
}
