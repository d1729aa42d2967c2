//! Following commands whose gateway is gone.

use std::sync::Arc;

use super::{drive, follow, leases::LEASE_SECONDS, session::Session};
use crate::{
    app::{App, audit, instances::Target},
    domain::exec::{Exec, Exit, FIRST, Offsets},
    error::Result,
    storage::{
        exec_output,
        execs::{self, Adopted},
        instances,
    },
};

/// Taken over at once.
const BATCH: i64 = 50;

/// Takes over what nobody follows. Answers how many commands.
///
/// # Errors
/// When the database fails.
pub async fn adopt_abandoned(app: &App) -> Result<usize> {
    let mut connection = app.pool.acquire().await?;
    let taken = execs::system_adopt(&mut connection, app.execs.replica(), LEASE_SECONDS, BATCH).await?;
    drop(connection);
    for adopted in &taken {
        // It is this replica's now: what fails here is tried again when the lease has run out.
        if let Err(error) = adopt(app, adopted).await {
            tracing::warn!(exec = %adopted.id, %error, "the command was taken over, but cannot be followed yet");
        }
    }
    Ok(taken.len())
}

async fn adopt(app: &App, Adopted { team, instance, id }: &Adopted) -> Result<()> {
    let mut connection = app.pool.acquire().await?;
    let exec = execs::find(&mut connection, team, instance, id).await?;
    let instance = instances::find(&mut connection, team, instance).await?;
    drop(connection);
    let (Some(exec), Some(instance)) = (exec, instance) else { return Ok(()) };
    tracing::info!(exec = %exec.id, epoch = exec.epoch, "following a command that was left");
    if exec.attached {
        // Its number may be another's by now.
        return end(app, &exec, "The gateway that followed it went away.").await;
    }
    let Ok(target) = Target::of(app, instance) else {
        return end(app, &exec, "The gateway that followed it went away, and its instance is not to be reached.").await;
    };
    // A durable command's output goes on where the last owner's ends: nothing of it is anywhere else.
    let (first, from) = if exec.durable { stored_end(app, &exec).await? } else { (FIRST, Offsets::default()) };
    let log = app.execs.log(&app.config.exec, &exec, first);
    if let Some(pid) = exec.pid {
        log.started(pid);
    }
    let session = Arc::new(Session::new(exec, log, from, target, app.clock.now()));
    if session.exec.foreground {
        return abandon(app, session).await;
    }
    app.execs.take_in(&session);
    app.lifecycle.spawn("exec", drive::go_on(app.clone(), session, None));
    Ok(())
}

async fn stored_end(app: &App, exec: &Exec) -> Result<(u64, Offsets)> {
    let mut connection = app.pool.acquire().await?;
    Ok(exec_output::system_end(&mut connection, &exec.id).await?.unwrap_or((FIRST, Offsets::default())))
}

/// The request that it belonged to is gone: so shall it be.
async fn abandon(app: &App, session: Arc<Session>) -> Result<()> {
    // Its process id was to be stored with its end. What it started is found by that.
    if let Some((_, pid)) = session.process().connect().await? {
        session.log.started(pid);
        follow::kill(Arc::clone(&session)).await;
    }
    end(app, &session.exec, "The gateway that followed it went away, and its request with it. It was killed.").await
}

async fn end(app: &App, exec: &Exec, error: &str) -> Result<()> {
    let now = app.clock.now();
    let exit = Exit::lost(error, (now - exec.started_at).to_std().unwrap_or_default());
    let mut connection = app.pool.acquire().await?;
    if execs::finish(&mut connection, &exec.clone().ended(&exit), app.execs.replica()).await? {
        audit::exec_ended(app, exec, None, &exit, 0);
    }
    Ok(())
}
