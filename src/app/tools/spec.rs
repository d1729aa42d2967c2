//! From what a caller asks for to what a tool is: defaults, checks, grants.

use crate::{
    app::{App, teams::check_name},
    auth::Caller,
    config,
    domain::{
        checks::Checks,
        spec::{Container, Network, Probe, Resources},
        team::Grants,
        tool::{self, CUSTOM, Tool, ToolSpec},
    },
    error::{Code, Error, Result},
};

use super::Wanted;

/// The upstream and the specification of a wanted tool, with the configuration's defaults filled in.
///
/// # Errors
/// `validation_failed` that names every field at fault; `not_granted`.
pub(super) fn resolve(app: &App, caller: &Caller, wanted: &Wanted) -> Result<(String, ToolSpec)> {
    check_name("name", &wanted.name)?;
    let upstream = wanted.upstream.clone().unwrap_or_else(|| app.upstreams.default_name().to_owned());
    if !app.upstreams.contains(&upstream) {
        return Err(Error::field("upstream", "there is no upstream of that name"));
    }
    let config = &app.upstreams.get(&upstream)?.config;
    let spec = with_defaults(wanted, &app.config.tools, config);
    let mut checks = Checks::default();
    tool::check_type(&mut checks, &wanted.kind);
    spec.check(&mut checks);
    check_envd(&mut checks, wanted, &spec, config);
    checks.finish()?;
    check_grants(&caller.team.grants, &upstream, wanted.role_arn.as_deref(), &spec, config)?;
    Ok((upstream, spec))
}

/// Request over configuration.
fn with_defaults(wanted: &Wanted, defaults: &config::Tools, upstream: &config::Upstream) -> ToolSpec {
    let custom = wanted.kind == CUSTOM;
    let timeout = wanted.default_timeout.map(|seconds| seconds.0);
    let default_timeout = || u32::try_from(defaults.default_timeout.as_secs()).ok().filter(|_| custom);
    ToolSpec {
        description: wanted.description.clone(),
        default_timeout_seconds: timeout.or_else(default_timeout),
        // The cloud wants a network of every type.
        network: wanted
            .network
            .clone()
            .unwrap_or_else(|| Network { mode: defaults.network.clone(), ..Network::default() }),
        container: if custom { container(wanted.container.clone(), defaults) } else { wanted.container.clone() },
        tags: wanted.tags.clone(),
        role_arn: wanted.role_arn.clone().or_else(|| upstream.role_arn.clone().filter(|_| custom)),
        storage_mounts: wanted.storage_mounts.clone(),
        mount_envd: wanted
            .mount_envd
            .unwrap_or_else(|| custom && upstream.envd_mount.as_ref().is_some_and(|envd| envd.for_all)),
        log: wanted.log.clone(),
        persistent: wanted.persistent,
    }
}

fn container(wanted: Container, defaults: &config::Tools) -> Container {
    let resources = Resources { cpu: Some(defaults.cpu.clone()), memory: Some(defaults.memory.clone()), storage: None };
    let probe = &defaults.probe;
    let probe = Probe {
        path: Some(probe.path.clone()),
        port: Some(probe.port),
        scheme: Some(probe.scheme.clone()),
        ready_timeout_ms: Some(probe.ready_timeout_ms),
        timeout_ms: Some(probe.timeout_ms),
        period_ms: Some(probe.period_ms),
        success_threshold: Some(probe.success_threshold),
        failure_threshold: Some(probe.failure_threshold),
    };
    Container {
        image: wanted.image.or_else(|| Some(defaults.image.clone())),
        image_registry_type: wanted.image_registry_type.or_else(|| Some(defaults.image_registry_type.clone())),
        resources: Some(wanted.resources.unwrap_or_default().over(Some(&resources))),
        probe: Some(wanted.probe.unwrap_or_default().over(Some(&probe))),
        ..wanted
    }
}

fn check_envd(checks: &mut Checks, wanted: &Wanted, spec: &ToolSpec, upstream: &config::Upstream) {
    if wanted.mount_envd == Some(true) {
        checks.that(wanted.kind == CUSTOM, "mount_envd", "is for tools of type custom");
        checks.that(upstream.envd_mount.is_some(), "mount_envd", "this gateway has no envd volume configured: name it in `storage_mounts`, or ask the operators for `envd_mount`");
    }
    if let Some(envd) = upstream.envd_mount.as_ref().filter(|_| spec.mount_envd) {
        let free = spec.storage_mounts.iter().all(|mount| mount.name != envd.name);
        checks.that(free, "storage_mounts", format!("the name {:?} is the envd volume's", envd.name));
    }
}

/// # Errors
/// `not_granted`.
pub(super) fn check_grants(
    grants: &Grants,
    upstream: &str,
    role_arn: Option<&str>,
    spec: &ToolSpec,
    config: &config::Upstream,
) -> Result<()> {
    if !grants.allows_upstream(upstream) {
        return Err(not_granted("upstream", upstream));
    }
    check_network(grants, &spec.network)?;
    // The role that the configuration gives to all needs no grant.
    if let Some(role) = role_arn.filter(|role| config.role_arn.as_deref() != Some(role))
        && !grants.allows_role(role)
    {
        return Err(not_granted("role_arn", role));
    }
    for mount in &spec.storage_mounts {
        let source = mount.source.grant();
        if !grants.allows_mount(&source) {
            return Err(not_granted("storage_mounts", &source));
        }
    }
    Ok(())
}

/// Whether the caller's team was granted what a tool has that was lent to it.
///
/// # Errors
/// `not_granted`.
pub(super) fn check_use(app: &App, caller: &Caller, tool: &Tool) -> Result<()> {
    if tool.is_shared() {
        return Ok(());
    }
    let config = &app.upstreams.get(&tool.upstream)?.config;
    check_grants(&caller.team.grants, &tool.upstream, tool.spec.role_arn.as_deref(), &tool.spec, config)
}

/// # Errors
/// `not_granted`.
pub(super) fn check_network(grants: &Grants, network: &Network) -> Result<()> {
    if grants.allows_network(&network.mode) { Ok(()) } else { Err(not_granted("network.mode", &network.mode)) }
}

pub(super) fn not_granted(field: &str, value: &str) -> Error {
    let detail = format!("Your team was not granted {field} {value:?}. Ask the gateway's operators for it.");
    Error::new(Code::NotGranted, detail).with_field(field, "was not granted to your team")
}
