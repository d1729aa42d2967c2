//! What a kernel prints, as text.

use std::io;
use std::os::fd::AsFd;

use nix::errno::Errno;
use tokio::io::{AsyncRead, AsyncReadExt as _};

const CHUNK: usize = 32 * 1024;

/// A pipe that a kernel prints to.
pub struct Output<R> {
    pipe: Option<R>,
    text: Text,
    buffer: Box<[u8]>,
}

impl<R: AsyncRead + AsFd + Unpin> Output<R> {
    /// The pipe must not block.
    pub fn new(pipe: R) -> Self {
        Self { pipe: Some(pipe), text: Text::default(), buffer: vec![0; CHUNK].into_boxed_slice() }
    }

    /// Waits for the next text; after the pipe's end for ever. May be dropped at any point.
    pub async fn next(&mut self) -> String {
        loop {
            let Some(pipe) = &mut self.pipe else { return std::future::pending().await };
            let text = match pipe.read(&mut self.buffer).await {
                Ok(length @ 1..) => self.text.push(&self.buffer[..length]),
                _ => {
                    self.pipe = None;
                    self.text.finish()
                }
            };
            if !text.is_empty() {
                return text;
            }
        }
    }

    /// What is in the pipe at this moment. Asks the kernel itself: the runtime may not have heard of it yet.
    pub fn drain(&mut self) -> String {
        let mut drained = String::new();
        while let Some(pipe) = &self.pipe {
            match nix::unistd::read(pipe.as_fd(), &mut self.buffer) {
                Ok(length @ 1..) => drained += &self.text.push(&self.buffer[..length]),
                Err(Errno::EINTR) => {}
                Err(error) if io::Error::from(error).kind() == io::ErrorKind::WouldBlock => break,
                _ => self.pipe = None,
            }
        }
        drained
    }

    /// The same, and the beginning of a character that nothing completes.
    pub fn finish(&mut self) -> String {
        let mut drained = self.drain();
        drained += &self.text.finish();
        drained
    }
}

/// Text out of bytes that are cut anywhere.
#[derive(Default)]
struct Text {
    carried: Vec<u8>,
}

impl Text {
    /// The text so far; the beginning of a character is carried on.
    fn push(&mut self, bytes: &[u8]) -> String {
        self.carried.extend_from_slice(bytes);
        let whole = match std::str::from_utf8(&self.carried) {
            Err(error) if error.error_len().is_none() => error.valid_up_to(),
            _ => self.unfinished_from(),
        };
        let rest = self.carried.split_off(whole);
        let text = String::from_utf8_lossy(&self.carried).into_owned();
        self.carried = rest;
        text
    }

    /// Where a last, unfinished character begins behind bytes that are none.
    fn unfinished_from(&self) -> usize {
        let length = self.carried.len();
        let unfinished = |from: &usize| matches!(std::str::from_utf8(&self.carried[*from..]), Err(e) if e.valid_up_to() == 0 && e.error_len().is_none());
        (length.saturating_sub(3)..length).find(unfinished).unwrap_or(length)
    }

    fn finish(&mut self) -> String {
        String::from_utf8_lossy(&std::mem::take(&mut self.carried)).into_owned()
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn through(chunks: &[&[u8]]) -> String {
        let mut text = Text::default();
        let mut out: String = chunks.iter().map(|chunk| text.push(chunk)).collect();
        out += &text.finish();
        out
    }

    #[test]
    fn what_is_no_text_is_replaced() {
        assert_eq!(through(&[b"a\xff\xe2", b"\x82\xac"]), "a\u{fffd}€");
        assert_eq!(through(&[b"\xe2", b"a"]), "\u{fffd}a");
        assert_eq!(through(&[b"a\xe2\x82"]), "a\u{fffd}");
    }

    proptest! {
        #[test]
        fn characters_survive_any_cut(text in "\\PC{0,30}", at in 0_usize..90) {
            let bytes = text.as_bytes();
            let (first, second) = bytes.split_at(at.min(bytes.len()));
            prop_assert_eq!(through(&[first, second]), text);
        }
    }
}
