//! The history: who did what.

use axum::extract::State;
use chrono::{DateTime, Utc};
use serde::Serialize;
use utoipa::{IntoParams, ToSchema};
use utoipa_axum::{router::OpenApiRouter, routes};

use crate::{
    app::{self, App},
    domain::{audit::AuditEvent, scope::scope},
    error::Result,
    http::{
        extract::{Authorized, FromQuery, Query, QueryReader},
        openapi::Failures,
        page::{List, PageQuery},
    },
    ids::{AuditId, ExecId, InstanceId, KeyId, TeamId, ToolId},
    storage::audit::AuditFilter,
};

/// Something that was done, or tried: any call but a mere look, and every start of a command or of code.
#[derive(Debug, Serialize, ToSchema)]
#[schema(as = AuditEvent)]
pub struct AuditEventDto {
    pub id: AuditId,
    pub at: DateTime<Utc>,
    /// Whose things it was about.
    pub team_id: TeamId,
    /// Who did it; null for an operator at the command line, and for the gateway itself.
    pub key_id: Option<KeyId>,
    /// `system`: the gateway itself.
    pub key_prefix: Option<String>,
    /// The end user, as the caller said in `X-On-Behalf-Of`.
    pub on_behalf_of: Option<String>,
    /// The client's address.
    pub client: Option<String>,
    pub request_id: String,
    /// The operation's id in this document, such as `create_instance`. What the gateway does of its own accord:
    /// `expire_instance`, `stop_idle_instance`, `pause_idle_instance`, `stop_orphan_instance`, `delete_orphan_tool`,
    /// `end_instance` and `end_tool` (the cloud had ended it).
    pub action: String,
    pub instance_id: Option<InstanceId>,
    pub tool_id: Option<ToolId>,
    pub exec_id: Option<ExecId>,
    /// What else it was about: a key, a team, a preview, a context.
    pub target_id: Option<String>,
    /// The command line or the code, cut after 4096 characters, with what looks like a secret left out; null when
    /// the configuration says so.
    pub command: Option<String>,
    /// `ok`, `replayed` (by its idempotency key), `client_left` (before there was an answer; it may have gone on), or the
    /// error's code. Null while it is not known, and for ever when the gateway died in between.
    pub outcome: Option<String>,
    /// The status of the answer; null for what came over a WebSocket or ran.
    pub status: Option<i32>,
    /// How the command or code ended, null while it runs; why the gateway did something of its own accord.
    pub reason: Option<String>,
    pub exit_code: Option<i32>,
    /// The cloud's id of the last call that was made for it.
    pub upstream_request_id: Option<String>,
    /// Until the answer; of a command or code that has ended, how long it ran.
    pub duration_ms: Option<i64>,
}

impl From<AuditEvent> for AuditEventDto {
    fn from(event: AuditEvent) -> Self {
        Self {
            id: event.id,
            at: event.at,
            team_id: event.team_id,
            key_id: event.key_id,
            key_prefix: event.key_prefix,
            on_behalf_of: event.on_behalf_of,
            client: event.client,
            request_id: event.request_id,
            action: event.action,
            instance_id: event.instance_id,
            tool_id: event.tool_id,
            exec_id: event.exec_id,
            target_id: event.target_id,
            command: event.command,
            outcome: event.outcome,
            status: event.status,
            reason: event.reason,
            exit_code: event.exit_code,
            upstream_request_id: event.upstream_request_id,
            duration_ms: event.duration_ms,
        }
    }
}

/// Which events. Filters take several values, separated by commas or repeated.
#[derive(Debug, IntoParams)]
#[into_params(parameter_in = Query)]
pub struct AuditQuery {
    /// Whose things, by the team's id or name: administrators see every team's, and without this all of them.
    team: Option<String>,
    /// Ids or prefixes of keys, end users, or `system`.
    #[param(value_type = Option<String>)]
    actor: Vec<String>,
    #[param(value_type = Option<String>, example = "create_instance,delete_instance")]
    action: Vec<String>,
    #[param(value_type = Option<String>)]
    instance: Vec<String>,
    #[param(value_type = Option<String>)]
    outcome: Vec<String>,
    /// Not before.
    from: Option<DateTime<Utc>>,
    /// Before.
    to: Option<DateTime<Utc>>,
    #[param(ignore)]
    page: PageQuery,
}

impl FromQuery for AuditQuery {
    fn from_query(query: &mut QueryReader) -> Self {
        Self {
            team: query.text("team"),
            actor: query.list("actor"),
            action: query.list("action"),
            instance: query.list("instance"),
            outcome: query.list("outcome"),
            from: query.parsed("from"),
            to: query.parsed("to"),
            page: PageQuery::from_query(query),
        }
    }
}

impl AuditQuery {
    fn into_parts(self) -> (Option<String>, AuditFilter, PageQuery) {
        let filter = AuditFilter {
            actors: self.actor,
            actions: self.action,
            instances: self.instance,
            outcomes: self.outcome,
            from: self.from,
            to: self.to,
        };
        (self.team, filter, self.page)
    }
}

pub fn routes() -> OpenApiRouter<App> {
    OpenApiRouter::new().routes(routes!(list_audit_events))
}

/// Who did what, from where, for whom, with what outcome; newest first. It outlives what it tells of.
#[utoipa::path(get, path = "/v1/audit", operation_id = "list_audit_events", tag = "history", params(AuditQuery, PageQuery),
    responses((status = 200, body = List<AuditEventDto>), Failures))]
async fn list_audit_events(
    State(app): State<App>,
    caller: Authorized<scope::AuditOrAdmin>,
    Query(query): Query<AuditQuery>,
) -> Result<List<AuditEventDto>> {
    let (team, filter, page) = query.into_parts();
    let page = app::audit::list(&app, &caller, team.as_deref(), filter, &page.into()).await?;
    Ok(List::of(page, AuditEventDto::from))
}
