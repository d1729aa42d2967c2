//! A way between two sides that breaks.

use std::{
    net::SocketAddr,
    path::PathBuf,
    sync::{
        Arc, Mutex, MutexGuard,
        atomic::{AtomicU64, Ordering},
    },
};

use ags_gateway::lifecycle::Lifecycle;
use rand::{RngExt, SeedableRng, rngs::SmallRng};
use tokio::{
    io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt},
    net::{TcpListener, TcpStream, UnixStream, tcp::WriteHalf},
};

/// One connection in so many is left alone for this many bytes more than the others: whatever is sent gets through at last.
const SPARED: (u32, u64) = (10, 200_000);

/// Where connections lead.
#[derive(Clone, Debug)]
pub enum Target {
    Tcp(SocketAddr),
    /// A socket's path.
    Unix(PathBuf),
}

impl From<SocketAddr> for Target {
    fn from(address: SocketAddr) -> Self {
        Self::Tcp(address)
    }
}

/// Passes TCP connections on to one target and breaks each after a random number of bytes of what comes back, some with a
/// reset. It ends with the lifecycle.
#[derive(Clone)]
pub struct Cutter {
    address: SocketAddr,
    shared: Arc<Shared>,
}

struct Shared {
    target: Target,
    /// Bytes after which a connection breaks, at most; 0 for never.
    longest: AtomicU64,
    cuts: AtomicU64,
    random: Mutex<SmallRng>,
}

impl Cutter {
    /// It cuts nothing yet.
    pub async fn start(lifecycle: &Lifecycle, target: impl Into<Target>, seed: u64) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("a port");
        let address = listener.local_addr().expect("its address");
        let random = Mutex::new(SmallRng::seed_from_u64(seed));
        let target = target.into();
        let shared = Arc::new(Shared { target, longest: AtomicU64::new(0), cuts: AtomicU64::new(0), random });
        let cutter = Self { address, shared: Arc::clone(&shared) };
        let tasks = lifecycle.clone();
        lifecycle.spawn("test-cutter", async move {
            while let Some(Ok((client, _))) = tasks.draining().run_until_cancelled(listener.accept()).await {
                let (shared, draining) = (Arc::clone(&shared), tasks.draining());
                tasks.spawn("test-cutter", async move {
                    draining.run_until_cancelled(shared.pass(client)).await;
                });
            }
        });
        cutter
    }

    pub fn address(&self) -> SocketAddr {
        self.address
    }

    pub fn url(&self) -> String {
        format!("http://{}", self.address)
    }

    /// From now on every connection breaks after so many bytes at most; 0: none does.
    pub fn cut_within(&self, bytes: u64) {
        self.shared.longest.store(bytes, Ordering::Relaxed);
    }

    /// Connections that were cut.
    pub fn cuts(&self) -> u64 {
        self.shared.cuts.load(Ordering::Relaxed)
    }
}

impl Shared {
    async fn pass(&self, client: TcpStream) {
        match &self.target {
            Target::Tcp(address) => {
                let Ok(server) = TcpStream::connect(address).await else { return };
                let _set = server.set_nodelay(true);
                if let Some(server) = self.pass_to(client, server).await {
                    let _set = server.set_zero_linger();
                }
            }
            Target::Unix(path) => {
                let Ok(server) = UnixStream::connect(path).await else { return };
                self.pass_to(client, server).await;
            }
        }
    }

    /// The server's side, when it shall be reset as the client's was.
    async fn pass_to<S: AsyncRead + AsyncWrite + Unpin>(&self, mut client: TcpStream, mut server: S) -> Option<S> {
        let _set = client.set_nodelay(true);
        let cut = {
            let (mut from_client, mut to_client) = client.split();
            let (mut from_server, mut to_server) = tokio::io::split(&mut server);
            tokio::select! {
                _ = tokio::io::copy(&mut from_client, &mut to_server) => false,
                cut = self.copy_until_cut(&mut from_server, &mut to_client) => cut,
            }
        };
        if !cut {
            return None;
        }
        self.cuts.fetch_add(1, Ordering::Relaxed);
        let reset: bool = self.random().random();
        if !reset {
            return None;
        }
        let _set = client.set_zero_linger();
        Some(server)
    }

    fn random(&self) -> MutexGuard<'_, SmallRng> {
        self.random.lock().expect("no panic under the lock")
    }

    /// How much more a connection lives to see, if it is to be cut.
    fn lifetime(&self) -> Option<u64> {
        let longest = self.longest.load(Ordering::Relaxed);
        let mut random = self.random();
        let spared = if random.random_ratio(1, SPARED.0) { SPARED.1 } else { 0 };
        (longest > 0).then(|| random.random_range(0..longest) + spared)
    }

    async fn copy_until_cut(&self, from: &mut (impl AsyncRead + Unpin), to: &mut WriteHalf<'_>) -> bool {
        let (mut buffer, mut left) = (vec![0; 16 << 10], None);
        while let Ok(read @ 1..) = from.read(&mut buffer).await {
            left = left.filter(|_| self.longest.load(Ordering::Relaxed) > 0).or_else(|| self.lifetime());
            let passed = left.map_or(read, |left: u64| read.min(usize::try_from(left).unwrap_or(usize::MAX)));
            if to.write_all(&buffer[..passed]).await.is_err() {
                return false;
            }
            if passed < read {
                return true;
            }
            left = left.map(|left| left - passed as u64);
        }
        false
    }
}
