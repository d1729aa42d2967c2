//! The lane for the simplest requests: HTTP/1.1, `GET` or `HEAD`, nothing after the head, and nothing in it that concerns
//! the connection. What polls a server in a sandbox is of that kind, and waits for each answer before it asks again.
//!
//! Such a request needs no machine beside the one that answers it: it is read, answered and written in one go. Whatever else
//! comes, a second request of another kind as well, leads the whole connection over to the HTTP library, from the first byte
//! that was not answered on. Nothing is decided here but framing: who may pass, and what passes, is said by whoever answers.

mod answer;
mod head;

use std::{
    future::{Future, poll_fn},
    io,
    pin::{Pin, pin},
    task::Poll,
    time::Duration,
};

use bytes::{Buf, Bytes, BytesMut};
use http::Method;
use tokio::{
    io::{AsyncRead, AsyncReadExt, AsyncWrite},
    time::{Instant, sleep_until},
};
use tokio_util::sync::CancellationToken;

use self::answer::Manner;
use super::{
    client_io::SendingSide,
    front::{Answer, Peer, announce},
};
use crate::clock::Clock;

/// Read at once: most heads are smaller.
const READ: usize = 4 << 10;

/// What becomes of a connection after the lane.
pub enum Left {
    /// The HTTP library goes on with these bytes, and what follows.
    Over(Bytes),
    Closed,
}

/// What the lane knows of a connection.
pub struct Lane<'a, A> {
    pub answer: &'a A,
    pub peer: Peer,
    pub side: &'a SendingSide,
    /// How long a client may take to begin its next request.
    pub patience: Duration,
    pub draining: &'a CancellationToken,
    pub clock: &'a dyn Clock,
}

impl<A: Answer> Lane<'_, A> {
    /// Answers requests as long as they are of the simplest kind.
    ///
    /// # Errors
    /// When the client has gone, or an answer broke off: the connection is to be cut.
    pub async fn run<S: AsyncRead + AsyncWrite + Unpin>(&self, stream: &mut S) -> io::Result<Left> {
        let mut buffer = BytesMut::new();
        let mut out = Vec::new();
        let mut drained = pin!(self.draining.cancelled());
        let mut patience = pin!(sleep_until(Instant::now() + self.patience));
        loop {
            let until = Instant::now() + self.patience;
            while buffer.is_empty() {
                buffer.reserve(READ);
                tokio::select! {
                    biased;
                    read = stream.read_buf(&mut buffer) => if read? == 0 { return Ok(Left::Closed) },
                    () = drained.as_mut() => return Ok(Left::Closed),
                    // It is set anew when it is due, not for each request.
                    () = patience.as_mut() => {
                        if until <= Instant::now() { return Ok(Left::Closed) }
                        patience.as_mut().reset(until);
                    }
                }
            }
            let Some((mut request, length)) = head::read(&buffer) else { return Ok(Left::Over(buffer.freeze())) };
            announce(request.extensions_mut(), self.peer, self.side);
            let only_head = *request.method() == Method::HEAD;
            let Some(answered) = self.answer.quick(request) else { return Ok(Left::Over(buffer.freeze())) };
            buffer.advance(length);
            let response = while_there(stream, answered).await?;
            let last = self.draining.is_cancelled();
            let manner = Manner { only_head, last, clock: self.clock };
            answer::write(stream, response, manner, &mut out).await?;
            if last {
                return Ok(Left::Closed);
            }
        }
    }
}

/// Waits for `work` while the client is there: asked for a flush, its stream says when it has gone.
async fn while_there<T>(stream: &mut (impl AsyncWrite + Unpin), work: impl Future<Output = T>) -> io::Result<T> {
    let mut work = pin!(work);
    poll_fn(|cx| {
        if let Poll::Ready(done) = work.as_mut().poll(cx) {
            return Poll::Ready(Ok(done));
        }
        match Pin::new(&mut *stream).poll_flush(cx) {
            Poll::Ready(Err(gone)) => Poll::Ready(Err(gone)),
            _ => Poll::Pending,
        }
    })
    .await
}
