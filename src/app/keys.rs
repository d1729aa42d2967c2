//! API keys: minting, rotation, revocation.

use chrono::{DateTime, TimeDelta, Utc};
use secrecy::SecretString;
use sqlx::{PgConnection, PgPool};

use super::{App, idempotency::Intent, teams::check_name};
use crate::{
    auth::{Caller, Trail},
    domain::{
        credential::{ApiKey, KeyKind, Peppers, PresentedKey, SigningPair},
        duration::Seconds,
        page::{Page, PageRequest},
        scope::{Scope, Scopes},
        seal::Seals,
    },
    error::{Code, Error, Result},
    ids::{Ids, InstanceId, KeyId, TeamId},
    storage::{instances, keys, signing},
};

/// A key that was just minted or rotated: the only time its secret is seen.
pub struct Minted {
    pub key: ApiKey,
    pub secret: Secret,
}

/// What its owner keeps of a key.
pub enum Secret {
    Key(SecretString),
    Pair(SigningPair),
}

impl Secret {
    /// The key itself, of a key that is one.
    #[must_use]
    pub fn into_key(self) -> Option<SecretString> {
        match self {
            Self::Key(secret) => Some(secret),
            Self::Pair(_) => None,
        }
    }

    /// The pair, of a key that signs.
    #[must_use]
    pub fn into_pair(self) -> Option<SigningPair> {
        match self {
            Self::Pair(pair) => Some(pair),
            Self::Key(_) => None,
        }
    }
}

/// What secrets are made and kept with.
#[derive(Clone, Copy)]
pub struct Mint<'a> {
    pub ids: &'a Ids,
    pub peppers: &'a Peppers,
    pub seals: &'a Seals,
}

impl<'a> Mint<'a> {
    #[must_use]
    pub fn of(app: &'a App) -> Self {
        Self { ids: &app.ids, peppers: &app.peppers, seals: app.signers.seals() }
    }
}

/// What a new key shall be.
#[derive(Clone, Debug)]
pub struct Wanted {
    pub name: String,
    pub scopes: Scopes,
    pub expires_at: Option<DateTime<Utc>>,
    pub instance: Option<InstanceId>,
    pub kind: KeyKind,
}

/// Mints a key for a caller's team, or for another one when the caller is an administrator.
///
/// # Errors
/// `scope_missing` when it would be wider than the issuer; `not_found` for an unknown team; `validation_failed`.
pub async fn create(
    app: &App,
    caller: &Caller,
    team: Option<&str>,
    mut wanted: Wanted,
    noted: Intent,
) -> Result<Minted> {
    check_name("name", &wanted.name)?;
    if wanted.scopes.is_empty() {
        return Err(Error::field("scopes", "must name at least one scope"));
    }
    let team = target_team(app, caller, team).await?;
    let foreign = &team != caller.team_id();
    check_not_wider(caller, &wanted, foreign)?;
    if let Some(instance) = &wanted.instance {
        let found = instances::find(&mut *app.pool.acquire().await?, &team, instance).await?;
        found.ok_or_else(|| Error::field("instance_id", "there is no such instance in the key's team"))?;
    }
    if let Some(only) = &caller.only_instance {
        wanted.instance.get_or_insert_with(|| only.clone());
    }
    wanted.expires_at = match (wanted.expires_at, caller.key_expires_at) {
        (Some(a), Some(b)) => Some(a.min(b)),
        (a, b) => a.or(b),
    };
    let mut tx = app.pool.begin().await?;
    let minted = mint(&mut tx, Mint::of(app), &team, Some(&caller.key_id), &wanted).await?;
    intend(&mut tx, &caller.trail, &team, &minted.key.id).await?;
    noted.note(&mut tx, minted.key.id.as_str()).await?;
    tx.commit().await?;
    Ok(minted)
}

/// Writes down that a key of a team is changed.
///
/// # Errors
/// When the database fails.
pub async fn intend(connection: &mut PgConnection, trail: &Trail, team: &TeamId, key: &KeyId) -> sqlx::Result<()> {
    trail.note_team(team);
    trail.note_target(key.as_str());
    trail.intend(connection).await
}

/// The team a key call is about: the caller's own, or for administrators the named one.
///
/// # Errors
/// `not_found` for another team.
pub async fn target_team(app: &App, caller: &Caller, team: Option<&str>) -> Result<TeamId> {
    match team {
        None => Ok(caller.team_id().clone()),
        Some(own) if own == caller.team_id().as_str() => Ok(caller.team_id().clone()),
        Some(other) if caller.scopes.contains(Scope::Admin) => Ok(super::teams::get(&app.pool, other).await?.id),
        Some(_) => Err(Error::not_found("team")),
    }
}

/// An administrator may give another team's key any scope of a team; otherwise nobody gives what they do not have.
fn check_not_wider(caller: &Caller, wanted: &Wanted, foreign: bool) -> Result<()> {
    let own = caller.scopes.clone();
    let held =
        if caller.scopes.contains(Scope::Admin) { own.iter().chain(Scopes::team().iter()).collect() } else { own };
    if let Some(scope) = wanted.scopes.beyond(&held).next() {
        return Err(Error::new(Code::ScopeMissing, format!("Your key does not have the scope `{scope}` itself.")));
    }
    if foreign && wanted.scopes.contains(Scope::Admin) {
        return Err(Error::field("scopes", "`admin` is given within the administrators' own team only"));
    }
    if let (Some(only), Some(instance)) = (&caller.only_instance, &wanted.instance)
        && only != instance
    {
        return Err(Error::not_found("instance"));
    }
    Ok(())
}

/// Stores a new key with a fresh secret.
///
/// # Errors
/// When the database fails.
pub async fn mint(
    connection: &mut PgConnection,
    mint: Mint<'_>,
    team: &TeamId,
    issuer: Option<&KeyId>,
    wanted: &Wanted,
) -> Result<Minted> {
    let id: KeyId = mint.ids.next();
    let new = keys::NewKey {
        id: &id,
        team,
        name: &wanted.name,
        kind: wanted.kind,
        scopes: &wanted.scopes,
        issuer,
        instance: wanted.instance.as_ref(),
        expires_at: wanted.expires_at,
    };
    keys::insert(&mut *connection, &new).await?;
    let secret = give_secret(&mut *connection, mint, wanted.kind, &id).await?;
    let key = keys::find(connection, team, &id).await?.ok_or_else(|| Error::internal("the new key is not there"))?;
    Ok(Minted { key, secret })
}

async fn give_secret(connection: &mut PgConnection, mint: Mint<'_>, kind: KeyKind, key: &KeyId) -> Result<Secret> {
    match kind {
        KeyKind::Api => {
            let secret = PresentedKey::generate(&mut rand::rng());
            keys::add_secret(connection, key, &mint.peppers.digest(&secret), &secret.shown_prefix()).await?;
            Ok(Secret::Key(secret.reveal()))
        }
        KeyKind::Tencent => {
            let pair = SigningPair::generate(&mut rand::rng());
            signing::add(connection, key, &pair.secret_id, &mint.seals.seal(&pair.secret_id, &pair.secret_key)).await?;
            Ok(Secret::Pair(pair))
        }
    }
}

/// Replaces a key's secret; the old one stays valid for `grace`.
///
/// # Errors
/// `not_found`; `invalid_state` for a revoked key.
pub async fn rotate(
    pool: &PgPool,
    mint: Mint<'_>,
    team: &TeamId,
    key: &KeyId,
    grace: Seconds,
    trail: &Trail,
) -> Result<Minted> {
    let mut tx = pool.begin().await?;
    intend(&mut tx, trail, team, key).await?;
    let found = keys::find(&mut tx, team, key).await?.ok_or_else(|| Error::not_found("key"))?;
    if found.revoked_at.is_some() {
        return Err(Error::new(Code::InvalidState, "The key is revoked. Mint a new one."));
    }
    keys::retire_secrets(&mut tx, key, grace.0).await?;
    signing::retire(&mut tx, key, grace.0).await?;
    let secret = give_secret(&mut tx, mint, found.kind, key).await?;
    let key = keys::find(&mut tx, team, key).await?.ok_or_else(|| Error::not_found("key"))?;
    tx.commit().await?;
    Ok(Minted { key, secret })
}

/// Revokes a key and all that were minted from it. Answers how many were live.
///
/// # Errors
/// `not_found`.
pub async fn revoke(pool: &PgPool, team: &TeamId, key: &KeyId, trail: &Trail) -> Result<usize> {
    let mut tx = pool.begin().await?;
    intend(&mut tx, trail, team, key).await?;
    keys::find(&mut tx, team, key).await?.ok_or_else(|| Error::not_found("key"))?;
    let revoked = keys::revoke(&mut tx, team, key).await?;
    tx.commit().await?;
    Ok(revoked.len())
}

/// A team's keys, newest first; with `unused` the live ones that were not used for so long.
///
/// # Errors
/// When the database fails.
pub async fn list(pool: &PgPool, team: &TeamId, unused: Option<Seconds>, page: &PageRequest) -> Result<Page<ApiKey>> {
    let mut connection = pool.acquire().await?;
    Ok(keys::list(&mut connection, team, unused.map(|seconds| seconds.0), page).await?)
}

/// A key that the caller may manage.
///
/// # Errors
/// As [`manageable`].
pub async fn get(app: &App, caller: &Caller, id: &KeyId) -> Result<ApiKey> {
    let team = manageable(app, caller, id).await?;
    let mut connection = app.pool.acquire().await?;
    keys::find(&mut connection, &team, id).await?.ok_or_else(|| Error::not_found("key"))
}

/// The team of a key that the caller may rotate and revoke: of its own team and no wider than the caller, or any for
/// administrators.
///
/// # Errors
/// `not_found` for other teams' keys; `scope_missing` for a wider key, or a caller bound to one instance.
pub async fn manageable(app: &App, caller: &Caller, key: &KeyId) -> Result<TeamId> {
    caller.require_unbound()?;
    let mut connection = app.pool.acquire().await?;
    if caller.scopes.contains(Scope::Admin) {
        return keys::system_team_of(&mut connection, key).await?.ok_or_else(|| Error::not_found("key"));
    }
    let found = keys::find(&mut connection, caller.team_id(), key).await?.ok_or_else(|| Error::not_found("key"))?;
    if let Some(scope) = found.scopes.beyond(&caller.scopes).next() {
        return Err(Error::new(Code::ScopeMissing, format!("That key has the scope `{scope}`, which yours has not.")));
    }
    Ok(found.team_id)
}

/// When a lifetime that starts now ends.
///
/// # Errors
/// `validation_failed` for a lifetime of nothing.
pub fn expiry(now: DateTime<Utc>, lifetime: Option<Seconds>) -> Result<Option<DateTime<Utc>>> {
    match lifetime {
        None => Ok(None),
        Some(Seconds(0)) => Err(Error::field("expires_in", "must be longer than nothing")),
        Some(Seconds(seconds)) => Ok(Some(now + TimeDelta::seconds(i64::from(seconds)))),
    }
}
