//! Commands in instances: what ran and how it ended, never its output.

use chrono::{DateTime, Utc};
use sqlx::{PgConnection, types::Json};

use crate::{
    domain::{
        exec::{Command, Exec, ExecStatus, Exit, Reason},
        page::{Page, PageRequest},
    },
    ids::{ExecId, InstanceId, KeyId, TeamId},
};

struct Row {
    id: ExecId,
    team_id: TeamId,
    instance_id: InstanceId,
    created_by: KeyId,
    cmd: Json<Command>,
    user_name: String,
    tag: Option<String>,
    background: bool,
    pty: bool,
    status: String,
    pid: Option<i64>,
    exit_code: Option<i32>,
    signal: Option<String>,
    reason: Option<String>,
    error: Option<String>,
    epoch: i32,
    started_at: DateTime<Utc>,
    ended_at: Option<DateTime<Utc>>,
}

impl From<Row> for Exec {
    fn from(row: Row) -> Self {
        Self {
            id: row.id,
            team_id: row.team_id,
            instance_id: row.instance_id,
            created_by: row.created_by,
            command: row.cmd.0,
            user: row.user_name,
            tag: row.tag,
            background: row.background,
            pty: row.pty,
            status: ExecStatus::from_name(&row.status).unwrap_or(ExecStatus::Lost),
            pid: row.pid.and_then(|pid| u32::try_from(pid).ok()),
            exit_code: row.exit_code,
            signal: row.signal,
            reason: row.reason.as_deref().and_then(Reason::from_name),
            error: row.error,
            epoch: row.epoch.unsigned_abs(),
            started_at: row.started_at,
            ended_at: row.ended_at,
        }
    }
}

/// Stores a command that is being started. `owner` follows its output, and says so again within `lease_seconds`.
///
/// # Errors
/// When the database fails.
pub async fn insert(connection: &mut PgConnection, exec: &Exec, owner: &str, lease_seconds: f64) -> sqlx::Result<()> {
    sqlx::query!(
        "INSERT INTO execs (id, team_id, instance_id, created_by, cmd, user_name, tag, background, pty, status, epoch,
                            started_at, owner, lease_until)
         VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9, 'running', $10, $11, $12, now() + make_interval(secs => $13))",
        exec.id.as_str(),
        exec.team_id.as_str(),
        exec.instance_id.as_str(),
        exec.created_by.as_str(),
        Json(&exec.command) as _,
        exec.user,
        exec.tag,
        exec.background,
        exec.pty,
        i32::try_from(exec.epoch).unwrap_or(i32::MAX),
        exec.started_at,
        owner,
        lease_seconds,
    )
    .execute(connection)
    .await?;
    Ok(())
}

/// Notes the process id of a command that runs.
///
/// # Errors
/// When the database fails.
pub async fn set_pid(connection: &mut PgConnection, team: &TeamId, id: &ExecId, pid: u32) -> sqlx::Result<()> {
    sqlx::query!(
        "UPDATE execs SET pid = $3 WHERE team_id = $1 AND id = $2",
        team.as_str(),
        id.as_str(),
        i64::from(pid)
    )
    .execute(connection)
    .await?;
    Ok(())
}

/// Notes how a command ended.
///
/// # Errors
/// When the database fails.
pub async fn finish(
    connection: &mut PgConnection,
    team: &TeamId,
    id: &ExecId,
    pid: Option<u32>,
    exit: &Exit,
) -> sqlx::Result<()> {
    sqlx::query!(
        "UPDATE execs SET status = $3, pid = coalesce($4, pid), exit_code = $5, signal = $6, reason = $7, error = $8,
                          ended_at = started_at + make_interval(secs => $9)
         WHERE team_id = $1 AND id = $2",
        team.as_str(),
        id.as_str(),
        exit.status().as_str(),
        pid.map(i64::from),
        exit.exit_code,
        exit.signal,
        exit.reason.as_str(),
        exit.error,
        exit.duration.as_secs_f64(),
    )
    .execute(connection)
    .await?;
    Ok(())
}

/// Removes a command that could not be started.
///
/// # Errors
/// When the database fails.
pub async fn remove(connection: &mut PgConnection, team: &TeamId, id: &ExecId) -> sqlx::Result<()> {
    sqlx::query!("DELETE FROM execs WHERE team_id = $1 AND id = $2", team.as_str(), id.as_str())
        .execute(connection)
        .await?;
    Ok(())
}

/// How many of a team's commands run, on all replicas.
///
/// # Errors
/// When the database fails.
pub async fn count_running(connection: &mut PgConnection, team: &TeamId) -> sqlx::Result<u64> {
    let count = sqlx::query_scalar!(
        r#"SELECT count(*) AS "count!" FROM execs WHERE team_id = $1 AND status = 'running' AND lease_until > now()"#,
        team.as_str(),
    )
    .fetch_one(connection)
    .await?;
    Ok(count.unsigned_abs())
}

/// A command of a team's instance. One whose owner has gone silent is lost.
///
/// # Errors
/// When the database fails.
pub async fn find(
    connection: &mut PgConnection,
    team: &TeamId,
    instance: &InstanceId,
    id: &ExecId,
) -> sqlx::Result<Option<Exec>> {
    let row = sqlx::query_as!(
        Row,
        r#"SELECT id AS "id: _", team_id AS "team_id: _", instance_id AS "instance_id: _", created_by AS "created_by: _",
                  cmd AS "cmd: _", user_name, tag, background, pty,
                  CASE WHEN status = 'running' AND lease_until <= now() THEN 'lost' ELSE status END AS "status!",
                  pid, exit_code, signal, reason, error, epoch, started_at, ended_at
           FROM execs WHERE team_id = $1 AND instance_id = $2 AND id = $3"#,
        team.as_str(),
        instance.as_str(),
        id.as_str(),
    )
    .fetch_optional(connection)
    .await?;
    Ok(row.map(Exec::from))
}

/// Commands of an instance, newest first. No statuses: all of them.
///
/// # Errors
/// When the database fails.
pub async fn list(
    connection: &mut PgConnection,
    team: &TeamId,
    instance: &InstanceId,
    statuses: &[String],
    page: &PageRequest,
) -> sqlx::Result<Page<Exec>> {
    let rows = sqlx::query_as!(
        Row,
        r#"SELECT * FROM (
               SELECT id AS "id: _", team_id AS "team_id: _", instance_id AS "instance_id: _",
                      created_by AS "created_by: _", cmd AS "cmd: _", user_name, tag, background, pty,
                      CASE WHEN status = 'running' AND lease_until <= now() THEN 'lost' ELSE status END AS "status!",
                      pid, exit_code, signal, reason, error, epoch, started_at, ended_at
               FROM execs WHERE team_id = $1 AND instance_id = $2 AND ($4::text IS NULL OR id < $4)
           ) AS shown
           WHERE cardinality($3::text[]) = 0 OR "status!" = ANY($3)
           ORDER BY "id: _" DESC LIMIT $5"#,
        team.as_str(),
        instance.as_str(),
        statuses,
        page.before,
        page.fetch(),
    )
    .fetch_all(connection)
    .await?;
    Ok(Page::from_fetched(rows.into_iter().map(Exec::from).collect(), page, |exec: &Exec| exec.id.to_string()))
}

/// Says again that `owner` follows these commands.
///
/// # Errors
/// When the database fails.
pub async fn system_renew(
    connection: &mut PgConnection,
    owner: &str,
    ids: &[String],
    lease_seconds: f64,
) -> sqlx::Result<()> {
    sqlx::query!(
        "UPDATE execs SET lease_until = now() + make_interval(secs => $3)
         WHERE id = ANY($2) AND owner = $1 AND status = 'running'",
        owner,
        ids,
        lease_seconds,
    )
    .execute(connection)
    .await?;
    Ok(())
}

/// Ends what nobody follows any more: its end was not seen. Answers how many.
///
/// # Errors
/// When the database fails.
pub async fn system_lose_expired(connection: &mut PgConnection, error: &str) -> sqlx::Result<u64> {
    let result = sqlx::query!(
        "UPDATE execs SET status = 'lost', reason = 'lost', error = $1, ended_at = lease_until
         WHERE status = 'running' AND lease_until <= now()",
        error,
    )
    .execute(connection)
    .await?;
    Ok(result.rows_affected())
}
