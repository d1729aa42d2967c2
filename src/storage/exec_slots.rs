//! How many commands and runs of code of a team each replica may follow.

use sqlx::PgConnection;

use crate::ids::TeamId;

/// What a replica asks for.
#[derive(Clone, Copy, Debug)]
pub struct Wanted<'a> {
    pub team: &'a TeamId,
    pub replica: &'a str,
    /// What it follows now: that it has in any case.
    pub used: u64,
    /// What it would like to have.
    pub slots: u64,
    /// What the team may have on all replicas.
    pub most: u64,
    pub lease_seconds: f64,
}

/// What there is.
#[derive(Clone, Copy, Debug)]
pub struct Slots {
    pub own: u64,
    /// What other replicas have.
    pub others: u64,
}

/// Leases slots to a replica, as far as others leave some, within a transaction.
///
/// # Errors
/// When the database fails.
pub async fn lease(connection: &mut PgConnection, wanted: &Wanted<'_>) -> sqlx::Result<Slots> {
    sqlx::query!(
        "SELECT pg_advisory_xact_lock(hashtextextended('ags-gateway execs ' || $1::text, 0))",
        wanted.team.as_str()
    )
    .execute(&mut *connection)
    .await?;
    let row = sqlx::query!(
        r#"WITH others AS (
               SELECT coalesce(sum(slots), 0)::bigint AS slots FROM exec_slots
               WHERE team_id = $1 AND replica <> $2 AND lease_until > clock_timestamp())
           INSERT INTO exec_slots (team_id, replica, slots, lease_until)
           SELECT $1, $2, greatest($3, least($4, $5 - others.slots)), clock_timestamp() + make_interval(secs => $6) FROM others
           ON CONFLICT (team_id, replica) DO UPDATE SET slots = excluded.slots, lease_until = excluded.lease_until
           RETURNING slots AS own, (SELECT slots FROM others) AS "others!""#,
        wanted.team.as_str(),
        wanted.replica,
        column(wanted.used),
        column(wanted.slots),
        column(wanted.most),
        wanted.lease_seconds,
    )
    .fetch_one(connection)
    .await?;
    Ok(Slots { own: row.own.unsigned_abs(), others: row.others.unsigned_abs() })
}

/// Keeps so many of a replica's slots for longer; of no team any.
///
/// # Errors
/// When the database fails.
pub async fn system_keep(
    connection: &mut PgConnection,
    replica: &str,
    kept: &[(TeamId, u64)],
    lease_seconds: f64,
) -> sqlx::Result<()> {
    let teams: Vec<String> = kept.iter().map(|(team, _)| team.to_string()).collect();
    let slots: Vec<i64> = kept.iter().map(|(_, slots)| column(*slots)).collect();
    sqlx::query!(
        "INSERT INTO exec_slots (team_id, replica, slots, lease_until)
         SELECT team_id, $1, slots, clock_timestamp() + make_interval(secs => $4)
         FROM unnest($2::text[], $3::bigint[]) AS kept (team_id, slots)
         ON CONFLICT (team_id, replica) DO UPDATE SET slots = excluded.slots, lease_until = excluded.lease_until",
        replica,
        &teams,
        &slots,
        lease_seconds,
    )
    .execute(connection)
    .await?;
    Ok(())
}

/// Removes leases that lapsed a while ago.
///
/// # Errors
/// When the database fails.
pub async fn system_prune(connection: &mut PgConnection, limit: i64) -> sqlx::Result<u64> {
    let done = sqlx::query!(
        "DELETE FROM exec_slots WHERE (team_id, replica) IN
             (SELECT team_id, replica FROM exec_slots WHERE lease_until < now() - interval '1 minute' LIMIT $1)",
        limit,
    )
    .execute(connection)
    .await?;
    Ok(done.rows_affected())
}

fn column(value: u64) -> i64 {
    i64::try_from(value).unwrap_or(i64::MAX)
}
