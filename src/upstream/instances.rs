//! Instances in the cloud.

use std::time::Duration;

use ags_client::{Action, AgsError, Repeat, Reply, timeout, types as wire};
use chrono::{DateTime, Utc};
use futures_util::TryStreamExt;
use serde::{Deserialize, Serialize};

use super::{Listed, Upstream, stamp, wire as write};
use crate::{
    domain::instance::{Instance, InstanceSpec, InstanceStatus, StopReason},
    ids::{InstanceId, TeamId},
};

/// Most ids that the cloud takes in one question.
const MAX_IDS: usize = 100;

/// An instance as the cloud shows it.
#[derive(Clone, Debug, PartialEq)]
pub struct SeenInstance {
    pub id: String,
    pub status: InstanceStatus,
    pub stop_reason: Option<StopReason>,
    pub expires_at: Option<DateTime<Utc>>,
    /// The row it belongs to, if this deployment made it.
    pub stamp: Option<InstanceId>,
    /// The team of that row.
    pub team: Option<TeamId>,
}

impl SeenInstance {
    fn of(deployment: &str, instance: wire::SandboxInstance) -> Self {
        let metadata = instance.metadata.as_deref().unwrap_or_default();
        let stamp = stamp::stamped_instance(deployment, metadata);
        let team = stamp::stamped_team(deployment, metadata);
        Self {
            id: instance.instance_id,
            status: status(instance.status),
            stop_reason: instance.stop_reason.map(|reason| reason.to_string().into()),
            expires_at: instance.expires_at,
            stamp,
            team,
        }
    }
}

/// The cloud's states in ours. A failed transition leaves an instance in the state it came from.
fn status(status: wire::InstanceStatus) -> InstanceStatus {
    use wire::InstanceStatus as Wire;
    match status {
        Wire::Running | Wire::Unhealthy | Wire::PauseFailed => InstanceStatus::Running,
        Wire::ResumeFailed => InstanceStatus::Paused,
        Wire::StartingFailed | Wire::ForkFailed => InstanceStatus::Failed,
        Wire::StoppingFailed | Wire::StopFailed => InstanceStatus::Unknown(status.to_string()),
        other => other.to_string().into(),
    }
}

/// A start that is sent once: whether one without an answer took effect is looked up before another is sent, as the cloud
/// may have forgotten its `ClientToken`.
#[derive(Serialize, Deserialize)]
#[serde(transparent)]
struct StartOnce(wire::StartSandboxInstanceRequest);

impl Action for StartOnce {
    const NAME: &'static str = "StartSandboxInstance";
    const REPEAT: Repeat = Repeat::Never;
    type Output = wire::StartSandboxInstanceResponse;
}

/// How to start an instance.
pub struct Start<'a> {
    pub deployment: &'a str,
    pub instance: &'a Instance,
    pub spec: &'a InstanceSpec,
    pub tool: &'a str,
    pub timeout: Duration,
}

impl Upstream {
    /// Starts an instance. It may be STARTING still in the answer.
    ///
    /// # Errors
    /// As the cloud says; when the outcome is unknown, [`find_instance`](Self::find_instance) tells.
    pub async fn start(&self, start: &Start<'_>) -> Result<Reply<SeenInstance>, AgsError> {
        let instance = start.instance;
        let metadata = stamp::instance_metadata(start.deployment, &instance.id, &instance.team_id, &instance.metadata);
        let request = StartOnce(wire::StartSandboxInstanceRequest {
            tool_id: Some(start.tool.to_owned()),
            tool_name: None,
            timeout: Some(timeout::format(start.timeout)),
            client_token: Some(instance.client_token.clone()),
            mount_options: write::mount_options(&start.spec.mounts),
            custom_configuration: write::container(&start.spec.container),
            auth_mode: Some(instance.auth_mode.as_str().into()),
            metadata: Some(metadata),
        });
        let Reply { value, request_id, attempts } = self.call(&request).await?;
        Ok(Reply { value: SeenInstance::of(start.deployment, value.instance), request_id, attempts })
    }

    /// The instance that was started for this row, by its stamp: the cloud has no filter for that, so its tool's
    /// instances are gone through.
    ///
    /// # Errors
    /// As the cloud says.
    pub async fn find_instance(
        &self,
        deployment: &str,
        tool: &str,
        row: &InstanceId,
    ) -> Result<Option<SeenInstance>, AgsError> {
        let request = wire::DescribeSandboxInstanceListRequest { tool_id: Some(tool.to_owned()), ..Default::default() };
        let mut listing = std::pin::pin!(self.client().list(request));
        while let Some(instance) = listing.try_next().await? {
            let seen = SeenInstance::of(deployment, instance);
            if seen.stamp.as_ref() == Some(row) {
                return Ok(Some(seen));
            }
        }
        Ok(None)
    }

    /// All instances that this account has here.
    ///
    /// # Errors
    /// As the cloud says.
    pub async fn list_instances(&self, deployment: &str) -> Result<Listed<SeenInstance>, AgsError> {
        let all = self.client().list_counted(wire::DescribeSandboxInstanceListRequest::default()).await?;
        Ok(Listed::of(all, |instance| SeenInstance::of(deployment, instance)))
    }

    /// These instances; those the cloud does not know are left out.
    ///
    /// # Errors
    /// As the cloud says.
    pub async fn describe_instances(&self, deployment: &str, ids: &[String]) -> Result<Vec<SeenInstance>, AgsError> {
        let mut seen = Vec::with_capacity(ids.len());
        for ids in ids.chunks(MAX_IDS) {
            let request = wire::DescribeSandboxInstanceListRequest {
                instance_ids: Some(ids.to_vec()),
                limit: Some(ids.len().try_into().unwrap_or(ags_client::MAX_PAGE)),
                ..Default::default()
            };
            let set = self.call(&request).await?.value.instance_set;
            seen.extend(set.into_iter().map(|instance| SeenInstance::of(deployment, instance)));
        }
        Ok(seen)
    }

    /// One instance; `None` when the cloud does not know it.
    ///
    /// # Errors
    /// As the cloud says.
    pub async fn describe_instance(&self, deployment: &str, id: &str) -> Result<Option<SeenInstance>, AgsError> {
        Ok(self.describe_instances(deployment, &[id.to_owned()]).await?.into_iter().find(|seen| seen.id == id))
    }

    /// Stops an instance, within `limit`; one that is not there is stopped.
    ///
    /// # Errors
    /// As the cloud says. It may be repeated.
    pub async fn stop(&self, id: &str, limit: Duration) -> Result<(), AgsError> {
        let request = wire::StopSandboxInstanceRequest { instance_id: id.to_owned() };
        match self.call_within(&request, limit).await {
            Err(error) if error.not_found() => Ok(()),
            other => other.map(drop),
        }
    }

    /// Restarts the cloud's own countdown, and replaces the metadata.
    ///
    /// # Errors
    /// As the cloud says. It may be repeated.
    pub async fn update(
        &self,
        id: &str,
        timeout: Option<Duration>,
        metadata: Option<Vec<wire::MetadataVar>>,
    ) -> Result<(), AgsError> {
        let timeout = timeout.map(timeout::format);
        let request = wire::UpdateSandboxInstanceRequest { instance_id: id.to_owned(), timeout, metadata };
        self.call(&request).await.map(drop)
    }

    /// Begins to pause a running instance.
    ///
    /// # Errors
    /// As the cloud says; when the outcome is unknown, its status tells.
    pub async fn pause(&self, id: &str, memory: Option<bool>) -> Result<(), AgsError> {
        let request = wire::PauseSandboxInstanceRequest { instance_id: id.to_owned(), memory };
        self.call(&request).await.map(drop)
    }

    /// Begins to resume a paused instance.
    ///
    /// # Errors
    /// As the cloud says; when the outcome is unknown, its status tells.
    pub async fn resume(&self, id: &str, timeout: Duration) -> Result<(), AgsError> {
        let request =
            wire::ResumeSandboxInstanceRequest { instance_id: id.to_owned(), timeout: Some(timeout::format(timeout)) };
        self.call(&request).await.map(drop)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_clouds_states_are_read_as_ours_and_unknown_ones_kept() {
        for (theirs, ours) in [
            ("RUNNING", "RUNNING"),
            ("UNHEALTHY", "RUNNING"),
            ("PAUSE_FAILED", "RUNNING"),
            ("RESUME_FAILED", "PAUSED"),
            ("STARTING_FAILED", "FAILED"),
            ("STOPPING_FAILED", "STOPPING_FAILED"),
            ("HIBERNATED", "HIBERNATED"),
        ] {
            assert_eq!(status(theirs.into()).as_str(), ours, "{theirs}");
        }
    }
}
