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

use bytes::{Buf, Bytes, BytesMut};
use http::uri::{Authority, Parts, Scheme};
use http::{HeaderMap, Method, Response, Uri};
use http_body::{Body as HttpBody, Frame, SizeHint};
use hyper::rt::Executor;
use hyper_rustls::MaybeHttpsStream;
use hyper_util::rt::{TokioExecutor, TokioIo};
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWriteExt, ReadBuf};
use tokio::net::TcpStream;
use tokio::runtime::{self, Handle};
use tokio::time::Instant;
use tower::{Service, ServiceExt};

use crate::connector::Connector;
use crate::error::{EnvdError, EnvdErrorKind};
use crate::framing::{Framing, Head, LONGEST_HEAD, Malformed, RawHead, read_head};

/// Read at once: at first, and of an answer that goes on.
const FIRST_READ: usize = 4 << 10;
const LONGEST_READ: usize = 256 << 10;

/// A connection, and what was read of it beyond what was taken.
struct Link {
    stream: TokioIo<MaybeHttpsStream<TokioIo<TcpStream>>>,
    buffer: BytesMut,
    runtime: runtime::Id,
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

/// What is idle of the connections to one host. A connection is driven by the runtime that it was opened in, and left to others
/// there: elsewhere each of its bytes would wake two threads.
#[derive(Default)]
struct Host(Mutex<Vec<(runtime::Id, Vec<Idle>)>>);

impl Host {
    fn idle(&self) -> MutexGuard<'_, Vec<(runtime::Id, Vec<Idle>)>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// One that still stands.
    fn take(&self, timeout: Duration) -> Option<Box<Link>> {
        let here = Handle::current().id();
        loop {
            let mut idle = self.idle();
            let (_, links) = idle.iter_mut().find(|(runtime, _)| *runtime == here)?;
            let Idle { mut link, since } = links.pop()?;
            drop(idle);
            if since.elapsed() < timeout && link.is_free() {
                return Some(link);
            }
        }
    }

    fn put(&self, link: Box<Link>, most: usize) {
        let (home, kept) = (link.runtime, Idle { link, since: Instant::now() });
        let mut idle = self.idle();
        match idle.iter_mut().find(|(runtime, _)| *runtime == home) {
            Some((_, links)) if links.len() < most => links.push(kept),
            Some(_) => {}
            None => idle.push((home, vec![kept])),
        }
    }

    /// Whether anything is left.
    fn drop_old(&self, timeout: Duration) -> bool {
        let mut idle = self.idle();
        idle.retain_mut(|(_, links)| {
            links.retain(|idle| idle.since.elapsed() < timeout);
            !links.is_empty()
        });
        !idle.is_empty()
    }
}

/// What is idle, by the host that it leads to.
struct Shelf {
    hosts: Mutex<HashMap<String, Arc<Host>>>,
    timeout: Duration,
    most: usize,
}

impl Shelf {
    fn hosts(&self) -> MutexGuard<'_, HashMap<String, Arc<Host>>> {
        self.hosts.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// A host's place, for as long as somebody asks it or left a connection there.
    fn host(self: &Arc<Self>, authority: &Authority) -> Arc<Host> {
        let mut hosts = self.hosts();
        if let Some(host) = hosts.get(authority.as_str()) {
            return Arc::clone(host);
        }
        if hosts.is_empty() {
            TokioExecutor::new().execute(clear(Arc::downgrade(self), self.timeout));
        }
        Arc::clone(hosts.entry(authority.to_string()).or_default())
    }

    /// Whether anything is left.
    fn drop_old(&self) -> bool {
        let mut hosts = self.hosts();
        hosts.retain(|_, host| {
            // Looked at first: who uses it may leave a connection there before letting go.
            let used = Arc::strong_count(host) > 1;
            host.drop_old(self.timeout) || used
        });
        !hosts.is_empty()
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

/// A head that is written for many requests: all but the target, and the fields that tell them apart.
pub struct Stencil {
    authority: Authority,
    host: Arc<Host>,
    method: Method,
    /// Lines.
    fields: Vec<u8>,
}

impl fmt::Debug for Stencil {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        // The fields hold tokens.
        f.debug_struct("Stencil").field("authority", &self.authority).finish_non_exhaustive()
    }
}

impl Stencil {
    /// A `Host` among the headers does not count.
    fn new(authority: Authority, host: Arc<Host>, method: Method, headers: &HeaderMap) -> Self {
        let mut fields = Vec::with_capacity(512);
        line(&mut fields, "host", authority.as_str().as_bytes());
        for (name, value) in headers.iter().filter(|(name, _)| **name != http::header::HOST) {
            line(&mut fields, name.as_str(), value.as_bytes());
        }
        Self { authority, host, method, fields }
    }

    /// Adds the head of a request to `wire`. `target` is path and query in origin form, `own` names and values of what else it has.
    pub fn write<'a>(&self, target: &str, own: impl IntoIterator<Item = (&'a str, &'a str)>, wire: &mut Vec<u8>) {
        for part in [self.method.as_str(), " ", target, " HTTP/1.1\r\n"] {
            wire.extend_from_slice(part.as_bytes());
        }
        wire.extend_from_slice(&self.fields);
        for (name, value) in own {
            line(wire, name, value.as_bytes());
        }
        wire.extend_from_slice(b"\r\n");
    }
}

fn line(wire: &mut Vec<u8>, name: &str, value: &[u8]) {
    for part in [name.as_bytes(), b": ", value, b"\r\n"] {
        wire.extend_from_slice(part);
    }
}

impl Kept {
    pub(crate) fn new(connector: Connector, timeout: Duration, most: usize) -> Self {
        Self { connector, shelf: Arc::new(Shelf { hosts: Mutex::default(), timeout, most }) }
    }

    pub(crate) async fn request(
        &self,
        scheme: &Scheme,
        authority: Authority,
        request: &Bodiless,
    ) -> Result<Response<Fetched>, EnvdError> {
        let stencil = self.stencil(authority, request.method.clone(), &request.headers);
        let mut wire = Vec::with_capacity(1024);
        let target = request.target.path_and_query().map_or("/", http::uri::PathAndQuery::as_str);
        stencil.write(target, None, &mut wire);
        let (response, body) = self.exchange(scheme, &stencil, &wire, |head| head.response()).await?;
        let response = response.ok_or_else(|| broken(Malformed::Http.into()))?;
        Ok(response.map(|()| body))
    }

    pub(crate) fn stencil(&self, authority: Authority, method: Method, headers: &HeaderMap) -> Stencil {
        let host = self.shelf.host(&authority);
        Stencil::new(authority, host, method, headers)
    }

    /// Sends a head that `stencil` has written, and shows the answer's to `read`.
    pub(crate) async fn exchange<T>(
        &self,
        scheme: &Scheme,
        stencil: &Stencil,
        wire: &[u8],
        mut read: impl FnMut(&RawHead<'_>) -> T,
    ) -> Result<(T, Fetched), EnvdError> {
        let Stencil { authority, host, method, .. } = stencil;
        while let Some(mut link) = host.take(self.shelf.timeout) {
            match ask(&mut link, wire, method, &mut read).await {
                Ok(head) => return Ok(self.fetched(host, link, head)),
                // The server closed it as it was taken (RFC 9112, 9.3.1): another connection may take what changes nothing.
                Err(error) if error.is_unheard() && method.is_safe() => {}
                Err(error) => return Err(broken(error)),
            }
        }
        let mut link = Box::pin(self.connect(scheme, authority)).await?;
        match ask(&mut link, wire, method, &mut read).await {
            Ok(head) => Ok(self.fetched(host, link, head)),
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
        Ok(Box::new(Link { stream: TokioIo::new(stream), buffer: BytesMut::new(), runtime: Handle::current().id() }))
    }

    fn fetched<T>(&self, host: &Arc<Host>, link: Box<Link>, head: Head<T>) -> (T, Fetched) {
        let Head { read, framing, reusable } = head;
        let home = reusable.then(|| (Arc::clone(host), Arc::clone(&self.shelf)));
        let mut fetched = Fetched { link: Some(link), framing, read: FIRST_READ, home };
        if fetched.framing.is_done() {
            fetched.let_go();
        }
        (read, fetched)
    }
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
async fn ask<T>(
    link: &mut Link,
    wire: &[u8],
    method: &Method,
    read: &mut impl FnMut(&RawHead<'_>) -> T,
) -> Result<Head<T>, Unanswered> {
    link.stream.write_all(wire).await.map_err(|error| Unanswered::Unheard(Some(error)))?;
    loop {
        if !link.buffer.is_empty() {
            if let Some(head) = read_head(&mut link.buffer, method, &mut *read)? {
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
    home: Option<(Arc<Host>, Arc<Shelf>)>,
}

impl fmt::Debug for Fetched {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Fetched").field("framing", &self.framing).finish_non_exhaustive()
    }
}

impl Fetched {
    /// Leaves the connection to others: all was read.
    fn let_go(&mut self) {
        if let (Some(mut link), Some((host, shelf))) = (self.link.take(), self.home.take())
            && link.buffer.is_empty()
        {
            // What a large body needed is not kept with an idle connection.
            if self.read > FIRST_READ {
                link.buffer = BytesMut::new();
            }
            host.put(link, shelf.most);
        }
    }

    /// Adds the body to `out` if all of it is there already and its length was told; `false`, and nothing taken, otherwise.
    pub fn take_whole(&mut self, out: &mut Vec<u8>) -> bool {
        let Some(length) = self.framing.left().and_then(|left| usize::try_from(left).ok()) else { return false };
        if let Some(link) = self.link.as_deref_mut() {
            let Some(body) = link.buffer.get(..length) else { return false };
            out.extend_from_slice(body);
            link.buffer.advance(length);
        }
        self.framing = Framing::Done;
        self.let_go();
        true
    }

    /// Reads more; `false` at the connection's end.
    fn poll_more(&mut self, cx: &mut Context<'_>) -> Poll<Result<bool, FetchError>> {
        let Some(Link { stream, buffer, .. }) = self.link.as_deref_mut() else { return Poll::Ready(Ok(false)) };
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
