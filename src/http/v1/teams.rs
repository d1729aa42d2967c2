//! Teams, for administrators.

use std::sync::Arc;

use axum::{extract::State, response::Response};
use chrono::{DateTime, Utc};
use http::StatusCode;
use serde::{Deserialize, Deserializer, Serialize, de::Error as _};
use utoipa::ToSchema;
use utoipa_axum::{router::OpenApiRouter, routes};

use crate::{
    app::{self, App},
    auth::Caller,
    domain::{
        scope::{Scope, scope},
        team::{Grants, Quotas, Team},
    },
    error::{Error, Result},
    http::{
        extract::{Authorized, Json, Path, Query},
        idempotency::{Created, Creation, Keyed, lost, once},
        openapi::Failures,
        page::{List, PageQuery},
    },
    ids::TeamId,
};

/// A team.
#[derive(Debug, Serialize, ToSchema)]
#[schema(as = Team)]
pub struct TeamDto {
    pub id: TeamId,
    pub name: String,
    pub quotas: Quotas,
    pub grants: Grants,
    pub created_at: DateTime<Utc>,
    pub updated_at: DateTime<Utc>,
}

impl Creation for TeamDto {}

impl From<Team> for TeamDto {
    fn from(team: Team) -> Self {
        Self {
            id: team.id,
            name: team.name,
            quotas: team.quotas,
            grants: team.grants,
            created_at: team.created_at,
            updated_at: team.updated_at,
        }
    }
}

/// A team to be made. Quotas that are left out have defaults; grants that are left out grant next to nothing.
#[derive(Debug, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
#[schema(example = json!({"name": "research", "quotas": {"max_instances": 20}}))]
pub struct CreateTeam {
    #[schema(
        min_length = 1,
        max_length = 50,
        pattern = "^[^\\s\\x00-\\x1f\\x7f-\\x9f]([^\\x00-\\x1f\\x7f-\\x9f]*[^\\s\\x00-\\x1f\\x7f-\\x9f])?$"
    )]
    pub name: String,
    #[serde(default)]
    pub quotas: QuotasPatch,
    #[serde(default)]
    pub grants: Grants,
}

/// What is left out stays as it is. Grants are replaced as a whole.
#[derive(Debug, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
#[schema(example = json!({"quotas": {"max_instances": 50}}))]
pub struct UpdateTeam {
    #[serde(default)]
    pub quotas: QuotasPatch,
    pub grants: Option<Grants>,
}

/// Quotas to change.
#[derive(Debug, Default, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct QuotasPatch {
    #[schema(value_type = Option<u64>, maximum = 4294967295_u32)]
    pub max_instances: Option<u32>,
    #[schema(value_type = Option<u64>, minimum = 1, maximum = 4294967295_u32)]
    pub max_lifetime_seconds: Option<std::num::NonZeroU32>,
    #[schema(value_type = Option<u64>, maximum = 4294967295_u32)]
    pub max_execs: Option<u32>,
    #[schema(value_type = Option<u64>, minimum = 1, maximum = 4294967295_u32)]
    pub requests_per_second: Option<std::num::NonZeroU32>,
    #[serde(default, deserialize_with = "storable")]
    #[schema(required = false)]
    pub instance_seconds_per_day: Option<Option<u64>>,
}

/// What the database can hold.
fn storable<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Option<Option<u64>>, D::Error> {
    match Option::<u64>::deserialize(deserializer)? {
        Some(value) if i64::try_from(value).is_err() => Err(D::Error::custom(format!("must be at most {}", i64::MAX))),
        value => Ok(Some(value)),
    }
}

impl QuotasPatch {
    fn apply(&self, quotas: &mut Quotas) {
        let set = |slot: &mut u32, value: Option<u32>| {
            if let Some(value) = value {
                *slot = value;
            }
        };
        set(&mut quotas.max_instances, self.max_instances);
        set(&mut quotas.max_lifetime_seconds, self.max_lifetime_seconds.map(Into::into));
        set(&mut quotas.max_execs, self.max_execs);
        set(&mut quotas.requests_per_second, self.requests_per_second.map(Into::into));
        if let Some(seconds) = self.instance_seconds_per_day {
            quotas.instance_seconds_per_day = seconds;
        }
    }
}

/// What was begun.
#[derive(Debug, Serialize, ToSchema)]
pub struct Stopping {
    /// Instances that are STOPPING from now on; those that were before do not count.
    pub stopping: u64,
}

pub fn routes() -> OpenApiRouter<App> {
    OpenApiRouter::new()
        .routes(routes!(create_team, list_teams))
        .routes(routes!(get_team, update_team))
        .routes(routes!(stop_all_instances))
}

/// Adds a team.
#[utoipa::path(post, path = "/v1/teams", operation_id = "create_team", tag = "teams", request_body = CreateTeam,
    params(("Idempotency-Key" = Option<String>, Header, description = "Makes a repetition safe for 24 h.")),
    responses((status = 201, body = TeamDto), Failures))]
async fn create_team(
    State(app): State<App>,
    caller: Authorized<scope::Admin>,
    Keyed { body, key }: Keyed<CreateTeam>,
) -> Result<Response> {
    caller.require_unbound()?;
    let mut quotas = Quotas::default();
    body.quotas.apply(&mut quotas);
    let first = move |app: App, caller: Arc<Caller>, noted| async move {
        let (name, trail) = (&body.name, &caller.trail);
        let team = app::teams::create(&app.pool, &app.ids, name, &quotas, &body.grants, trail, &noted).await?;
        Ok((StatusCode::CREATED, TeamDto::from(team)))
    };
    once(&app, caller.into_caller(), key, first, resumed).await
}

async fn resumed(app: App, _: Arc<Caller>, id: String) -> Result<Created<TeamDto>> {
    let team = app::teams::get(&app.pool, &id).await.map_err(|_| lost())?;
    Ok((StatusCode::CREATED, team.into()))
}

/// All teams, newest first.
#[utoipa::path(get, path = "/v1/teams", operation_id = "list_teams", tag = "teams", params(PageQuery),
    responses((status = 200, body = List<TeamDto>), Failures))]
async fn list_teams(
    State(app): State<App>,
    _: Authorized<scope::Admin>,
    Query(query): Query<PageQuery>,
) -> Result<List<TeamDto>> {
    Ok(List::of(app::teams::list(&app.pool, &query.into()).await?, TeamDto::from))
}

/// One team. With the scope `keys`, and without `admin`, the key's own.
#[utoipa::path(get, path = "/v1/teams/{id}", operation_id = "get_team", tag = "teams",
    params(("id" = TeamId, Path)), responses((status = 200, body = TeamDto), Failures))]
async fn get_team(
    State(app): State<App>,
    caller: Authorized<scope::KeysOrAdmin>,
    Path(id): Path<TeamId>,
) -> Result<Json<TeamDto>> {
    if !caller.scopes.contains(Scope::Admin) && id != *caller.team_id() {
        return Err(Error::not_found("team"));
    }
    Ok(Json(app::teams::get(&app.pool, id.as_str()).await?.into()))
}

/// Changes a team's quotas and grants; in force within a second.
#[utoipa::path(patch, path = "/v1/teams/{id}", operation_id = "update_team", tag = "teams",
    params(("id" = TeamId, Path)), request_body = UpdateTeam, responses((status = 200, body = TeamDto), Failures))]
async fn update_team(
    State(app): State<App>,
    caller: Authorized<scope::Admin>,
    Path(id): Path<TeamId>,
    Json(body): Json<UpdateTeam>,
) -> Result<Json<TeamDto>> {
    caller.require_unbound()?;
    let team = app::teams::update(&app.pool, &id, &caller.trail, |quotas, grants| {
        body.quotas.apply(quotas);
        if let Some(new) = body.grants {
            *grants = new;
        }
    })
    .await?;
    app.auth.forget_all();
    Ok(Json(team.into()))
}

/// Stops all live instances of a team, those that are starting included. The gateway goes on until they have ended.
#[utoipa::path(post, path = "/v1/teams/{id}/stop-all", operation_id = "stop_all_instances", tag = "teams",
    params(("id" = TeamId, Path)), responses((status = 202, body = Stopping), Failures))]
async fn stop_all_instances(
    State(app): State<App>,
    caller: Authorized<scope::Admin>,
    Path(id): Path<TeamId>,
) -> Result<(StatusCode, Json<Stopping>)> {
    let stopping = app::instances::stop_all(&app, &caller, &id).await?;
    Ok((StatusCode::ACCEPTED, Json(Stopping { stopping })))
}
