//! Opening a WebSocket: who may, from which page, and in which form.

pub mod traffic;

use std::sync::Arc;

use axum::{
    extract::{
        FromRequestParts, WebSocketUpgrade,
        ws::{WebSocket, rejection::WebSocketUpgradeRejection},
    },
    response::Response,
};
use futures_util::StreamExt;
use http::{HeaderMap, header, request::Parts};

use super::extract::{authenticate, noted};
use crate::{
    app::App,
    auth::Caller,
    domain::scope::Scope,
    error::{Code, Error, Result},
    http::v1::Framing,
    ids::{ExecId, InstanceId},
    telemetry::request::carrying,
};

/// Subprotocol: events as JSON text.
pub const TEXT: &str = "ags.exec.v1";
/// Subprotocol: output in binary frames, the rest as text.
pub const BINARY: &str = "ags.exec.v1.bin";
/// Subprotocol: changes of files as JSON text.
pub const FILES: &str = "ags.files.v1";
/// Why a socket is closed whose key was revoked.
pub const KEY_ENDED: &str = "the key was revoked or has expired";
const TICKET: &str = "ticket.";
const RESUME: &str = "resume.";

/// Bytes of a client's message at most.
const MAX_MESSAGE: usize = 1 << 20;
/// What each socket keeps for what comes next: most are silent, and those that are not send little.
const READ_BUFFER: usize = 4 << 10;

/// Why a socket is closed, as its number says.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum CloseCode {
    Done = 1000,
    /// Reconnect.
    Draining = 1001,
    NotAllowed = 1008,
    TooBig = 1009,
    Upstream = 1011,
    Gone = 4004,
    TooSlow = 4008,
    TooMany = 4029,
}

impl CloseCode {
    /// The code for what could not be begun.
    #[must_use]
    pub fn of(error: &Error) -> Self {
        match error.code() {
            _ if error.is_over() => Self::Gone,
            Code::QuotaExceeded | Code::RateLimited => Self::TooMany,
            Code::Unavailable => Self::Draining,
            code if code.status() >= 500 => Self::Upstream,
            _ => Self::NotAllowed,
        }
    }
}

/// Who opens a socket: by a key, or by a ticket or a resume token among the subprotocols. A page's origin must be a
/// configured one.
#[derive(Clone)]
pub struct Opened {
    caller: Arc<Caller>,
    /// The only command that the ticket is for.
    exec: Option<ExecId>,
    binary: bool,
}

impl FromRequestParts<App> for Opened {
    type Rejection = Error;

    async fn from_request_parts(parts: &mut Parts, app: &App) -> Result<Self> {
        // A ticket is good once, and may have been looked at on the way to another replica.
        if let Some(opened) = parts.extensions.get::<Self>() {
            return Ok(opened.clone());
        }
        check_origin(&parts.headers, app)?;
        let protocols = subprotocols(&parts.headers);
        let binary = protocols.iter().any(|name| name == BINARY);
        let find = |prefix: &str| protocols.iter().find_map(|name| name.strip_prefix(prefix));
        let redeemed = match (find(TICKET), find(RESUME)) {
            (Some(ticket), _) => app.tickets.redeem(ticket).await?,
            (None, Some(token)) => app.grants.redeem_resume(token).await?,
            (None, None) => return Ok(Self { caller: authenticate(parts, app).await?, exec: None, binary }),
        };
        Ok(Self { caller: noted(parts, Arc::new(redeemed.caller))?, exec: redeemed.exec, binary })
    }
}

/// Removes the credentials among the subprotocols of a request that goes on under another one.
pub fn drop_credentials(headers: &mut HeaderMap) {
    let kept: Vec<String> = subprotocols(headers)
        .into_iter()
        .filter(|name| !name.starts_with(TICKET) && !name.starts_with(RESUME))
        .collect();
    headers.remove(header::SEC_WEBSOCKET_PROTOCOL);
    if let Ok(value) = kept.join(", ").parse()
        && !kept.is_empty()
    {
        headers.insert(header::SEC_WEBSOCKET_PROTOCOL, value);
    }
}

impl Opened {
    /// The caller, if it has one of the scopes and its ticket is for this.
    ///
    /// # Errors
    /// `scope_missing`; `not_found` for another instance or command than the ticket's.
    pub fn caller(&self, instance: &InstanceId, exec: Option<&ExecId>, scopes: &[Scope]) -> Result<Arc<Caller>> {
        self.caller.require_any(scopes)?;
        match exec {
            Some(exec) => self.about(instance, exec),
            None if self.exec.is_some() => Err(Error::new(Code::ScopeMissing, "This ticket is for one command only.")),
            None => self.caller.require_instance(instance).map(|()| Arc::clone(&self.caller)),
        }
    }

    /// The caller, if its ticket is for this command.
    ///
    /// # Errors
    /// `not_found` for another instance or command than the ticket's.
    pub fn about(&self, instance: &InstanceId, exec: &ExecId) -> Result<Arc<Caller>> {
        self.caller.require_instance(instance)?;
        match &self.exec {
            Some(only) if only != exec => Err(Error::not_found("command")),
            _ => Ok(Arc::clone(&self.caller)),
        }
    }

    /// How events are sent.
    #[must_use]
    pub fn framing(&self) -> Framing {
        if self.binary { Framing::Binary } else { Framing::Messages }
    }
}

/// Whether a request wants to become a WebSocket.
#[must_use]
pub fn is_upgrade(headers: &HeaderMap) -> bool {
    let upgrade = headers.get(header::UPGRADE).and_then(|value| value.to_str().ok());
    upgrade.is_some_and(|value| value.split(',').any(|protocol| protocol.trim().eq_ignore_ascii_case("websocket")))
}

/// The upgrade, with the subprotocols that are spoken here.
///
/// # Errors
/// `invalid_request` for a request that is no valid upgrade.
pub fn accepted(
    upgrade: Result<WebSocketUpgrade, WebSocketUpgradeRejection>,
    protocols: &'static [&'static str],
) -> Result<WebSocketUpgrade> {
    let upgrade = upgrade.map_err(|error| {
        let detail = "This path is a WebSocket: send an upgrade request.";
        Error::new(Code::InvalidRequest, detail).with_source(error)
    })?;
    let protocols = protocols.iter().copied();
    Ok(upgrade
        .protocols(protocols)
        .max_message_size(MAX_MESSAGE)
        .max_frame_size(MAX_MESSAGE)
        .read_buffer_size(READ_BUFFER))
}

/// Refuses what is not there (any more): a page is told only by a socket's messages and its end, not by an answer.
///
/// # Errors
/// What else is refused, and what is no upgrade.
pub fn gone(
    upgrade: Result<WebSocketUpgrade, WebSocketUpgradeRejection>,
    protocols: &'static [&'static str],
    error: Error,
) -> Result<Response> {
    if !error.is_over() || upgrade.is_err() {
        return Err(error);
    }
    let refusing = carrying(move |socket: WebSocket| async move {
        let (mut down, mut up) = socket.split();
        let end = traffic::refuse(&mut down, &error).await;
        traffic::close(&mut down, &mut up, end).await;
    });
    Ok(accepted(upgrade, protocols)?.on_upgrade(refusing))
}

/// Browsers name the page's origin and cannot be kept from it; other programs send none.
fn check_origin(headers: &HeaderMap, app: &App) -> Result<()> {
    let Some(origin) = headers.get(header::ORIGIN) else { return Ok(()) };
    let origin = origin.to_str().unwrap_or_default();
    if app.config.server.websocket_origins.iter().any(|allowed| allowed.matches(origin)) {
        return Ok(());
    }
    let detail = "Pages of this origin may not open WebSockets here. Operators add it to server.websocket_origins.";
    Err(Error::new(Code::OriginNotAllowed, detail))
}

fn subprotocols(headers: &HeaderMap) -> Vec<String> {
    let lines = headers.get_all(header::SEC_WEBSOCKET_PROTOCOL).iter().filter_map(|value| value.to_str().ok());
    lines.flat_map(|line| line.split(',')).map(|name| name.trim().to_owned()).collect()
}
