//! Who am I?

use axum::extract::State;
use chrono::{DateTime, Utc};
use serde::Serialize;
use utoipa::ToSchema;
use utoipa_axum::{router::OpenApiRouter, routes};

use crate::{
    app::{self, App},
    domain::{scope::Scope, team::Quotas},
    error::Result,
    http::{
        extract::{Authenticated, Json},
        openapi::Failures,
    },
    ids::{InstanceId, KeyId, TeamId},
    storage::usage,
};

/// The caller.
#[derive(Debug, Serialize, ToSchema)]
pub struct Me {
    pub team: MyTeam,
    pub key: MyKey,
    pub scopes: Vec<Scope>,
    pub limits: Quotas,
    pub usage: Usage,
}

/// What counts against the limits at this moment.
#[derive(Debug, Serialize, ToSchema)]
pub struct Usage {
    /// Instances that have not ended.
    pub instances: u64,
    /// Commands that run.
    pub execs: u64,
    /// Since midnight UTC.
    pub instance_seconds_today: u64,
}

/// The caller's team.
#[derive(Debug, Serialize, ToSchema)]
pub struct MyTeam {
    pub id: TeamId,
    pub name: String,
}

/// The caller's key.
#[derive(Debug, Serialize, ToSchema)]
pub struct MyKey {
    pub id: KeyId,
    pub name: String,
    /// The first characters of the key, to recognise it by.
    pub prefix: String,
    pub expires_at: Option<DateTime<Utc>>,
    /// Set: the key may touch this instance alone.
    pub instance_id: Option<InstanceId>,
}

pub fn routes() -> OpenApiRouter<App> {
    OpenApiRouter::new().routes(routes!(get_me))
}

/// The team, scopes, limits and usage of the key that calls.
#[utoipa::path(get, path = "/v1/me", operation_id = "get_me", tag = "service",
    responses((status = 200, body = Me), Failures))]
async fn get_me(State(app): State<App>, Authenticated(caller): Authenticated) -> Result<Json<Me>> {
    let mut connection = app.pool.acquire().await?;
    let used = usage::of(&mut connection, caller.team_id()).await?;
    let instance_seconds_today = app::daily::used(&mut connection, caller.team_id()).await?;
    drop(connection);
    Ok(Json(Me {
        team: MyTeam { id: caller.team.id.clone(), name: caller.team.name.clone() },
        key: MyKey {
            id: caller.key_id.clone(),
            name: caller.key_name.clone(),
            prefix: caller.key_prefix.clone(),
            expires_at: caller.key_expires_at,
            instance_id: caller.only_instance.clone(),
        },
        scopes: caller.scopes.iter().collect(),
        limits: caller.team.quotas.clone(),
        usage: Usage { instances: used.instances, execs: used.execs, instance_seconds_today },
    }))
}
