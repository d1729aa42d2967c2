//! Who follows which command: each replica says so again and again, and what nobody follows is taken over.

use std::{
    collections::HashSet,
    sync::{Arc, atomic::Ordering},
    time::Duration,
};

use super::{adopt, session::Session};
use crate::{
    app::App,
    domain::instance::InstanceStatus,
    error::Result,
    ids::ExecId,
    storage::{
        execs,
        instances::system_by_ids,
        replicas::{self, Replica},
    },
};

const RENEW: Duration = Duration::from_secs(4);
/// Two renewals may fail before a command counts as followed by nobody.
pub(super) const LEASE_SECONDS: f64 = 12.0;
/// How often what nobody follows is looked for.
const LOOK: Duration = Duration::from_secs(1);

/// This replica, as others know it.
pub struct Me {
    replica: Replica,
    host: String,
}

/// Makes this replica known, and frees what its predecessor at the same address followed: before it answers requests, which
/// it would send to that one, and so to itself. `url`: where this replica answers others.
pub async fn begin(app: &App, url: Option<String>) -> Me {
    let me = Me { replica: Replica { id: app.execs.replica().to_owned(), url }, host: host() };
    if let Err(error) = succeed(app, &me.replica, &me.host).await {
        tracing::warn!(%error, "this replica is not known to others yet");
    }
    me
}

/// Renews the leases of this replica, and takes over what nobody follows, until the process drains; then leaves what it
/// follows to others.
pub async fn keep(app: App, Me { replica: me, host }: Me) {
    let draining = app.lifecycle.draining();
    let (mut renew_timer, mut look_timer) = (tokio::time::interval(RENEW), tokio::time::interval(LOOK));
    renew_timer.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
    look_timer.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
    loop {
        let (what, done) = tokio::select! {
            biased;
            () = draining.cancelled() => break,
            _ = renew_timer.tick() => ("renewed", renew(&app, &me, &host).await),
            _ = look_timer.tick() => ("taken over", adopt::adopt_abandoned(&app).await.map(drop)),
        };
        if let Err(error) = done {
            tracing::warn!(%error, "running commands could not be {what}");
        }
    }
    for session in app.execs.live() {
        if !session.exec.foreground {
            session.release();
        }
    }
    if let Err(error) = leave(&app, &me).await {
        tracing::warn!(%error, "this replica could not take its leave");
    }
}

/// Tells hosts apart on which the same address means different processes.
fn host() -> String {
    let boot = std::fs::read_to_string("/proc/sys/kernel/random/boot_id").unwrap_or_default();
    let name = nix::unistd::gethostname().unwrap_or_default();
    format!("{} {}", name.to_string_lossy(), boot.trim())
}

async fn succeed(app: &App, me: &Replica, host: &str) -> Result<()> {
    let mut connection = app.pool.acquire().await?;
    replicas::system_seen(&mut connection, me, host).await?;
    Ok(replicas::system_succeed(&mut connection, me, host).await?)
}

async fn leave(app: &App, me: &Replica) -> Result<()> {
    let mut connection = app.pool.acquire().await?;
    Ok(replicas::system_remove(&mut connection, &me.id).await?)
}

async fn renew(app: &App, me: &Replica, host: &str) -> Result<()> {
    let mut connection = app.pool.acquire().await?;
    replicas::system_seen(&mut connection, me, host).await?;
    app.upstreams.share(replicas::system_count(&mut connection).await?);
    let mut sessions: Vec<Arc<Session>> = app.execs.live();
    sessions.retain(|session| session.noted.load(Ordering::Acquire));
    if sessions.is_empty() {
        return Ok(());
    }
    let ids: Vec<String> = sessions.iter().map(|session| session.exec.id.to_string()).collect();
    let renewed = execs::system_renew(&mut connection, &me.id, &ids, LEASE_SECONDS).await?;
    let owned: HashSet<ExecId> = renewed.into_iter().collect();
    let instances: HashSet<String> = sessions.iter().map(|session| session.exec.instance_id.to_string()).collect();
    let instances: Vec<String> = instances.into_iter().collect();
    let paused: HashSet<_> = system_by_ids(&mut connection, &instances)
        .await?
        .into_iter()
        .filter(|instance| matches!(instance.status, InstanceStatus::Pausing | InstanceStatus::Paused))
        .map(|instance| instance.id)
        .collect();
    drop(connection);
    for session in sessions {
        if session.log.exit().is_none() && !owned.contains(&session.exec.id) {
            tracing::warn!(exec = %session.exec.id, "another replica follows the command");
            session.release();
        } else if paused.contains(&session.exec.instance_id) {
            // Another replica paused it.
            app.lifecycle.spawn("exec-suspend", async move { session.suspend().await });
        }
    }
    Ok(())
}
