//! The emulator as a whole: two listeners over one cloud.

use std::io;
use std::net::SocketAddr;
use std::path::Path;
use std::sync::Arc;

use bytes::{Bytes, BytesMut};
use http::{Request, StatusCode, header};
use http_body_util::BodyExt as _;
use hyper::body::Incoming;
use hyper::service::service_fn;
use hyper_util::rt::{TokioExecutor, TokioIo, TokioTimer};
use hyper_util::server::conn::auto;
use serde_json::json;
use tokio::net::{TcpListener, TcpStream};

use crate::admin;
use crate::body::{self, Answer, Broken};
use crate::control::Cloud;
use crate::control::front::{self, SignedCall};
use crate::e2b::{self, E2bCall};
use crate::edge::proxy::Proxy;
use crate::edge::route::{Route, route};
use crate::instance::{Launch, Launcher, LauncherSettings, remove_state};
use crate::settings::{Backing, Settings};
use crate::simulated::Simulated;

/// A running emulator. Dropping it leaves it running; call [`Emulator::shutdown`].
pub struct Emulator {
    cloud: Arc<Cloud>,
    address: SocketAddr,
    admin_address: SocketAddr,
}

impl Emulator {
    /// Binds both listeners and serves.
    ///
    /// # Errors
    /// A port is taken, the state directory cannot be used, or no instance can be started here.
    pub async fn start(settings: Settings) -> io::Result<Self> {
        let launcher = launcher(&settings).await?;
        Self::start_with(settings, launcher).await
    }

    /// As [`start`](Self::start), with instances of the caller's own making.
    ///
    /// # Errors
    /// A port is taken, or the state directory cannot be used.
    pub async fn start_with(settings: Settings, launcher: Arc<dyn Launch>) -> io::Result<Self> {
        let listener = bind(settings.listen).await?;
        let admin_listener = bind(settings.admin_listen).await?;
        let (address, admin_address) = (listener.local_addr()?, admin_listener.local_addr()?);
        let cloud = Cloud::open(settings, launcher)?;
        let proxy = Arc::new(Proxy::new(cloud.clone()));
        cloud.run(accept(cloud.clone(), proxy, listener));
        cloud.run(admin::serve(cloud.clone(), admin_listener));
        Ok(Self { cloud, address, admin_address })
    }

    /// Where control plane, E2B endpoint and data plane are served.
    pub fn url(&self) -> String {
        format!("http://{}", self.address)
    }

    /// The address behind [`url`](Self::url).
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// Where faults, clock and inspection are.
    pub fn admin_url(&self) -> String {
        format!("http://{}", self.admin_address)
    }

    /// The cloud itself, for tests in the same process.
    pub fn cloud(&self) -> &Arc<Cloud> {
        &self.cloud
    }

    /// Ends every instance and both listeners.
    pub async fn shutdown(self) {
        self.cloud.shutdown().await;
    }
}

async fn launcher(settings: &Settings) -> io::Result<Arc<dyn Launch>> {
    let daemon = match &settings.backing {
        Backing::Nothing => return Ok(Arc::new(Simulated)),
        Backing::Processes { daemon } => daemon.clone(),
    };
    let scratch_dir = settings.instances_dir();
    remove_leftovers(&scratch_dir)?;
    let launcher = Launcher::detect(LauncherSettings {
        executable: daemon.map_or_else(std::env::current_exe, Ok)?,
        scratch_dir,
        hidden: settings.hidden.iter().cloned().chain([settings.state_dir.clone()]).collect(),
        exposed: Vec::new(),
        isolation: None,
    });
    let launcher = launcher.await.map_err(|error| io::Error::other(format!("no instance can be started: {error}")))?;
    Ok(Arc::new(launcher))
}

/// A run that was killed leaves the files of its instances behind.
fn remove_leftovers(instances_dir: &Path) -> io::Result<()> {
    remove_state(instances_dir).map_err(|error| {
        let text = format!("cannot remove what a former run left in {}: {error}", instances_dir.display());
        io::Error::new(error.kind(), text)
    })
}

async fn bind(address: SocketAddr) -> io::Result<TcpListener> {
    TcpListener::bind(address)
        .await
        .map_err(|error| io::Error::new(error.kind(), format!("cannot listen on {address}: {error}")))
}

async fn accept(cloud: Arc<Cloud>, proxy: Arc<Proxy>, listener: TcpListener) {
    loop {
        let stream = match listener.accept().await {
            Ok((stream, _)) => stream,
            Err(error) => {
                // Out of descriptors, most likely: give others time to close theirs.
                tracing::warn!(%error, "accept failed");
                tokio::time::sleep(std::time::Duration::from_millis(50)).await;
                continue;
            }
        };
        if cloud.faults.refuses_connections() {
            // Closing with zero linger resets the connection, which is what a refusal looks like from outside.
            drop(stream.set_zero_linger());
            continue;
        }
        let connection = serve_connection(cloud.clone(), proxy.clone(), stream);
        cloud.run(connection);
    }
}

async fn serve_connection(cloud: Arc<Cloud>, proxy: Arc<Proxy>, stream: TcpStream) {
    if let Err(error) = stream.set_nodelay(true) {
        tracing::debug!(%error, "TCP_NODELAY");
    }
    let service = service_fn(move |request| answer(cloud.clone(), proxy.clone(), request));
    let mut server = auto::Builder::new(TokioExecutor::new());
    server.http1().timer(TokioTimer::new());
    server.http2().timer(TokioTimer::new());
    if let Err(error) = server.serve_connection_with_upgrades(TokioIo::new(stream), service).await {
        tracing::debug!(%error, "a connection ended early");
    }
}

async fn answer(cloud: Arc<Cloud>, proxy: Arc<Proxy>, request: Request<Incoming>) -> Answer {
    let host = host(&request);
    let uri = request.uri();
    match route(&host, request.headers(), uri.path(), &cloud.settings.domain) {
        Route::Data(target) => proxy.answer(target, host, request).await,
        Route::Control => {
            let (parts, incoming) = request.into_parts();
            let call = SignedCall::new(parts, host, collect(incoming, front::MAX_BODY).await);
            let task_cloud = cloud.clone();
            detached(&cloud, async move { task_cloud.answer_signed(call).await }).await
        }
        Route::E2b => {
            let (parts, incoming) = request.into_parts();
            let call = E2bCall {
                path: parts.uri.path().to_owned(),
                query: parts.uri.query().unwrap_or_default().to_owned(),
                method: parts.method,
                headers: parts.headers,
                body: collect(incoming, e2b::MAX_BODY).await,
            };
            let task_cloud = cloud.clone();
            detached(&cloud, async move { task_cloud.answer_e2b(&proxy, call).await }).await
        }
        Route::UnknownHost => Ok(refusal(StatusCode::NOT_FOUND, "this host name means nothing here")),
        Route::Bad(text) => Ok(refusal(StatusCode::BAD_REQUEST, text)),
    }
}

/// A mutation goes on when its caller hangs up.
async fn detached(cloud: &Cloud, answer: impl Future<Output = Answer> + Send + 'static) -> Answer {
    let (sender, receiver) = tokio::sync::oneshot::channel();
    cloud.run(async move {
        // Nobody to tell when the caller has gone.
        drop(sender.send(answer.await));
    });
    receiver.await.unwrap_or(Err(Broken::OnPurpose))
}

fn refusal(status: StatusCode, message: &str) -> http::Response<body::Body> {
    body::json(status, &json!({"code": status.as_u16(), "message": message}))
}

fn host(request: &Request<Incoming>) -> String {
    let header = request.headers().get(header::HOST).and_then(|value| value.to_str().ok());
    let authority = request.uri().authority().map(|authority| authority.as_str());
    header.or(authority).unwrap_or_default().to_owned()
}

/// The whole body; `None` when it breaks off or is larger than `limit`. What is beyond the limit is read and
/// thrown away, as a client that is still sending would not see the answer.
async fn collect(mut body: Incoming, limit: usize) -> Option<Bytes> {
    let mut collected = BytesMut::new();
    let mut fits = true;
    while let Some(frame) = body.frame().await {
        let Ok(data) = frame.ok()?.into_data() else { continue };
        fits = fits && collected.len() + data.len() <= limit;
        if fits {
            collected.extend_from_slice(&data);
        }
    }
    fits.then(|| collected.freeze())
}
