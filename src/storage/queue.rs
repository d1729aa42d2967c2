//! Who waits in line for an instance, and whose turn it is.

use sqlx::PgConnection;

use crate::ids::TeamId;

/// On it the database says that an instance ended, or was paused (see the migration `create_instance_queue`).
pub const CHANNEL: &str = "ags_gateway_capacity";

/// One's standing in line: a ticket that waits, or somebody who comes last.
#[derive(Clone, Copy, Debug)]
pub struct Standing {
    /// Live instances of the team, and those of its own that wait before.
    pub team_live: u64,
    pub team_ahead: u64,
    /// Live instances of the account that count against its quota, and that quota where it is known.
    pub account_live: u64,
    pub account_limit: Option<u64>,
    /// Those of other teams who are before in the account's line. A team whose own quota is full holds nobody up.
    pub others_ahead: u64,
}

/// Who asks.
#[derive(Clone, Copy, Debug)]
pub struct Asker<'a> {
    pub team: &'a TeamId,
    /// The team's weight: its share of an account that is full.
    pub max_instances: u32,
    pub upstream: &'a str,
    /// `None`: somebody who does not wait, and so comes after all who do.
    pub ticket: Option<&'a str>,
}

/// Whose turn it is. What the cloud said of the account's quota is believed for `trust_seconds`, and then tried with one more
/// instance at a time. The next one is of the team that has the fewest live instances for its weight; each further one of a
/// team's line counts as if those before it lived already.
///
/// # Errors
/// When the database fails.
pub async fn standing(
    connection: &mut PgConnection,
    asker: &Asker<'_>,
    configured: Option<u32>,
    trust_seconds: f64,
) -> sqlx::Result<Standing> {
    let row = sqlx::query!(
        r#"WITH live AS (
               SELECT team_id, count(*) AS live FROM instances WHERE stopped_at IS NULL GROUP BY team_id),
           line AS (
               SELECT q.id, q.team_id, q.upstream, t.max_instances,
                      coalesce(live.live, 0) + row_number() OVER (PARTITION BY q.team_id ORDER BY q.id) AS nth
               FROM instance_queue q JOIN teams t ON t.id = q.team_id LEFT JOIN live ON live.team_id = q.team_id
               WHERE q.seen_until > now()),
           mine AS (
               SELECT coalesce((SELECT live FROM live WHERE team_id = $1), 0) AS live,
                      (SELECT count(*) FROM line WHERE team_id = $1 AND ($2::text IS NULL OR id < $2)) AS ahead)
           SELECT mine.live AS "team_live!", mine.ahead AS "team_ahead!",
                  (SELECT count(*) FROM instances WHERE upstream = $3 AND stopped_at IS NULL AND status <> 'PAUSED')
                      AS "account_live!",
                  least($4::bigint, (SELECT instances + (seen_at < now() - make_interval(secs => $5))::integer
                                     FROM account_limits WHERE upstream = $3)) AS account_limit,
                  (SELECT count(*) FROM line
                   WHERE upstream = $3 AND team_id <> $1 AND nth <= max_instances
                     AND (nth::float8 / greatest(max_instances, 1), id)
                         < ((mine.live + mine.ahead + 1)::float8 / greatest($6::bigint, 1), coalesce($2, '~'))) AS "others_ahead!"
           FROM mine"#,
        asker.team.as_str(),
        asker.ticket,
        asker.upstream,
        configured.map(i64::from),
        trust_seconds,
        i64::from(asker.max_instances),
    )
    .fetch_one(connection)
    .await?;
    Ok(Standing {
        team_live: row.team_live.unsigned_abs(),
        team_ahead: row.team_ahead.unsigned_abs(),
        account_live: row.account_live.unsigned_abs(),
        account_limit: row.account_limit.map(i64::unsigned_abs),
        others_ahead: row.others_ahead.unsigned_abs(),
    })
}

/// Lets those who ask for instances of an account count one after the other, until the transaction ends.
///
/// # Errors
/// When the database fails.
pub async fn system_lock_account(connection: &mut PgConnection, upstream: &str) -> sqlx::Result<()> {
    sqlx::query!("SELECT pg_advisory_xact_lock(hashtextextended('ags-gateway account ' || $1::text, 0))", upstream)
        .execute(connection)
        .await?;
    Ok(())
}

/// Takes a place in line, or says that it is still wanted.
///
/// # Errors
/// When the database fails.
pub async fn hold(
    connection: &mut PgConnection,
    team: &TeamId,
    upstream: &str,
    ticket: &str,
    seconds: f64,
) -> sqlx::Result<()> {
    sqlx::query!(
        "INSERT INTO instance_queue (id, team_id, upstream, seen_until) VALUES ($3, $1, $2, now() + make_interval(secs => $4))
         ON CONFLICT (id) DO UPDATE SET seen_until = excluded.seen_until",
        team.as_str(),
        upstream,
        ticket,
        seconds,
    )
    .execute(connection)
    .await?;
    Ok(())
}

/// Gives a place in line up.
///
/// # Errors
/// When the database fails.
pub async fn leave(connection: &mut PgConnection, team: &TeamId, ticket: &str) -> sqlx::Result<()> {
    sqlx::query!("DELETE FROM instance_queue WHERE team_id = $1 AND id = $2", team.as_str(), ticket)
        .execute(connection)
        .await?;
    Ok(())
}

/// Notes that the cloud said that an account takes no more than it has now. Answers how many that are.
///
/// # Errors
/// When the database fails.
pub async fn system_note_full(connection: &mut PgConnection, upstream: &str) -> sqlx::Result<u64> {
    let count = sqlx::query_scalar!(
        "INSERT INTO account_limits (upstream, instances)
         SELECT $1, count(*) FROM instances WHERE upstream = $1 AND stopped_at IS NULL AND status <> 'PAUSED'
         ON CONFLICT (upstream) DO UPDATE SET instances = excluded.instances, seen_at = now()
         RETURNING instances",
        upstream,
    )
    .fetch_one(connection)
    .await?;
    Ok(count.unsigned_abs())
}

/// Forgets what the cloud said of an account's quota when the account has more by now.
///
/// # Errors
/// When the database fails.
pub async fn system_note_taken(connection: &mut PgConnection, upstream: &str) -> sqlx::Result<()> {
    sqlx::query!(
        "DELETE FROM account_limits WHERE upstream = $1 AND instances <
             (SELECT count(*) FROM instances
              WHERE upstream = $1 AND stopped_at IS NULL AND status <> 'PAUSED' AND upstream_id IS NOT NULL)",
        upstream,
    )
    .execute(connection)
    .await?;
    Ok(())
}

/// Seconds until the `nth` of the live instances ends at the latest: of a team, or of all in an account.
///
/// # Errors
/// When the database fails.
pub async fn system_next_end(
    connection: &mut PgConnection,
    team: Option<&TeamId>,
    upstream: &str,
    nth: u64,
) -> sqlx::Result<Option<f64>> {
    let seconds = sqlx::query_scalar!(
        r#"SELECT extract(epoch FROM expires_at - now())::float8 AS "seconds!" FROM instances
           WHERE stopped_at IS NULL AND (team_id = $1 OR ($1::text IS NULL AND upstream = $2))
           ORDER BY expires_at OFFSET $3 LIMIT 1"#,
        team.map(TeamId::as_str),
        upstream,
        i64::try_from(nth.saturating_sub(1)).unwrap_or(i64::MAX),
    )
    .fetch_optional(connection)
    .await?;
    Ok(seconds)
}

/// Removes up to `limit` places that nobody waits at any more.
///
/// # Errors
/// When the database fails.
pub async fn system_prune(connection: &mut PgConnection, limit: i64) -> sqlx::Result<u64> {
    let done = sqlx::query!(
        "DELETE FROM instance_queue WHERE id IN (SELECT id FROM instance_queue WHERE seen_until < now() LIMIT $1)",
        limit,
    )
    .execute(connection)
    .await?;
    Ok(done.rows_affected())
}
