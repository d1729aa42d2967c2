//! Creating a run: it is checked as a whole, then written together with its instance's intent.

use std::time::Duration;

use super::drive;
use crate::{
    app::{
        App,
        files::parse_path,
        idempotency::Intent,
        instances::{self, Place, Prepared, Queueing},
    },
    auth::Caller,
    domain::{
        code::CodeSpec,
        duration::Seconds,
        exec::{Limits, Spec},
        run::{Input, Origin, Run, Work},
        scope::Scope,
        tool::TIMEOUT_RANGE,
    },
    error::{Code, Error, FieldError, Result},
    ids::{ExecId, RunId},
    storage::runs::{self, NewRun},
};

/// What a run's instance is given on top of the time of its command, for its files and its end.
const MARGIN: Duration = Duration::from_secs(300);
/// Files that are asked for.
const MAX_COLLECT: usize = 100;
const CODE_INTERPRETER: &str = "code-interpreter";

/// What a new run shall be.
pub struct Wanted {
    /// Id or name.
    pub tool: Option<String>,
    pub timeout: Option<Duration>,
    pub input: Input,
}

/// Begins a run, which goes on whoever hangs up.
///
/// # Errors
/// Those of creating an instance, also in line; `validation_failed`; `tool_type_unsupported` for code with another tool than
/// a code interpreter; `scope_missing`.
pub async fn create(
    app: &App,
    caller: &Caller,
    wanted: &Wanted,
    queueing: Option<Queueing>,
    intent: Intent,
) -> Result<Run> {
    check_scopes(caller, &wanted.input)?;
    let timeout = wanted.timeout.unwrap_or(app.config.exec.timeout);
    let problems = problems(app, &wanted.input, timeout);
    if !problems.is_empty() {
        return Err(Error::fields(problems));
    }
    if app.lifecycle.is_draining() {
        return Err(Error::new(Code::Unavailable, "This gateway is shutting down. Try again."));
    }
    let seconds = u32::try_from(timeout.as_secs()).unwrap_or(u32::MAX);
    let life = life(seconds, caller.team.quotas.max_lifetime_seconds);
    let instance =
        instances::Wanted { tool: wanted.tool.clone(), timeout: Some(Seconds(life)), ..instances::Wanted::default() };
    let prepared = instances::prepare(app, caller, &instance).await?;
    check_type(&prepared, &wanted.input.work)?;
    let write = async |ticket| write(app, caller, &prepared, &wanted.input, seconds, ticket, &intent).await;
    let Some(queueing) = queueing else {
        let run = write(None).await?;
        let starting = instances::launch(app, &run.instance_id);
        drive::spawn(app, run.clone(), Some(starting));
        return Ok(run);
    };
    let place = Place::new(app, caller, &prepared, queueing);
    loop {
        let run = place.wait(|| write(Some(place.ticket()))).await?;
        let starting = instances::launch(app, &run.instance_id);
        match instances::accepted(app, &run.instance_id, starting, Duration::ZERO, place.left()).await {
            Err(error) if place.goes_on_after(&error) => {
                discard(app, &run).await?;
                place.hold().await?;
            }
            // What else a start fails with is the run's failure.
            _ => {
                drive::spawn(app, run.clone(), None);
                return Ok(run);
            }
        }
    }
}

/// Forgets a run whose instance the cloud had no room for: another one takes its place.
async fn discard(app: &App, run: &Run) -> Result<()> {
    let mut connection = app.pool.acquire().await?;
    Ok(runs::discard(&mut connection, &run.team_id, &run.id).await?)
}

/// A run does what else several calls do, and needs what they need.
fn check_scopes(caller: &Caller, input: &Input) -> Result<()> {
    caller.require_any(&[Scope::InstancesWrite])?;
    if !input.files.is_empty() {
        caller.require_any(&[Scope::FilesWrite])?;
    }
    if !input.collect.is_empty() {
        caller.require_any(&[Scope::FilesRead])?;
    }
    Ok(())
}

fn problems(app: &App, input: &Input, timeout: Duration) -> Vec<FieldError> {
    let config = &app.config.exec;
    let limits = Limits { max_timeout: config.max_timeout, max_output_limit: config.max_output_limit };
    let mut problems = match &input.work {
        Work::Command { .. } => command(input, timeout).map(|spec| spec.problems(&limits)).unwrap_or_default(),
        Work::Code { .. } => code(input, timeout).map(|spec| spec.problems(&limits)).unwrap_or_default(),
    };
    let mut path = |field: String, text: &str| {
        let bad = parse_path(&field, text)
            .and_then(|path| path.file().map(drop).map_err(|problem| Error::field(field.clone(), problem.to_string())));
        problems.extend(bad.err().into_iter().flat_map(|error| error.into_inner().fields));
    };
    for (index, file) in input.files.iter().enumerate() {
        path(format!("files[{index}].path"), &file.path);
    }
    for (index, text) in input.collect.iter().enumerate() {
        path(format!("collect[{index}]"), text);
    }
    if input.collect.len() > MAX_COLLECT {
        let message = format!("may name {MAX_COLLECT} files at most: pack more into an archive");
        problems.push(FieldError { field: "collect".into(), message });
    }
    problems
}

/// The command of a run as the gateway runs it: in the background and durably, so that whoever drives the run finds it.
pub(super) fn command(input: &Input, timeout: Duration) -> Option<Spec> {
    let Work::Command { command, cwd } = &input.work else { return None };
    Some(Spec {
        command: command.clone(),
        user: input.user.clone(),
        cwd: cwd.clone(),
        env: input.env.clone(),
        timeout: Some(timeout),
        stdin: false,
        pty: None,
        background: true,
        durable: true,
        keep_alive: true,
        tag: None,
        output_limit: Some(input.output_limit),
    })
}

/// The code of a run.
pub(super) fn code(input: &Input, timeout: Duration) -> Option<CodeSpec> {
    let Work::Code { code, language } = &input.work else { return None };
    Some(CodeSpec {
        code: code.clone(),
        language: *language,
        context: None,
        env: input.env.clone(),
        timeout: Some(timeout),
        output_limit: Some(input.output_limit),
    })
}

/// Seconds that the instance may live: a backstop, should no gateway be left to stop it. One that is longer than the team's
/// may live by the command alone is refused by that.
fn life(timeout: u32, longest: u32) -> u32 {
    let margin = u32::try_from(MARGIN.as_secs()).unwrap_or(u32::MAX);
    let (least, most) = TIMEOUT_RANGE.into_inner();
    timeout.saturating_add(margin).clamp(least, most).min(longest.max(timeout))
}

fn check_type(prepared: &Prepared, work: &Work) -> Result<()> {
    let tool = prepared.tool();
    if matches!(work, Work::Command { .. }) || tool.kind == CODE_INTERPRETER {
        return Ok(());
    }
    let detail = format!(
        "The tool is of type {}, which has no code interpreter. Send the code among `files` and run it with `cmd`, or use a \
         tool of type code-interpreter.",
        tool.kind
    );
    Err(Error::new(Code::ToolTypeUnsupported, detail))
}

async fn write(
    app: &App,
    caller: &Caller,
    prepared: &Prepared,
    input: &Input,
    timeout_seconds: u32,
    ticket: Option<&str>,
    intent: &Intent,
) -> Result<Run> {
    let (id, exec): (RunId, ExecId) = (app.ids.next(), app.ids.next());
    let tool = prepared.tool();
    let mut tx = app.pool.begin().await?;
    let instance = prepared.insert(app, caller, &mut tx, ticket).await?;
    let new = NewRun {
        id: &id,
        team: caller.team_id(),
        created_by: &caller.key_id,
        tool: (&tool.id, &tool.name),
        instance: &instance,
        exec: &exec,
        code: matches!(input.work, Work::Code { .. }),
        origin: &origin(caller),
        timeout_seconds,
        input,
        owner: app.execs.replica(),
        lease_seconds: app.upkeep.claim_seconds(),
    };
    let run = runs::insert(&mut tx, &new).await?;
    caller.trail.note_target(id.as_str());
    caller.trail.intend(&mut tx).await?;
    intent.note(&mut tx, id.as_str()).await?;
    tx.commit().await?;
    Ok(run)
}

fn origin(caller: &Caller) -> Origin {
    caller.trail.event().map_or_else(Origin::default, |event| Origin {
        request_id: event.request_id,
        client: event.client,
        on_behalf_of: event.on_behalf_of,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_instance_lives_a_while_longer_than_its_command_within_what_is_allowed() {
        assert_eq!(life(60, 86_400), 360);
        assert_eq!(life(86_400, 86_400), 86_400);
        assert_eq!(life(60, 120), 120);
        // More than the team's may: refused by that where the instance is checked.
        assert_eq!(life(200, 120), 200);
    }
}
