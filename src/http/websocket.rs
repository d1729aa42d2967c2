//! Opening a WebSocket: who may, from which page, and in which form.

use std::sync::Arc;

use axum::extract::FromRequestParts;
use http::{HeaderMap, header, request::Parts};

use super::{extract::authenticate, request_log::RequestLog};
use crate::{
    app::App,
    auth::Caller,
    domain::scope::Scope,
    error::{Code, Error, Result},
    http::v1::Framing,
    ids::{ExecId, InstanceId},
};

/// Subprotocol: events as JSON text.
pub const TEXT: &str = "ags.exec.v1";
/// Subprotocol: output in binary frames, the rest as text.
pub const BINARY: &str = "ags.exec.v1.bin";
const TICKET: &str = "ticket.";

/// Who opens a socket: by a key, or by a ticket among the subprotocols. A page's origin must be a configured one.
pub struct Opened {
    caller: Arc<Caller>,
    /// The only command that the ticket is for.
    exec: Option<ExecId>,
    binary: bool,
}

impl FromRequestParts<App> for Opened {
    type Rejection = Error;

    async fn from_request_parts(parts: &mut Parts, app: &App) -> Result<Self> {
        check_origin(&parts.headers, app)?;
        let protocols = subprotocols(&parts.headers);
        let binary = protocols.iter().any(|name| name == BINARY);
        match protocols.iter().find_map(|name| name.strip_prefix(TICKET)) {
            Some(ticket) => {
                let redeemed = app.tickets.redeem(ticket).await?;
                if let Some(log) = parts.extensions.get::<RequestLog>() {
                    log.note_caller(&redeemed.caller);
                }
                Ok(Self { caller: Arc::new(redeemed.caller), exec: redeemed.exec, binary })
            }
            None => Ok(Self { caller: authenticate(parts, app).await?, exec: None, binary }),
        }
    }
}

impl Opened {
    /// The caller, if it has one of the scopes and its ticket is for this.
    ///
    /// # Errors
    /// `scope_missing`; `not_found` for another instance or command than the ticket's.
    pub fn caller(&self, instance: &InstanceId, exec: Option<&ExecId>, scopes: &[Scope]) -> Result<Arc<Caller>> {
        self.caller.require_any(scopes)?;
        self.caller.require_instance(instance)?;
        match (&self.exec, exec) {
            (Some(only), Some(wanted)) if only != wanted => Err(Error::not_found("command")),
            (Some(_), None) => Err(Error::new(Code::ScopeMissing, "This ticket is for one command only.")),
            _ => Ok(Arc::clone(&self.caller)),
        }
    }

    /// How events are sent.
    #[must_use]
    pub fn framing(&self) -> Framing {
        if self.binary { Framing::Binary } else { Framing::Messages }
    }
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
