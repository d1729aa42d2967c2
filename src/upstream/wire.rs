//! Specifications as the cloud writes them (AGS API v2025-09-20).

use ags_client::types as wire;

use crate::{
    config::EnvdMount,
    domain::{
        instance::MountOverride,
        spec::{
            AgentBucketSource, CfsSource, Container, CosSource, Dns, Env, ImageSource, LogFiles, Network, Port, Probe,
            Resources, StorageMount, StorageSource,
        },
        tool::ToolSpec,
    },
};

pub fn network(network: &Network) -> wire::NetworkConfiguration {
    let vpc = wire::VpcConfig {
        subnet_ids: Some(network.subnet_ids.clone()),
        security_group_ids: Some(network.security_group_ids.clone()),
    };
    wire::NetworkConfiguration {
        network_mode: network.mode.as_str().into(),
        vpc_config: (network.mode == "VPC").then_some(vpc),
    }
}

/// `None` when there is nothing to say.
pub fn container(container: &Container) -> Option<wire::CustomConfiguration> {
    (!container.is_empty()).then(|| wire::CustomConfiguration {
        image: container.image.clone(),
        image_registry_type: container.image_registry_type.as_deref().map(Into::into),
        command: container.command.clone(),
        args: container.args.clone(),
        env: (!container.env.is_empty()).then(|| env(&container.env)),
        ports: container.ports.as_ref().map(|ports| ports.iter().map(port).collect()),
        resources: container.resources.as_ref().map(resources),
        probe: container.probe.as_ref().map(probe),
        dns_config: container.dns.as_ref().map(dns),
    })
}

fn env(env: &Env) -> Vec<wire::EnvVar> {
    env.iter().map(|(name, value)| wire::EnvVar { name: name.clone(), value: value.clone() }).collect()
}

fn port(port: &Port) -> wire::PortConfiguration {
    wire::PortConfiguration {
        name: port.name.clone(),
        port: Some(port.port.into()),
        protocol: Some(port.protocol.clone()),
    }
}

fn resources(resources: &Resources) -> wire::ResourceConfiguration {
    wire::ResourceConfiguration {
        cpu: resources.cpu.clone(),
        memory: resources.memory.clone(),
        storage: resources.storage.clone(),
    }
}

fn probe(probe: &Probe) -> wire::ProbeConfiguration {
    wire::ProbeConfiguration {
        http_get: Some(wire::HttpGetAction {
            path: probe.path.clone(),
            port: probe.port.map(Into::into),
            scheme: probe.scheme.clone(),
        }),
        ready_timeout_ms: probe.ready_timeout_ms.map(Into::into),
        probe_timeout_ms: probe.timeout_ms.map(Into::into),
        probe_period_ms: probe.period_ms.map(Into::into),
        success_threshold: probe.success_threshold.map(Into::into),
        failure_threshold: probe.failure_threshold.map(Into::into),
    }
}

fn dns(dns: &Dns) -> wire::DnsConfig {
    let some = |list: &[String]| (!list.is_empty()).then(|| list.to_vec());
    wire::DnsConfig { servers: dns.servers.clone(), searches: some(&dns.searches), options: some(&dns.options) }
}

/// The tool's own mounts, and the configured envd volume where it is wanted.
pub fn storage_mounts(spec: &ToolSpec, envd: Option<&EnvdMount>) -> Option<Vec<wire::StorageMount>> {
    let own = spec.storage_mounts.iter().map(storage_mount);
    let all: Vec<_> = own.chain(envd.filter(|_| spec.mount_envd).map(envd_mount)).collect();
    (!all.is_empty()).then_some(all)
}

fn storage_mount(mount: &StorageMount) -> wire::StorageMount {
    wire::StorageMount {
        name: Some(mount.name.clone()),
        storage_source: Some(storage_source(&mount.source)),
        mount_path: Some(mount.mount_path.clone()),
        read_only: Some(mount.read_only),
    }
}

fn storage_source(source: &StorageSource) -> wire::StorageSource {
    let mut made = wire::StorageSource::default();
    match source {
        StorageSource::Image(ImageSource { reference, image_registry_type, sub_path }) => {
            made.image = Some(wire::ImageStorageSource {
                reference: Some(reference.clone()),
                image_registry_type: image_registry_type.as_deref().map(Into::into),
                sub_path: sub_path.clone(),
                digest: None,
            });
        }
        StorageSource::Cos(CosSource { endpoint, bucket_name, bucket_path }) => {
            made.cos = Some(wire::CosStorageSource {
                endpoint: endpoint.clone(),
                bucket_name: Some(bucket_name.clone()),
                bucket_path: bucket_path.clone(),
            });
        }
        StorageSource::Cfs(CfsSource { file_system_id, path }) => {
            made.cfs =
                Some(wire::CfsStorageSource { file_system_id: Some(file_system_id.clone()), path: path.clone() });
        }
        StorageSource::AgentBucket(AgentBucketSource { library_id, space_id, access_domain }) => {
            made.agent_bucket = Some(wire::AgentBucketStorageSource {
                library_id: Some(library_id.clone()),
                space_id: space_id.clone(),
                access_domain: access_domain.clone(),
            });
        }
    }
    made
}

fn envd_mount(envd: &EnvdMount) -> wire::StorageMount {
    let image = wire::ImageStorageSource {
        reference: Some(envd.image.clone()),
        image_registry_type: Some(envd.image_registry_type.as_str().into()),
        sub_path: Some(envd.sub_path.clone()),
        digest: None,
    };
    wire::StorageMount {
        name: Some(envd.name.clone()),
        storage_source: Some(wire::StorageSource { image: Some(image), ..wire::StorageSource::default() }),
        mount_path: Some(envd.mount_path.clone()),
        read_only: Some(envd.read_only),
    }
}

pub fn log(log: &LogFiles) -> wire::LogConfiguration {
    wire::LogConfiguration {
        cls_config: log.cls_topic_id.clone().map(|topic_id| wire::ClsConfig { topic_id: Some(topic_id) }),
        log_sources: (!log.files.is_empty()).then(|| wire::LogSources { files: Some(log.files.clone()) }),
    }
}

pub fn mount_options(mounts: &[MountOverride]) -> Option<Vec<wire::MountOption>> {
    let option = |mount: &MountOverride| wire::MountOption {
        name: Some(mount.name.clone()),
        mount_path: mount.mount_path.clone(),
        sub_path: mount.sub_path.clone(),
        read_only: mount.read_only,
    };
    (!mounts.is_empty()).then(|| mounts.iter().map(option).collect())
}

/// What is worth knowing of a tool that was not made here.
pub(super) fn foreign_spec(tool: &wire::SandboxTool) -> ToolSpec {
    let network = tool.network_configuration.clone().unwrap_or_default();
    let vpc = network.vpc_config.unwrap_or_default();
    ToolSpec {
        description: tool.description.clone(),
        default_timeout_seconds: tool.default_timeout_seconds.and_then(|seconds| seconds.try_into().ok()),
        network: Network {
            mode: network.network_mode.to_string(),
            subnet_ids: vpc.subnet_ids.unwrap_or_default(),
            security_group_ids: vpc.security_group_ids.unwrap_or_default(),
        },
        tags: tool.tags.iter().flatten().map(|tag| (tag.key.clone(), tag.value.clone())).collect(),
        persistent: tool.persistent,
        ..ToolSpec::default()
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use serde_json::{json, to_value};

    use super::*;

    #[test]
    fn a_container_is_written_as_the_cloud_reads_it() {
        let spec: Container = serde_json::from_value(json!({
            "image": "python:3.11", "image_registry_type": "enterprise", "command": ["python"], "args": [],
            "ports": [{"name": "http", "port": 8000}], "resources": {"cpu": "1", "memory": "2Gi"},
            "probe": {"path": "/", "port": 80, "scheme": "HTTP", "ready_timeout_ms": 30000, "timeout_ms": 1000,
                      "period_ms": 100, "success_threshold": 1, "failure_threshold": 100},
            "env": {"A": "1"}, "dns": {"servers": ["10.0.0.1"]}
        }))
        .unwrap();
        assert_eq!(
            to_value(container(&spec)).unwrap(),
            json!({
                "Image": "python:3.11", "ImageRegistryType": "enterprise", "Command": ["python"], "Args": [],
                "Env": [{"Name": "A", "Value": "1"}], "Ports": [{"Name": "http", "Port": 8000, "Protocol": "TCP"}],
                "Resources": {"CPU": "1", "Memory": "2Gi"},
                "Probe": {"HttpGet": {"Path": "/", "Port": 80, "Scheme": "HTTP"}, "ReadyTimeoutMs": 30000,
                          "ProbeTimeoutMs": 1000, "ProbePeriodMs": 100, "SuccessThreshold": 1, "FailureThreshold": 100},
                "DNSConfig": {"Servers": ["10.0.0.1"]}
            })
        );
        assert_eq!(container(&Container::default()), None);
    }

    #[test]
    fn the_envd_volume_is_added_where_wanted() {
        let envd = EnvdMount {
            name: "envd".into(),
            image: "reg/envd:1".into(),
            image_registry_type: "enterprise".into(),
            mount_path: "/nix".into(),
            sub_path: "/nix".into(),
            read_only: false,
            for_all: false,
        };
        let mut spec = ToolSpec::default();
        assert_eq!(storage_mounts(&spec, Some(&envd)), None);
        spec.mount_envd = true;
        let mounts = to_value(storage_mounts(&spec, Some(&envd))).unwrap();
        let source =
            json!({"Image": {"Reference": "reg/envd:1", "ImageRegistryType": "enterprise", "SubPath": "/nix"}});
        assert_eq!(mounts, json!([{"Name": "envd", "StorageSource": source, "MountPath": "/nix", "ReadOnly": false}]));
    }

    #[test]
    fn every_source_goes_to_its_own_place() {
        for (ours, theirs) in [
            (
                json!({"cos": {"bucket_name": "b", "bucket_path": "/x"}}),
                json!({"Cos": {"BucketName": "b", "BucketPath": "/x"}}),
            ),
            (json!({"cfs": {"file_system_id": "f"}}), json!({"Cfs": {"FileSystemId": "f"}})),
            (json!({"agent_bucket": {"library_id": "l"}}), json!({"AgentBucket": {"LibraryId": "l"}})),
            (json!({"image": {"reference": "r"}}), json!({"Image": {"Reference": "r"}})),
        ] {
            let source: StorageSource = serde_json::from_value(ours).unwrap();
            assert_eq!(to_value(storage_source(&source)).unwrap(), theirs);
        }
    }

    #[test]
    fn a_vpc_is_written_only_in_its_mode() {
        let public = Network { mode: "PUBLIC".into(), ..Network::default() };
        assert_eq!(to_value(network(&public)).unwrap(), json!({"NetworkMode": "PUBLIC"}));
        let vpc = Network { mode: "VPC".into(), subnet_ids: vec!["s".into()], security_group_ids: vec!["g".into()] };
        let expected = json!({"NetworkMode": "VPC", "VpcConfig": {"SubnetIds": ["s"], "SecurityGroupIds": ["g"]}});
        assert_eq!(to_value(network(&vpc)).unwrap(), expected);
    }

    #[test]
    fn a_foreign_tool_keeps_its_default_timeout() {
        let tool = wire::SandboxTool {
            default_timeout_seconds: Some(300),
            tags: Some(vec![wire::Tag { key: "k".into(), value: "v".into() }]),
            ..wire::SandboxTool::default()
        };
        let spec = foreign_spec(&tool);
        assert_eq!(spec.default_timeout_seconds, Some(300));
        assert_eq!(spec.tags, BTreeMap::from([("k".to_owned(), "v".to_owned())]));
    }
}
