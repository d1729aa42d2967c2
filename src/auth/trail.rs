//! What a request leaves in the history, while it is being gathered.

use std::{
    net::IpAddr,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
};

use chrono::{DateTime, Utc};
use sqlx::PgConnection;

use super::Caller;
use crate::{
    domain::audit::{AuditEvent, OK},
    ids::{AuditId, ExecId, InstanceId, KeyId, TeamId, ToolId},
    storage::audit,
};

/// The event of one request. Clones share it; the default gathers nothing.
#[derive(Clone, Debug, Default)]
pub struct Trail(Option<Arc<Mutex<Gathered>>>);

#[derive(Debug)]
struct Gathered {
    start: Start,
    /// `None` until it is known who calls: what nobody did is in the log only.
    team: Option<TeamId>,
    key: Option<(KeyId, String)>,
    /// It is done when it is written.
    done: bool,
    /// Another replica acts for the caller, and keeps the history.
    elsewhere: bool,
    /// What was started tells of itself: its request does not.
    handed_over: bool,
    instance: Option<InstanceId>,
    tool: Option<ToolId>,
    exec: Option<ExecId>,
    target: Option<String>,
}

/// What is known from the beginning.
#[derive(Clone, Debug)]
pub struct Start {
    pub id: AuditId,
    pub at: DateTime<Utc>,
    pub action: String,
    pub request_id: String,
    pub client: Option<IpAddr>,
    pub on_behalf_of: Option<String>,
}

impl Trail {
    #[must_use]
    pub fn new(start: Start) -> Self {
        Self(Some(Arc::new(Mutex::new(Gathered {
            start,
            team: None,
            key: None,
            done: false,
            elsewhere: false,
            handed_over: false,
            instance: None,
            tool: None,
            exec: None,
            target: None,
        }))))
    }

    /// Of whoever holds the database's credentials.
    #[must_use]
    pub fn of_operator(start: Start) -> Self {
        let trail = Self::new(start);
        trail.note(|gathered| gathered.done = true);
        trail
    }

    fn lock(&self) -> Option<MutexGuard<'_, Gathered>> {
        Some(self.0.as_ref()?.lock().unwrap_or_else(PoisonError::into_inner))
    }

    fn note(&self, note: impl FnOnce(&mut Gathered)) {
        if let Some(mut gathered) = self.lock() {
            note(&mut gathered);
        }
    }

    /// Notes who calls.
    pub fn note_caller(&self, caller: &Caller) {
        self.note(|gathered| {
            gathered.team = Some(caller.team_id().clone());
            gathered.key = Some((caller.key_id.clone(), caller.key_prefix.clone()));
        });
    }

    /// The request was passed on by another replica, which keeps its history.
    pub fn kept_elsewhere(&self) {
        self.note(|gathered| gathered.elsewhere = true);
    }

    /// The key that answers for the request.
    #[must_use]
    pub fn key_id(&self) -> Option<KeyId> {
        Some(self.lock()?.key.as_ref()?.0.clone())
    }

    /// From here on what is started tells of itself.
    pub fn hand_over(&self) {
        self.note(|gathered| gathered.handed_over = true);
    }

    #[must_use]
    pub fn is_handed_over(&self) -> bool {
        self.lock().is_some_and(|gathered| gathered.handed_over)
    }

    /// Notes the end user.
    pub fn note_user(&self, user: &str) {
        self.note(|gathered| gathered.start.on_behalf_of = Some(user.to_owned()));
    }

    /// Notes whose things it is about, where they are not the caller's own.
    pub fn note_team(&self, team: &TeamId) {
        self.note(|gathered| gathered.team = Some(team.clone()));
    }

    pub fn note_instance(&self, instance: &InstanceId) {
        self.note(|gathered| gathered.instance = Some(instance.clone()));
    }

    pub fn note_tool(&self, tool: &ToolId) {
        self.note(|gathered| gathered.tool = Some(tool.clone()));
    }

    pub fn note_exec(&self, exec: &ExecId) {
        self.note(|gathered| gathered.exec = Some(exec.clone()));
    }

    /// Notes what else it is about.
    pub fn note_target(&self, target: &str) {
        self.note(|gathered| gathered.target = Some(target.to_owned()));
    }

    /// The event as far as it is known; `None` when nobody called or another replica keeps it.
    #[must_use]
    pub fn event(&self) -> Option<AuditEvent> {
        let gathered = self.lock()?;
        let team_id = gathered.team.clone().filter(|_| !gathered.elsewhere)?;
        let (key_id, key_prefix) = gathered.key.clone().unzip();
        let start = gathered.start.clone();
        Some(AuditEvent {
            id: start.id,
            at: start.at,
            team_id,
            key_id,
            key_prefix,
            on_behalf_of: start.on_behalf_of,
            client: start.client.map(|address| address.to_string()),
            request_id: start.request_id,
            action: start.action,
            instance_id: gathered.instance.clone(),
            tool_id: gathered.tool.clone(),
            exec_id: gathered.exec.clone(),
            target_id: gathered.target.clone(),
            runs: false,
            command: None,
            outcome: gathered.done.then(|| OK.to_owned()),
            status: None,
            reason: None,
            exit_code: None,
            upstream_request_id: None,
            duration_ms: None,
        })
    }

    /// Writes the event down without an outcome, in the transaction that changes something: neither is there without the other.
    ///
    /// # Errors
    /// When the database fails.
    pub async fn intend(&self, connection: &mut PgConnection) -> sqlx::Result<()> {
        match self.event() {
            Some(event) => audit::system_record(connection, &[event]).await,
            None => Ok(()),
        }
    }
}
