//! The control link between the emulator and the daemon of one instance: a pair of `SOCK_SEQPACKET`
//! sockets over which the emulator names a port and the daemon passes back a connected socket.

use std::collections::HashMap;
use std::io;
use std::os::fd::{AsFd, AsRawFd, OwnedFd};
use std::sync::Mutex;
use std::sync::atomic::{AtomicU32, Ordering};

use nix::sys::socket::{AddressFamily, SockFlag, SockType, socketpair};
use tokio::io::unix::AsyncFd;
use tokio::sync::oneshot;

use super::BoxIo;
use crate::sys::{self, receive_message, send_message};

/// Larger than any message; the text of [`Reply::Ready`] is the longest.
const MESSAGE_LIMIT: usize = 4096;

/// Wish of the emulator: connect me to this port.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Dial {
    pub id: u32,
    pub port: u16,
}

impl Dial {
    fn encode(self) -> [u8; 6] {
        let mut message = [0; 6];
        message[..4].copy_from_slice(&self.id.to_le_bytes());
        message[4..].copy_from_slice(&self.port.to_le_bytes());
        message
    }

    fn decode(message: &[u8]) -> Option<Self> {
        let message: [u8; 6] = message.try_into().ok()?;
        let [a, b, c, d, e, f] = message;
        Some(Self { id: u32::from_le_bytes([a, b, c, d]), port: u16::from_le_bytes([e, f]) })
    }
}

/// What the connected socket is, as the receiver must know to wrap it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Family {
    Tcp,
    Unix,
}

/// Answer of the daemon.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Reply {
    /// The daemon serves; the text says what isolation it got.
    Ready(String),
    /// The socket comes with the message.
    Connected(u32, Family),
    /// The `errno` of the failed connection.
    Failed(u32, i32),
}

impl Reply {
    fn encode(&self) -> Vec<u8> {
        match self {
            Self::Ready(text) => [&[0], text.as_bytes()].concat(),
            Self::Connected(id, Family::Tcp) => [&[1][..], &id.to_le_bytes()].concat(),
            Self::Connected(id, Family::Unix) => [&[2][..], &id.to_le_bytes()].concat(),
            Self::Failed(id, errno) => [&[3][..], &id.to_le_bytes(), &errno.to_le_bytes()].concat(),
        }
    }

    fn decode(message: &[u8]) -> Option<Self> {
        let (kind, rest) = message.split_first()?;
        if *kind == 0 {
            return Some(Self::Ready(String::from_utf8_lossy(rest).into_owned()));
        }
        let (id, rest) = rest.split_first_chunk::<4>()?;
        let id = u32::from_le_bytes(*id);
        match kind {
            1 => Some(Self::Connected(id, Family::Tcp)),
            2 => Some(Self::Connected(id, Family::Unix)),
            3 => Some(Self::Failed(id, i32::from_le_bytes(*rest.first_chunk::<4>()?))),
            _ => None,
        }
    }
}

/// A connected pair: one end for the emulator, one to be inherited by the daemon.
///
/// # Errors
/// The process is out of file descriptors.
pub fn pair() -> io::Result<(OwnedFd, OwnedFd)> {
    let flags = SockFlag::SOCK_CLOEXEC | SockFlag::SOCK_NONBLOCK;
    let pair = socketpair(AddressFamily::Unix, SockType::SeqPacket, None, flags)?;
    Ok(pair)
}

async fn send(socket: &AsyncFd<OwnedFd>, message: &[u8], fd: Option<&OwnedFd>) -> io::Result<()> {
    let fd = fd.map(AsRawFd::as_raw_fd);
    loop {
        let mut guard = socket.writable().await?;
        if let Ok(result) = guard.try_io(|socket| send_message(socket.as_fd(), message, fd)) {
            return result;
        }
    }
}

async fn receive(socket: &AsyncFd<OwnedFd>) -> io::Result<Option<(Vec<u8>, Option<OwnedFd>)>> {
    let mut buffer = vec![0; MESSAGE_LIMIT];
    loop {
        let mut guard = socket.readable().await?;
        if let Ok(result) = guard.try_io(|socket| receive_message(socket.as_fd(), &mut buffer)) {
            let (length, fd) = result?;
            buffer.truncate(length);
            return Ok((length > 0).then_some((buffer, fd)));
        }
    }
}

/// The emulator's end.
pub struct Link {
    socket: AsyncFd<OwnedFd>,
    next: AtomicU32,
    waiting: Mutex<HashMap<u32, oneshot::Sender<io::Result<BoxIo>>>>,
}

impl Link {
    /// Takes the end that [`pair`] made for the emulator. Needs a running runtime.
    ///
    /// # Errors
    /// The socket cannot be registered with the runtime.
    pub fn new(socket: OwnedFd) -> io::Result<Self> {
        Ok(Self { socket: sys::readiness_of(socket)?, next: AtomicU32::new(0), waiting: Mutex::default() })
    }

    /// Asks the daemon for a connection to a port inside.
    ///
    /// # Errors
    /// `ConnectionRefused` when nothing listens there, `BrokenPipe` when the daemon is gone.
    pub async fn dial(&self, port: u16) -> io::Result<BoxIo> {
        let id = self.next.fetch_add(1, Ordering::Relaxed);
        let (sender, receiver) = oneshot::channel();
        self.lock().insert(id, sender);
        let _forget = Forget { link: self, id };
        send(&self.socket, &Dial { id, port }.encode(), None).await?;
        receiver.await.unwrap_or_else(|_| Err(io::ErrorKind::BrokenPipe.into()))
    }

    /// Delivers the daemon's answers until it is gone; `ready` is called with the text of
    /// [`Reply::Ready`].
    pub async fn run(&self, mut ready: impl FnMut(String)) {
        while let Ok(Some((message, fd))) = receive(&self.socket).await {
            match Reply::decode(&message) {
                Some(Reply::Ready(text)) => ready(text),
                Some(Reply::Connected(id, family)) => {
                    let stream =
                        fd.ok_or_else(|| io::ErrorKind::InvalidData.into()).and_then(|fd| into_stream(fd, family));
                    self.answer(id, stream);
                }
                Some(Reply::Failed(id, errno)) => {
                    self.answer(id, Err(io::Error::from_raw_os_error(errno)));
                }
                None => tracing::warn!("a message of the daemon makes no sense"),
            }
        }
        self.lock().clear();
    }

    fn answer(&self, id: u32, stream: io::Result<BoxIo>) {
        if let Some(sender) = self.lock().remove(&id) {
            // The caller may have given up; its socket then closes here.
            drop(sender.send(stream));
        }
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, HashMap<u32, oneshot::Sender<io::Result<BoxIo>>>> {
        self.waiting.lock().unwrap_or_else(std::sync::PoisonError::into_inner)
    }
}

/// Removes a caller that gave up from the waiting list.
struct Forget<'a> {
    link: &'a Link,
    id: u32,
}

impl Drop for Forget<'_> {
    fn drop(&mut self) {
        self.link.lock().remove(&self.id);
    }
}

fn into_stream(fd: OwnedFd, family: Family) -> io::Result<BoxIo> {
    Ok(match family {
        Family::Tcp => {
            let stream = std::net::TcpStream::from(fd);
            stream.set_nonblocking(true)?;
            stream.set_nodelay(true)?;
            Box::new(tokio::net::TcpStream::from_std(stream)?)
        }
        Family::Unix => {
            let stream = std::os::unix::net::UnixStream::from(fd);
            stream.set_nonblocking(true)?;
            Box::new(tokio::net::UnixStream::from_std(stream)?)
        }
    })
}

/// The daemon's end.
pub struct DaemonLink {
    socket: AsyncFd<OwnedFd>,
}

impl DaemonLink {
    /// Takes the inherited end. Needs a running runtime.
    ///
    /// # Errors
    /// The socket cannot be registered with the runtime.
    pub fn new(socket: OwnedFd) -> io::Result<Self> {
        Ok(Self { socket: sys::readiness_of(socket)? })
    }

    /// The next wish; `None` when the emulator is gone.
    ///
    /// # Errors
    /// The socket failed.
    pub async fn next(&self) -> io::Result<Option<Dial>> {
        Ok(receive(&self.socket).await?.and_then(|(message, _)| Dial::decode(&message)))
    }

    /// Answers, with the socket for [`Reply::Connected`].
    ///
    /// # Errors
    /// The emulator is gone.
    pub async fn reply(&self, reply: &Reply, fd: Option<&OwnedFd>) -> io::Result<()> {
        send(&self.socket, &reply.encode(), fd).await
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn messages_survive_the_wire() {
        let dial = Dial { id: 7, port: 49983 };
        assert_eq!(Dial::decode(&dial.encode()), Some(dial));
        for reply in [
            Reply::Ready("overlay".into()),
            Reply::Connected(1, Family::Tcp),
            Reply::Connected(u32::MAX, Family::Unix),
            Reply::Failed(3, libc::ECONNREFUSED),
        ] {
            assert_eq!(Reply::decode(&reply.encode()), Some(reply));
        }
        assert_eq!(Reply::decode(&[3, 1, 0, 0, 0, 9]), None);
        assert_eq!(Dial::decode(&[1]), None);
    }
}
