//! Lines out of a byte stream, however the network has cut it. Pure.

use bytes::{Buf, BytesMut};

/// A line is longer than allowed.
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
#[error("a line of more than {0} bytes")]
pub(crate) struct TooLong(usize);

/// Cuts lines. No more than `max` bytes and one chunk are ever held.
pub(crate) struct LineDecoder {
    buffer: BytesMut,
    /// In which no line ends.
    searched: usize,
    max: usize,
}

impl LineDecoder {
    /// `max`: longest line accepted, in bytes without its end.
    pub(crate) fn new(max: usize) -> Self {
        Self { buffer: BytesMut::new(), searched: 0, max }
    }

    pub(crate) fn push(&mut self, chunk: &[u8]) {
        self.buffer.extend_from_slice(chunk);
    }

    /// Bytes of an unfinished line are waiting for the rest.
    pub(crate) fn is_mid_line(&self) -> bool {
        !self.buffer.is_empty()
    }

    /// The next whole line that is not blank, without its end.
    pub(crate) fn next_line(&mut self) -> Result<Option<BytesMut>, TooLong> {
        loop {
            let Some(at) = self.buffer[self.searched..].iter().position(|byte| *byte == b'\n') else {
                self.searched = self.buffer.len();
                return if self.searched > self.max { Err(TooLong(self.max)) } else { Ok(None) };
            };
            let line = self.buffer.split_to(self.searched + at);
            self.buffer.advance(1);
            self.searched = 0;
            if line.len() > self.max {
                return Err(TooLong(self.max));
            }
            if !line.trim_ascii().is_empty() {
                return Ok(Some(line));
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn lines(chunks: &[&[u8]], max: usize) -> (Vec<Vec<u8>>, bool) {
        let (mut decoder, mut found) = (LineDecoder::new(max), Vec::new());
        for chunk in chunks {
            decoder.push(chunk);
            loop {
                match decoder.next_line() {
                    Ok(Some(line)) => found.push(line.to_vec()),
                    Ok(None) => break,
                    Err(_) => return (found, true),
                }
            }
        }
        (found, false)
    }

    #[test]
    fn blank_lines_are_skipped_and_the_rest_waits() {
        let (found, failed) = lines(&[b"a\n\n \r\nb", b"c\nd"], 10);
        assert_eq!((found, failed), (vec![b"a".to_vec(), b"bc".to_vec()], false));
    }

    #[test]
    fn too_long_a_line_is_refused_whether_it_ends_or_not() {
        assert!(lines(&[b"12345\n"], 4).1);
        assert!(lines(&[b"123", b"45"], 4).1);
        assert!(!lines(&[b"1234\n1234\n"], 4).1);
    }

    proptest! {
        #[test]
        fn cuts_do_not_matter(text in "[ab \\n]{0,60}", sizes in prop::collection::vec(0_usize..5, 0..60)) {
            let (mut rest, mut chunks) = (text.as_bytes(), Vec::new());
            for size in sizes {
                let (chunk, after) = rest.split_at(size.min(rest.len()));
                chunks.push(chunk);
                rest = after;
            }
            chunks.push(rest);
            prop_assert_eq!(lines(&chunks, 100), lines(&[text.as_bytes()], 100));
        }
    }
}
