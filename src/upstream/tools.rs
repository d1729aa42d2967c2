//! Tools in the cloud. Upstream a tool's name is our id; the human name stands in its description.

use ags_client::{AgsError, Reply, types as wire};

use super::{Listed, Upstream, stamp, wire as write};
use crate::{
    domain::tool::{MAX_DESCRIPTION, Tool, ToolSpec, ToolStatus},
    ids::{TeamId, ToolId},
};

/// A tool as the cloud shows it.
#[derive(Clone, Debug, PartialEq)]
pub struct SeenTool {
    pub id: String,
    pub name: String,
    pub kind: String,
    pub status: ToolStatus,
    pub status_reason: Option<String>,
    pub spec: ToolSpec,
}

impl From<wire::SandboxTool> for SeenTool {
    fn from(tool: wire::SandboxTool) -> Self {
        Self {
            spec: write::foreign_spec(&tool),
            id: tool.tool_id,
            name: tool.tool_name.unwrap_or_default(),
            kind: tool.tool_type.unwrap_or_default().to_string(),
            status: status(tool.status.unwrap_or_default()),
            status_reason: tool.status_reason.filter(|reason| !reason.is_empty()),
        }
    }
}

fn status(status: wire::ToolStatus) -> ToolStatus {
    match status {
        // What the cloud's own command line takes for ACTIVE (PROTOCOLS B.2).
        wire::ToolStatus::Ready => ToolStatus::Active,
        other => other.to_string().into(),
    }
}

/// A tool as it stands in the list of all.
#[derive(Clone, Debug, PartialEq)]
pub struct ListedTool {
    pub id: String,
    pub name: String,
    pub status: ToolStatus,
    pub status_reason: Option<String>,
    /// The row it belongs to, and whose that is, if this deployment made or adopted it.
    pub stamp: Option<(ToolId, Option<TeamId>)>,
}

impl ListedTool {
    fn of(deployment: &str, tool: wire::SandboxTool) -> Self {
        Self {
            stamp: stamp::stamped_tool(deployment, tool.tags.as_deref().unwrap_or_default()),
            id: tool.tool_id,
            name: tool.tool_name.unwrap_or_default(),
            status: status(tool.status.unwrap_or_default()),
            status_reason: tool.status_reason.filter(|reason| !reason.is_empty()),
        }
    }
}

impl Upstream {
    /// All tools that this account has here.
    ///
    /// # Errors
    /// As the cloud says.
    pub async fn list_tools(&self, deployment: &str) -> Result<Listed<ListedTool>, AgsError> {
        let all = self.client().list_counted(wire::DescribeSandboxToolListRequest::default()).await?;
        Ok(Listed::of(all, |tool| ListedTool::of(deployment, tool)))
    }

    /// Creates the tool of this row, and answers its id in the cloud.
    ///
    /// # Errors
    /// As the cloud says; when the outcome is unknown, [`find_tool`](Self::find_tool) tells.
    pub async fn create_tool(&self, deployment: &str, tool: &Tool) -> Result<Reply<String>, AgsError> {
        let spec = &tool.spec;
        let request = wire::CreateSandboxToolRequest {
            tool_name: tool.id.to_string(),
            tool_type: tool.kind.as_str().into(),
            network_configuration: write::network(&spec.network),
            description: Some(description(tool)),
            default_timeout: spec.default_timeout_seconds.map(|seconds| format!("{seconds}s")),
            tags: Some(stamp::tool_tags(deployment, &tool.id, tool.team_id.as_ref(), &spec.tags)),
            client_token: Some(tool.client_token.clone()),
            role_arn: spec.role_arn.clone(),
            storage_mounts: write::storage_mounts(spec, self.config.envd_mount.as_ref()),
            custom_configuration: write::container(&spec.container),
            log_configuration: spec.log.as_ref().map(write::log),
            persistent: spec.persistent,
        };
        let Reply { value, request_id, attempts } = self.call(&request).await?;
        Ok(Reply { value: value.tool_id, request_id, attempts })
    }

    /// Brings the tool in the cloud to what the row says; name, timeout and mounts are not changed there.
    ///
    /// # Errors
    /// As the cloud says. It may be repeated.
    pub async fn update_tool(&self, deployment: &str, id: &str, tool: &Tool) -> Result<(), AgsError> {
        let request = wire::UpdateSandboxToolRequest {
            tool_id: id.to_owned(),
            description: Some(description(tool)),
            network_configuration: Some(write::network(&tool.spec.network)),
            tags: Some(stamp::tool_tags(deployment, &tool.id, tool.team_id.as_ref(), &tool.spec.tags)),
            custom_configuration: write::container(&tool.spec.container),
        };
        self.call(&request).await.map(drop)
    }

    /// Deletes a tool; one that is not there is deleted.
    ///
    /// # Errors
    /// As the cloud says. It may be repeated.
    pub async fn delete_tool(&self, id: &str) -> Result<(), AgsError> {
        let request = wire::DeleteSandboxToolRequest { tool_id: id.to_owned() };
        match self.call(&request).await {
            Err(error) if error.not_found() => Ok(()),
            other => other.map(drop),
        }
    }

    /// Deletes whatever was made for this row.
    ///
    /// # Errors
    /// As the cloud says. It may be repeated.
    pub async fn remove_tool(&self, tool: &Tool) -> Result<(), AgsError> {
        match self.find_tool(tool).await? {
            Some(seen) => self.delete_tool(&seen.id).await,
            None => Ok(()),
        }
    }

    /// # Errors
    /// As the cloud says.
    pub async fn describe_tool(&self, id: &str) -> Result<Option<SeenTool>, AgsError> {
        let request =
            wire::DescribeSandboxToolListRequest { tool_ids: Some(vec![id.to_owned()]), ..Default::default() };
        let set = self.call(&request).await?.value.sandbox_tool_set;
        Ok(set.into_iter().find(|tool| tool.tool_id == id).map(SeenTool::from))
    }

    /// The tools of these names in the cloud.
    ///
    /// # Errors
    /// As the cloud says.
    pub async fn find_tools(&self, names: &[String]) -> Result<Vec<SeenTool>, AgsError> {
        let filter = wire::Filter { name: "ToolName".into(), values: names.to_vec() };
        let request = wire::DescribeSandboxToolListRequest { filters: Some(vec![filter]), ..Default::default() };
        let set = self.client().list_all(request).await?;
        let wanted = |tool: &SeenTool| names.contains(&tool.name);
        Ok(set.into_iter().map(SeenTool::from).filter(wanted).collect())
    }

    /// The tool that was made for this row, if it was.
    ///
    /// # Errors
    /// As the cloud says.
    pub async fn find_tool(&self, tool: &Tool) -> Result<Option<SeenTool>, AgsError> {
        match &tool.upstream_id {
            Some(id) => self.describe_tool(id).await,
            None => Ok(self.find_tools(&[tool.id.to_string()]).await?.pop()),
        }
    }
}

/// What a person sees in the cloud's console.
fn description(tool: &Tool) -> String {
    let text = match tool.spec.description.as_deref() {
        Some(text) if !text.is_empty() => format!("{}: {text}", tool.name),
        _ => tool.name.clone(),
    };
    text.chars().take(MAX_DESCRIPTION).collect()
}
