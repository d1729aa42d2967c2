//! Code in the interpreter of an instance.
//!
//! A run lives as long as somebody reads its events: one task reads from the interpreter, and drops that connection when its
//! reader is gone, when the time is up or when it is told to; the interpreter then interrupts the code. The context lives on.

mod collect;
mod contexts;
mod run;

use std::time::Duration;

use envd_client::{CodeRun, EnvdError, EnvdErrorKind};
use tokio::sync::mpsc;

pub use self::{
    collect::{Collected, Collector},
    contexts::{create, delete, list, restart},
    run::Run,
};
use super::{
    App, audit, exec,
    instances::{self, Target},
};
use crate::{
    auth::Caller,
    domain::{code::CodeSpec, exec::Limits, redaction::Excerpt},
    error::{Code, Error, Result},
    ids::InstanceId,
};

/// Events that wait for the reader. Code whose output nobody takes is held up.
const QUEUE: usize = 16;

/// For the interpreter to take code: it may have to start a kernel, which does not count as the code's time.
const OPEN_LIMIT: Duration = Duration::from_secs(90);

/// Starts code and resolves when the interpreter has taken it.
///
/// # Errors
/// `validation_failed`; `not_found` for the instance or the context; `tool_type_unsupported`; `invalid_state` when the
/// instance is not RUNNING; `quota_exceeded`; `upstream_error` when the language has no kernel there.
pub async fn start(app: &App, caller: &Caller, instance: &InstanceId, spec: CodeSpec) -> Result<Run> {
    let run = audit::begin(app, caller, instance, || Excerpt::of_text(&spec.code));
    run.told(launch(app, caller, instance, spec).await, |_| None)
}

async fn launch(app: &App, caller: &Caller, instance: &InstanceId, spec: CodeSpec) -> Result<Run> {
    let config = &app.config.exec;
    let problems =
        spec.problems(&Limits { max_timeout: config.max_timeout, max_output_limit: config.max_output_limit });
    if !problems.is_empty() {
        return Err(Error::fields(problems));
    }
    if app.lifecycle.is_draining() {
        return Err(Error::new(Code::Unavailable, "This gateway is shutting down. Try again."));
    }
    let target = interpreter(app, caller, instance).await?;
    let permit = exec::admit_code(app, caller, instance).await?;
    let timeout = spec.timeout.unwrap_or(config.timeout);
    let wire = CodeRun {
        env_vars: spec.environment(&target.instance.env),
        code: spec.code,
        context_id: spec.context,
        language: spec.language.map(|language| language.as_str().to_owned()),
    };
    let opened = target.call_code(|interpreter| {
        let wire = wire.clone();
        async move { interpreter.execute(&wire).await }
    });
    let Ok(opened) = tokio::time::timeout(OPEN_LIMIT, opened).await else {
        return Err(Error::new(Code::UpstreamTimeout, "The interpreter did not take the code in time."));
    };
    let events = opened?.map_err(|error| refused(&target, &wire, error))?;
    let (sender, receiver) = mpsc::channel(QUEUE);
    let (run, reader) = run::pair(events, timeout, receiver, sender, permit);
    audit::count_run(app, caller, &target.instance.tool_id);
    let (told, history) = (audit::CodeRun::new(caller, &target.instance.tool_id), app.clone());
    app.lifecycle.spawn("code", async move {
        let (reason, duration) = reader.read().await;
        told.ended(&history, reason.as_str(), duration);
    });
    Ok(run)
}

/// A running instance with a code interpreter.
async fn interpreter(app: &App, caller: &Caller, instance: &InstanceId) -> Result<Target> {
    let target = instances::running(app, caller, instance).await?;
    if target.interprets_code() {
        return Ok(target);
    }
    let detail = format!(
        "The instance's tool is of type {}, which has no code interpreter. Upload the code with \
         PUT /v1/instances/{instance}/files and run it with POST /v1/instances/{instance}/exec, or use a tool of type \
         code-interpreter.",
        target.instance.tool_type
    );
    Err(Error::new(Code::ToolTypeUnsupported, detail))
}

fn refused(target: &Target, run: &CodeRun, error: EnvdError) -> Error {
    match (error.kind(), &run.context_id) {
        (EnvdErrorKind::NotFound, Some(_)) => no_context(error),
        (EnvdErrorKind::Internal, None) => {
            no_kernel(target, run.language.as_deref().unwrap_or("python"), "language", error)
        }
        _ => target.error(error),
    }
}

fn no_context(error: EnvdError) -> Error {
    let detail = "There is no such context in the instance. List them with GET …/contexts.";
    Error::new(Code::NotFound, detail).with_source(error)
}

/// The interpreter's own words are fit for the caller, whose sandbox it is.
fn no_kernel(target: &Target, language: &str, field: &str, error: EnvdError) -> Error {
    let Some(said) = error.daemon_message() else { return target.error(error) };
    let detail = format!("The sandbox gives no context for {language}: {said}");
    Error::new(Code::UpstreamError, detail)
        .with_field(field, "the sandbox has no kernel for it, or cannot start it")
        .with_sandbox(target.instance.reference())
        .with_source(error)
}
