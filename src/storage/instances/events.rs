//! What happened to instances.

use chrono::{DateTime, Utc};
use sqlx::PgConnection;

use crate::{
    domain::{
        instance::{EventKind, InstanceEvent},
        page::{Page, PageRequest},
    },
    ids::InstanceId,
};

struct Row {
    id: i64,
    at: DateTime<Utc>,
    kind: String,
    status: String,
    stop_reason: Option<String>,
    expires_at: DateTime<Utc>,
}

impl From<Row> for InstanceEvent {
    fn from(row: Row) -> Self {
        Self {
            id: row.id,
            at: row.at,
            kind: if row.kind == "expiring" { EventKind::Expiring } else { EventKind::Status },
            status: row.status.into(),
            stop_reason: row.stop_reason.map(Into::into),
            expires_at: row.expires_at,
        }
    }
}

/// What happened to an instance that the caller may see, newest first.
///
/// # Errors
/// When the database fails.
pub async fn system_events(
    connection: &mut PgConnection,
    instance: &InstanceId,
    page: &PageRequest,
) -> sqlx::Result<Page<InstanceEvent>> {
    let before = page.before.as_deref().map(|id| id.parse().unwrap_or(0_i64));
    let rows = sqlx::query_as!(
        Row,
        "SELECT id, at, type AS kind, status, stop_reason, expires_at FROM instance_events
         WHERE instance_id = $1 AND ($2::bigint IS NULL OR id < $2) ORDER BY id DESC LIMIT $3",
        instance.as_str(),
        before,
        page.fetch(),
    )
    .fetch_all(connection)
    .await?;
    let events = rows.into_iter().map(InstanceEvent::from).collect();
    Ok(Page::from_fetched(events, page, |event: &InstanceEvent| event.id.to_string()))
}

/// Up to `limit` events of an instance after one, oldest first.
///
/// # Errors
/// When the database fails.
pub async fn system_events_after(
    connection: &mut PgConnection,
    instance: &InstanceId,
    after: i64,
    limit: i64,
) -> sqlx::Result<Vec<InstanceEvent>> {
    let rows = sqlx::query_as!(
        Row,
        "SELECT id, at, type AS kind, status, stop_reason, expires_at FROM instance_events
         WHERE instance_id = $1 AND id > $2 ORDER BY id LIMIT $3",
        instance.as_str(),
        after,
        limit,
    )
    .fetch_all(connection)
    .await?;
    Ok(rows.into_iter().map(InstanceEvent::from).collect())
}

/// Warns of the ends of up to `limit` lives that come within `seconds`: once of each end, so once more after it was moved.
///
/// # Errors
/// When the database fails.
pub async fn system_warn(connection: &mut PgConnection, seconds: f64, limit: i64) -> sqlx::Result<u64> {
    let done = sqlx::query!(
        "WITH due AS (
             SELECT id FROM instances
             WHERE stopped_at IS NULL AND status NOT IN ('STARTING', 'STOPPING')
               AND expires_at > now() AND expires_at <= now() + make_interval(secs => $1)
               AND warned_for IS DISTINCT FROM expires_at
             ORDER BY expires_at LIMIT $2 FOR UPDATE SKIP LOCKED),
         warned AS (UPDATE instances SET warned_for = expires_at WHERE id IN (SELECT id FROM due)
                    RETURNING id, status, expires_at)
         INSERT INTO instance_events (instance_id, type, status, expires_at)
         SELECT id, 'expiring', status, expires_at FROM warned",
        seconds,
        limit,
    )
    .execute(connection)
    .await?;
    Ok(done.rows_affected())
}
