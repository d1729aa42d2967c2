//! A stream of which more was read than was taken.

use std::{
    io,
    pin::Pin,
    task::{Context, Poll, ready},
};

use bytes::{Buf, Bytes};
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};

use super::client_io::Ends;

/// A stream with what was read ahead of it: a connection that was begun by somebody else; or one under TLS, where what a client
/// has sent last is hidden in records, so that a byte is read ahead to tell an end from a pause.
pub struct ReadAhead<S> {
    ahead: Bytes,
    stream: S,
    /// What is told when it is read next.
    failed: Option<io::Error>,
    ended: bool,
}

impl<S> ReadAhead<S> {
    /// A stream that begins with `ahead`.
    #[must_use]
    pub fn new(ahead: Bytes, stream: S) -> Self {
        Self { ahead, stream, failed: None, ended: false }
    }
}

impl<S: AsyncRead + Unpin> Ends for ReadAhead<S> {
    fn poll_ended(&mut self, cx: &mut Context<'_>) -> Poll<()> {
        if !self.ahead.is_empty() {
            return Poll::Pending;
        }
        if self.ended || self.failed.is_some() {
            return Poll::Ready(());
        }
        let mut next = [0];
        let mut buffer = ReadBuf::new(&mut next);
        // A client that has cut the connection is as gone as one that has closed it.
        let read = ready!(Pin::new(&mut self.stream).poll_read(cx, &mut buffer));
        match buffer.filled().first() {
            Some(byte) if read.is_ok() => self.ahead = Bytes::copy_from_slice(&[*byte]),
            _ => {
                self.ended = true;
                return Poll::Ready(());
            }
        }
        // Whoever waits to read has not been told of it.
        cx.waker().wake_by_ref();
        Poll::Pending
    }
}

impl<S: AsyncRead + Unpin> AsyncRead for ReadAhead<S> {
    fn poll_read(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buffer: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        if buffer.remaining() > 0 && !self.ahead.is_empty() {
            let length = self.ahead.len().min(buffer.remaining());
            buffer.put_slice(&self.ahead[..length]);
            self.ahead.advance(length);
            // What follows it comes along: a body must not go through byte by byte.
            if buffer.remaining() > 0
                && let Poll::Ready(Err(error)) = Pin::new(&mut self.stream).poll_read(cx, buffer)
            {
                self.failed = Some(error);
            }
            return Poll::Ready(Ok(()));
        }
        if let Some(error) = self.failed.take() {
            self.ended = true;
            return Poll::Ready(Err(error));
        }
        if self.ended {
            return Poll::Ready(Ok(()));
        }
        Pin::new(&mut self.stream).poll_read(cx, buffer)
    }
}

impl<S: AsyncWrite + Unpin> AsyncWrite for ReadAhead<S> {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, data: &[u8]) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.stream).poll_write(cx, data)
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        data: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.stream).poll_write_vectored(cx, data)
    }

    fn is_write_vectored(&self) -> bool {
        self.stream.is_write_vectored()
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_shutdown(cx)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use tokio::io::{AsyncReadExt, AsyncWriteExt};

    /// What was sent, as it is read with a look for the end before each read.
    async fn read_with_looks(mut ours: ReadAhead<tokio::io::DuplexStream>) -> Vec<Vec<u8>> {
        let mut pieces = Vec::new();
        loop {
            let _looked = std::future::poll_fn(|cx| Poll::Ready(ours.poll_ended(cx))).await;
            let mut piece = vec![0; 64];
            let read = ours.read(&mut piece).await.unwrap();
            if read == 0 {
                return pieces;
            }
            piece.truncate(read);
            pieces.push(piece);
        }
    }

    #[tokio::test]
    async fn what_was_looked_at_comes_with_what_follows_it() {
        let (ours, mut theirs) = tokio::io::duplex(1000);
        let sent: Vec<u8> = (0..=255).collect();
        theirs.write_all(&sent).await.unwrap();
        drop(theirs);
        let pieces = read_with_looks(ReadAhead::new(Bytes::new(), ours)).await;
        assert_eq!(pieces.concat(), sent);
        assert_eq!(pieces.iter().map(Vec::len).collect::<Vec<_>>(), [64, 64, 64, 64]);
    }

    #[tokio::test]
    async fn a_stream_that_was_begun_goes_on_where_it_was() {
        let (ours, mut theirs) = tokio::io::duplex(1000);
        let mut ours = ReadAhead::new(Bytes::from_static(b"what was read, "), ours);
        theirs.write_all(b"and what was not").await.unwrap();
        ours.write_all(b"an answer").await.unwrap();
        let mut small = [0; 4];
        ours.read_exact(&mut small).await.unwrap();
        theirs.shutdown().await.unwrap();
        let mut rest = String::new();
        ours.read_to_string(&mut rest).await.unwrap();
        assert_eq!(([small.as_slice(), rest.as_bytes()].concat()), b"what was read, and what was not");
        drop(ours);
        let mut answer = String::new();
        theirs.read_to_string(&mut answer).await.unwrap();
        assert_eq!(answer, "an answer");
    }
}
