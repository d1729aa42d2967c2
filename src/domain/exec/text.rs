//! Text out of bytes that are cut anywhere: a character split over two reads is carried over.

use std::str::from_utf8;

/// Longest beginning of a character that is not yet a character.
const MAX: usize = 3;

/// The beginning of a character whose rest has not come yet: up to three bytes, possibly none.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Partial {
    bytes: [u8; MAX],
    len: u8,
}

/// A chunk taken apart. In this order the parts are the bytes that were carried and the chunk, but for what is carried on.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Parts<'a> {
    /// What had been carried and turned out to begin no character.
    pub broken: Partial,
    /// The character that had been carried, with its rest from this chunk.
    pub joined: Joined,
    pub text: &'a str,
    /// From the first byte on that is not text.
    pub binary: &'a [u8],
}

/// A character put together from two chunks, or nothing.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Joined {
    bytes: [u8; 4],
    len: u8,
}

impl Joined {
    #[must_use]
    pub fn as_str(&self) -> &str {
        from_utf8(&self.bytes[..usize::from(self.len)]).unwrap_or_default()
    }
}

/// What became of carried bytes at the start of the next chunk.
enum Completion {
    Joined(Joined, usize),
    Broken,
    StillPartial(Partial),
}

impl Partial {
    /// The bytes, if they begin a character and do not end it.
    #[must_use]
    pub fn new(bytes: &[u8]) -> Option<Self> {
        let unfinished = |bytes| matches!(from_utf8(bytes), Err(e) if e.valid_up_to() == 0 && e.error_len().is_none());
        (bytes.is_empty() || unfinished(bytes)).then(|| Self::of(bytes)).flatten()
    }

    fn of(bytes: &[u8]) -> Option<Self> {
        let mut partial = Self::default();
        partial.bytes.get_mut(..bytes.len())?.copy_from_slice(bytes);
        partial.len = u8::try_from(bytes.len()).ok()?;
        Some(partial)
    }

    #[must_use]
    pub fn as_bytes(&self) -> &[u8] {
        &self.bytes[..usize::from(self.len)]
    }

    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.len == 0
    }

    /// Takes what is carried, to be told as it is because nothing will follow it.
    pub fn take(&mut self) -> Self {
        std::mem::take(self)
    }

    /// Takes the next chunk apart and carries its unfinished last character on.
    pub fn split<'a>(&mut self, chunk: &'a [u8]) -> Parts<'a> {
        let mut parts = Parts { broken: Self::default(), joined: Joined::default(), text: "", binary: &[] };
        let mut rest = chunk;
        if !self.is_empty() {
            match self.complete(chunk) {
                Completion::Joined(joined, used) => {
                    parts.joined = joined;
                    rest = &chunk[used..];
                }
                Completion::Broken => parts.broken = *self,
                Completion::StillPartial(longer) => {
                    *self = longer;
                    return parts;
                }
            }
            *self = Self::default();
        }
        match from_utf8(rest) {
            Ok(text) => parts.text = text,
            Err(error) => {
                let (valid, after) = rest.split_at(error.valid_up_to());
                parts.text = from_utf8(valid).unwrap_or_default();
                match error.error_len() {
                    None => *self = Self::of(after).unwrap_or_default(),
                    Some(_) => parts.binary = after,
                }
            }
        }
        parts
    }

    fn complete(&self, chunk: &[u8]) -> Completion {
        let mut joined = Joined::default();
        let mut len = usize::from(self.len);
        joined.bytes[..len].copy_from_slice(self.as_bytes());
        for (index, byte) in chunk.iter().take(4 - len).enumerate() {
            joined.bytes[len] = *byte;
            len += 1;
            match from_utf8(&joined.bytes[..len]) {
                Ok(_) => {
                    joined.len = u8::try_from(len).unwrap_or_default();
                    return Completion::Joined(joined, index + 1);
                }
                Err(error) if error.error_len().is_none() => {}
                Err(_) => return Completion::Broken,
            }
        }
        Self::of(&joined.bytes[..len]).map_or(Completion::Broken, Completion::StillPartial)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    /// All bytes that came out, and whether any of them were told as binary.
    fn reassemble(chunks: &[Vec<u8>]) -> (Vec<u8>, bool) {
        let (mut carried, mut out, mut binary) = (Partial::default(), Vec::new(), false);
        for chunk in chunks {
            let parts = carried.split(chunk);
            out.extend_from_slice(parts.broken.as_bytes());
            out.extend_from_slice(parts.joined.as_str().as_bytes());
            out.extend_from_slice(parts.text.as_bytes());
            out.extend_from_slice(parts.binary);
            binary |= !parts.binary.is_empty() || !parts.broken.is_empty();
        }
        binary |= !carried.is_empty();
        out.extend_from_slice(carried.take().as_bytes());
        (out, binary)
    }

    fn cut(bytes: &[u8], sizes: &[usize]) -> Vec<Vec<u8>> {
        let (mut rest, mut chunks) = (bytes, Vec::new());
        for size in sizes {
            let (chunk, after) = rest.split_at((*size).min(rest.len()));
            chunks.push(chunk.to_vec());
            rest = after;
        }
        chunks.push(rest.to_vec());
        chunks
    }

    #[test]
    fn a_character_split_over_two_reads_is_text() {
        let mut carried = Partial::default();
        let first = carried.split(b"a\xe2\x82");
        assert_eq!((first.text, carried.as_bytes()), ("a", &b"\xe2\x82"[..]));
        let second = carried.split(b"\xac!");
        assert_eq!((second.joined.as_str(), second.text, second.binary), ("€", "!", &b""[..]));
        assert!(carried.is_empty());
    }

    #[test]
    fn what_begins_no_character_is_told_as_it_is() {
        let mut carried = Partial::default();
        carried.split(b"\xe2");
        let parts = carried.split(b"abc\xff\xfe");
        assert_eq!((parts.broken.as_bytes(), parts.text, parts.binary), (&b"\xe2"[..], "abc", &b"\xff\xfe"[..]));
    }

    #[test]
    fn only_beginnings_of_characters_can_be_carried() {
        for good in [&b""[..], b"\xe2", b"\xe2\x82", b"\xf0\x9f\x98"] {
            assert!(Partial::new(good).is_some(), "{good:?}");
        }
        for bad in [&b"a"[..], b"\xff", b"\xe2\x82\xac", b"\xe2a", b"\x82", b"\xf0\x9f\x98\x80"] {
            assert!(Partial::new(bad).is_none(), "{bad:?}");
        }
    }

    proptest! {
        #[test]
        fn text_stays_text_however_it_is_cut(text in "\\PC{0,40}", sizes in prop::collection::vec(0_usize..4, 0..60)) {
            let (out, binary) = reassemble(&cut(text.as_bytes(), &sizes));
            prop_assert_eq!(out, text.as_bytes());
            prop_assert!(!binary);
        }

        #[test]
        fn no_byte_is_lost_or_changed(
            bytes in prop::collection::vec(prop_oneof![any::<u8>(), Just(0xe2), Just(0x82), Just(0xf0), Just(b'a')], 0..60),
            sizes in prop::collection::vec(0_usize..5, 0..60),
        ) {
            let (out, binary) = reassemble(&cut(&bytes, &sizes));
            prop_assert_eq!(binary, from_utf8(&bytes).is_err());
            prop_assert_eq!(out, bytes);
        }
    }
}
