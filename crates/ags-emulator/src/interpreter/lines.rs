//! Lines from a socket.

use std::io;

use bytes::{Buf as _, BytesMut};
use tokio::io::{AsyncRead, AsyncReadExt as _};

/// Reads lines; what follows the last one is kept.
#[derive(Default)]
pub struct Lines {
    buffer: BytesMut,
    /// In which no line ends.
    searched: usize,
}

impl Lines {
    /// The next line without its end; `None` at the end. May be dropped at any point.
    ///
    /// # Errors
    /// The connection failed.
    pub async fn next(&mut self, from: &mut (impl AsyncRead + Unpin)) -> io::Result<Option<BytesMut>> {
        loop {
            let fresh = self.buffer[self.searched..].iter().position(|byte| *byte == b'\n');
            if let Some(at) = fresh {
                let line = self.buffer.split_to(self.searched + at);
                self.buffer.advance(1);
                self.searched = 0;
                return Ok(Some(line));
            }
            self.searched = self.buffer.len();
            if from.read_buf(&mut self.buffer).await? == 0 {
                return Ok(None);
            }
        }
    }
}
