//! What the gateway does of its own accord stands in the history too.

use crate::{
    app::App,
    domain::audit::{AuditEvent, GATEWAY},
    ids::{InstanceId, TeamId, ToolId},
};

/// Something that nobody asked for just now.
pub struct Deed<'a> {
    /// Of the gateway's own actions, such as `expire_instance`.
    pub action: &'a str,
    /// What did it, for operators: `reaper`, `reconciler`, `idle policy`.
    pub by: &'a str,
    pub team: &'a TeamId,
    pub instance: Option<&'a InstanceId>,
    pub tool: Option<&'a ToolId>,
    pub target: Option<&'a str>,
    /// Why.
    pub reason: &'a str,
}

/// The event of a deed, without an outcome yet.
#[must_use]
pub fn of_gateway(app: &App, deed: &Deed<'_>) -> AuditEvent {
    AuditEvent {
        id: app.ids.next(),
        at: app.clock.now(),
        team_id: deed.team.clone(),
        key_id: None,
        key_prefix: Some(GATEWAY.to_owned()),
        on_behalf_of: None,
        client: None,
        request_id: deed.by.to_owned(),
        action: deed.action.to_owned(),
        instance_id: deed.instance.cloned(),
        tool_id: deed.tool.cloned(),
        exec_id: None,
        target_id: deed.target.map(str::to_owned),
        runs: false,
        command: None,
        outcome: None,
        status: None,
        reason: Some(deed.reason.to_owned()),
        exit_code: None,
        upstream_request_id: None,
        duration_ms: None,
    }
}
