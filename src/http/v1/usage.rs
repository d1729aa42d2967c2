//! What was used.

use axum::extract::State;
use chrono::{DateTime, TimeDelta, Utc};
use serde::Serialize;
use utoipa::{IntoParams, ToSchema};
use utoipa_axum::{router::OpenApiRouter, routes};

use crate::{
    app::{self, App},
    domain::{
        audit::{GroupBy, Usage},
        scope::scope,
    },
    error::Result,
    http::{
        extract::{Authorized, FromQuery, Json, Query, QueryReader},
        openapi::Failures,
        page::{List, PageQuery},
    },
    ids::TeamId,
    storage::usage::Span,
};

/// The span when the request does not say.
const DEFAULT_SPAN: TimeDelta = TimeDelta::days(30);

/// What one team, tool or key used.
#[derive(Debug, Serialize, ToSchema)]
#[schema(as = UsageItem)]
pub struct UsageDto {
    /// Of the team, the tool or the key.
    pub id: String,
    /// Its present name; null when it is not known any more.
    pub name: Option<String>,
    pub team_id: TeamId,
    /// Instances that were started in the span; those that were merely resumed do not count.
    pub instances: u64,
    /// Time that instances were RUNNING within the span, until now where they still are. With `group_by=key` they
    /// belong to the key that created them.
    pub instance_seconds: u64,
    /// Commands and code that were started. They belong to the key that ran them.
    pub execs: u64,
    /// Their time, counted when they end.
    pub exec_seconds: u64,
    /// Output of commands, counted when they end.
    pub bytes: u64,
}

impl From<Usage> for UsageDto {
    fn from(usage: Usage) -> Self {
        Self {
            id: usage.id,
            name: usage.name,
            team_id: usage.team_id,
            instances: usage.instances,
            instance_seconds: usage.instance_seconds,
            execs: usage.execs,
            exec_seconds: usage.exec_seconds,
            bytes: usage.bytes,
        }
    }
}

/// What was used in a span of time.
#[derive(Debug, Serialize, ToSchema)]
pub struct UsageReport {
    pub from: DateTime<Utc>,
    pub to: DateTime<Utc>,
    pub group_by: GroupBy,
    #[serde(flatten)]
    pub list: List<UsageDto>,
}

/// Of which span, and by what.
#[derive(Debug, IntoParams)]
#[into_params(parameter_in = Query)]
pub struct UsageQuery {
    /// Default: 30 days before `to`. Commands are counted by the hour: every hour that the span touches counts.
    from: Option<DateTime<Utc>>,
    /// Default: now.
    to: Option<DateTime<Utc>>,
    /// `team`, `tool` or `key`. Default: `team`.
    #[param(value_type = Option<String>, pattern = "^(team|tool|key)$", example = "tool")]
    group_by: Option<GroupBy>,
    /// Whose, by the team's id or name: administrators see every team's, and without this all of them.
    team: Option<String>,
    #[param(ignore)]
    page: PageQuery,
}

impl FromQuery for UsageQuery {
    fn from_query(query: &mut QueryReader) -> Self {
        Self {
            from: query.parsed("from"),
            to: query.parsed("to"),
            group_by: query.parsed("group_by"),
            team: query.text("team"),
            page: PageQuery::from_query(query),
        }
    }
}

pub fn routes() -> OpenApiRouter<App> {
    OpenApiRouter::new().routes(routes!(get_usage))
}

/// What teams, tools or keys used in a span of time. It outlives the instances.
#[utoipa::path(get, path = "/v1/usage", operation_id = "get_usage", tag = "history", params(UsageQuery, PageQuery),
    responses((status = 200, body = UsageReport), Failures))]
async fn get_usage(
    State(app): State<App>,
    caller: Authorized<scope::AuditOrAdmin>,
    Query(query): Query<UsageQuery>,
) -> Result<Json<UsageReport>> {
    let to = query.to.unwrap_or_else(|| app.clock.now());
    let span = Span { from: query.from.unwrap_or(to - DEFAULT_SPAN), to };
    let group_by = query.group_by.unwrap_or(GroupBy::Team);
    let page = app::audit::used(&app, &caller, query.team.as_deref(), span, group_by, &query.page.into()).await?;
    Ok(Json(UsageReport { from: span.from, to: span.to, group_by, list: List::of(page, UsageDto::from) }))
}
