//! The client's end of a connection, with what HTTP/1.1 leaves open: how long a client may take nothing of what is to be
//! sent, and what it means that it has closed its sending side.
//!
//! A client that has gone looks like one that has sent all it wanted and waits for its answer. The API takes both for gone: a
//! command in the foreground ends with its request. Requests to ports [wait](SendingSide::wait) for their answers instead, as
//! long as something of them moves now and then. The HTTP library is told to leave the question alone (`half_close`): what
//! follows from an end within a request's body is still its own business.

use std::{
    io,
    pin::Pin,
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicUsize, Ordering},
    },
    task::{Context, Poll, ready},
    time::Duration,
};

use tokio::{
    io::{AsyncRead, AsyncWrite, ReadBuf},
    net::TcpStream,
    time::{Instant, Sleep, sleep_until},
};

/// How long a client may be still.
#[derive(Clone, Copy, Debug)]
pub struct Patience {
    /// While something is to be sent to it, and it takes nothing.
    pub write: Duration,
    /// After it has closed its sending side, while nothing is sent to it.
    pub half_closed: Duration,
}

/// A connection's sending side, as the requests on it see it.
#[derive(Clone, Debug, Default)]
pub struct SendingSide(Arc<Shared>);

#[derive(Debug, Default)]
struct Shared {
    waiting: AtomicUsize,
    tunnel: AtomicBool,
}

/// A request whose answer is due even if the sending side is closed.
#[derive(Debug)]
pub struct Waits(SendingSide);

impl SendingSide {
    /// Until the answer is dropped, a closed sending side does not mean that the client has gone.
    #[must_use]
    pub fn wait(&self) -> Waits {
        self.0.waiting.fetch_add(1, Ordering::Relaxed);
        Waits(self.clone())
    }

    /// The connection is no HTTP any more: each way ends by itself.
    pub fn becomes_tunnel(&self) {
        self.0.tunnel.store(true, Ordering::Relaxed);
    }
}

impl Drop for Waits {
    fn drop(&mut self) {
        self.0.0.waiting.fetch_sub(1, Ordering::Relaxed);
    }
}

/// A stream that tells of the end of what comes before that is read.
pub trait Ends {
    /// Ready when nothing more comes and all was read; otherwise wakes when that may have changed.
    fn poll_ended(&mut self, cx: &mut Context<'_>) -> Poll<()>;
}

impl Ends for TcpStream {
    fn poll_ended(&mut self, cx: &mut Context<'_>) -> Poll<()> {
        let mut next = [0];
        match ready!(self.poll_peek(cx, &mut ReadBuf::new(&mut next))) {
            Ok(0) => Poll::Ready(()),
            // Whoever reads learns what there is, or what is wrong.
            Ok(_) | Err(_) => Poll::Pending,
        }
    }
}

/// The stream of a connection.
pub struct ClientIo<S> {
    stream: S,
    patience: Patience,
    sending_side: SendingSide,
    /// Set while something is to be sent and the client takes nothing.
    stalled: Option<Pin<Box<Sleep>>>,
    /// Set once the client has closed its sending side while an answer was due.
    quiet: Option<Pin<Box<Sleep>>>,
}

impl<S: Ends> ClientIo<S> {
    pub fn new(stream: S, patience: Patience, sending_side: SendingSide) -> Self {
        Self { stream, patience, sending_side, stalled: None, quiet: None }
    }

    pub fn into_inner(self) -> S {
        self.stream
    }

    /// Watches over a write that was tried.
    fn tried<T>(&mut self, cx: &mut Context<'_>, tried: Poll<io::Result<T>>) -> Poll<io::Result<T>> {
        if tried.is_ready() {
            self.stalled = None;
            if let Some(quiet) = &mut self.quiet {
                quiet.as_mut().reset(Instant::now() + self.patience.half_closed);
            }
            return tried;
        }
        let until = Instant::now() + self.patience.write;
        let stalled = self.stalled.get_or_insert_with(|| Box::pin(sleep_until(until)));
        ready!(stalled.as_mut().poll(cx));
        tracing::debug!("a client took nothing for too long, its connection is cut");
        Poll::Ready(Err(io::ErrorKind::TimedOut.into()))
    }

    /// Whether nobody waits for an answer any more. Looked at whenever all that there was to send is sent.
    fn poll_gone(&mut self, cx: &mut Context<'_>) -> Poll<()> {
        if self.sending_side.0.tunnel.load(Ordering::Relaxed) {
            return Poll::Pending;
        }
        ready!(self.stream.poll_ended(cx));
        if self.sending_side.0.waiting.load(Ordering::Relaxed) == 0 {
            return Poll::Ready(());
        }
        let until = Instant::now() + self.patience.half_closed;
        self.quiet.get_or_insert_with(|| Box::pin(sleep_until(until))).as_mut().poll(cx)
    }
}

impl<S: AsyncRead + Unpin> AsyncRead for ClientIo<S> {
    fn poll_read(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_read(cx, buf)
    }
}

impl<S: AsyncWrite + Ends + Unpin> AsyncWrite for ClientIo<S> {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &[u8]) -> Poll<io::Result<usize>> {
        let tried = Pin::new(&mut self.stream).poll_write(cx, buf);
        self.tried(cx, tried)
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bufs: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        let tried = Pin::new(&mut self.stream).poll_write_vectored(cx, bufs);
        self.tried(cx, tried)
    }

    fn is_write_vectored(&self) -> bool {
        self.stream.is_write_vectored()
    }

    /// The HTTP library asks for this each time it is through with what it has to write.
    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        ready!(Pin::new(&mut self.stream).poll_flush(cx))?;
        match self.poll_gone(cx) {
            Poll::Ready(()) => Poll::Ready(Err(io::ErrorKind::ConnectionAborted.into())),
            Poll::Pending => Poll::Ready(Ok(())),
        }
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_shutdown(cx)
    }
}

#[cfg(test)]
mod tests {
    use futures_util::FutureExt;
    use tokio::io::{AsyncReadExt, AsyncWriteExt, DuplexStream, duplex};

    use super::*;

    const WRITE: Duration = Duration::from_secs(60);
    const HALF_CLOSED: Duration = Duration::from_secs(10);
    const SECOND: Duration = Duration::from_secs(1);

    /// Whose other end has closed its sending side.
    struct Ended(DuplexStream);

    /// Whose other end has not.
    struct Open(DuplexStream);

    impl Ends for Ended {
        fn poll_ended(&mut self, _: &mut Context<'_>) -> Poll<()> {
            Poll::Ready(())
        }
    }

    impl Ends for Open {
        fn poll_ended(&mut self, _: &mut Context<'_>) -> Poll<()> {
            Poll::Pending
        }
    }

    macro_rules! writes {
        ($($stream:ident),*) => {$(
            impl AsyncWrite for $stream {
                fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &[u8]) -> Poll<io::Result<usize>> {
                    Pin::new(&mut self.0).poll_write(cx, buf)
                }
                fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
                    Pin::new(&mut self.0).poll_flush(cx)
                }
                fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
                    Pin::new(&mut self.0).poll_shutdown(cx)
                }
            }
        )*};
    }

    writes!(Ended, Open);

    fn connection<S: Ends>(stream: fn(DuplexStream) -> S) -> (ClientIo<S>, DuplexStream, SendingSide) {
        let (ours, theirs) = duplex(64);
        let side = SendingSide::default();
        let patience = Patience { write: WRITE, half_closed: HALF_CLOSED };
        (ClientIo::new(stream(ours), patience, side.clone()), theirs, side)
    }

    #[tokio::test(start_paused = true)]
    async fn a_client_that_takes_nothing_is_cut_and_a_slow_one_is_not() {
        let (mut ours, mut theirs, _) = connection(Open);
        let sending = async {
            for _ in 0..10 {
                ours.write_all(&[0; 64]).await.unwrap();
            }
        };
        let taking = async {
            for _ in 0..9 {
                tokio::time::sleep(WRITE - SECOND).await;
                theirs.read_exact(&mut [0; 64]).await.unwrap();
            }
        };
        tokio::join!(sending, taking);
        let begun = Instant::now();
        assert_eq!(ours.write_all(&[0]).await.unwrap_err().kind(), io::ErrorKind::TimedOut);
        assert_eq!(begun.elapsed().as_secs(), WRITE.as_secs());
    }

    #[tokio::test(start_paused = true)]
    async fn who_has_sent_all_has_gone_unless_an_answer_is_due() {
        let (mut ours, _theirs, side) = connection(Ended);
        let waits = side.wait();
        assert!(ours.flush().now_or_never().unwrap().is_ok());
        drop(waits);
        assert!(ours.flush().now_or_never().unwrap().is_err());
        side.becomes_tunnel();
        assert!(ours.flush().now_or_never().unwrap().is_ok());
    }

    #[tokio::test(start_paused = true)]
    async fn an_answer_in_which_nothing_moves_is_for_nobody() {
        let (mut ours, mut theirs, side) = connection(Ended);
        let _waits = side.wait();
        ours.flush().await.unwrap();
        for _ in 0..10 {
            tokio::time::sleep(HALF_CLOSED - SECOND).await;
            ours.write_all(&[1]).await.unwrap();
            ours.flush().await.unwrap();
        }
        theirs.read_exact(&mut [0; 10]).await.unwrap();
        tokio::time::sleep(HALF_CLOSED + SECOND).await;
        assert_eq!(ours.flush().await.unwrap_err().kind(), io::ErrorKind::ConnectionAborted);
    }
}
