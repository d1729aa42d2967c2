//! Between the cloud's objects and ours. Ids and names are the gateway's.

use std::collections::BTreeMap;

use ags_client::{timeout, types as wire};

use crate::{
    domain::{
        duration::Seconds,
        instance::{Details, Instance, MountOverride, StopReason},
        spec::{Container, LogFiles, Network, StorageMount},
        tool::Tool,
    },
    error::{Error, Result},
    upstream::{foreign, wire as write},
};

/// A timeout as the cloud reads it, whole seconds.
///
/// # Errors
/// `validation_failed`, naming the field.
pub fn seconds(field: &'static str, text: Option<&str>) -> Result<Option<Seconds>> {
    let read = |text: &str| {
        let duration = timeout::parse(text).map_err(|error| Error::field(field, error.to_string()))?;
        let seconds = u32::try_from(duration.as_secs()).map_err(|_| Error::field(field, "is too long"))?;
        Ok(Seconds(seconds))
    };
    text.map(read).transpose()
}

pub fn metadata(from: Option<Vec<wire::MetadataVar>>) -> Option<BTreeMap<String, String>> {
    Some(from?.into_iter().map(|var| (var.name, var.value)).collect())
}

pub fn tags(from: Option<Vec<wire::Tag>>) -> Option<BTreeMap<String, String>> {
    Some(from?.into_iter().map(|tag| (tag.key, tag.value)).collect())
}

pub fn network(from: wire::NetworkConfiguration) -> Network {
    let vpc = from.vpc_config.unwrap_or_default();
    Network {
        mode: from.network_mode.to_string(),
        subnet_ids: vpc.subnet_ids.unwrap_or_default(),
        security_group_ids: vpc.security_group_ids.unwrap_or_default(),
    }
}

pub fn container(from: Option<wire::CustomConfiguration>) -> Container {
    from.map(|from| foreign::container(&from.into())).unwrap_or_default()
}

/// # Errors
/// `validation_failed` for a mount that lacks what it is about, or whose source is of no known kind.
pub fn storage_mounts(from: Option<Vec<wire::StorageMount>>) -> Result<Vec<StorageMount>> {
    let read = |(index, mount): (usize, wire::StorageMount)| {
        let lacks =
            || Error::field(format!("storage_mounts[{index}]"), "needs Name, MountPath and one known StorageSource");
        foreign::storage_mount(&mount).ok_or_else(lacks)
    };
    from.unwrap_or_default().into_iter().enumerate().map(read).collect()
}

pub fn log(from: Option<&wire::LogConfiguration>) -> Option<LogFiles> {
    from.map(foreign::log)
}

/// # Errors
/// `validation_failed` for an option without a name.
pub fn mounts(from: Option<Vec<wire::MountOption>>) -> Result<Vec<MountOverride>> {
    let read = |(index, option): (usize, wire::MountOption)| {
        let name = option.name.ok_or_else(|| Error::field(format!("mounts[{index}].name"), "is required"))?;
        let (mount_path, sub_path, read_only) = (option.mount_path, option.sub_path, option.read_only);
        Ok(MountOverride { name, mount_path, sub_path, read_only })
    };
    from.unwrap_or_default().into_iter().enumerate().map(read).collect()
}

/// An instance with what it was started with.
pub fn instance(from: Instance, details: Option<Details>) -> wire::SandboxInstance {
    let details = details.as_ref();
    let container = details.map(|details| &details.spec.container).filter(|container| !container.is_empty());
    let pairs = from.metadata.into_iter().map(|(name, value)| wire::MetadataVar { name, value });
    wire::SandboxInstance {
        instance_id: from.id.to_string(),
        tool_id: from.tool_id.to_string(),
        tool_name: from.tool_name,
        status: from.status.as_str().into(),
        persistent: details.map(|details| details.persistent),
        timeout_seconds: Some(from.timeout_seconds.into()),
        expires_at: Some(from.expires_at),
        stop_reason: from.stop_reason.filter(|_| from.stopped_at.is_some()).map(stop_reason),
        create_time: Some(from.created_at),
        update_time: Some(from.updated_at),
        metadata: Some(pairs.collect()),
        auth_mode: Some(from.auth_mode.as_str().into()),
        mount_options: details.and_then(|details| write::mount_options(&details.spec.mounts)),
        custom_configuration: container.and_then(write::container).map(Into::into),
        network_mode: details.and_then(|details| details.network_mode.as_deref()).map(Into::into),
    }
}

/// The cloud knows fewer reasons.
fn stop_reason(reason: StopReason) -> wire::StopReason {
    match reason {
        StopReason::Idle | StopReason::Quota | StopReason::Orphan => wire::StopReason::System,
        other => other.as_str().into(),
    }
}

pub fn tool(from: Tool) -> wire::SandboxTool {
    let spec = from.spec;
    wire::SandboxTool {
        tool_id: from.id.to_string(),
        tool_name: Some(from.name),
        tool_type: Some(from.kind.as_str().into()),
        status: Some(from.status.as_str().into()),
        persistent: spec.persistent,
        default_timeout_seconds: spec.default_timeout_seconds.map(Into::into),
        network_configuration: Some(write::network(&spec.network)),
        tags: Some(spec.tags.iter().map(|(key, value)| wire::Tag { key: key.clone(), value: value.clone() }).collect()),
        create_time: Some(from.created_at),
        update_time: Some(from.updated_at),
        role_arn: spec.role_arn.clone(),
        storage_mounts: write::storage_mounts(&spec, None),
        custom_configuration: write::container(&spec.container).map(Into::into),
        log_configuration: spec.log.as_ref().map(write::log),
        status_reason: from.status_reason,
        description: spec.description,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn timeouts_are_the_clouds_and_whole_seconds() {
        for (text, expected) in [("5m", 300), ("300s", 300), ("1h0m0s", 3600), ("1500ms", 1)] {
            assert_eq!(seconds("timeout", Some(text)).unwrap(), Some(Seconds(expected)), "{text}");
        }
        assert_eq!(seconds("timeout", None).unwrap(), None);
        for bad in ["", "5", "5 m", "-5m", "9999999999h"] {
            assert!(seconds("timeout", Some(bad)).is_err(), "{bad}");
        }
    }

    #[test]
    fn a_mount_needs_what_it_is_about() {
        let whole = wire::MountOption { name: Some("data".into()), read_only: Some(true), ..Default::default() };
        assert_eq!(mounts(Some(vec![whole])).unwrap()[0].read_only, Some(true));
        assert!(mounts(Some(vec![wire::MountOption::default()])).is_err());
        assert!(storage_mounts(Some(vec![wire::StorageMount::default()])).is_err());
    }
}
