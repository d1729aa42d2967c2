//! Previews: browsers' leave to see a port.

use chrono::{DateTime, Utc};
use sqlx::PgConnection;

use crate::{
    domain::{
        credential::Digest,
        page::{Page, PageRequest},
        preview::Preview,
    },
    ids::{InstanceId, KeyId, PreviewId, TeamId},
};

struct Row {
    id: PreviewId,
    team_id: TeamId,
    key_id: KeyId,
    instance_id: InstanceId,
    port: i32,
    created_at: DateTime<Utc>,
    expires_at: DateTime<Utc>,
    opened_at: Option<DateTime<Utc>>,
    revoked_at: Option<DateTime<Utc>>,
}

impl From<Row> for Preview {
    fn from(row: Row) -> Self {
        Self {
            id: row.id,
            team_id: row.team_id,
            key_id: row.key_id,
            instance_id: row.instance_id,
            // The column's check keeps it within a port's range.
            port: u16::try_from(row.port).unwrap_or_default(),
            created_at: row.created_at,
            expires_at: row.expires_at,
            opened_at: row.opened_at,
            revoked_at: row.revoked_at,
        }
    }
}

/// A preview to be stored.
pub struct NewPreview<'a> {
    pub id: &'a PreviewId,
    pub team: &'a TeamId,
    pub key: &'a KeyId,
    pub instance: &'a InstanceId,
    pub port: u16,
    pub ttl_seconds: f64,
    /// Its issuer's own end, which it does not outlive.
    pub not_after: Option<DateTime<Utc>>,
}

/// Stores a preview.
///
/// # Errors
/// When the database fails.
pub async fn insert(connection: &mut PgConnection, preview: &NewPreview<'_>) -> sqlx::Result<Preview> {
    let row = sqlx::query_as!(
        Row,
        r#"INSERT INTO previews (id, team_id, key_id, instance_id, port, expires_at)
           VALUES ($1, $2, $3, $4, $5, least(now() + make_interval(secs => $6), $7::timestamptz))
           RETURNING id AS "id: PreviewId", team_id AS "team_id: TeamId", key_id AS "key_id: KeyId",
                     instance_id AS "instance_id: InstanceId", port, created_at, expires_at, opened_at, revoked_at"#,
        preview.id.as_str(),
        preview.team.as_str(),
        preview.key.as_str(),
        preview.instance.as_str(),
        i32::from(preview.port),
        preview.ttl_seconds,
        preview.not_after,
    )
    .fetch_one(connection)
    .await?;
    Ok(row.into())
}

/// A preview of one of the team's instances, whatever its state.
///
/// # Errors
/// When the database fails.
pub async fn find(connection: &mut PgConnection, team: &TeamId, id: &PreviewId) -> sqlx::Result<Option<Preview>> {
    let row = sqlx::query_as!(
        Row,
        r#"SELECT id AS "id: PreviewId", team_id AS "team_id: TeamId", key_id AS "key_id: KeyId",
                  instance_id AS "instance_id: InstanceId", port, created_at, expires_at, opened_at, revoked_at
           FROM previews WHERE team_id = $1 AND id = $2"#,
        team.as_str(),
        id.as_str(),
    )
    .fetch_optional(connection)
    .await?;
    Ok(row.map(Preview::from))
}

/// The live previews of an instance, newest first.
///
/// # Errors
/// When the database fails.
pub async fn list(
    connection: &mut PgConnection,
    team: &TeamId,
    instance: &InstanceId,
    page: &PageRequest,
) -> sqlx::Result<Page<Preview>> {
    let rows = sqlx::query_as!(
        Row,
        r#"SELECT id AS "id: PreviewId", team_id AS "team_id: TeamId", key_id AS "key_id: KeyId",
                  instance_id AS "instance_id: InstanceId", port, created_at, expires_at, opened_at, revoked_at
           FROM previews
           WHERE team_id = $1 AND instance_id = $2 AND revoked_at IS NULL AND expires_at > now()
             AND ($3::text IS NULL OR id < $3)
           ORDER BY id DESC LIMIT $4"#,
        team.as_str(),
        instance.as_str(),
        page.before,
        page.fetch(),
    )
    .fetch_all(connection)
    .await?;
    let previews = rows.into_iter().map(Preview::from).collect();
    Ok(Page::from_fetched(previews, page, |preview: &Preview| preview.id.to_string()))
}

/// Revokes a preview of an instance. False when there is none.
///
/// # Errors
/// When the database fails.
pub async fn revoke(
    connection: &mut PgConnection,
    team: &TeamId,
    instance: &InstanceId,
    id: &PreviewId,
) -> sqlx::Result<bool> {
    let done = sqlx::query!(
        "UPDATE previews SET revoked_at = coalesce(revoked_at, now())
         WHERE team_id = $1 AND instance_id = $2 AND id = $3",
        team.as_str(),
        instance.as_str(),
        id.as_str(),
    )
    .execute(connection)
    .await?;
    Ok(done.rows_affected() > 0)
}

/// Uses a live preview's link up: from now on the cookie stands for it. `None` when it was used before, or is over.
///
/// # Errors
/// When the database fails.
pub async fn open(connection: &mut PgConnection, id: &PreviewId, cookie: &Digest) -> sqlx::Result<Option<Preview>> {
    let row = sqlx::query_as!(
        Row,
        r#"UPDATE previews SET opened_at = now(), cookie_digest = $2
           WHERE id = $1 AND opened_at IS NULL AND revoked_at IS NULL AND expires_at > now()
           RETURNING id AS "id: PreviewId", team_id AS "team_id: TeamId", key_id AS "key_id: KeyId",
                     instance_id AS "instance_id: InstanceId", port, created_at, expires_at, opened_at, revoked_at"#,
        id.as_str(),
        cookie.as_slice(),
    )
    .fetch_optional(connection)
    .await?;
    Ok(row.map(Preview::from))
}

/// The live preview that a browser's cookie stands for.
///
/// # Errors
/// When the database fails.
pub async fn by_cookie(connection: &mut PgConnection, digests: &[Digest]) -> sqlx::Result<Option<Preview>> {
    let digests: Vec<Vec<u8>> = digests.iter().map(|digest| digest.to_vec()).collect();
    let row = sqlx::query_as!(
        Row,
        r#"SELECT id AS "id: PreviewId", team_id AS "team_id: TeamId", key_id AS "key_id: KeyId",
                  instance_id AS "instance_id: InstanceId", port, created_at, expires_at, opened_at, revoked_at
           FROM previews WHERE cookie_digest = ANY($1) AND revoked_at IS NULL AND expires_at > now()"#,
        &digests,
    )
    .fetch_optional(connection)
    .await?;
    Ok(row.map(Preview::from))
}

/// Removes up to `limit` previews that are over for more than a day.
///
/// # Errors
/// When the database fails.
pub async fn system_prune(connection: &mut PgConnection, limit: i64) -> sqlx::Result<u64> {
    let done = sqlx::query!(
        "DELETE FROM previews WHERE id IN
             (SELECT id FROM previews WHERE expires_at < now() - interval '1 day' LIMIT $1)",
        limit,
    )
    .execute(connection)
    .await?;
    Ok(done.rows_affected())
}
