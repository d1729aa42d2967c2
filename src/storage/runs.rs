//! Runs. What one was given and what it came to are JSON in bytes, which may hold the NUL characters that `jsonb` refuses.

use chrono::{DateTime, Utc};
use sqlx::{PgConnection, types::Json};

use crate::{
    domain::{
        page::{Page, PageRequest},
        run::{Failure, Input, Origin, Outcome, Run, RunStatus},
    },
    ids::{ExecId, InstanceId, KeyId, RunId, TeamId, ToolId},
};

struct Row {
    id: RunId,
    team_id: TeamId,
    created_by: KeyId,
    tool_id: ToolId,
    tool_name: String,
    instance_id: InstanceId,
    exec_id: ExecId,
    code: bool,
    origin: Json<Origin>,
    status: String,
    timeout_seconds: i32,
    failure: Option<Json<Failure>>,
    created_at: DateTime<Utc>,
    cancelled_at: Option<DateTime<Utc>>,
    ended_at: Option<DateTime<Utc>>,
    epoch: i32,
}

impl From<Row> for Run {
    fn from(row: Row) -> Self {
        Self {
            id: row.id,
            team_id: row.team_id,
            created_by: row.created_by,
            tool_id: row.tool_id,
            tool_name: row.tool_name,
            instance_id: row.instance_id,
            exec_id: row.exec_id,
            code: row.code,
            origin: row.origin.0,
            // A later version's step: all that this one can do about it is to end it.
            status: RunStatus::from_name(&row.status).unwrap_or(RunStatus::Stopping),
            timeout_seconds: row.timeout_seconds.unsigned_abs(),
            failure: row.failure.map(|failure| failure.0),
            created_at: row.created_at,
            cancelled_at: row.cancelled_at,
            ended_at: row.ended_at,
            epoch: row.epoch,
        }
    }
}

/// A hold on a run, as long as it is renewed. What an earlier holder writes is refused.
#[derive(Clone, Copy, Debug)]
pub struct Lease<'a> {
    pub id: &'a RunId,
    pub owner: &'a str,
    pub epoch: i32,
}

/// A run to be stored.
pub struct NewRun<'a> {
    pub id: &'a RunId,
    pub team: &'a TeamId,
    pub created_by: &'a KeyId,
    pub tool: (&'a ToolId, &'a str),
    pub instance: &'a InstanceId,
    pub exec: &'a ExecId,
    pub code: bool,
    pub origin: &'a Origin,
    pub timeout_seconds: u32,
    pub input: &'a Input,
    pub owner: &'a str,
    pub lease_seconds: f64,
}

fn encoded<T: serde::Serialize>(value: &T) -> sqlx::Result<Vec<u8>> {
    serde_json::to_vec(value).map_err(|error| sqlx::Error::Encode(error.into()))
}

fn decoded<T: serde::de::DeserializeOwned>(bytes: &[u8]) -> sqlx::Result<T> {
    serde_json::from_slice(bytes).map_err(|error| sqlx::Error::Decode(error.into()))
}

/// Stores a run that is STARTING, and that `owner` drives.
///
/// # Errors
/// When the database fails.
pub async fn insert(connection: &mut PgConnection, new: &NewRun<'_>) -> sqlx::Result<Run> {
    let row = sqlx::query_as!(
        Row,
        r#"INSERT INTO runs (id, team_id, created_by, tool_id, tool_name, instance_id, exec_id, code, origin, status,
                             timeout_seconds, input, owner, lease_until)
           VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9, 'starting', $10, $11, $12, now() + make_interval(secs => $13))
           RETURNING id AS "id: _", team_id AS "team_id: _", created_by AS "created_by: _", tool_id AS "tool_id: _", tool_name,
                     instance_id AS "instance_id: _", exec_id AS "exec_id: _", code, origin AS "origin: _", status,
                     timeout_seconds, failure AS "failure: _", created_at, cancelled_at, ended_at, epoch"#,
        new.id.as_str(),
        new.team.as_str(),
        new.created_by.as_str(),
        new.tool.0.as_str(),
        new.tool.1,
        new.instance.as_str(),
        new.exec.as_str(),
        new.code,
        Json(new.origin) as _,
        i32::try_from(new.timeout_seconds).unwrap_or(i32::MAX),
        encoded(new.input)?,
        new.owner,
        new.lease_seconds,
    )
    .fetch_one(connection)
    .await?;
    Ok(row.into())
}

/// Removes a run that was not begun.
///
/// # Errors
/// When the database fails.
pub async fn discard(connection: &mut PgConnection, team: &TeamId, id: &RunId) -> sqlx::Result<()> {
    sqlx::query!(
        "DELETE FROM runs WHERE team_id = $1 AND id = $2 AND status = 'starting'",
        team.as_str(),
        id.as_str(),
    )
    .execute(connection)
    .await?;
    Ok(())
}

/// A run of a team.
///
/// # Errors
/// When the database fails.
pub async fn find(connection: &mut PgConnection, team: &TeamId, id: &RunId) -> sqlx::Result<Option<Run>> {
    let row = sqlx::query_as!(
        Row,
        r#"SELECT id AS "id: _", team_id AS "team_id: _", created_by AS "created_by: _", tool_id AS "tool_id: _", tool_name,
                  instance_id AS "instance_id: _", exec_id AS "exec_id: _", code, origin AS "origin: _", status,
                  timeout_seconds, failure AS "failure: _", created_at, cancelled_at, ended_at, epoch
           FROM runs WHERE team_id = $1 AND id = $2"#,
        team.as_str(),
        id.as_str(),
    )
    .fetch_optional(connection)
    .await?;
    Ok(row.map(Run::from))
}

/// What a run has come to so far.
///
/// # Errors
/// When the database fails.
pub async fn outcome(connection: &mut PgConnection, team: &TeamId, id: &RunId) -> sqlx::Result<Outcome> {
    let row = sqlx::query!("SELECT output, files FROM runs WHERE team_id = $1 AND id = $2", team.as_str(), id.as_str())
        .fetch_optional(connection)
        .await?;
    let Some(row) = row else { return Ok(Outcome::default()) };
    Ok(Outcome {
        output: row.output.map(|output| decoded(&output)).transpose()?,
        files: row.files.map(|files| decoded(&files)).transpose()?,
    })
}

/// A team's runs, newest first, of the given statuses or of all.
///
/// # Errors
/// When the database fails.
pub async fn list(
    connection: &mut PgConnection,
    team: &TeamId,
    statuses: &[String],
    page: &PageRequest,
) -> sqlx::Result<Page<Run>> {
    let rows = sqlx::query_as!(
        Row,
        r#"SELECT id AS "id: _", team_id AS "team_id: _", created_by AS "created_by: _", tool_id AS "tool_id: _", tool_name,
                  instance_id AS "instance_id: _", exec_id AS "exec_id: _", code, origin AS "origin: _", status,
                  timeout_seconds, failure AS "failure: _", created_at, cancelled_at, ended_at, epoch
           FROM runs
           WHERE team_id = $1 AND (cardinality($2::text[]) = 0 OR status = ANY($2)) AND ($3::text IS NULL OR id < $3)
           ORDER BY id DESC LIMIT $4"#,
        team.as_str(),
        statuses,
        page.before,
        page.fetch(),
    )
    .fetch_all(connection)
    .await?;
    Ok(Page::from_fetched(rows.into_iter().map(Run::from).collect(), page, |run: &Run| run.id.to_string()))
}

/// Notes that a run is not wanted any more. False when it has ended.
///
/// # Errors
/// When the database fails.
pub async fn cancel(connection: &mut PgConnection, team: &TeamId, id: &RunId) -> sqlx::Result<bool> {
    let done = sqlx::query!(
        "UPDATE runs SET cancelled_at = coalesce(cancelled_at, now()) WHERE team_id = $1 AND id = $2 AND ended_at IS NULL",
        team.as_str(),
        id.as_str(),
    )
    .execute(connection)
    .await?;
    Ok(done.rows_affected() == 1)
}

/// What a run was given; `None` when nobody needs it any more.
///
/// # Errors
/// When the database fails.
pub async fn system_input(connection: &mut PgConnection, id: &RunId) -> sqlx::Result<Option<Input>> {
    let input =
        sqlx::query_scalar!("SELECT input FROM runs WHERE id = $1", id.as_str()).fetch_optional(connection).await?;
    input.flatten().map(|input| decoded(&input)).transpose()
}

/// Says again that somebody drives a run: whether it was cancelled meanwhile. `None` when another does.
///
/// # Errors
/// When the database fails.
pub async fn system_renew(
    connection: &mut PgConnection,
    lease: &Lease<'_>,
    lease_seconds: f64,
) -> sqlx::Result<Option<bool>> {
    sqlx::query_scalar!(
        r#"UPDATE runs SET lease_until = now() + make_interval(secs => $4)
           WHERE id = $1 AND owner = $2 AND epoch = $3 AND ended_at IS NULL
           RETURNING cancelled_at IS NOT NULL AS "cancelled!""#,
        lease.id.as_str(),
        lease.owner,
        lease.epoch,
        lease_seconds,
    )
    .fetch_optional(connection)
    .await
}

/// Leaves a run to another at once.
///
/// # Errors
/// When the database fails.
pub async fn system_release(connection: &mut PgConnection, lease: &Lease<'_>) -> sqlx::Result<()> {
    sqlx::query!(
        "UPDATE runs SET owner = '', lease_until = now() WHERE id = $1 AND owner = $2 AND epoch = $3 AND ended_at IS NULL",
        lease.id.as_str(),
        lease.owner,
        lease.epoch,
    )
    .execute(connection)
    .await?;
    Ok(())
}

/// Takes over up to `limit` runs that nobody drives any more. Other replicas take others at the same time.
///
/// # Errors
/// When the database fails.
pub async fn system_adopt(
    connection: &mut PgConnection,
    owner: &str,
    lease_seconds: f64,
    limit: i64,
) -> sqlx::Result<Vec<Run>> {
    let rows = sqlx::query_as!(
        Row,
        r#"UPDATE runs SET owner = $1, epoch = epoch + 1, lease_until = now() + make_interval(secs => $2)
           WHERE id IN (SELECT id FROM runs WHERE ended_at IS NULL AND lease_until <= now()
                        ORDER BY lease_until LIMIT $3 FOR UPDATE SKIP LOCKED)
           RETURNING id AS "id: _", team_id AS "team_id: _", created_by AS "created_by: _", tool_id AS "tool_id: _", tool_name,
                     instance_id AS "instance_id: _", exec_id AS "exec_id: _", code, origin AS "origin: _", status,
                     timeout_seconds, failure AS "failure: _", created_at, cancelled_at, ended_at, epoch"#,
        owner,
        lease_seconds,
        limit,
    )
    .fetch_all(connection)
    .await?;
    Ok(rows.into_iter().map(Run::from).collect())
}

/// A step that a run has taken.
pub struct Step<'a> {
    pub status: RunStatus,
    /// What it has come to, where that is known with this step.
    pub outcome: &'a Outcome,
    /// Why it fails. Of one that was cancelled that is why.
    pub failure: Option<&'a Failure>,
}

/// Notes a step. With the last ones what the run was given is forgotten. False when another drives it.
///
/// # Errors
/// When the database fails.
pub async fn system_step(connection: &mut PgConnection, lease: &Lease<'_>, step: &Step<'_>) -> sqlx::Result<bool> {
    let output = step.outcome.output.as_ref().map(encoded).transpose()?;
    let files = step.outcome.files.as_ref().map(encoded).transpose()?;
    let over = step.status.is_final() || step.status == RunStatus::Stopping;
    let done = sqlx::query!(
        "UPDATE runs SET status = $4, output = coalesce($5, output), files = coalesce($6, files), updated_at = now(),
                         failure = CASE WHEN $7::jsonb IS NULL THEN failure WHEN cancelled_at IS NULL THEN $7 ELSE $8 END,
                         input = CASE WHEN $9 THEN NULL ELSE input END, ended_at = CASE WHEN $10 THEN now() END
         WHERE id = $1 AND owner = $2 AND epoch = $3 AND ended_at IS NULL",
        lease.id.as_str(),
        lease.owner,
        lease.epoch,
        step.status.as_str(),
        output,
        files,
        step.failure.map(Json) as _,
        Json(Failure::cancelled()) as _,
        over,
        step.status.is_final(),
    )
    .execute(connection)
    .await?;
    Ok(done.rows_affected() == 1)
}

/// Removes up to `limit` runs that ended more than `age_seconds` ago.
///
/// # Errors
/// When the database fails.
pub async fn system_prune(connection: &mut PgConnection, age_seconds: f64, limit: i64) -> sqlx::Result<u64> {
    let done = sqlx::query!(
        "DELETE FROM runs WHERE id IN
             (SELECT id FROM runs WHERE ended_at < now() - make_interval(secs => $1) LIMIT $2 FOR UPDATE SKIP LOCKED)",
        age_seconds,
        limit,
    )
    .execute(connection)
    .await?;
    Ok(done.rows_affected())
}
