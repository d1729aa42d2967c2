//! The data plane as E2B's SDKs reach it (PROTOCOLS F.9, D.11): at the gateway's own address with the sandbox and its port in
//! headers, which decide; at the port's own host; and by signed addresses of files.

mod env;
mod signature;

use std::sync::Arc;

use axum::{
    extract::Request,
    response::{IntoResponse, Response},
};
use http::{HeaderMap, HeaderName, Method, Uri, header, uri::PathAndQuery};

use self::signature::Signed;
use super::errors;
use crate::{
    app::{
        App,
        ports::{self, ENVD_PORT, Visitor},
    },
    auth::{self, API_KEY_HEADER, Caller, Recognised},
    domain::port::Port,
    error::{Code, Error, Result},
    http::proxy::{self, Call, Plane, host::is_own_path},
    ids::InstanceId,
    telemetry::request::RequestLog,
};

const SANDBOX_ID: HeaderName = HeaderName::from_static("e2b-sandbox-id");
const SANDBOX_PORT: HeaderName = HeaderName::from_static("e2b-sandbox-port");
/// Where envd has its files.
const FILES: &str = "/files";
/// What envd says to a request that it does not know the sender of.
const UNAUTHORIZED: &str = "unauthorized access, please provide a valid access token or method signing if supported";

/// The name under which requests with these headers are logged and counted.
pub const ROUTE: &str = "e2b-sandbox-id";

/// Whether a request to the gateway's own address is for a sandbox. Some versions of SDKs send its headers to the control
/// plane as well: below the mount they mean nothing.
#[must_use]
pub fn is_for_sandbox(request: &Request) -> bool {
    if super::is_below_mount(request.uri().path()) {
        return false;
    }
    let (headers, path) = (request.headers(), request.uri().path());
    headers.contains_key(SANDBOX_ID)
        || headers.contains_key(SANDBOX_PORT)
        || path == FILES
        || (!is_own_path(path) && auth::presents_pass(headers))
}

/// Whether a request to a port's own host comes from an SDK, and is answered as SDKs expect.
#[must_use]
pub fn is_of_sdk(request: &Request, port: Port) -> bool {
    let headers = request.headers();
    headers.contains_key(SANDBOX_ID)
        || auth::presents_pass(headers)
        || (port.get() == ENVD_PORT && Signed::stands_in(request.uri()))
}

/// Answers a request to the gateway's own address.
pub async fn answer(app: &App, request: Request) -> Response {
    let place = match Place::of(request.headers()) {
        Ok(place) => place,
        Err(error) => return errors::of_sandbox(error, None, None),
    };
    // What sandboxes serve is made harmless: this is the API's own origin.
    let plane = Plane::Path { prefix: String::new() };
    carried(app, place, plane, request).await
}

/// Answers a request to a port's own host.
pub async fn answer_at(app: &App, port: Port, instance: InstanceId, request: Request) -> Response {
    carried(app, Place { instance: Some(instance), port }, Plane::Host, request).await
}

/// Whether a request comes from a client of the cloud's own kind: it asks a server of the user's with a token alone. Such
/// clients know a sandbox that is over by 404, E2B's by 502.
fn is_of_the_cloud(request: &Request, port: Port) -> bool {
    let own = matches!(port.get(), ENVD_PORT | envd_client::CODE_PORT);
    !own && auth::presents_access(request.headers()) && !request.headers().contains_key(SANDBOX_ID)
}

async fn carried(app: &App, place: Place, plane: Plane, request: Request) -> Response {
    let (named, port) = (place.instance.clone(), place.port);
    let of_the_cloud = is_of_the_cloud(&request, port);
    let outcome = handle(app, place, plane, request).await;
    if let Err(error) = &outcome
        && of_the_cloud
        && error.is_over()
    {
        return Error::new(Code::NotFound, error.detail().to_owned()).into_response();
    }
    outcome.unwrap_or_else(|error| errors::of_sandbox(error, named.as_ref(), Some(port.get())))
}

/// What a request is for.
struct Place {
    /// `None`: to be found out from its credential.
    instance: Option<InstanceId>,
    port: Port,
}

impl Place {
    /// # Errors
    /// `invalid_request` for headers that say half of it; `not_found` for a sandbox that cannot be.
    fn of(headers: &HeaderMap) -> Result<Self> {
        let text = |name: &HeaderName| headers.get(name).map(|value| value.to_str().unwrap_or_default());
        let bad = |detail: String| Error::new(Code::InvalidRequest, detail);
        let instance = match text(&SANDBOX_ID) {
            // An id that was not made here is that of a sandbox that is not here.
            Some(id) => Some(id.parse().map_err(|_| Error::not_found("sandbox"))?),
            None => None,
        };
        let port = match (text(&SANDBOX_PORT), &instance) {
            (Some(port), _) => port.parse().map_err(|error| bad(format!("{SANDBOX_PORT}: {error}")))?,
            (None, Some(_)) => return Err(bad(format!("missing header {SANDBOX_PORT}"))),
            (None, None) => envd(),
        };
        Ok(Self { instance, port })
    }
}

fn envd() -> Port {
    Port::new(ENVD_PORT).expect("a constant port")
}

/// A request whose sender is known.
struct Admitted {
    caller: Arc<Caller>,
    instance: InstanceId,
    /// The header of a key; passes are taken out wherever they stand.
    credential: Option<HeaderName>,
    target: PathAndQuery,
}

async fn handle(app: &App, place: Place, plane: Plane, mut request: Request) -> Result<Response> {
    let port = place.port;
    let Admitted { caller, instance, credential, target } =
        admit(app, place, request.method(), request.uri(), request.headers()).await?;
    if let Some(log) = request.extensions().get::<RequestLog>() {
        log.note(caller.team_id(), &caller.key_id);
    }
    let headers = request.headers_mut();
    auth::remove_passes(headers);
    headers.remove(SANDBOX_ID);
    headers.remove(SANDBOX_PORT);
    if env::may_concern(port, &request) {
        let believed = ports::believed(app, &caller, &instance).await?;
        request = env::added(app, port, &believed.instance.env, request).await?;
    }
    let visitor = Visitor::Key(caller);
    // SDKs do not; and a run of code ends when its client has gone.
    let call = Call { plane, instance, port, visitor, credential, believed_until: None, target, may_half_close: false };
    proxy::pass(app, call, request).await
}

async fn admit(app: &App, place: Place, method: &Method, uri: &Uri, headers: &HeaderMap) -> Result<Admitted> {
    let target = uri.path_and_query().cloned().unwrap_or(PathAndQuery::from_static("/"));
    if let Some((caller, instance)) = app.auth.passes.recognise(headers).await? {
        if place.instance.as_ref().is_some_and(|named| *named != instance) {
            return Err(unauthorized("The token is another sandbox's."));
        }
        return Ok(Admitted { caller, instance, credential: None, target });
    }
    let files = place.port.get() == ENVD_PORT && uri.path() == FILES;
    if files && !presents_key(headers) {
        let signed = Signed::read(method, uri)?;
        let (caller, instance) = signed.sender(app, place.instance.as_ref()).await?;
        return Ok(Admitted { caller, instance, credential: None, target: signed.target()? });
    }
    let instance =
        place.instance.ok_or_else(|| Error::new(Code::InvalidRequest, format!("missing header {SANDBOX_ID}")))?;
    let recognised = app.auth.recognise(headers).await;
    let Recognised { caller, header, .. } = recognised.map_err(|_| unauthorized(UNAUTHORIZED))?;
    Ok(Admitted { caller, instance, credential: Some(header), target })
}

fn presents_key(headers: &HeaderMap) -> bool {
    (headers.contains_key(header::AUTHORIZATION) || headers.contains_key(API_KEY_HEADER)) && auth::presents_key(headers)
}

fn unauthorized(message: &str) -> Error {
    Error::new(Code::Unauthenticated, message)
}
