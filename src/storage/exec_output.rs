//! Output of commands, in pieces.

use sqlx::PgConnection;

use super::execs::epoch_column;
use crate::{
    domain::exec::{Offsets, Segment},
    ids::{ExecId, TeamId},
};

/// A piece up to this size is made longer instead of another one being begun.
const GROWS_TO: i64 = 64 << 10;

/// Whose output, and by whose counting.
#[derive(Clone, Copy, Debug)]
pub struct Place<'a> {
    pub exec: &'a ExecId,
    pub epoch: u32,
    pub owner: &'a str,
}

/// A piece of output that is to be stored.
#[derive(Clone, Copy, Debug)]
pub struct Piece<'a> {
    pub segment: &'a Segment,
    /// Where in the files in the sandbox it begins, if it is there too.
    pub offsets: Option<Offsets>,
    /// Its data is left there.
    pub left: bool,
}

/// Stores a piece of output that begins where the last one ended, or after a part that is missing. False when `owner` does
/// not follow the command any more: then nothing was stored. A piece may be stored again, when nobody knows whether it was.
///
/// # Errors
/// When the database fails.
pub async fn system_append(connection: &mut PgConnection, place: &Place<'_>, piece: &Piece<'_>) -> sqlx::Result<bool> {
    let Piece { segment, offsets, left } = *piece;
    let position = column(segment.position);
    let length = column(segment.end() - segment.position);
    let stored = sqlx::query_scalar!(
        r#"WITH owned AS (
               SELECT id FROM execs WHERE id = $1 AND epoch = $2 AND owner = $3 AND status = 'running' FOR SHARE),
           last AS (
               SELECT position FROM exec_output, owned
               WHERE exec_id = $1 AND epoch = $2 AND position + length = $4 AND length < $8
                 AND (data IS NULL) = ($7::bytea IS NULL)
               ORDER BY position DESC LIMIT 1),
           grown AS (
               UPDATE exec_output SET length = length + $5, runs = runs || $6, data = data || $7
               WHERE exec_id = $1 AND epoch = $2 AND position = (SELECT position FROM last) RETURNING 1),
           added AS (
               INSERT INTO exec_output (exec_id, epoch, position, length, runs, data, stdout_at, stderr_at)
               SELECT $1, $2, $4, $5, $6, $7, $9, $10 FROM owned WHERE NOT EXISTS (SELECT FROM last)
               ON CONFLICT (exec_id, epoch, position) DO UPDATE
                   SET length = excluded.length, runs = excluded.runs, data = excluded.data
               RETURNING 1)
           SELECT count(*) AS "count!" FROM (SELECT FROM grown UNION ALL SELECT FROM added) AS stored"#,
        place.exec.as_str(),
        epoch_column(place.epoch),
        place.owner,
        position,
        length,
        segment.encode_runs(),
        (!left).then_some(&*segment.data),
        GROWS_TO,
        offsets.map(|offsets| column(offsets.stdout)),
        offsets.map(|offsets| column(offsets.stderr)),
    )
    .fetch_one(connection)
    .await?;
    Ok(stored > 0)
}

/// Drops the oldest pieces until at most about `keep` places are left. Answers how many are left.
///
/// # Errors
/// When the database fails.
pub async fn system_trim(connection: &mut PgConnection, exec: &ExecId, keep: u64) -> sqlx::Result<u64> {
    let left = sqlx::query_scalar!(
        r#"WITH counted AS (
               SELECT epoch, position, length,
                      (sum(length) OVER (ORDER BY epoch DESC, position DESC) - length)::bigint AS newer
               FROM exec_output WHERE exec_id = $1),
           dropped AS (
               DELETE FROM exec_output USING counted
               WHERE exec_output.exec_id = $1 AND exec_output.epoch = counted.epoch
                 AND exec_output.position = counted.position AND newer >= $2)
           SELECT coalesce(sum(length), 0)::bigint AS "left!" FROM counted WHERE newer < $2"#,
        exec.as_str(),
        column(keep),
    )
    .fetch_one(connection)
    .await?;
    Ok(left.unsigned_abs())
}

/// Leaves the data of the oldest pieces to the files in the sandbox until at most about that of `keep` places is here.
/// Answers of how many places it is.
///
/// # Errors
/// When the database fails.
pub async fn system_leave(connection: &mut PgConnection, exec: &ExecId, keep: u64) -> sqlx::Result<u64> {
    let held = sqlx::query_scalar!(
        r#"WITH counted AS (
               SELECT epoch, position, length,
                      (sum(length) OVER (ORDER BY epoch DESC, position DESC) - length)::bigint AS newer
               FROM exec_output WHERE exec_id = $1 AND data IS NOT NULL),
           left_there AS (
               UPDATE exec_output SET data = NULL FROM counted
               WHERE exec_output.exec_id = $1 AND exec_output.epoch = counted.epoch
                 AND exec_output.position = counted.position AND newer >= $2 AND stdout_at IS NOT NULL)
           SELECT coalesce(sum(length), 0)::bigint AS "held!" FROM counted WHERE newer < $2"#,
        exec.as_str(),
        column(keep),
    )
    .fetch_one(connection)
    .await?;
    Ok(held.unsigned_abs())
}

/// A stored piece.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Stored {
    pub epoch: u32,
    pub segment: Segment,
    /// Its data was left in the sandbox, in the files from here on.
    pub left_at: Option<Offsets>,
}

/// Where the last piece of a durable command's output ends: its place, and that in the files in the sandbox. `None` when
/// nothing was stored yet.
///
/// # Errors
/// When the database fails.
pub async fn system_end(connection: &mut PgConnection, exec: &ExecId) -> sqlx::Result<Option<(u64, Offsets)>> {
    let row = sqlx::query!(
        "SELECT position, runs, stdout_at, stderr_at FROM exec_output WHERE exec_id = $1
         ORDER BY epoch DESC, position DESC LIMIT 1",
        exec.as_str(),
    )
    .fetch_optional(connection)
    .await?;
    row.map(|row| {
        let segment = decode(row.position, &row.runs, None)?;
        let mut offsets = offsets(row.stdout_at, row.stderr_at).unwrap_or_default();
        for (stream, len) in segment.outputs() {
            offsets.advance(stream, len);
        }
        Ok((segment.end(), offsets))
    })
    .transpose()
}

fn decode(position: i64, runs: &[u8], data: Option<Vec<u8>>) -> sqlx::Result<Segment> {
    let segment = Segment::decode(position.unsigned_abs(), runs, data);
    segment.ok_or_else(|| sqlx::Error::Decode("a piece of output is not readable".into()))
}

fn offsets(stdout: Option<i64>, stderr: Option<i64>) -> Option<Offsets> {
    Some(Offsets { stdout: stdout?.unsigned_abs(), stderr: stderr?.unsigned_abs() })
}

/// The first piece that holds anything from a place on, in that epoch or a later one. A piece that cannot be read, which
/// this version does not write, is an error.
///
/// # Errors
/// When the database fails.
pub async fn next(
    connection: &mut PgConnection,
    team: &TeamId,
    exec: &ExecId,
    epoch: u32,
    position: u64,
) -> sqlx::Result<Option<Stored>> {
    let row = sqlx::query!(
        "SELECT o.epoch, position, runs, data, stdout_at, stderr_at FROM exec_output o JOIN execs ON execs.id = exec_id
         WHERE exec_id = $2 AND team_id = $1 AND (o.epoch, position + length) > ($3, $4::bigint)
         ORDER BY o.epoch, position LIMIT 1",
        team.as_str(),
        exec.as_str(),
        epoch_column(epoch),
        column(position),
    )
    .fetch_optional(connection)
    .await?;
    row.map(|row| {
        let left_at = if row.data.is_none() { offsets(row.stdout_at, row.stderr_at) } else { None };
        let segment = decode(row.position, &row.runs, row.data)?;
        Ok(Stored { epoch: row.epoch.unsigned_abs(), segment, left_at })
    })
    .transpose()
}

/// Removes what is kept of commands that ended more than `age_seconds` ago, up to `limit` pieces. Answers how many.
///
/// # Errors
/// When the database fails.
pub async fn system_prune(connection: &mut PgConnection, age_seconds: f64, limit: i64) -> sqlx::Result<u64> {
    let result = sqlx::query!(
        "DELETE FROM exec_output WHERE (exec_id, epoch, position) IN (
             SELECT exec_id, o.epoch, position FROM exec_output o JOIN execs ON execs.id = exec_id
             WHERE status <> 'running' AND ended_at < now() - make_interval(secs => $1) LIMIT $2)",
        age_seconds,
        limit,
    )
    .execute(connection)
    .await?;
    Ok(result.rows_affected())
}

fn column(value: u64) -> i64 {
    i64::try_from(value).unwrap_or(i64::MAX)
}
