//! Connections for requests without a body, read and written by the task that asks.
//!
//! The pooled client gives every connection a task of its own, so that a small answer wakes two tasks and passes two channels.
//! A request that sends nothing after its head has no use for that: whoever waits for its answer can just as well read it.
//! Heads are parsed by httparse; what frames a body is in `framing.rs` (RFC 9112).

use std::collections::HashMap;
use std::pin::Pin;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, Weak};
use std::task::{Context, Poll, Waker, ready};
use std::time::Duration;
use std::{fmt, io};

use bytes::{Bytes, BytesMut};
use http::uri::{Authority, Parts, Scheme};
use http::{HeaderMap, Method, Response, Uri};
use http_body::{Body as HttpBody, Frame, SizeHint};
use hyper::rt::Executor;
use hyper_rustls::MaybeHttpsStream;
use hyper_util::rt::{TokioExecutor, TokioIo};
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWriteExt, ReadBuf};
use tokio::net::TcpStream;
use tokio::time::Instant;
use tower::{Service, ServiceExt};

use crate::connector::Connector;
use crate::error::{EnvdError, EnvdErrorKind};
use crate::framing::{Framing, Head, LONGEST_HEAD, Malformed, read_head};

/// Read at once: at first, and of an answer that goes on.
const FIRST_READ: usize = 4 << 10;
const LONGEST_READ: usize = 256 << 10;

/// A connection, and what was read of it beyond what was taken.
struct Link {
    stream: TokioIo<MaybeHttpsStream<TokioIo<TcpStream>>>,
    buffer: BytesMut,
}

impl Link {
    /// Whether it can be asked again: nothing was said out of turn, and it still stands.
    fn is_free(&mut self) -> bool {
        let mut next = [0];
        let mut context = Context::from_waker(Waker::noop());
        self.buffer.is_empty()
            && Pin::new(&mut self.stream).poll_read(&mut context, &mut ReadBuf::new(&mut next)).is_pending()
    }
}

/// A connection that nobody uses.
struct Idle {
    link: Box<Link>,
    since: Instant,
}

/// What is idle, by the host that it leads to.
struct Shelf {
    idle: Mutex<HashMap<String, Vec<Idle>>>,
    timeout: Duration,
    most: usize,
}

impl Shelf {
    fn idle(&self) -> MutexGuard<'_, HashMap<String, Vec<Idle>>> {
        self.idle.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// One that still stands.
    fn take(&self, authority: &Authority) -> Option<Box<Link>> {
        loop {
            let Idle { mut link, since } = self.idle().get_mut(authority.as_str())?.pop()?;
            if since.elapsed() < self.timeout && link.is_free() {
                return Some(link);
            }
        }
    }

    fn put(self: &Arc<Self>, authority: &Authority, link: Box<Link>) {
        let mut idle = self.idle();
        let (first, kept) = (idle.is_empty(), Idle { link, since: Instant::now() });
        match idle.get_mut(authority.as_str()) {
            Some(links) if links.len() < self.most => links.push(kept),
            Some(_) => {}
            None => {
                idle.insert(authority.to_string(), vec![kept]);
            }
        }
        drop(idle);
        if first {
            TokioExecutor::new().execute(clear(Arc::downgrade(self), self.timeout));
        }
    }

    /// Whether anything is left.
    fn drop_old(&self) -> bool {
        let mut idle = self.idle();
        idle.retain(|_, links| {
            links.retain(|idle| idle.since.elapsed() < self.timeout);
            !links.is_empty()
        });
        !idle.is_empty()
    }
}

/// Closes what was idle for too long, until nothing is.
async fn clear(shelf: Weak<Shelf>, every: Duration) {
    loop {
        tokio::time::sleep(every).await;
        let Some(shelf) = shelf.upgrade() else { return };
        if !shelf.drop_old() {
            return;
        }
    }
}

/// The connections of one transport.
pub(crate) struct Kept {
    connector: Connector,
    shelf: Arc<Shelf>,
}

/// A request that has no body.
#[derive(Clone, Debug)]
pub struct Bodiless {
    pub method: Method,
    /// Path and query, in origin form.
    pub target: Uri,
    /// Without `Host`.
    pub headers: HeaderMap,
}

impl Kept {
    pub(crate) fn new(connector: Connector, timeout: Duration, most: usize) -> Self {
        Self { connector, shelf: Arc::new(Shelf { idle: Mutex::default(), timeout, most }) }
    }

    pub(crate) async fn request(
        &self,
        scheme: &Scheme,
        authority: Authority,
        request: &Bodiless,
    ) -> Result<Response<Fetched>, EnvdError> {
        let wire = written(&authority, request);
        while let Some(mut link) = self.shelf.take(&authority) {
            match ask(&mut link, &wire, &request.method).await {
                Ok(head) => return Ok(self.fetched(authority, link, head)),
                // The server closed it as it was taken (RFC 9112, 9.3.1): another connection may take what changes nothing.
                Err(error) if error.is_unheard() && request.method.is_safe() => {}
                Err(error) => return Err(broken(error)),
            }
        }
        let mut link = Box::pin(self.connect(scheme, &authority)).await?;
        match ask(&mut link, &wire, &request.method).await {
            Ok(head) => Ok(self.fetched(authority, link, head)),
            Err(error) => Err(broken(error)),
        }
    }

    async fn connect(&self, scheme: &Scheme, authority: &Authority) -> Result<Box<Link>, EnvdError> {
        let mut target = Parts::default();
        target.scheme = Some(scheme.clone());
        target.authority = Some(authority.clone());
        target.path_and_query = Some(http::uri::PathAndQuery::from_static("/"));
        let target = Uri::from_parts(target).map_err(|e| EnvdError::invalid("not a host").with_source(e))?;
        let mut connector = self.connector.clone();
        let stream = async { connector.ready().await?.call(target).await }.await;
        let stream =
            stream.map_err(|e| EnvdError::local(EnvdErrorKind::Unavailable, "no connection").with_source(e))?;
        Ok(Box::new(Link { stream: TokioIo::new(stream), buffer: BytesMut::new() }))
    }

    fn fetched(&self, authority: Authority, link: Box<Link>, head: Head) -> Response<Fetched> {
        let Head { response, framing, reusable } = head;
        let home = reusable.then(|| (authority, Arc::clone(&self.shelf)));
        let mut fetched = Fetched { link: Some(link), framing, read: FIRST_READ, home };
        if fetched.framing.is_done() {
            fetched.let_go();
        }
        response.map(|()| fetched)
    }
}

/// A request's head as it is sent.
fn written(authority: &Authority, request: &Bodiless) -> Vec<u8> {
    let mut wire = Vec::with_capacity(1024);
    for part in
        [request.method.as_str(), " ", target(&request.target), " HTTP/1.1\r\nhost: ", authority.as_str(), "\r\n"]
    {
        wire.extend_from_slice(part.as_bytes());
    }
    for (name, value) in &request.headers {
        if name != http::header::HOST {
            for part in [name.as_str().as_bytes(), b": ", value.as_bytes(), b"\r\n"] {
                wire.extend_from_slice(part);
            }
        }
    }
    wire.extend_from_slice(b"\r\n");
    wire
}

fn target(uri: &Uri) -> &str {
    uri.path_and_query().map_or("/", http::uri::PathAndQuery::as_str)
}

/// Why there is no answer.
#[derive(Debug, thiserror::Error)]
enum Unanswered {
    #[error("the connection was closed before a byte of the answer")]
    Unheard(#[source] Option<io::Error>),
    #[error("the answer's head broke off")]
    BrokenOff(#[source] Option<io::Error>),
    #[error(transparent)]
    Malformed(#[from] Malformed),
}

impl Unanswered {
    fn is_unheard(&self) -> bool {
        matches!(self, Self::Unheard(_))
    }
}

/// Sends a request and waits for the head of its answer.
async fn ask(link: &mut Link, wire: &[u8], method: &Method) -> Result<Head, Unanswered> {
    link.stream.write_all(wire).await.map_err(|error| Unanswered::Unheard(Some(error)))?;
    loop {
        if !link.buffer.is_empty() {
            if let Some(head) = read_head(&mut link.buffer, method)? {
                return Ok(head);
            }
            if link.buffer.len() > LONGEST_HEAD {
                return Err(Malformed::Long.into());
            }
        }
        link.buffer.reserve(FIRST_READ);
        let read = link.stream.read_buf(&mut link.buffer).await;
        let heard = !link.buffer.is_empty();
        match read {
            Ok(1..) => {}
            ended if heard => return Err(Unanswered::BrokenOff(ended.err())),
            ended => return Err(Unanswered::Unheard(ended.err())),
        }
    }
}

fn broken(error: Unanswered) -> EnvdError {
    EnvdError::local(EnvdErrorKind::Unavailable, "the connection broke").with_unknown_outcome().with_source(error)
}

/// An answer's body broke off, or is none.
#[derive(Debug, thiserror::Error)]
pub enum FetchError {
    #[error("the connection broke")]
    Broken(#[source] io::Error),
    #[error("the connection was closed before the body's end")]
    Short,
    #[error("the body's framing is broken")]
    Malformed,
}

impl From<Malformed> for FetchError {
    fn from(_: Malformed) -> Self {
        Self::Malformed
    }
}

/// The body of an answer. Read to its end it leaves its connection to others; dropped before, it closes it.
pub struct Fetched {
    /// `None` once all was read, or the connection broke.
    link: Option<Box<Link>>,
    framing: Framing,
    /// How much is read at once.
    read: usize,
    /// Where the connection goes when all was read.
    home: Option<(Authority, Arc<Shelf>)>,
}

impl fmt::Debug for Fetched {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Fetched").field("framing", &self.framing).finish_non_exhaustive()
    }
}

impl Fetched {
    /// Leaves the connection to others: all was read.
    fn let_go(&mut self) {
        if let (Some(mut link), Some((authority, shelf))) = (self.link.take(), self.home.take())
            && link.buffer.is_empty()
        {
            // What a large body needed is not kept with an idle connection.
            if self.read > FIRST_READ {
                link.buffer = BytesMut::new();
            }
            shelf.put(&authority, link);
        }
    }

    /// Reads more; `false` at the connection's end.
    fn poll_more(&mut self, cx: &mut Context<'_>) -> Poll<Result<bool, FetchError>> {
        let Some(Link { stream, buffer }) = self.link.as_deref_mut() else { return Poll::Ready(Ok(false)) };
        buffer.reserve(self.read);
        let read = ready!(tokio_util::io::poll_read_buf(Pin::new(stream), cx, buffer)).map_err(FetchError::Broken)?;
        if read >= self.read {
            self.read = (self.read * 2).min(LONGEST_READ);
        }
        Poll::Ready(Ok(read > 0))
    }

    fn poll_next(&mut self, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, FetchError>>> {
        loop {
            if self.framing.is_done() {
                return Poll::Ready(None);
            }
            if let Some(link) = &mut self.link
                && let Some(frame) = self.framing.next(&mut link.buffer)?
            {
                return Poll::Ready(Some(Ok(frame)));
            }
            // The end of a body may come without a frame.
            if self.framing.is_done() {
                return Poll::Ready(None);
            }
            if !ready!(self.poll_more(cx))? {
                self.framing.end()?;
            }
        }
    }
}

impl HttpBody for Fetched {
    type Data = Bytes;
    type Error = FetchError;

    fn poll_frame(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, FetchError>>> {
        let polled = self.poll_next(cx);
        match &polled {
            Poll::Ready(Some(Err(_))) => (self.link, self.framing) = (None, Framing::Done),
            Poll::Ready(_) if self.framing.is_done() => self.let_go(),
            _ => {}
        }
        polled
    }

    fn is_end_stream(&self) -> bool {
        self.framing.is_done()
    }

    fn size_hint(&self) -> SizeHint {
        self.framing.left().map_or_else(SizeHint::default, SizeHint::with_exact)
    }
}
