//! Teams, their quotas and grants. For administrators.

use sqlx::{PgConnection, PgPool};

use super::idempotency::Intent;
use crate::{
    auth::Trail,
    domain::{
        page::{Page, PageRequest},
        team::{Grants, Quotas, Team},
    },
    error::{Code, Error, Result},
    ids::{Ids, TeamId},
    storage::teams,
};

pub const MAX_NAME: usize = 50;

/// Adds a team.
///
/// # Errors
/// `validation_failed` for a bad name, `name_taken`.
pub async fn create(
    pool: &PgPool,
    ids: &Ids,
    name: &str,
    quotas: &Quotas,
    grants: &Grants,
    trail: &Trail,
    noted: &Intent,
) -> Result<Team> {
    check_name("name", name)?;
    let mut tx = pool.begin().await?;
    let team = teams::system_insert(&mut tx, &ids.next(), name, quotas, grants).await?;
    let taken = || Error::new(Code::NameTaken, format!("There is a team named {name:?} already."));
    let team = team.ok_or_else(taken)?;
    intend(&mut tx, trail, &team.id).await?;
    noted.note(&mut tx, team.id.as_str()).await?;
    tx.commit().await?;
    Ok(team)
}

async fn intend(connection: &mut PgConnection, trail: &Trail, team: &TeamId) -> sqlx::Result<()> {
    trail.note_team(team);
    trail.note_target(team.as_str());
    trail.intend(connection).await
}

/// The team of this id or name.
///
/// # Errors
/// `not_found`.
pub async fn get(pool: &PgPool, id_or_name: &str) -> Result<Team> {
    let mut connection = pool.acquire().await?;
    teams::system_find(&mut connection, id_or_name).await?.ok_or_else(|| Error::not_found("team"))
}

/// # Errors
/// When the database fails.
pub async fn list(pool: &PgPool, page: &PageRequest) -> Result<Page<Team>> {
    let mut connection = pool.acquire().await?;
    Ok(teams::system_list(&mut connection, page).await?)
}

/// Replaces quotas and grants by what `change` makes of the present ones.
///
/// # Errors
/// `not_found`.
pub async fn update(
    pool: &PgPool,
    id: &TeamId,
    trail: &Trail,
    change: impl FnOnce(&mut Quotas, &mut Grants),
) -> Result<Team> {
    let mut tx = pool.begin().await?;
    let team = teams::lock(&mut tx, id).await?.ok_or_else(|| Error::not_found("team"))?;
    let (mut quotas, mut grants) = (team.quotas, team.grants);
    change(&mut quotas, &mut grants);
    let team = teams::system_update(&mut tx, id, &quotas, &grants).await?.ok_or_else(|| Error::not_found("team"))?;
    intend(&mut tx, trail, id).await?;
    tx.commit().await?;
    Ok(team)
}

/// A human-given name: 1 to 50 characters, none of them a control character.
///
/// # Errors
/// `validation_failed` that names `field`.
pub fn check_name(field: &str, name: &str) -> Result<()> {
    let length = name.chars().count();
    if length == 0 || length > MAX_NAME {
        return Err(Error::field(field, format!("must have 1 to {MAX_NAME} characters, it has {length}")));
    }
    if name.chars().any(char::is_control) || name.trim() != name {
        return Err(Error::field(field, "must not have control characters, nor spaces at its ends"));
    }
    Ok(())
}
