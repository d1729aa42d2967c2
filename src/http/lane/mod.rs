//! The lane for the simplest requests: HTTP/1.1, `GET` or `HEAD`, nothing after the head, and nothing in it that concerns
//! the connection. What polls a server in a sandbox is of that kind, and waits for each answer before it asks again.
//!
//! Such a request needs no machine beside the one that answers it: it is read, answered and written in one go. Whatever else
//! comes, a second request of another kind as well, leads the whole connection over to the HTTP library, from the first byte
//! that was not answered on. Nothing is decided here but framing: who may pass, and what passes, is said by whoever answers.

mod again;
pub mod answer;
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

pub use self::again::{Again, Remembered, Way, Wires};
use self::{again::Last, answer::Manner};
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
        let (mut buffer, mut wires, mut last) = (BytesMut::new(), Wires::default(), None);
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
            let answered = match self.again(stream, &last, &buffer, &mut wires).await {
                Some(answered) => answered?,
                None => match self.anew(stream, &mut last, &buffer, &mut wires).await? {
                    Some(answered) => answered,
                    None => return Ok(Left::Over(buffer.freeze())),
                },
            };
            buffer.advance(answered.length);
            if answered.last {
                return Ok(Left::Closed);
            }
        }
    }

    /// Answers the request at the beginning of `buffer` if it repeats the last one.
    async fn again<S: AsyncWrite + Unpin>(
        &self,
        stream: &mut S,
        last: &Option<Last>,
        buffer: &[u8],
        wires: &mut Wires,
    ) -> Option<io::Result<Answered>> {
        let (way, target, length) = last.as_ref()?.repeated(buffer)?;
        let manner = self.manner(false);
        let again = match while_there(stream, way.again(target, manner, wires)?).await {
            Ok(again) => again,
            Err(gone) => return Some(Err(gone)),
        };
        let out = &mut wires.answer;
        let written = match again {
            Again::Whole => answer::send(stream, out).await,
            Again::Begun(body, framing) => answer::write_body(stream, body, framing, out).await,
            Again::Response(response) => answer::write(stream, response, manner, out).await,
        };
        Some(written.map(|()| Answered { length, last: manner.last }))
    }

    /// Answers the request at the beginning of `buffer`; `None` when that is for the HTTP library to do.
    async fn anew<S: AsyncWrite + Unpin>(
        &self,
        stream: &mut S,
        last: &mut Option<Last>,
        buffer: &[u8],
        wires: &mut Wires,
    ) -> io::Result<Option<Answered>> {
        let Some((mut request, length)) = head::read(buffer) else { return Ok(None) };
        announce(request.extensions_mut(), self.peer, self.side);
        let only_head = *request.method() == Method::HEAD;
        let Some(answered) = self.answer.quick(request) else { return Ok(None) };
        let mut response = while_there(stream, answered).await?;
        *last = response.extensions_mut().remove().and_then(|remembered| Last::of(&buffer[..length], remembered));
        let manner = self.manner(only_head);
        answer::write(stream, response, manner, &mut wires.answer).await?;
        Ok(Some(Answered { length, last: manner.last }))
    }

    fn manner(&self, only_head: bool) -> Manner<'_> {
        Manner { only_head, last: self.draining.is_cancelled(), clock: self.clock }
    }
}

/// A request that was answered.
struct Answered {
    /// Of its head.
    length: usize,
    /// No other is answered on the connection.
    last: bool,
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
