//! What a request may say (PROTOCOLS B.1, B.6, B.7).

use std::net::IpAddr;

use ags_client::types::{
    AuthMode, CustomConfiguration, ImageRegistryType, LogConfiguration, MountOption, NetworkConfiguration, NetworkMode,
    PortConfiguration, ProbeConfiguration, StorageMount, StorageSource,
};

use super::error::{ApiError, ApiResult};

const MAX_CLIENT_TOKEN: usize = 64;
const MAX_DESCRIPTION: usize = 200;
const MAX_LOG_FILES: usize = 10;
const MAX_TOOL_NAME: usize = 50;

pub fn tool_name(name: &str) -> ApiResult<()> {
    let fits = (1..=MAX_TOOL_NAME).contains(&name.len())
        && name.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'_' || b == b'-');
    if fits {
        return Ok(());
    }
    let message = "ToolName must be 1 to 50 characters of A-Z, a-z, 0-9, `_` and `-`.";
    Err(ApiError::value("SandboxTool", message))
}

pub fn description(text: Option<&str>) -> ApiResult<()> {
    match text {
        Some(text) if text.chars().count() > MAX_DESCRIPTION => {
            Err(ApiError::invalid("Description is longer than 200 characters."))
        }
        _ => Ok(()),
    }
}

pub fn client_token(token: &str) -> ApiResult<()> {
    if token.len() > MAX_CLIENT_TOKEN {
        return Err(ApiError::invalid("ClientToken is longer than 64 characters."));
    }
    Ok(())
}

pub fn auth_mode(mode: &AuthMode) -> ApiResult<()> {
    if mode.is_known() {
        return Ok(());
    }
    Err(ApiError::invalid(format!("AuthMode `{mode}` is not one of DEFAULT, TOKEN, NONE, PUBLIC.")))
}

pub fn network(network: &NetworkConfiguration) -> ApiResult<()> {
    match network.network_mode {
        NetworkMode::Public | NetworkMode::Sandbox => Ok(()),
        NetworkMode::Vpc => vpc(network),
        _ => {
            let message = format!("NetworkMode `{}` is not one of PUBLIC, VPC, SANDBOX.", network.network_mode);
            Err(ApiError::invalid(message))
        }
    }
}

fn vpc(network: &NetworkConfiguration) -> ApiResult<()> {
    let config = network.vpc_config.as_ref();
    let subnets = config.and_then(|c| c.subnet_ids.as_deref()).unwrap_or_default();
    let groups = config.and_then(|c| c.security_group_ids.as_deref()).unwrap_or_default();
    if subnets.is_empty() || groups.is_empty() {
        let message = "NetworkMode VPC needs SubnetIds and SecurityGroupIds.";
        return Err(ApiError::new("MissingParameter.VPCParameters", message));
    }
    for (ids, prefix, what) in [(subnets, "subnet-", "SubnetId"), (groups, "sg-", "SecurityGroupId")] {
        if let Some(id) = ids.iter().find(|id| !id.starts_with(prefix)) {
            return Err(ApiError::value(what, format!("`{id}` does not begin with `{prefix}`.")));
        }
    }
    Ok(())
}

pub fn role_arn(role: Option<&str>) -> ApiResult<()> {
    match role {
        Some(role) if !role.starts_with("qcs::cam::") => {
            Err(ApiError::value("RoleArn", "RoleArn does not begin with `qcs::cam::`."))
        }
        _ => Ok(()),
    }
}

pub fn storage_mounts(mounts: &[StorageMount], role: Option<&str>) -> ApiResult<()> {
    let bad = |message: String| Err(ApiError::value("StorageMount", message));
    for (index, mount) in mounts.iter().enumerate() {
        let name = mount.name.as_deref().unwrap_or_default();
        if name.is_empty() || mounts[..index].iter().any(|m| m.name == mount.name) {
            return bad(format!("StorageMounts.{index} needs a name of its own."));
        }
        if !mount.mount_path.as_deref().is_some_and(|path| path.starts_with('/')) {
            return bad(format!("StorageMount `{name}` needs an absolute MountPath."));
        }
        let Some(source) = &mount.storage_source else {
            return bad(format!("StorageMount `{name}` has no StorageSource."));
        };
        if count_sources(source) != 1 {
            return bad(format!("StorageMount `{name}` must have exactly one source."));
        }
        if let Some(cos) = &source.cos {
            if cos.bucket_path.as_deref().is_some_and(|path| !path.starts_with('/')) {
                return bad(format!("StorageMount `{name}` needs an absolute BucketPath."));
            }
            if role.is_none_or(str::is_empty) {
                let message = "A COS mount needs RoleArn.";
                return Err(ApiError::new("MissingParameter.RoleArn", message));
            }
        }
    }
    Ok(())
}

fn count_sources(source: &StorageSource) -> usize {
    let StorageSource { cos, image, cfs, agent_bucket } = source;
    [cos.is_some(), image.is_some(), cfs.is_some(), agent_bucket.is_some()]
        .into_iter()
        .filter(|present| *present)
        .count()
}

pub fn mount_options(options: &[MountOption], mounts: &[StorageMount]) -> ApiResult<()> {
    let bad = |message: String| Err(ApiError::value("MountOption", message));
    for option in options {
        let name = option.name.as_deref().unwrap_or_default();
        if !mounts.iter().any(|mount| mount.name.as_deref() == Some(name)) {
            return bad(format!("MountOption `{name}` names no StorageMount of the tool."));
        }
        if option.mount_path.as_deref().is_some_and(|path| !path.starts_with('/')) {
            return bad(format!("MountOption `{name}` needs an absolute MountPath."));
        }
    }
    Ok(())
}

pub fn log_configuration(log: Option<&LogConfiguration>) -> ApiResult<()> {
    let files =
        log.and_then(|log| log.log_sources.as_ref()).and_then(|sources| sources.files.as_deref()).unwrap_or_default();
    if files.len() > MAX_LOG_FILES {
        return Err(ApiError::invalid("LogSources.Files holds more than 10 files."));
    }
    let directly_under_logs =
        |file: &&String| file.strip_prefix("/logs/").is_some_and(|name| !name.is_empty() && !name.contains('/'));
    match files.iter().find(|file| !directly_under_logs(file)) {
        Some(file) => Err(ApiError::invalid(format!("`{file}` is not directly under /logs/."))),
        None => Ok(()),
    }
}

pub fn custom_configuration(config: Option<&CustomConfiguration>) -> ApiResult<()> {
    let Some(config) = config else { return Ok(()) };
    if let Some(kind) = &config.image_registry_type {
        registry_type(kind)?;
    }
    for variable in config.env.iter().flatten() {
        if variable.name.is_empty() || variable.name.contains(['=', '\0']) {
            return Err(ApiError::invalid(format!("Env name `{}` is malformed.", variable.name)));
        }
    }
    config.ports.iter().flatten().try_for_each(port)?;
    if let Some(probe_config) = &config.probe {
        probe(probe_config)?;
    }
    if let Some(resources) = &config.resources {
        let cpu = resources.cpu.as_deref().map(cores);
        let memory = resources.memory.as_deref().map(bytes);
        if cpu == Some(None) || memory == Some(None) {
            let message = "Resources needs a CPU such as `500m` or `2` and a Memory such as `1Gi`.";
            return Err(ApiError::invalid(message));
        }
    }
    for server in config.dns_config.iter().flat_map(|dns| &dns.servers) {
        if server.parse::<IpAddr>().is_err() {
            return Err(ApiError::invalid(format!("DNS server `{server}` is not an IP address.")));
        }
    }
    Ok(())
}

pub fn registry_type(kind: &ImageRegistryType) -> ApiResult<()> {
    if kind.is_known() {
        return Ok(());
    }
    let message = format!("ImageRegistryType `{kind}` is not one of enterprise, personal, custom, system.");
    Err(ApiError::invalid(message))
}

fn port(port: &PortConfiguration) -> ApiResult<()> {
    if port_number(port.port).is_none() {
        return Err(ApiError::invalid("A port is outside 1 to 65535."));
    }
    match port.protocol.as_deref() {
        None | Some("TCP") => Ok(()),
        Some(other) => Err(ApiError::invalid(format!("Port protocol `{other}` is not TCP."))),
    }
}

fn probe(probe: &ProbeConfiguration) -> ApiResult<()> {
    let Some(get) = &probe.http_get else {
        return Err(ApiError::missing("CustomConfiguration.Probe.HttpGet"));
    };
    if port_number(get.port).is_none() {
        return Err(ApiError::invalid("The probe's port is outside 1 to 65535."));
    }
    if !get.path.as_deref().is_none_or(|path| path.starts_with('/')) {
        return Err(ApiError::invalid("The probe's path does not begin with `/`."));
    }
    let numbers = [
        probe.ready_timeout_ms,
        probe.probe_timeout_ms,
        probe.probe_period_ms,
        probe.success_threshold,
        probe.failure_threshold,
    ];
    if numbers.into_iter().flatten().any(|number| number < 1) {
        return Err(ApiError::invalid("The probe's times and thresholds must be positive."));
    }
    Ok(())
}

/// A valid port, as a port.
pub fn port_number(port: Option<i64>) -> Option<u16> {
    port.and_then(|port| u16::try_from(port).ok()).filter(|port| *port > 0)
}

/// `500m` or `2` in cores.
pub fn cores(text: &str) -> Option<f64> {
    let cores = match text.strip_suffix('m') {
        Some(millis) => millis.parse::<f64>().ok()? / 1000.0,
        None => text.parse::<f64>().ok()?,
    };
    (cores.is_finite() && cores > 0.0).then_some(cores)
}

/// `1Gi` or `1000Mi` in bytes.
pub fn bytes(text: &str) -> Option<u64> {
    let digits = text.find(|c: char| !c.is_ascii_digit()).unwrap_or(text.len());
    let (number, unit) = text.split_at(digits);
    let shift = match unit {
        "" => 0,
        "Ki" => 10,
        "Mi" => 20,
        "Gi" => 30,
        "Ti" => 40,
        _ => return None,
    };
    number.parse::<u64>().ok()?.checked_mul(1 << shift).filter(|bytes| *bytes > 0)
}

#[cfg(test)]
mod tests {
    use ags_client::types::{CosStorageSource, HttpGetAction, LogSources, VpcConfig};

    use super::*;

    fn code(result: ApiResult<()>) -> String {
        result.expect_err("an error").code.into_owned()
    }

    #[test]
    fn tool_names() {
        for good in ["a", "code-interpreter-v1", &"x".repeat(50)] {
            assert_eq!(tool_name(good), Ok(()), "{good}");
        }
        for bad in ["", "a b", "é", &"x".repeat(51)] {
            assert_eq!(code(tool_name(bad)), "InvalidParameterValue.SandboxTool", "{bad}");
        }
    }

    #[test]
    fn vpc_needs_its_parameters() {
        let mut config = NetworkConfiguration { network_mode: NetworkMode::Vpc, vpc_config: None };
        assert_eq!(code(network(&config)), "MissingParameter.VPCParameters");
        let ids = |id: &str| Some(vec![id.to_owned()]);
        config.vpc_config = Some(VpcConfig { subnet_ids: ids("subnet-1"), security_group_ids: ids("x") });
        assert_eq!(code(network(&config)), "InvalidParameterValue.SecurityGroupId");
        config.network_mode = "MOON".into();
        assert_eq!(code(network(&config)), "InvalidParameter");
    }

    #[test]
    fn mounts_are_complete_and_cos_needs_a_role() {
        let mut mount = StorageMount {
            name: Some("data".into()),
            mount_path: Some("/data".into()),
            storage_source: Some(StorageSource { cos: Some(CosStorageSource::default()), ..Default::default() }),
            read_only: None,
        };
        assert_eq!(code(storage_mounts(&[mount.clone()], None)), "MissingParameter.RoleArn");
        assert_eq!(storage_mounts(&[mount.clone()], Some("qcs::cam::uin/1:roleName/r")), Ok(()));
        let twice = [mount.clone(), mount.clone()];
        assert_eq!(code(storage_mounts(&twice, Some("r"))), "InvalidParameterValue.StorageMount");
        mount.mount_path = Some("data".into());
        assert_eq!(code(storage_mounts(&[mount], Some("r"))), "InvalidParameterValue.StorageMount");
    }

    #[test]
    fn probes_and_logs_have_bounds() {
        let with_port = |port| CustomConfiguration {
            probe: Some(ProbeConfiguration {
                http_get: Some(HttpGetAction { port: Some(port), ..Default::default() }),
                ..Default::default()
            }),
            ..Default::default()
        };
        assert_eq!(custom_configuration(Some(&with_port(80))), Ok(()));
        assert_eq!(code(custom_configuration(Some(&with_port(70_000)))), "InvalidParameter");
        let log = LogConfiguration {
            log_sources: Some(LogSources { files: Some(vec!["/logs/a/b".into()]) }),
            ..Default::default()
        };
        assert_eq!(code(log_configuration(Some(&log))), "InvalidParameter");
    }

    #[test]
    fn quantities() {
        assert_eq!((cores("500m"), cores("2"), cores("x")), (Some(0.5), Some(2.0), None));
        assert_eq!((bytes("1Gi"), bytes("1000Mi")), (Some(1 << 30), Some(1000 << 20)));
        assert_eq!((bytes("0Gi"), bytes("1GB"), bytes("99999999999Ti")), (None, None, None));
    }
}
