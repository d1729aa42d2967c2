//! What a sandbox is made of: image, resources, probe, network, mounts. As callers write it and as it is stored.

use std::{collections::BTreeMap, fmt, net::IpAddr, ops::Deref};

use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

use super::checks::{Checks, absolute};

/// Keys with this prefix, in metadata and tags, are the gateway's own.
pub const RESERVED_PREFIX: &str = "ags-gateway";
const MAX_LOG_FILES: usize = 10;
const MAX_IMAGE: usize = 512;
/// `system`: images of the cloud's own.
const REGISTRY_TYPES: [&str; 4] = ["enterprise", "personal", "custom", "system"];
const NETWORK_MODES: [&str; 3] = ["PUBLIC", "VPC", "SANDBOX"];

#[must_use]
pub fn is_reserved(key: &str) -> bool {
    key.to_ascii_lowercase().starts_with(RESERVED_PREFIX)
}

/// Environment variables. Their values may be secrets, so `Debug` shows the names only.
#[derive(Clone, Default, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(transparent)]
#[schema(value_type = BTreeMap<String, String>)]
pub struct Env(pub BTreeMap<String, String>);

impl fmt::Debug for Env {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_set().entries(self.0.keys()).finish()
    }
}

impl Deref for Env {
    type Target = BTreeMap<String, String>;
    fn deref(&self) -> &Self::Target {
        &self.0
    }
}

impl Env {
    pub fn check(&self, checks: &mut Checks) {
        for (name, value) in &self.0 {
            let named = !name.is_empty() && !name.contains(['=', '\0']);
            checks.that(named, format!("env.{name}"), "a name is not empty and has neither `=` nor NUL");
            checks.that(!value.contains('\0'), format!("env.{name}"), "a value has no NUL");
        }
    }
}

/// The network of a tool.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct Network {
    /// `PUBLIC`, `VPC`, or `SANDBOX` (no external network).
    #[schema(example = "PUBLIC", pattern = "^(PUBLIC|VPC|SANDBOX)$")]
    pub mode: String,
    /// For `VPC`.
    #[serde(default)]
    pub subnet_ids: Vec<String>,
    /// For `VPC`.
    #[serde(default)]
    pub security_group_ids: Vec<String>,
}

impl Network {
    pub fn check(&self, checks: &mut Checks) {
        checks.that(NETWORK_MODES.contains(&self.mode.as_str()), "network.mode", "must be PUBLIC, VPC or SANDBOX");
        let vpc = self.mode == "VPC";
        for (field, ids) in
            [("network.subnet_ids", &self.subnet_ids), ("network.security_group_ids", &self.security_group_ids)]
        {
            checks.that(!vpc || !ids.is_empty(), field, "is required in mode VPC");
            checks.that(vpc || ids.is_empty(), field, "belongs to mode VPC");
        }
    }
}

/// How an image is run. In a tool of type `custom` the whole of it; in an instance what differs from its tool.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct Container {
    pub image: Option<String>,
    pub image_registry_type: Option<String>,
    pub command: Option<Vec<String>>,
    pub args: Option<Vec<String>>,
    pub env: Env,
    pub ports: Option<Vec<Port>>,
    pub resources: Option<Resources>,
    pub probe: Option<Probe>,
    pub dns: Option<Dns>,
}

/// A port that the image serves.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct Port {
    #[serde(default)]
    pub name: Option<String>,
    #[schema(minimum = 1, maximum = 65535)]
    pub port: u16,
    #[serde(default = "tcp")]
    #[schema(default = "TCP", pattern = "^TCP$")]
    pub protocol: String,
}

fn tcp() -> String {
    "TCP".to_owned()
}

/// Cores, memory and disk; what is left out comes from the tool or the configuration.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields, default)]
pub struct Resources {
    #[schema(example = "500m", pattern = "^([0-9]{1,6}m|[1-9][0-9]{0,3}(\\.[0-9]{1,3})?|0?\\.[0-9]{0,2}[1-9])$")]
    pub cpu: Option<String>,
    #[schema(example = "2Gi", pattern = "^[0-9]{1,6}[MG]i$")]
    pub memory: Option<String>,
    /// `1Gi`, `5Gi`, `10Gi` or `20Gi`.
    #[schema(pattern = "^[0-9]{1,6}[MG]i$")]
    pub storage: Option<String>,
}

impl Resources {
    /// These, and from `base` what they leave out.
    #[must_use]
    pub fn over(self, base: Option<&Self>) -> Self {
        let base = base.cloned().unwrap_or_default();
        Self { cpu: self.cpu.or(base.cpu), memory: self.memory.or(base.memory), storage: self.storage.or(base.storage) }
    }
}

/// When an instance counts as ready: HTTP GET of `scheme://instance:port/path`.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields, default)]
pub struct Probe {
    #[schema(pattern = "^/")]
    pub path: Option<String>,
    #[schema(minimum = 1, maximum = 65535)]
    pub port: Option<u16>,
    /// `HTTP` or `HTTPS`.
    #[schema(pattern = "^HTTPS?$")]
    pub scheme: Option<String>,
    #[schema(value_type = Option<u64>, minimum = 1, maximum = 4294967295_u32)]
    pub ready_timeout_ms: Option<u32>,
    #[schema(value_type = Option<u64>, minimum = 1, maximum = 4294967295_u32)]
    pub timeout_ms: Option<u32>,
    #[schema(value_type = Option<u64>, minimum = 1, maximum = 4294967295_u32)]
    pub period_ms: Option<u32>,
    #[schema(value_type = Option<u64>, minimum = 1, maximum = 4294967295_u32)]
    pub success_threshold: Option<u32>,
    #[schema(value_type = Option<u64>, minimum = 1, maximum = 4294967295_u32)]
    pub failure_threshold: Option<u32>,
}

impl Probe {
    /// This, and from `base` what it leaves out.
    #[must_use]
    pub fn over(self, base: Option<&Self>) -> Self {
        let base = base.cloned().unwrap_or_default();
        Self {
            path: self.path.or(base.path),
            port: self.port.or(base.port),
            scheme: self.scheme.or(base.scheme),
            ready_timeout_ms: self.ready_timeout_ms.or(base.ready_timeout_ms),
            timeout_ms: self.timeout_ms.or(base.timeout_ms),
            period_ms: self.period_ms.or(base.period_ms),
            success_threshold: self.success_threshold.or(base.success_threshold),
            failure_threshold: self.failure_threshold.or(base.failure_threshold),
        }
    }

    fn check(&self, checks: &mut Checks) {
        checks.that(self.path.as_deref().is_none_or(absolute), "probe.path", "must start with /");
        checks.that(self.port != Some(0), "probe.port", "must lie between 1 and 65535");
        let scheme = self.scheme.as_deref();
        checks.that(matches!(scheme, None | Some("HTTP" | "HTTPS")), "probe.scheme", "must be HTTP or HTTPS");
        for (field, value) in [
            ("probe.ready_timeout_ms", self.ready_timeout_ms),
            ("probe.timeout_ms", self.timeout_ms),
            ("probe.period_ms", self.period_ms),
            ("probe.success_threshold", self.success_threshold),
            ("probe.failure_threshold", self.failure_threshold),
        ] {
            checks.that(value != Some(0), field, "must be at least 1");
        }
    }
}

/// Resolver of an instance.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct Dns {
    /// IP addresses.
    #[schema(schema_with = addresses)]
    pub servers: Vec<String>,
    #[serde(default)]
    pub searches: Vec<String>,
    #[serde(default)]
    pub options: Vec<String>,
}

fn addresses() -> utoipa::openapi::schema::Array {
    use utoipa::openapi::schema::{AnyOfBuilder, ArrayBuilder, KnownFormat, ObjectBuilder, SchemaFormat, Type};
    let address =
        |format| ObjectBuilder::new().schema_type(Type::String).format(Some(SchemaFormat::KnownFormat(format)));
    let either = AnyOfBuilder::new().item(address(KnownFormat::Ipv4)).item(address(KnownFormat::Ipv6));
    ArrayBuilder::new().items(either).description(Some("IP addresses.")).build()
}

impl Container {
    pub fn check(&self, checks: &mut Checks) {
        let image_fits = |image: &str| {
            (1..=MAX_IMAGE).contains(&image.len()) && !image.chars().any(|c| c.is_whitespace() || c.is_control())
        };
        checks.that(self.image.as_deref().is_none_or(image_fits), "image", "must be an image such as python:3.11");
        let known = |kind: &str| REGISTRY_TYPES.contains(&kind);
        let registry = self.image_registry_type.as_deref();
        checks.that(
            registry.is_none_or(known),
            "image_registry_type",
            format!("must be one of {}", REGISTRY_TYPES.join(", ")),
        );
        self.env.check(checks);
        for (index, port) in self.ports.iter().flatten().enumerate() {
            checks.that(port.port != 0, format!("ports[{index}].port"), "must lie between 1 and 65535");
            checks.that(port.protocol == "TCP", format!("ports[{index}].protocol"), "must be TCP");
        }
        if let Some(resources) = &self.resources {
            check_resources(resources, checks);
        }
        if let Some(probe) = &self.probe {
            probe.check(checks);
        }
        for (index, server) in self.dns.iter().flat_map(|dns| &dns.servers).enumerate() {
            checks.that(server.parse::<IpAddr>().is_ok(), format!("dns.servers[{index}]"), "must be an IP address");
        }
    }

    #[must_use]
    pub fn is_empty(&self) -> bool {
        *self == Self::default()
    }
}

fn check_resources(resources: &Resources, checks: &mut Checks) {
    let number = |text: &str| !text.is_empty() && text.len() <= 6 && text.bytes().all(|b| b.is_ascii_digit());
    let decimal = |text: &str| {
        text.bytes().all(|b| b.is_ascii_digit() || b == b'.') && text.parse::<f64>().is_ok_and(|n| n > 0.0)
    };
    let cores = |text: &str| text.strip_suffix('m').map_or_else(|| decimal(text), number);
    let bytes = |text: &str| ["Mi", "Gi"].iter().any(|unit| text.strip_suffix(unit).is_some_and(number));
    let cpu = resources.cpu.as_deref();
    checks.that(cpu.is_none_or(cores), "resources.cpu", "must be cores such as \"2\" or \"500m\"");
    for (field, size) in [("resources.memory", &resources.memory), ("resources.storage", &resources.storage)] {
        checks.that(size.as_deref().is_none_or(bytes), field, "must be a size such as \"512Mi\" or \"2Gi\"");
    }
}

/// Storage that a tool brings into its instances.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct StorageMount {
    /// Unique in the tool.
    #[schema(min_length = 1)]
    pub name: String,
    #[schema(pattern = "^/")]
    pub mount_path: String,
    #[serde(default)]
    pub read_only: bool,
    pub source: StorageSource,
}

/// Where mounted storage comes from: exactly one of these.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "snake_case")]
pub enum StorageSource {
    Image(ImageSource),
    Cos(CosSource),
    Cfs(CfsSource),
    AgentBucket(AgentBucketSource),
}

/// A path of an image.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct ImageSource {
    #[schema(min_length = 1)]
    pub reference: String,
    #[serde(default)]
    pub image_registry_type: Option<String>,
    #[serde(default)]
    pub sub_path: Option<String>,
}

/// A path of a bucket of Cloud Object Storage; needs a role.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct CosSource {
    #[serde(default)]
    pub endpoint: Option<String>,
    #[schema(min_length = 1)]
    pub bucket_name: String,
    /// Absolute.
    #[serde(default)]
    #[schema(pattern = "^/")]
    pub bucket_path: Option<String>,
}

/// A path of a Cloud File Storage.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct CfsSource {
    #[schema(min_length = 1)]
    pub file_system_id: String,
    #[serde(default)]
    pub path: Option<String>,
}

/// A space of an agent bucket.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct AgentBucketSource {
    #[schema(min_length = 1)]
    pub library_id: String,
    #[serde(default)]
    pub space_id: Option<String>,
    #[serde(default)]
    pub access_domain: Option<String>,
}

impl StorageSource {
    /// How a team's grants name it.
    #[must_use]
    pub fn grant(&self) -> String {
        match self {
            Self::Image(image) => format!("image:{}", image.reference),
            Self::Cos(cos) => format!("cos:{}", cos.bucket_name),
            Self::Cfs(cfs) => format!("cfs:{}", cfs.file_system_id),
            Self::AgentBucket(bucket) => format!("agent_bucket:{}", bucket.library_id),
        }
    }
}

/// Checks the mounts of a tool.
pub fn check_mounts(mounts: &[StorageMount], checks: &mut Checks) {
    for (index, mount) in mounts.iter().enumerate() {
        let field = |name: &str| format!("storage_mounts[{index}].{name}");
        let unique = !mount.name.is_empty() && mounts[..index].iter().all(|other| other.name != mount.name);
        checks.that(unique, field("name"), "each mount needs a name of its own");
        checks.that(absolute(&mount.mount_path), field("mount_path"), "must be an absolute path");
        let (source_field, fine) = match &mount.source {
            StorageSource::Image(image) => ("image.reference", !image.reference.is_empty()),
            StorageSource::Cos(cos) => {
                ("cos", !cos.bucket_name.is_empty() && cos.bucket_path.as_deref().is_none_or(absolute))
            }
            StorageSource::Cfs(cfs) => ("cfs.file_system_id", !cfs.file_system_id.is_empty()),
            StorageSource::AgentBucket(bucket) => ("agent_bucket.library_id", !bucket.library_id.is_empty()),
        };
        checks.that(fine, field(&format!("source.{source_field}")), "is empty, or its path is not absolute");
    }
}

/// Where a tool's logs go.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields, default)]
pub struct LogFiles {
    /// A topic of the Cloud Log Service.
    pub cls_topic_id: Option<String>,
    /// At most 10, directly under `/logs/`.
    #[schema(max_items = 10)]
    pub files: Vec<String>,
}

impl LogFiles {
    pub fn check(&self, checks: &mut Checks) {
        checks.that(self.files.len() <= MAX_LOG_FILES, "log.files", format!("may name up to {MAX_LOG_FILES} files"));
        for (index, file) in self.files.iter().enumerate() {
            let directly =
                file.strip_prefix("/logs/").is_some_and(|name| !name.is_empty() && !name.contains(['/', '\0']));
            checks.that(directly, format!("log.files[{index}]"), "must stand directly under /logs/");
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn faults(check: impl FnOnce(&mut Checks)) -> Vec<String> {
        let mut checks = Checks::default();
        check(&mut checks);
        match checks.finish() {
            Ok(()) => Vec::new(),
            Err(error) => error.inner().fields.iter().map(|field| field.field.clone()).collect(),
        }
    }

    fn container(json: serde_json::Value) -> Container {
        serde_json::from_value(json).unwrap()
    }

    #[test]
    fn every_bad_field_of_a_container_is_named() {
        let bad = container(serde_json::json!({
            "image": "a b", "image_registry_type": "docker", "env": {"A=B": "x"},
            "ports": [{"port": 80}, {"port": 0}], "resources": {"cpu": "many", "memory": "2GB"},
            "probe": {"path": "x", "port": 0, "period_ms": 0}, "dns": {"servers": ["10.0.0.1", "dns"]}
        }));
        let expected = [
            "image",
            "image_registry_type",
            "env.A=B",
            "ports[1].port",
            "resources.cpu",
            "resources.memory",
            "probe.path",
            "probe.port",
            "probe.period_ms",
            "dns.servers[1]",
        ];
        assert_eq!(faults(|checks| bad.check(checks)), expected);
        let good = container(serde_json::json!({
            "image": "ccr.example.com/x/y:1", "resources": {"cpu": "0.5", "memory": "512Mi", "storage": "5Gi"}
        }));
        assert_eq!(faults(|checks| good.check(checks)), Vec::<String>::new());
    }

    #[test]
    fn a_vpc_needs_subnets_and_others_have_none() {
        let vpc = Network { mode: "VPC".into(), ..Network::default() };
        assert_eq!(faults(|c| vpc.check(c)), ["network.subnet_ids", "network.security_group_ids"]);
        let public = Network { mode: "PUBLIC".into(), subnet_ids: vec!["subnet-1".into()], ..Network::default() };
        assert_eq!(faults(|c| public.check(c)), ["network.subnet_ids"]);
    }

    #[test]
    fn a_source_is_one_of_four() {
        let parse = |text: &str| serde_json::from_str::<StorageSource>(text);
        assert_eq!(parse(r#"{"cos": {"bucket_name": "b-1"}}"#).unwrap().grant(), "cos:b-1");
        assert!(parse(r#"{"cos": {"bucket_name": "b"}, "cfs": {"file_system_id": "f"}}"#).is_err());
        assert!(parse(r#"{"nfs": {}}"#).is_err());
    }

    #[test]
    fn an_override_keeps_what_it_does_not_say() {
        let base = Probe { path: Some("/".into()), port: Some(80), ..Probe::default() };
        let merged = Probe { port: Some(8000), ..Probe::default() }.over(Some(&base));
        assert_eq!((merged.path.as_deref(), merged.port), (Some("/"), Some(8000)));
    }

    #[test]
    fn environment_values_are_not_debugged() {
        let env = Env(BTreeMap::from([("TOKEN".into(), "hush".into())]));
        assert_eq!(format!("{env:?}"), r#"{"TOKEN"}"#);
    }
}
