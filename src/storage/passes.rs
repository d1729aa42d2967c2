//! Which keys were given passes to which instances.

use sqlx::PgConnection;

use crate::ids::{InstanceId, KeyId, TeamId};

/// Notes that a key was given passes to an instance of its team. Repeated, it changes nothing.
///
/// # Errors
/// When the database fails.
pub async fn note(
    connection: &mut PgConnection,
    team: &TeamId,
    instance: &InstanceId,
    key: &KeyId,
) -> sqlx::Result<()> {
    sqlx::query!(
        "INSERT INTO passes (instance_id, key_id)
         SELECT id, $3 FROM instances WHERE team_id = $1 AND id = $2 ON CONFLICT DO NOTHING",
        team.as_str(),
        instance.as_str(),
        key.as_str(),
    )
    .execute(connection)
    .await?;
    Ok(())
}

/// The keys with passes to an instance, live or ended; without one, to any that runs, those of the newest instances first.
/// Up to `limit`.
///
/// # Errors
/// When the database fails.
pub async fn system_given(
    connection: &mut PgConnection,
    instance: Option<&InstanceId>,
    limit: i64,
) -> sqlx::Result<Vec<(InstanceId, KeyId)>> {
    let rows = sqlx::query!(
        r#"SELECT p.instance_id AS "instance: InstanceId", p.key_id AS "key: KeyId"
           FROM passes p JOIN instances i ON i.id = p.instance_id
           WHERE i.id = $1 OR ($1::text IS NULL AND i.stopped_at IS NULL AND i.status = 'RUNNING')
           ORDER BY p.instance_id DESC LIMIT $2"#,
        instance.map(InstanceId::as_str),
        limit,
    )
    .fetch_all(connection)
    .await?;
    Ok(rows.into_iter().map(|row| (row.instance, row.key)).collect())
}
