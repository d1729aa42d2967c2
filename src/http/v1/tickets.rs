//! Tickets for WebSockets.

use std::sync::Arc;

use axum::{extract::State, response::Response};
use chrono::{DateTime, Utc};
use http::StatusCode;
use secrecy::ExposeSecret;
use serde::{Deserialize, Serialize};
use utoipa::ToSchema;
use utoipa_axum::{router::OpenApiRouter, routes};

use crate::{
    app::{self, App},
    auth::{Caller, TicketGrant},
    domain::scope::{Permission, Scope, scope},
    error::{Error, Result},
    http::{
        extract::Authorized,
        idempotency::{Created, Creation, Keyed, lost, once},
        openapi::Failures,
    },
    ids::{ExecId, InstanceId},
};

/// What a ticket shall be for. It is never wider than the key that asks for it.
#[derive(Debug, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct CreateTicket {
    pub instance_id: InstanceId,
    /// Limits the ticket to one command.
    pub exec_id: Option<ExecId>,
    /// Of `exec`, `exec:read` and `files:read`. Default: `exec`.
    #[serde(default)]
    #[schema(required = false, example = json!(["exec"]))]
    pub scopes: Vec<Scope>,
}

/// A ticket, good for one WebSocket: `Sec-WebSocket-Protocol: ags.exec.v1, ticket.<ticket>` (`ags.files.v1` for files).
#[derive(Serialize, ToSchema)]
pub struct TicketDto {
    pub ticket: String,
    pub expires_at: DateTime<Utc>,
}

impl Creation for TicketDto {
    const SHOWN_ONCE: &'static [&'static str] = &["ticket"];
}

pub fn routes() -> OpenApiRouter<App> {
    OpenApiRouter::new().routes(routes!(create_ticket))
}

/// Makes a one-use ticket with which a browser opens a WebSocket. It lasts 30 s by default.
#[utoipa::path(post, path = "/v1/tickets", operation_id = "create_ticket", tag = "keys", request_body = CreateTicket,
    params(("Idempotency-Key" = Option<String>, Header, description = "A repetition makes no further ticket, and does not show it \
        again.")),
    responses((status = 201, body = TicketDto), Failures))]
async fn create_ticket(
    State(app): State<App>,
    caller: Authorized<scope::Sockets>,
    Keyed { body, key }: Keyed<CreateTicket>,
) -> Result<Response> {
    if let Some(scope) = body.scopes.iter().find(|scope| !scope::Sockets::ANY_OF.contains(scope)) {
        return Err(Error::field("scopes", format!("`{scope}` is of no use on a WebSocket")));
    }
    app::instances::get(&app, &caller, &body.instance_id).await?;
    let scopes = if body.scopes.is_empty() { vec![Scope::Exec] } else { body.scopes };
    let grant = TicketGrant { instance: body.instance_id, exec: body.exec_id, scopes: scopes.into_iter().collect() };
    let first = move |app: App, caller: Arc<Caller>, _| async move {
        let ticket = app.tickets.issue(&caller, &grant).await?;
        let dto = TicketDto { ticket: ticket.ticket.expose_secret().to_owned(), expires_at: ticket.expires_at };
        Ok((StatusCode::CREATED, dto))
    };
    // Nothing is noted with the key: a call that died told nobody its ticket, and is made again.
    let again = |_: App, _: Arc<Caller>, _| async { Err::<Created<TicketDto>, _>(lost()) };
    once(&app, caller.into_caller(), key, first, again).await
}
