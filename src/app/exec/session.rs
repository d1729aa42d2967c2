//! A command that is followed here, and one's hold on its output.

use std::{
    ops::{Deref, DerefMut},
    sync::Arc,
};

use chrono::{DateTime, Utc};
use tokio::{sync::watch, time::Instant};

use super::log::{Log, Viewer};
use crate::{
    app::instances::Target,
    domain::exec::{Command, Cursor, Exec, ExecStatus},
    ids::{ExecId, InstanceId, KeyId, TeamId},
};

/// The first owner of an exec's output. A later one, after a restart, counts on from the row.
pub(super) const FIRST_EPOCH: u32 = 1;

/// What a command lives as long as.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Lifetime {
    /// The request that started it: a waiting or streaming POST.
    Request,
    /// Nothing but itself: background, or started over a WebSocket.
    Own,
}

/// A command that is followed here: its log, and the way to its process.
pub struct Session {
    pub id: ExecId,
    pub team: TeamId,
    pub instance: InstanceId,
    pub created_by: KeyId,
    pub command: Command,
    pub user: String,
    pub tag: Option<String>,
    pub background: bool,
    pub pty: bool,
    /// Whether its input is a pipe.
    pub stdin: bool,
    pub lifetime: Lifetime,
    pub started_at: DateTime<Utc>,
    pub log: Arc<Log>,
    pub(super) target: Target,
    pub(super) began: Instant,
    /// Somebody asked for its end.
    pub(super) stop: watch::Sender<bool>,
    /// Writes to its input are one after the other.
    pub(super) input: tokio::sync::Mutex<()>,
}

impl Session {
    /// Has it killed, processes of its own included. Without effect once it has ended.
    pub fn stop(&self) {
        self.stop.send_replace(true);
    }

    /// What is known of it now.
    #[must_use]
    pub fn snapshot(&self) -> Exec {
        let exit = self.log.exit();
        Exec {
            id: self.id.clone(),
            team_id: self.team.clone(),
            instance_id: self.instance.clone(),
            created_by: self.created_by.clone(),
            command: self.command.clone(),
            user: self.user.clone(),
            tag: self.tag.clone(),
            background: self.background,
            pty: self.pty,
            status: exit.as_ref().map_or(ExecStatus::Running, |exit| exit.status()),
            pid: self.log.pid(),
            exit_code: exit.as_ref().and_then(|exit| exit.exit_code),
            signal: exit.as_ref().and_then(|exit| exit.signal.clone()),
            reason: exit.as_ref().map(|exit| exit.reason),
            error: exit.as_ref().and_then(|exit| exit.error.clone()),
            epoch: self.log.epoch(),
            started_at: self.started_at,
            ended_at: exit.and_then(|exit| Some(self.started_at + chrono::Duration::from_std(exit.duration).ok()?)),
        }
    }

    /// Looks on from `after`, or from the beginning.
    #[must_use]
    pub fn attach(self: &Arc<Self>, after: Option<&Cursor>) -> Attached {
        Attached::new(Arc::clone(self), after, false)
    }
}

/// One's hold on a command's output. Dropping it detaches, and ends the command if it lives as long as this request.
pub struct Attached {
    pub session: Arc<Session>,
    viewer: Viewer,
    owner: bool,
}

impl Attached {
    pub(super) fn new(session: Arc<Session>, after: Option<&Cursor>, owner: bool) -> Self {
        let viewer = session.log.attach(after);
        metrics::gauge!("ags_gateway_exec_viewers").increment(1.0);
        Self { session, viewer, owner }
    }
}

impl Deref for Attached {
    type Target = Viewer;
    fn deref(&self) -> &Viewer {
        &self.viewer
    }
}

impl DerefMut for Attached {
    fn deref_mut(&mut self) -> &mut Viewer {
        &mut self.viewer
    }
}

impl Drop for Attached {
    fn drop(&mut self) {
        metrics::gauge!("ags_gateway_exec_viewers").decrement(1.0);
        if self.owner && self.session.lifetime == Lifetime::Request {
            self.session.stop();
        }
    }
}
