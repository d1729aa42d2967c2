//! Teams.

use sqlx::{PgConnection, types::Json};

use super::stored::Stored;
use crate::{
    domain::{
        page::{Page, PageRequest},
        team::{Grants, Quotas, Team},
    },
    ids::TeamId,
};

pub(super) struct Row {
    pub id: TeamId,
    pub name: String,
    pub max_instances: i32,
    pub max_lifetime_seconds: i32,
    pub max_execs: i32,
    pub requests_per_second: i32,
    pub instance_seconds_per_day: Option<i64>,
    pub grants: Stored<Grants>,
    pub created_at: chrono::DateTime<chrono::Utc>,
    pub updated_at: chrono::DateTime<chrono::Utc>,
}

impl From<Row> for Team {
    fn from(row: Row) -> Self {
        Self {
            id: row.id,
            name: row.name,
            quotas: Quotas {
                max_instances: row.max_instances.unsigned_abs(),
                max_lifetime_seconds: row.max_lifetime_seconds.unsigned_abs(),
                max_execs: row.max_execs.unsigned_abs(),
                requests_per_second: row.requests_per_second.unsigned_abs(),
                instance_seconds_per_day: row.instance_seconds_per_day.map(i64::unsigned_abs),
            },
            grants: row.grants.0,
            created_at: row.created_at,
            updated_at: row.updated_at,
        }
    }
}

/// A count as Postgres holds it; what does not fit is as good as no limit.
fn stored(count: u32) -> i32 {
    i32::try_from(count).unwrap_or(i32::MAX)
}

fn stored_daily(seconds: Option<u64>) -> Option<i64> {
    seconds.map(|seconds| i64::try_from(seconds).unwrap_or(i64::MAX))
}

/// Adds a team; `None` when the name is taken.
///
/// # Errors
/// When the database fails.
pub async fn system_insert(
    connection: &mut PgConnection,
    id: &TeamId,
    name: &str,
    quotas: &Quotas,
    grants: &Grants,
) -> sqlx::Result<Option<Team>> {
    let row = sqlx::query_as!(
        Row,
        r#"INSERT INTO teams (id, name, max_instances, max_lifetime_seconds, max_execs, requests_per_second,
                              instance_seconds_per_day, grants)
           VALUES ($1, $2, $3, $4, $5, $6, $7, $8)
           ON CONFLICT (name) DO NOTHING
           RETURNING id AS "id: TeamId", name, max_instances, max_lifetime_seconds, max_execs, requests_per_second,
                     instance_seconds_per_day, grants AS "grants: Stored<Grants>", created_at, updated_at"#,
        id.as_str(),
        name,
        stored(quotas.max_instances),
        stored(quotas.max_lifetime_seconds),
        stored(quotas.max_execs),
        stored(quotas.requests_per_second),
        stored_daily(quotas.instance_seconds_per_day),
        Json(grants) as _,
    )
    .fetch_optional(connection)
    .await?;
    Ok(row.map(Team::from))
}

/// Overwrites a team's quotas and grants; `None` when it does not exist.
///
/// # Errors
/// When the database fails.
pub async fn system_update(
    connection: &mut PgConnection,
    id: &TeamId,
    quotas: &Quotas,
    grants: &Grants,
) -> sqlx::Result<Option<Team>> {
    let row = sqlx::query_as!(
        Row,
        r#"UPDATE teams SET max_instances = $2, max_lifetime_seconds = $3, max_execs = $4, requests_per_second = $5,
                            instance_seconds_per_day = $6, grants = $7, updated_at = now()
           WHERE id = $1
           RETURNING id AS "id: TeamId", name, max_instances, max_lifetime_seconds, max_execs, requests_per_second,
                     instance_seconds_per_day, grants AS "grants: Stored<Grants>", created_at, updated_at"#,
        id.as_str(),
        stored(quotas.max_instances),
        stored(quotas.max_lifetime_seconds),
        stored(quotas.max_execs),
        stored(quotas.requests_per_second),
        stored_daily(quotas.instance_seconds_per_day),
        Json(grants) as _,
    )
    .fetch_optional(connection)
    .await?;
    Ok(row.map(Team::from))
}

/// A team by id, locked against other changes until the transaction ends.
///
/// # Errors
/// When the database fails.
pub async fn lock(connection: &mut PgConnection, id: &TeamId) -> sqlx::Result<Option<Team>> {
    let row = sqlx::query_as!(
        Row,
        r#"SELECT id AS "id: TeamId", name, max_instances, max_lifetime_seconds, max_execs, requests_per_second,
                  instance_seconds_per_day, grants AS "grants: Stored<Grants>", created_at, updated_at
           FROM teams WHERE id = $1 FOR UPDATE"#,
        id.as_str(),
    )
    .fetch_optional(connection)
    .await?;
    Ok(row.map(Team::from))
}

/// A team by id or by name.
///
/// # Errors
/// When the database fails.
pub async fn system_find(connection: &mut PgConnection, id_or_name: &str) -> sqlx::Result<Option<Team>> {
    let row = sqlx::query_as!(
        Row,
        r#"SELECT id AS "id: TeamId", name, max_instances, max_lifetime_seconds, max_execs, requests_per_second,
                  instance_seconds_per_day, grants AS "grants: Stored<Grants>", created_at, updated_at
           FROM teams WHERE id = $1 OR name = $1"#,
        id_or_name,
    )
    .fetch_optional(connection)
    .await?;
    Ok(row.map(Team::from))
}

/// All teams, newest first.
///
/// # Errors
/// When the database fails.
pub async fn system_list(connection: &mut PgConnection, page: &PageRequest) -> sqlx::Result<Page<Team>> {
    let rows = sqlx::query_as!(
        Row,
        r#"SELECT id AS "id: TeamId", name, max_instances, max_lifetime_seconds, max_execs, requests_per_second,
                  instance_seconds_per_day, grants AS "grants: Stored<Grants>", created_at, updated_at
           FROM teams WHERE $1::text IS NULL OR id < $1 ORDER BY id DESC LIMIT $2"#,
        page.before,
        page.fetch(),
    )
    .fetch_all(connection)
    .await?;
    Ok(Page::from_fetched(rows.into_iter().map(Team::from).collect(), page, |team: &Team| team.id.to_string()))
}
