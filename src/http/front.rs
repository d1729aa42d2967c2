//! The door: by the host's name a request is for the API, or for a port of a sandbox. Nothing else is looked at before.

use std::net::SocketAddr;

use axum::{
    Router,
    body::Body,
    extract::{ConnectInfo, Request, State},
    response::{IntoResponse, Response},
};
use futures_util::{FutureExt, future::BoxFuture};
use http::{Extensions, Version, header};
use hyper::body::{Body as _, Incoming};
use tower::Service;

use super::{
    client_io::SendingSide,
    e2b,
    leftover::Leftover,
    proxy::{
        Repeatable,
        host::{self, Place},
    },
    request_log, tencent,
    v1::{PORT_ROUTE, is_port_path, proxy_port},
};
use crate::{app::App, domain::port::Port, error::Error, ids::InstanceId, lifecycle::Lifecycle};

/// The name under which requests to ports' own hosts are logged and counted.
const HOST_ROUTE: &str = "{port}-{instance}.{sandbox_domain}";

/// The whole server.
#[derive(Clone)]
pub struct Front {
    app: App,
    api: Router,
}

impl Front {
    #[must_use]
    pub fn new(app: &App) -> Self {
        Self { app: app.clone(), api: super::router(app) }
    }
}

/// What answers the requests of a listener.
pub trait Answer: Clone + Send + Sync + 'static {
    fn answer(self, request: Request) -> impl Future<Output = Response> + Send;

    /// As [`answer`](Self::answer), for a request that may take the [lane](super::lane).
    fn quick(&self, request: Request) -> Option<BoxFuture<'static, Response>>;
}

/// Who answers a request.
enum Room {
    Api,
    /// A port, below the API's own path.
    PortPath,
    Port(Port, InstanceId),
    E2b,
    /// The cloud's own API.
    Tencent,
    /// A sandbox, by the headers of E2B's SDKs.
    Sandbox,
    /// A sandbox, by its host, for E2B's SDKs.
    SandboxAt(Port, InstanceId),
    Nowhere(Error),
}

impl Room {
    fn of(app: &App, request: &Request) -> Self {
        match host::place(app, request) {
            Ok(Place::Api) if e2b::data::is_for_sandbox(request) => Self::Sandbox,
            Ok(Place::Api) if is_port_path(request.uri().path()) => Self::PortPath,
            Ok(Place::Api) if e2b::is_below_mount(request.uri().path()) => Self::E2b,
            Ok(Place::Api) if tencent::is_call(request) => Self::Tencent,
            Ok(Place::Api) => Self::Api,
            Ok(Place::E2b) => Self::E2b,
            Ok(Place::Port(port, instance)) if e2b::data::is_of_sdk(request, port) => Self::SandboxAt(port, instance),
            Ok(Place::Port(port, instance)) => Self::Port(port, instance),
            Err(error) => Self::Nowhere(error),
        }
    }
}

impl Answer for Front {
    async fn answer(self, request: Request) -> Response {
        let room = Room::of(&self.app, &request);
        self.answer_in(room, request).await
    }

    fn quick(&self, mut request: Request) -> Option<BoxFuture<'static, Response>> {
        let room = Room::of(&self.app, &request);
        let takes_lane = match room {
            Room::Port(..) => true,
            Room::PortPath => comes_from_no_page(&request),
            _ => false,
        };
        takes_lane.then(|| {
            Repeatable::mark(&self.app, &mut request);
            self.clone().answer_in(room, request).boxed()
        })
    }
}

/// What comes from no page needs none of the layers that are there for browsers.
fn comes_from_no_page(request: &Request) -> bool {
    !request.headers().contains_key(header::ORIGIN)
}

impl Front {
    async fn answer_in(self, room: Room, request: Request) -> Response {
        let Self { app, api } = self;
        let to_port = matches!(room, Room::PortPath | Room::Port(..));
        // Until the answer begins; whatever carries it says so itself.
        let _answer_due = request.extensions().get::<SendingSide>().filter(|_| to_port).map(SendingSide::wait);
        let around = app.clone();
        match room {
            Room::PortPath if comes_from_no_page(&request) => {
                let answer = |request| async move { proxy_port(State(app), request).await.into_response() };
                request_log::around(&around, request, PORT_ROUTE, answer).await
            }
            Room::Api | Room::PortPath => api.answer(request).await,
            Room::Tencent => tencent::answer(api, request).await,
            Room::E2b => e2b::answer(api, request).await,
            Room::Sandbox => {
                let answer = |request| async move { e2b::data::answer(&app, request).await };
                request_log::around(&around, request, e2b::data::ROUTE, answer).await
            }
            Room::SandboxAt(port, instance) => {
                let answer = |request| async move { e2b::data::answer_at(&app, port, instance, request).await };
                request_log::around(&around, request, HOST_ROUTE, answer).await
            }
            Room::Port(port, instance) => {
                let answer = |request| async move { host::answer(&app, port, instance, request).await };
                request_log::around(&around, request, HOST_ROUTE, answer).await
            }
            Room::Nowhere(error) => {
                let refuse = |_| async { error.into_response() };
                request_log::around(&around, request, HOST_ROUTE, refuse).await
            }
        }
    }
}

impl Answer for Router {
    async fn answer(mut self, request: Request) -> Response {
        match self.call(request).await {
            Ok(response) => response,
            Err(never) => match never {},
        }
    }

    fn quick(&self, _: Request) -> Option<BoxFuture<'static, Response>> {
        None
    }
}

/// Who is at the other end of a connection.
#[derive(Clone, Copy, Debug)]
pub struct Peer {
    pub address: SocketAddr,
    pub tls: bool,
}

/// The request came under TLS that ends here.
#[derive(Clone, Copy, Debug)]
pub struct UnderTls;

/// Notes of a request how it came.
pub fn announce(extensions: &mut Extensions, peer: Peer, side: &SendingSide) {
    extensions.insert(ConnectInfo(peer.address));
    extensions.insert(side.clone());
    if peer.tls {
        extensions.insert(UnderTls);
    }
}

/// A request with its peer's address, as extractors expect it, and its connection's sending side.
pub fn with_peer(
    mut request: http::Request<Incoming>,
    peer: Peer,
    side: &SendingSide,
    lifecycle: &Lifecycle,
) -> Request {
    announce(request.extensions_mut(), peer, side);
    // In HTTP/2 a stream ends by itself; and who waits to be asked for its body is not.
    let may_be_left = request.version() < Version::HTTP_2
        && !request.body().is_end_stream()
        && !request.headers().contains_key(header::EXPECT);
    if may_be_left {
        return request.map(|body| Body::new(Leftover::new(body, lifecycle)));
    }
    request.map(Body::new)
}
