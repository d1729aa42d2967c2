//! Commands in instances: what ran and how it ended, never its output.

use chrono::{DateTime, Utc};
use sqlx::{PgConnection, types::Json};

use crate::{
    domain::{
        exec::{Command, Exec, ExecStatus, Reason},
        page::{Page, PageRequest},
    },
    ids::{ExecId, InstanceId, KeyId, TeamId},
    storage::replicas::Replica,
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
    foreground: bool,
    pty: bool,
    stdin: bool,
    durable: bool,
    keep_alive: bool,
    attached: bool,
    status: String,
    pid: Option<i64>,
    exit_code: Option<i32>,
    signal: Option<String>,
    reason: Option<String>,
    error: Option<String>,
    epoch: i32,
    output_end: Option<i64>,
    started_at: DateTime<Utc>,
    expires_at: Option<DateTime<Utc>>,
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
            foreground: row.foreground,
            pty: row.pty,
            stdin: row.stdin,
            durable: row.durable,
            keep_alive: row.keep_alive,
            attached: row.attached,
            status: ExecStatus::from_name(&row.status).unwrap_or(ExecStatus::Lost),
            pid: row.pid.and_then(|pid| u32::try_from(pid).ok()),
            exit_code: row.exit_code,
            signal: row.signal,
            reason: row.reason.as_deref().and_then(Reason::from_name),
            error: row.error,
            epoch: row.epoch.unsigned_abs(),
            output_end: row.output_end.map(i64::unsigned_abs),
            started_at: row.started_at,
            expires_at: row.expires_at,
            ended_at: row.ended_at,
        }
    }
}

fn length_column(length: u64) -> i64 {
    i64::try_from(length).unwrap_or(i64::MAX)
}

/// Stores a command that is being started, or one that has ended since. `owner` follows its output, and says so again within
/// `lease_seconds`. False when there is one of that id.
///
/// # Errors
/// When the database fails.
pub async fn insert(connection: &mut PgConnection, exec: &Exec, owner: &str, lease_seconds: f64) -> sqlx::Result<bool> {
    let done = sqlx::query!(
        "INSERT INTO execs (id, team_id, instance_id, created_by, cmd, user_name, tag, background, foreground, pty, stdin,
                            durable, attached, status, pid, epoch, started_at, expires_at, owner, lease_until, keep_alive,
                            exit_code, signal, reason, error, ended_at, output_end)
         VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9, $10, $11, $12, $13, $14, $15, $16, $17, $18, $19,
                 now() + make_interval(secs => $20), $21, $22, $23, $24, $25, $26, $27)
         ON CONFLICT (id) DO NOTHING",
        exec.id.as_str(),
        exec.team_id.as_str(),
        exec.instance_id.as_str(),
        exec.created_by.as_str(),
        Json(&exec.command) as _,
        exec.user,
        exec.tag,
        exec.background,
        exec.foreground,
        exec.pty,
        exec.stdin,
        exec.durable,
        exec.attached,
        exec.status.as_str(),
        exec.pid.map(i64::from),
        epoch_column(exec.epoch),
        exec.started_at,
        exec.expires_at,
        owner,
        lease_seconds,
        exec.keep_alive,
        exec.exit_code,
        exec.signal,
        exec.reason.map(Reason::as_str),
        exec.error,
        exec.ended_at,
        exec.output_end.map(length_column),
    )
    .execute(connection)
    .await?;
    Ok(done.rows_affected() == 1)
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

/// Notes how a command ended: `exec` is as it was last seen. False when `owner` does not follow it any more, or its end is known already.
///
/// # Errors
/// When the database fails.
pub async fn finish(connection: &mut PgConnection, exec: &Exec, owner: &str) -> sqlx::Result<bool> {
    let result = sqlx::query!(
        "UPDATE execs SET status = $5, pid = coalesce($6, pid), exit_code = $7, signal = $8, reason = $9, error = $10,
                          ended_at = $11, output_end = $12
         WHERE team_id = $1 AND id = $2 AND owner = $3 AND epoch = $4 AND status = 'running'",
        exec.team_id.as_str(),
        exec.id.as_str(),
        owner,
        epoch_column(exec.epoch),
        exec.status.as_str(),
        exec.pid.map(i64::from),
        exec.exit_code,
        exec.signal,
        exec.reason.map(Reason::as_str),
        exec.error,
        exec.ended_at,
        exec.output_end.map(length_column),
    )
    .execute(connection)
    .await?;
    Ok(result.rows_affected() > 0)
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

/// A command of a team's instance.
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
                  cmd AS "cmd: _", user_name, tag, background, foreground, pty, stdin, durable, keep_alive, attached, status,
                  pid, exit_code, signal, reason, error, epoch, output_end, started_at, expires_at, ended_at
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
        r#"SELECT id AS "id: _", team_id AS "team_id: _", instance_id AS "instance_id: _", created_by AS "created_by: _",
                  cmd AS "cmd: _", user_name, tag, background, foreground, pty, stdin, durable, keep_alive, attached, status,
                  pid, exit_code, signal, reason, error, epoch, output_end, started_at, expires_at, ended_at
           FROM execs
           WHERE team_id = $1 AND instance_id = $2 AND ($4::text IS NULL OR id < $4)
             AND (cardinality($3::text[]) = 0 OR status = ANY($3))
           ORDER BY id DESC LIMIT $5"#,
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

/// Says again that `owner` follows these commands. Answers those that it still does follow.
///
/// # Errors
/// When the database fails.
pub async fn system_renew(
    connection: &mut PgConnection,
    owner: &str,
    ids: &[String],
    lease_seconds: f64,
) -> sqlx::Result<Vec<ExecId>> {
    sqlx::query_scalar!(
        r#"UPDATE execs SET lease_until = now() + make_interval(secs => $3)
           WHERE id = ANY($2) AND owner = $1 AND status = 'running' RETURNING id AS "id: _""#,
        owner,
        ids,
        lease_seconds,
    )
    .fetch_all(connection)
    .await
}

/// Lets go of a command, so that another replica follows it at once.
///
/// # Errors
/// When the database fails.
pub async fn system_release(connection: &mut PgConnection, owner: &str, id: &ExecId) -> sqlx::Result<()> {
    sqlx::query!(
        "UPDATE execs SET owner = '', lease_until = now() WHERE id = $2 AND owner = $1 AND status = 'running'",
        owner,
        id.as_str(),
    )
    .execute(connection)
    .await?;
    Ok(())
}

/// A command that nobody followed, and that the asking replica follows now.
pub struct Adopted {
    pub team: TeamId,
    pub instance: InstanceId,
    pub id: ExecId,
}

/// Takes over up to `limit` commands that nobody follows: each begins a new epoch. Other replicas take others at the same time.
///
/// # Errors
/// When the database fails.
pub async fn system_adopt(
    connection: &mut PgConnection,
    owner: &str,
    lease_seconds: f64,
    limit: i64,
) -> sqlx::Result<Vec<Adopted>> {
    sqlx::query_as!(
        Adopted,
        r#"UPDATE execs SET owner = $1, epoch = epoch + 1, lease_until = now() + make_interval(secs => $2)
           WHERE id IN (SELECT id FROM execs WHERE status = 'running' AND lease_until <= now()
                        ORDER BY lease_until LIMIT $3 FOR UPDATE SKIP LOCKED)
           RETURNING team_id AS "team: _", instance_id AS "instance: _", id AS "id: _""#,
        owner,
        lease_seconds,
        limit,
    )
    .fetch_all(connection)
    .await
}

/// The replica that follows a command which runs, and where it is reached.
///
/// # Errors
/// When the database fails.
pub async fn system_owner(connection: &mut PgConnection, id: &ExecId) -> sqlx::Result<Option<Replica>> {
    sqlx::query_as!(
        Replica,
        "SELECT replicas.id, url FROM execs JOIN replicas ON replicas.id = owner
         WHERE execs.id = $1 AND status = 'running' AND lease_until > now()",
        id.as_str(),
    )
    .fetch_optional(connection)
    .await
}

/// Removes up to `limit` commands of instances that ended more than `age_seconds` ago, with their output.
///
/// # Errors
/// When the database fails.
pub async fn system_prune(connection: &mut PgConnection, age_seconds: f64, limit: i64) -> sqlx::Result<u64> {
    let done = sqlx::query!(
        "DELETE FROM execs WHERE id IN
             (SELECT e.id FROM execs e JOIN instances i ON i.id = e.instance_id
              WHERE i.stopped_at < now() - make_interval(secs => $1) LIMIT $2 FOR UPDATE OF e SKIP LOCKED)",
        age_seconds,
        limit,
    )
    .execute(connection)
    .await?;
    Ok(done.rows_affected())
}

pub(super) fn epoch_column(epoch: u32) -> i32 {
    i32::try_from(epoch).unwrap_or(i32::MAX)
}
