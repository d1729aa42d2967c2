//! The lane for the simplest requests: HTTP/1.1, `GET` or `HEAD`, nothing after the head, and nothing in it that concerns
//! the connection. What polls a server in a sandbox is of that kind, and waits for each answer before it asks again.
//!
//! Such a request needs no machine beside the one that answers it: it is read, answered and written in one go. Whatever else
//! comes, a second request of another kind as well, leads the whole connection over to the HTTP library, from the first byte
//! that was not answered on. Nothing is decided here but framing: who may pass, and what passes, is said by whoever answers.
//!
//! A request that repeats the one before it but for the target is [answered](again) by what that one found out, and on a
//! [thread](threads) of its own kind.

mod again;
pub mod answer;
mod head;
mod threads;

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
    runtime::Handle,
    time::{Instant, sleep_until},
};
use tokio_util::{sync::CancellationToken, task::AbortOnDropHandle};

use self::{again::Last, answer::Manner};
pub use self::{
    again::{Again, Likely, OWN, Remembered, Repetition, Rest, Way, Wires},
    threads::Threads,
};
use super::{
    client_io::SendingSide,
    front::{Answer, Peer, announce},
};
use crate::{clock::Clock, lifecycle::Lifecycle};

/// Read at once: most heads are smaller.
const READ: usize = 4 << 10;

/// What becomes of a connection after the lane.
pub enum Left {
    /// The HTTP library goes on with these bytes, and what follows.
    Over(Bytes),
    Closed,
    /// A request repeats the one before it, and was not answered yet: what comes may be answered elsewhere.
    Repeats,
}

/// What was read of a connection, and what is remembered of it.
#[derive(Default)]
pub struct State {
    buffer: BytesMut,
    wires: Wires,
    last: Option<Last>,
}

/// Where the requests of a connection are answered.
#[derive(Clone, Copy)]
pub enum Seat<'a> {
    /// Here, to its end.
    Here,
    /// Here, as long as none repeats another.
    UntilRepeated,
    /// Here if they repeat another; else in this runtime, where what they need is driven.
    Apart(&'a Handle, &'a Lifecycle),
}

/// What the lane knows of a connection.
pub struct Lane<'a, A> {
    pub seat: Seat<'a>,
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
    pub async fn run<S: AsyncRead + AsyncWrite + Unpin>(&self, stream: &mut S, state: &mut State) -> io::Result<Left> {
        let State { buffer, wires, last } = state;
        let mut drained = pin!(self.draining.cancelled());
        let mut patience = pin!(sleep_until(Instant::now() + self.patience));
        loop {
            let until = Instant::now() + self.patience;
            while buffer.is_empty() {
                buffer.reserve(READ);
                tokio::select! {
                    biased;
                    read = stream.read_buf(buffer) => if read? == 0 { return Ok(Left::Closed) },
                    () = drained.as_mut() => return Ok(Left::Closed),
                    // It is set anew when it is due, not for each request.
                    () = patience.as_mut() => {
                        if until <= Instant::now() { return Ok(Left::Closed) }
                        patience.as_mut().reset(until);
                    }
                }
            }
            let repeated = last.as_ref().and_then(|last| last.repeated(buffer));
            let likely = repeated.is_some();
            let again = match repeated {
                Some((_, _, Some(_))) if matches!(self.seat, Seat::UntilRepeated) => return Ok(Left::Repeats),
                Some((asked, length, Some(way))) => self.again(stream, way, asked, length, wires).await?,
                _ => None,
            };
            let answered = match again {
                Some(answered) => answered,
                None => match self.anew(stream, last, likely, buffer, wires).await? {
                    Some(answered) => answered,
                    None => return Ok(Left::Over(buffer.split().freeze())),
                },
            };
            buffer.advance(answered.length);
            if answered.last {
                return Ok(Left::Closed);
            }
        }
    }

    /// Answers a request that repeats the last one; `None` when it is to be looked at like any other.
    async fn again<S: AsyncWrite + Unpin>(
        &self,
        stream: &mut S,
        way: &dyn Way,
        asked: Repetition<'_>,
        length: usize,
        wires: &mut Wires,
    ) -> io::Result<Option<Answered>> {
        let manner = self.manner(false);
        let Some(answered) = way.again(asked, manner, wires) else { return Ok(None) };
        let again = while_there(stream, answered).await?;
        let out = &mut wires.answer;
        let last = match again {
            Again::Begun { last, rest: Rest::Body(body, framing) } => {
                answer::write_body(stream, body, framing, manner, out).await?;
                last
            }
            Again::Begun { last, rest: Rest::Whole(held) } => {
                answer::finish(stream, held, manner, out).await?;
                last
            }
            Again::Response(response) => answer::write(stream, response, manner, out).await?,
        };
        Ok(Some(Answered { length, last }))
    }

    /// Answers the request at the beginning of `buffer`; `None` when that is for the HTTP library to do. `likely`: that it is
    /// repeated.
    async fn anew<S: AsyncWrite + Unpin>(
        &self,
        stream: &mut S,
        last: &mut Option<Last>,
        likely: bool,
        buffer: &[u8],
        wires: &mut Wires,
    ) -> io::Result<Option<Answered>> {
        let Some((mut request, length)) = head::read(buffer) else { return Ok(None) };
        announce(request.extensions_mut(), self.peer, self.side);
        if likely {
            request.extensions_mut().insert(Likely);
        }
        let only_head = *request.method() == Method::HEAD;
        let Some(answered) = self.answer.quick(request) else { return Ok(None) };
        let mut response = match self.seat {
            Seat::Apart(runtime, lifecycle) => {
                // Dropped with the client, like the answer itself.
                let answered = AbortOnDropHandle::new(lifecycle.spawn_on("request", answered, runtime));
                while_there(stream, answered).await?.map_err(io::Error::other)?
            }
            Seat::Here | Seat::UntilRepeated => while_there(stream, answered).await?,
        };
        *last = Last::of(&buffer[..length], response.extensions_mut().remove());
        let manner = self.manner(only_head);
        let last = answer::write(stream, response, manner, &mut wires.answer).await?;
        Ok(Some(Answered { length, last }))
    }

    fn manner(&self, only_head: bool) -> Manner<'_> {
        Manner { only_head, draining: self.draining, clock: self.clock, side: self.side }
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
