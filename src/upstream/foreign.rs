//! Tools that were made in the cloud's console, read back as if they had been made here.

use ags_client::{AgsError, types as wire};

use super::{SeenTool, Upstream, stamp, wire::foreign_spec};
use crate::{
    domain::{
        spec::{
            AgentBucketSource, CfsSource, Container, CosSource, Dns, Env, ImageSource, LogFiles, Port, Probe,
            Resources, StorageMount, StorageSource,
        },
        tool::{Tool, ToolSpec},
    },
    ids::TeamId,
};

/// A tool of somebody else's making.
pub struct ForeignTool {
    pub seen: SeenTool,
    /// A gateway has made or adopted it.
    pub stamped: bool,
    /// It has a mount of a kind that is not known here.
    pub unknown_mount: bool,
}

impl Upstream {
    /// A tool with all that it has.
    ///
    /// # Errors
    /// As the cloud says.
    pub async fn foreign_tool(&self, id: &str) -> Result<Option<ForeignTool>, AgsError> {
        let request =
            wire::DescribeSandboxToolListRequest { tool_ids: Some(vec![id.to_owned()]), ..Default::default() };
        let set = match self.call(&request).await {
            Ok(reply) => reply.value.sandbox_tool_set,
            Err(error) if error.not_found() => return Ok(None),
            Err(error) => return Err(error),
        };
        let Some(tool) = set.into_iter().find(|tool| tool.tool_id == id) else { return Ok(None) };
        let spec = whole_spec(&tool);
        let unknown_mount = spec.storage_mounts.len() < tool.storage_mounts.as_ref().map_or(0, Vec::len);
        let stamped = spec.tags.keys().any(|key| stamp::is_stamp(key));
        Ok(Some(ForeignTool { seen: SeenTool { spec, ..SeenTool::from(tool) }, stamped, unknown_mount }))
    }

    /// Leaves our mark on a tool, and changes nothing else of it.
    ///
    /// # Errors
    /// As the cloud says. It may be repeated.
    pub async fn stamp_tool(&self, deployment: &str, id: &str, tool: &Tool, team: &TeamId) -> Result<(), AgsError> {
        let request = wire::UpdateSandboxToolRequest {
            tool_id: id.to_owned(),
            tags: Some(stamp::tool_tags(deployment, &tool.id, Some(team), &tool.spec.tags)),
            ..Default::default()
        };
        self.call(&request).await.map(drop)
    }
}

fn whole_spec(tool: &wire::SandboxTool) -> ToolSpec {
    ToolSpec {
        container: tool.custom_configuration.as_ref().map(container).unwrap_or_default(),
        role_arn: tool.role_arn.clone().filter(|role| !role.is_empty()),
        storage_mounts: tool.storage_mounts.iter().flatten().filter_map(storage_mount).collect(),
        log: tool.log_configuration.as_ref().map(log),
        ..foreign_spec(tool)
    }
}

pub fn container(from: &wire::CustomConfigurationDetail) -> Container {
    let env = from.env.iter().flatten().map(|var| (var.name.clone(), var.value.clone())).collect();
    Container {
        image: from.image.clone(),
        image_registry_type: from.image_registry_type.as_ref().map(ToString::to_string),
        command: from.command.clone(),
        args: from.args.clone(),
        env: Env(env),
        ports: from.ports.as_ref().map(|ports| ports.iter().filter_map(port).collect()),
        resources: from.resources.as_ref().map(|resources| Resources {
            cpu: resources.cpu.clone(),
            memory: resources.memory.clone(),
            storage: resources.storage.clone(),
        }),
        probe: from.probe.as_ref().map(probe),
        dns: from.dns_config.as_ref().map(|dns| Dns {
            servers: dns.servers.clone(),
            searches: dns.searches.clone().unwrap_or_default(),
            options: dns.options.clone().unwrap_or_default(),
        }),
    }
}

fn port(from: &wire::PortConfiguration) -> Option<Port> {
    let protocol = from.protocol.clone().unwrap_or_else(|| "TCP".to_owned());
    Some(Port { name: from.name.clone(), port: from.port?.try_into().ok()?, protocol })
}

fn probe(from: &wire::ProbeConfiguration) -> Probe {
    let get = from.http_get.clone().unwrap_or_default();
    let number = |value: Option<i64>| value.and_then(|value| value.try_into().ok());
    Probe {
        path: get.path,
        port: get.port.and_then(|port| port.try_into().ok()),
        scheme: get.scheme,
        ready_timeout_ms: number(from.ready_timeout_ms),
        timeout_ms: number(from.probe_timeout_ms),
        period_ms: number(from.probe_period_ms),
        success_threshold: number(from.success_threshold),
        failure_threshold: number(from.failure_threshold),
    }
}

/// `None` for one that lacks something, or whose source is of no known kind.
pub fn storage_mount(from: &wire::StorageMount) -> Option<StorageMount> {
    let source = from.storage_source.clone()?;
    let source = if let Some(image) = source.image {
        StorageSource::Image(ImageSource {
            reference: image.reference?,
            image_registry_type: image.image_registry_type.map(|kind| kind.to_string()),
            sub_path: image.sub_path,
        })
    } else if let Some(cos) = source.cos {
        let (endpoint, bucket_path) = (cos.endpoint, cos.bucket_path);
        StorageSource::Cos(CosSource { endpoint, bucket_name: cos.bucket_name?, bucket_path })
    } else if let Some(cfs) = source.cfs {
        StorageSource::Cfs(CfsSource { file_system_id: cfs.file_system_id?, path: cfs.path })
    } else {
        let bucket = source.agent_bucket?;
        let (space_id, access_domain) = (bucket.space_id, bucket.access_domain);
        StorageSource::AgentBucket(AgentBucketSource { library_id: bucket.library_id?, space_id, access_domain })
    };
    let read_only = from.read_only.unwrap_or(false);
    Some(StorageMount { name: from.name.clone()?, mount_path: from.mount_path.clone()?, read_only, source })
}

pub fn log(from: &wire::LogConfiguration) -> LogFiles {
    LogFiles {
        cls_topic_id: from.cls_config.as_ref().and_then(|cls| cls.topic_id.clone()),
        files: from.log_sources.as_ref().and_then(|sources| sources.files.clone()).unwrap_or_default(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_written_is_read_back() {
        let spec: ToolSpec = serde_json::from_value(serde_json::json!({
            "container": {
                "image": "python:3.11", "image_registry_type": "enterprise", "command": ["python"], "args": [],
                "ports": [{"name": "http", "port": 8000, "protocol": "TCP"}], "resources": {"cpu": "1", "memory": "2Gi"},
                "probe": {"path": "/", "port": 80, "scheme": "HTTP", "ready_timeout_ms": 30000, "timeout_ms": 1000,
                          "period_ms": 100, "success_threshold": 1, "failure_threshold": 100},
                "env": {"A": "1"}, "dns": {"servers": ["10.0.0.1"], "searches": [], "options": []},
            },
            "storage_mounts": [
                {"name": "a", "mount_path": "/a", "read_only": true, "source": {"cos": {"bucket_name": "b-1"}}},
                {"name": "b", "mount_path": "/b", "read_only": false, "source": {"image": {"reference": "i:1"}}},
            ],
            "log": {"cls_topic_id": "t", "files": ["/var/log/x"]}, "role_arn": "qcs::cam::uin/1:roleName/x",
        }))
        .unwrap();
        let written = super::super::wire::container(&spec.container);
        let detail = serde_json::from_value(serde_json::to_value(written).unwrap()).unwrap();
        let tool = wire::SandboxTool {
            custom_configuration: Some(detail),
            storage_mounts: super::super::wire::storage_mounts(&spec, None),
            log_configuration: spec.log.as_ref().map(super::super::wire::log),
            role_arn: spec.role_arn.clone(),
            ..Default::default()
        };
        let read = whole_spec(&tool);
        assert_eq!(read.container, spec.container);
        assert_eq!((read.storage_mounts, read.log, read.role_arn), (spec.storage_mounts, spec.log, spec.role_arn));
    }
}
