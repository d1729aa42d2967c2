//! What a pass does about a difference.

use super::{Leave, look::Difference};
use crate::{
    app::{
        App,
        audit::{Deed, of_gateway},
        instances::{self as lives, Adopted},
    },
    domain::{
        audit::{AuditEvent, OK},
        instance::{InstanceStatus, StopReason},
        reconciliation::{Kind, Orphan, Report},
        tool::Tool,
    },
    error::{Error, Result},
    storage::{audit, tools},
    upstream::{Upstream, seen::Seen},
};

const BY: &str = "reconciler";

/// Brings rows and cloud together, as far as nothing brakes it.
///
/// # Errors
/// When the database fails.
pub(super) async fn on(app: &App, difference: &Difference<'_>, leave: Leave, report: &mut Report) -> Result<()> {
    for brake in &difference.brakes {
        let overridden = leave.force && !difference.is_unsound();
        tracing::warn!(upstream = brake.upstream, reason = ?brake.reason, detail = brake.detail, overridden, "the reconciler brakes");
    }
    if difference.is_unsound() {
        return Ok(());
    }
    follow_shown(app, difference, report).await?;
    if difference.is_braked(leave) {
        return Ok(());
    }
    for orphan in difference.orphans.iter().filter(|orphan| orphan.due) {
        stop_orphan(app, difference.upstream, orphan, report).await?;
    }
    end_missing(app, difference, report).await
}

/// Brings rows to what the cloud shows.
async fn follow_shown(app: &App, difference: &Difference<'_>, report: &mut Report) -> Result<()> {
    for (row, seen) in &difference.shown {
        if lives::adopt(app, row, seen, Some(difference.as_of)).await? != Adopted::Nothing {
            tracing::info!(instance = %row.id, from = %row.status, to = %seen.status, "the cloud had changed it");
            report.adopted.push(row.id.to_string());
        }
    }
    for (tool, reason) in &difference.failed_tools {
        let reason = reason.as_deref().unwrap_or("The cloud says that it has failed.");
        if end_tool(app, tool, reason).await? {
            report.adopted.push(tool.id.to_string());
        }
    }
    Ok(())
}

/// Stops, or deletes, one that no live row stands for. A failure is no error: the next pass tries again.
async fn stop_orphan(app: &App, upstream: &Upstream, orphan: &Orphan, report: &mut Report) -> Result<()> {
    let (id, kind) = (&orphan.upstream_id, orphan.kind.as_str());
    tracing::warn!(upstream_id = id, stamp = orphan.id, kind, "ending what no live row stands for");
    let event = orphan_event(app, orphan);
    record(app, event.clone()).await?;
    let seen = Seen::default();
    let stop = async {
        match orphan.kind {
            Kind::Instance => upstream.stop(id, upstream.config.attempt_timeout).await,
            Kind::Tool => upstream.delete_tool(id).await,
        }
    };
    let outcome = match seen.noting(stop).await {
        Ok(()) => {
            report.stopped.push(id.clone());
            OK.to_owned()
        }
        Err(error) => {
            tracing::warn!(upstream_id = id, %error, "the orphan could not be stopped; it is tried again");
            Error::from(error).code().as_str().to_owned()
        }
    };
    let upstream_request_id = seen.request_id();
    record(app, event.map(|event| AuditEvent { outcome: Some(outcome), upstream_request_id, ..event })).await
}

/// `None` for one whose stamp does not say whose it is: that stands in the log alone.
fn orphan_event(app: &App, orphan: &Orphan) -> Option<AuditEvent> {
    let (instance, tool) = (orphan.id.parse().ok(), orphan.id.parse().ok());
    let action = match orphan.kind {
        Kind::Instance => "stop_orphan_instance",
        Kind::Tool => "delete_orphan_tool",
    };
    Some(of_gateway(
        app,
        &Deed {
            action,
            by: BY,
            team: orphan.team_id.as_ref()?,
            instance: instance.as_ref(),
            tool: tool.as_ref(),
            target: Some(&orphan.upstream_id),
            reason: StopReason::Orphan.as_str(),
        },
    ))
}

async fn record(app: &App, event: Option<AuditEvent>) -> Result<()> {
    if let Some(event) = event {
        audit::system_record(&mut *app.pool.acquire().await?, &[event]).await?;
    }
    Ok(())
}

/// Ends rows whose thing the cloud does not show.
async fn end_missing(app: &App, difference: &Difference<'_>, report: &mut Report) -> Result<()> {
    let due = |id: &str| difference.missing.iter().any(|missing| missing.due && missing.id == id);
    for row in difference.lost.iter().filter(|row| due(row.id.as_str())) {
        tracing::warn!(instance = %row.id, "the cloud does not know it any more");
        if lives::end(app, row, InstanceStatus::Stopped, StopReason::System).await? {
            report.ended.push(row.id.to_string());
        }
    }
    for tool in difference.lost_tools.iter().filter(|tool| due(tool.id.as_str())) {
        tracing::warn!(tool = %tool.id, "the cloud does not know it any more");
        if end_tool(app, tool, "The cloud does not know it any more. Delete it and create it anew.").await? {
            report.ended.push(tool.id.to_string());
        }
    }
    Ok(())
}

async fn end_tool(app: &App, tool: &Tool, reason: &str) -> Result<bool> {
    let Some(team) = &tool.team_id else { return Ok(false) };
    let event = of_gateway(
        app,
        &Deed { action: "end_tool", by: BY, team, instance: None, tool: Some(&tool.id), target: None, reason },
    );
    let mut tx = app.pool.begin().await?;
    let done = tools::system_lost(&mut tx, &tool.id, reason).await?;
    if done {
        audit::system_record(&mut tx, &[AuditEvent { outcome: Some(OK.to_owned()), ..event }]).await?;
    }
    tx.commit().await?;
    Ok(done)
}
