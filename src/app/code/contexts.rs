//! Contexts: kernels with their state.

use std::time::Duration;

use envd_client::{CodeContext, EnvdError, EnvdErrorKind};

use super::{interpreter, no_context, no_kernel};
use crate::{
    app::App,
    auth::Caller,
    domain::code::Language,
    error::{Error, Result},
    ids::InstanceId,
};

/// For a kernel to start.
const START_LIMIT: Duration = Duration::from_secs(60);
/// For what the interpreter answers at once.
const CALL_LIMIT: Duration = Duration::from_secs(10);

/// Makes a context. `cwd`: the home of the instance's user when there is none.
///
/// # Errors
/// `validation_failed`; `upstream_error` when there is no kernel for the language, or the directory is none.
pub async fn create(
    app: &App,
    caller: &Caller,
    instance: &InstanceId,
    language: Language,
    cwd: Option<String>,
) -> Result<CodeContext> {
    if cwd.as_deref().is_some_and(|cwd| cwd.is_empty() || cwd.contains('\0')) {
        return Err(Error::field("cwd", "may not be empty, nor contain a NUL character"));
    }
    let target = interpreter(app, caller, instance).await?;
    let created = target.call_code(|interpreter| {
        let cwd = cwd.clone();
        async move { interpreter.create_context(Some(language.as_str()), cwd.as_deref(), START_LIMIT).await }
    });
    created.await?.map_err(|error| match error.kind() {
        EnvdErrorKind::Internal if names(&error, cwd.as_deref()) => {
            Error::field("cwd", "is no directory that the interpreter can enter").with_source(error)
        }
        EnvdErrorKind::Internal => no_kernel(&target, language.as_str(), "language", error),
        _ => target.error(error),
    })
}

/// Whether the interpreter's words are about this directory.
fn names(error: &EnvdError, cwd: Option<&str>) -> bool {
    cwd.zip(error.daemon_message()).is_some_and(|(cwd, said)| said.contains(cwd))
}

/// All contexts of an instance, oldest first.
///
/// # Errors
/// `not_found`, `invalid_state`, `tool_type_unsupported`.
pub async fn list(app: &App, caller: &Caller, instance: &InstanceId) -> Result<Vec<CodeContext>> {
    let target = interpreter(app, caller, instance).await?;
    let listed = target.call_code(|interpreter| async move { interpreter.contexts(CALL_LIMIT).await });
    listed.await?.map_err(|error| target.error(error))
}

/// Gives a context a fresh kernel; what runs in it is broken off.
///
/// # Errors
/// `not_found` for the instance or the context.
pub async fn restart(app: &App, caller: &Caller, instance: &InstanceId, id: &str) -> Result<()> {
    let target = interpreter(app, caller, instance).await?;
    let restarted = target.call_code(|interpreter| async move { interpreter.restart_context(id, START_LIMIT).await });
    restarted.await?.map_err(|error| match error.kind() {
        EnvdErrorKind::NotFound => no_context(error),
        _ => target.error(error),
    })
}

/// Ends a context with what runs in it.
///
/// # Errors
/// `not_found` for the instance or the context.
pub async fn delete(app: &App, caller: &Caller, instance: &InstanceId, id: &str) -> Result<()> {
    let target = interpreter(app, caller, instance).await?;
    let deleted = target.call_code(|interpreter| async move { interpreter.delete_context(id, CALL_LIMIT).await });
    deleted.await?.map_err(|error| match error.kind() {
        EnvdErrorKind::NotFound => no_context(error),
        _ => target.error(error),
    })
}
