//! API keys and their digests.

use chrono::{DateTime, Utc};
use sqlx::PgConnection;

use crate::{
    domain::{
        credential::{ApiKey, Digest, KeyKind},
        page::{Page, PageRequest},
        scope::Scopes,
        team::Team,
    },
    ids::{InstanceId, KeyId, TeamId},
};

struct Row {
    id: KeyId,
    team_id: TeamId,
    name: String,
    kind: String,
    prefix: Option<String>,
    scopes: Vec<String>,
    issuer_id: Option<KeyId>,
    instance_id: Option<InstanceId>,
    created_at: DateTime<Utc>,
    expires_at: Option<DateTime<Utc>>,
    revoked_at: Option<DateTime<Utc>>,
    last_used_at: Option<DateTime<Utc>>,
}

impl From<Row> for ApiKey {
    fn from(row: Row) -> Self {
        Self {
            id: row.id,
            team_id: row.team_id,
            name: row.name,
            kind: KeyKind::of(&row.kind),
            prefix: row.prefix.unwrap_or_default(),
            scopes: Scopes::from_names(&row.scopes),
            issuer_id: row.issuer_id,
            instance_id: row.instance_id,
            created_at: row.created_at,
            expires_at: row.expires_at,
            revoked_at: row.revoked_at,
            last_used_at: row.last_used_at,
        }
    }
}

/// A key to be stored.
pub struct NewKey<'a> {
    pub id: &'a KeyId,
    pub team: &'a TeamId,
    pub name: &'a str,
    pub kind: KeyKind,
    pub scopes: &'a Scopes,
    pub issuer: Option<&'a KeyId>,
    pub instance: Option<&'a InstanceId>,
    pub expires_at: Option<DateTime<Utc>>,
}

/// Adds a key without a secret; [`add_secret`] gives it one.
///
/// # Errors
/// When the database fails.
pub async fn insert(connection: &mut PgConnection, key: &NewKey<'_>) -> sqlx::Result<()> {
    sqlx::query!(
        "INSERT INTO api_keys (id, team_id, name, kind, scopes, issuer_id, instance_id, expires_at)
         VALUES ($1, $2, $3, $4, $5, $6, $7, $8)",
        key.id.as_str(),
        key.team.as_str(),
        key.name,
        key.kind.as_str(),
        &key.scopes.to_names(),
        key.issuer.map(KeyId::as_str),
        key.instance.map(InstanceId::as_str),
        key.expires_at,
    )
    .execute(connection)
    .await?;
    Ok(())
}

/// Gives a key one more valid secret.
///
/// # Errors
/// When the database fails.
pub async fn add_secret(connection: &mut PgConnection, key: &KeyId, digest: &Digest, prefix: &str) -> sqlx::Result<()> {
    sqlx::query!(
        "INSERT INTO api_key_secrets (digest, key_id, prefix) VALUES ($1, $2, $3)",
        digest.as_slice(),
        key.as_str(),
        prefix,
    )
    .execute(connection)
    .await?;
    Ok(())
}

/// Ends the secrets a key has now after `grace_seconds`, and drops those that ended before.
///
/// # Errors
/// When the database fails.
pub async fn retire_secrets(connection: &mut PgConnection, key: &KeyId, grace_seconds: u32) -> sqlx::Result<()> {
    sqlx::query!("DELETE FROM api_key_secrets WHERE key_id = $1 AND expires_at <= now()", key.as_str())
        .execute(&mut *connection)
        .await?;
    sqlx::query!(
        "UPDATE api_key_secrets SET expires_at = least(expires_at, now() + make_interval(secs => $2)) WHERE key_id = $1",
        key.as_str(),
        f64::from(grace_seconds),
    )
    .execute(connection)
    .await?;
    Ok(())
}

/// Moves a digest to the current pepper.
///
/// # Errors
/// When the database fails.
pub async fn replace_digest(connection: &mut PgConnection, old: &Digest, new: &Digest) -> sqlx::Result<()> {
    sqlx::query!("UPDATE api_key_secrets SET digest = $2 WHERE digest = $1", old.as_slice(), new.as_slice(),)
        .execute(connection)
        .await?;
    Ok(())
}

/// What a credential stands for.
pub struct Authenticated {
    pub key: ApiKey,
    pub team: Team,
    /// The stored digest that matched.
    pub digest: Vec<u8>,
}

/// The live key behind one of these digests, with its team. Revoked and expired ones are absent.
///
/// # Errors
/// When the database fails.
pub async fn authenticate(connection: &mut PgConnection, digests: &[Digest]) -> sqlx::Result<Option<Authenticated>> {
    let digests: Vec<Vec<u8>> = digests.iter().map(|digest| digest.to_vec()).collect();
    let Some(hit) = sqlx::query!(
        r#"SELECT s.digest, s.key_id AS "key_id: KeyId", k.team_id AS "team_id: TeamId"
           FROM api_key_secrets s JOIN api_keys k ON k.id = s.key_id
           WHERE s.digest = ANY($1) AND (s.expires_at IS NULL OR s.expires_at > now())"#,
        &digests,
    )
    .fetch_optional(&mut *connection)
    .await?
    else {
        return Ok(None);
    };
    with_team(connection, &hit.team_id, &hit.key_id, hit.digest).await
}

/// A live key by id, with its team: what a ticket is redeemed to.
///
/// # Errors
/// When the database fails.
pub async fn with_team(
    connection: &mut PgConnection,
    team: &TeamId,
    key: &KeyId,
    digest: Vec<u8>,
) -> sqlx::Result<Option<Authenticated>> {
    let live = sqlx::query_scalar!(
        r#"SELECT revoked_at IS NULL AND (expires_at IS NULL OR expires_at > now()) AS "live!"
           FROM api_keys WHERE team_id = $1 AND id = $2"#,
        team.as_str(),
        key.as_str(),
    )
    .fetch_optional(&mut *connection)
    .await?;
    if live != Some(true) {
        return Ok(None);
    }
    let Some(key) = find(&mut *connection, team, key).await? else { return Ok(None) };
    let team = super::teams::system_find(connection, team.as_str()).await?;
    Ok(team.map(|team| Authenticated { key, team, digest }))
}

/// Notes that a key was used; at most one write a minute for each key.
///
/// # Errors
/// When the database fails.
pub async fn touch(connection: &mut PgConnection, key: &KeyId) -> sqlx::Result<()> {
    sqlx::query!(
        "UPDATE api_keys SET last_used_at = now()
         WHERE id = $1 AND (last_used_at IS NULL OR last_used_at < now() - interval '1 minute')",
        key.as_str(),
    )
    .execute(connection)
    .await?;
    Ok(())
}

/// A key of a team.
///
/// # Errors
/// When the database fails.
pub async fn find(connection: &mut PgConnection, team: &TeamId, key: &KeyId) -> sqlx::Result<Option<ApiKey>> {
    let row = sqlx::query_as!(
        Row,
        r#"SELECT id AS "id: KeyId", team_id AS "team_id: TeamId", name, kind, scopes,
                  coalesce((SELECT prefix FROM api_key_secrets s WHERE s.key_id = k.id ORDER BY s.created_at DESC LIMIT 1),
                           (SELECT secret_id FROM signing_secrets s WHERE s.key_id = k.id ORDER BY s.created_at DESC LIMIT 1))
                      AS prefix,
                  issuer_id AS "issuer_id: KeyId", instance_id AS "instance_id: InstanceId",
                  created_at, expires_at, revoked_at, last_used_at
           FROM api_keys k WHERE team_id = $1 AND id = $2"#,
        team.as_str(),
        key.as_str(),
    )
    .fetch_optional(connection)
    .await?;
    Ok(row.map(ApiKey::from))
}

/// The team that a key belongs to, for administrators.
///
/// # Errors
/// When the database fails.
pub async fn system_team_of(connection: &mut PgConnection, key: &KeyId) -> sqlx::Result<Option<TeamId>> {
    sqlx::query_scalar!(r#"SELECT team_id AS "team_id: TeamId" FROM api_keys WHERE id = $1"#, key.as_str())
        .fetch_optional(connection)
        .await
}

/// A team's keys, newest first, revoked ones included; with `unused_seconds` the live ones that were not used for so long.
///
/// # Errors
/// When the database fails.
pub async fn list(
    connection: &mut PgConnection,
    team: &TeamId,
    unused_seconds: Option<u32>,
    page: &PageRequest,
) -> sqlx::Result<Page<ApiKey>> {
    let rows = sqlx::query_as!(
        Row,
        r#"SELECT id AS "id: KeyId", team_id AS "team_id: TeamId", name, kind, scopes,
                  coalesce((SELECT prefix FROM api_key_secrets s WHERE s.key_id = k.id ORDER BY s.created_at DESC LIMIT 1),
                           (SELECT secret_id FROM signing_secrets s WHERE s.key_id = k.id ORDER BY s.created_at DESC LIMIT 1))
                      AS prefix,
                  issuer_id AS "issuer_id: KeyId", instance_id AS "instance_id: InstanceId",
                  created_at, expires_at, revoked_at, last_used_at
           FROM api_keys k
           WHERE team_id = $1 AND ($2::text IS NULL OR id < $2)
             AND ($4::float8 IS NULL
                  OR (revoked_at IS NULL AND (expires_at IS NULL OR expires_at > now())
                      AND coalesce(last_used_at, created_at) <= now() - make_interval(secs => $4)))
           ORDER BY id DESC LIMIT $3"#,
        team.as_str(),
        page.before,
        page.fetch(),
        unused_seconds.map(f64::from),
    )
    .fetch_all(connection)
    .await?;
    Ok(Page::from_fetched(rows.into_iter().map(ApiKey::from).collect(), page, |key: &ApiKey| key.id.to_string()))
}

/// Revokes a key and all that were minted from it, however deep. Answers the ids that were live until now.
///
/// # Errors
/// When the database fails.
pub async fn revoke(connection: &mut PgConnection, team: &TeamId, key: &KeyId) -> sqlx::Result<Vec<KeyId>> {
    sqlx::query_scalar!(
        r#"WITH RECURSIVE minted AS (
               SELECT id FROM api_keys WHERE team_id = $1 AND id = $2
               UNION
               SELECT k.id FROM api_keys k JOIN minted m ON k.issuer_id = m.id
           )
           UPDATE api_keys SET revoked_at = now()
           WHERE id IN (SELECT id FROM minted) AND revoked_at IS NULL
           RETURNING id AS "id: KeyId""#,
        team.as_str(),
        key.as_str(),
    )
    .fetch_all(connection)
    .await
}
