//! `[upstreams.<name>]` over `[upstream_defaults]`: the clouds (regions, accounts) that sandboxes run in.

use std::collections::BTreeMap;
use std::fmt;
use std::path::PathBuf;
use std::time::Duration;

use secrecy::{ExposeSecret, SecretString};
use url::Url;

use super::section::Section;
use super::server::host_name;
use super::tools::REGISTRY_TYPES;
use super::tree::{Node, Table, overlay};
use crate::telemetry::redact::REDACTED;

/// Name of the only upstream when the configuration names none.
pub const DEFAULT_NAME: &str = "default";

#[derive(Clone, Debug)]
pub struct Upstream {
    pub name: String,
    pub region: String,
    /// Control plane, with scheme.
    pub endpoint: Url,
    /// Data plane: `{port}-{instance}.<domain>`; may carry a port (`ags.localhost:8443`).
    pub domain: String,
    /// Scheme of the data plane: `https` or `http`.
    pub scheme: String,
    /// `host:port` to dial for the control plane instead of what the name resolves to.
    pub endpoint_connect_to: Option<String>,
    /// `host:port` to dial for the data plane.
    pub connect_to: Option<String>,
    pub skip_ssl_verify: bool,
    pub language: String,
    /// Calls per second and action.
    pub qps: u32,
    /// Instances that the account may have; `None`: the cloud says when it has too many.
    pub max_instances: Option<u32>,
    pub connect_timeout: Duration,
    pub attempt_timeout: Duration,
    pub deadline: Duration,
    pub role_arn: Option<String>,
    pub traffic_token_header: String,
    pub envd_version: String,
    pub credentials: Credentials,
    pub envd_mount: Option<EnvdMount>,
}

/// As read at start. Where a file is named it may have changed since: temporary credentials are renewed in place.
#[derive(Clone)]
pub struct Credentials {
    pub secret_id: String,
    pub secret_key: SecretString,
    pub token: Option<SecretString>,
    pub files: CredentialFiles,
}

#[derive(Clone, Debug, Default)]
pub struct CredentialFiles {
    pub secret_id: Option<PathBuf>,
    pub secret_key: Option<PathBuf>,
    pub token: Option<PathBuf>,
}

/// The image volume that brings envd into images without it.
#[derive(Clone, Debug)]
pub struct EnvdMount {
    pub name: String,
    pub image: String,
    /// `enterprise`, `personal` or `custom`.
    pub image_registry_type: String,
    pub mount_path: String,
    pub sub_path: String,
    pub read_only: bool,
    pub for_all: bool,
}

/// Reads all upstreams; without a named one, the defaults are the only one.
pub(super) fn read(root: &mut Section<'_>) -> BTreeMap<String, Upstream> {
    let defaults = root.take_table("upstream_defaults");
    let mut named = root.take_table("upstreams");
    if named.is_empty() {
        named.insert(DEFAULT_NAME.to_owned(), Node::Table(Table::new()));
    }
    let mut upstreams = BTreeMap::new();
    for (name, node) in named {
        let path = format!("upstreams.{name}");
        let Node::Table(own) = node else {
            root.problem(&path, "is a section, not a value");
            continue;
        };
        let section = root.with_table(&path, merged(&defaults, own, root));
        if !is_name(&name) {
            section.problem("", "its name must be letters, digits, '-' or '_'");
        }
        upstreams.insert(name.clone(), Upstream::read(name, section));
    }
    upstreams
}

/// Credentials are taken as a whole: halves of two accounts would sign nothing.
fn merged(defaults: &Table, own: Table, root: &Section<'_>) -> Table {
    let mut table = defaults.clone();
    if let Some(Node::Table(credentials)) = own.get("credentials")
        && Section::names_any(credentials)
    {
        table.remove("credentials");
    }
    let mut problems = Vec::new();
    overlay(&mut table, own, &mut problems);
    root.report(problems);
    table
}

fn is_name(name: &str) -> bool {
    (1..=50).contains(&name.len())
        && name.bytes().all(|byte| byte.is_ascii_alphanumeric() || byte == b'-' || byte == b'_')
}

impl Upstream {
    fn read(name: String, mut section: Section<'_>) -> Self {
        let region = section.text("region", "set TENCENTCLOUD_REGION or a region such as \"ap-guangzhou\"");
        let scheme = section.one_of("scheme", &["https", "http"]);
        let placeholder = Url::parse("https://unset.invalid").expect("a constant URL");
        let upstream = Self {
            endpoint: section
                .require("endpoint", "an http(s) URL or host[:port]", placeholder, |text| endpoint(text, &scheme)),
            domain: section.require("domain", "a host name, with a port where needed", String::new(), |text| {
                authority(&text.replace("{region}", if region.is_empty() { "unset" } else { &region }))
            }),
            endpoint_connect_to: section.optional_with("endpoint_connect_to", "host:port", host_and_port),
            connect_to: section.optional_with("connect_to", "host:port", host_and_port),
            skip_ssl_verify: section.flag("skip_ssl_verify"),
            language: section.one_of("language", &["zh-CN", "en-US"]),
            qps: section.count("qps"),
            max_instances: u32::try_from(section.size("max_instances")).ok().filter(|count| *count > 0),
            connect_timeout: section.duration("connect_timeout"),
            attempt_timeout: section.duration("attempt_timeout"),
            deadline: section.duration("deadline"),
            role_arn: section.optional("role_arn"),
            traffic_token_header: section.text("traffic_token_header", "a header name").to_ascii_lowercase(),
            envd_version: section.text("envd_version", "a version such as \"0.5.14\""),
            credentials: Credentials::read(section.section("credentials")),
            envd_mount: EnvdMount::read(section.section("envd_mount")),
            name,
            region,
            scheme,
        };
        if upstream.attempt_timeout > upstream.deadline {
            section.problem("attempt_timeout", "is more than the deadline of all attempts");
        }
        section.finish();
        upstream
    }
}

fn endpoint(text: &str, scheme: &str) -> Option<Url> {
    let full = if text.contains("://") { text.to_owned() } else { format!("{scheme}://{text}") };
    let url = Url::parse(&full).ok()?;
    let plain = matches!(url.scheme(), "http" | "https") && url.host().is_some() && url.path() == "/";
    (plain && url.query().is_none() && url.username().is_empty()).then_some(url)
}

fn authority(text: &str) -> Option<String> {
    match text.rsplit_once(':') {
        Some((host, port)) => {
            let port = port.parse::<u16>().ok().filter(|port| *port > 0)?;
            Some(format!("{}:{port}", host_name(host)?))
        }
        None => host_name(text),
    }
}

fn host_and_port(text: &str) -> Option<String> {
    let (host, port) = text.rsplit_once(':')?;
    let valid = !host.is_empty() && port.parse::<u16>().is_ok_and(|port| port > 0);
    valid.then(|| text.to_owned())
}

impl Credentials {
    fn read(mut section: Section<'_>) -> Self {
        let mut files = CredentialFiles::default();
        let required = |section: &mut Section<'_>, name: &str, variable: &str| {
            let before = section.problem_count();
            let found = section.secret(name);
            if found.is_none() && section.problem_count() == before {
                section.problem(name, format!("is required: set {variable}, {variable}_FILE or this key"));
            }
            found
        };
        let secret_id = required(&mut section, "secret_id", "TENCENTCLOUD_SECRET_ID");
        let secret_key = required(&mut section, "secret_key", "TENCENTCLOUD_SECRET_KEY");
        let token = section.secret("token");
        files.secret_id = secret_id.as_ref().and_then(|secret| secret.file.clone());
        files.secret_key = secret_key.as_ref().and_then(|secret| secret.file.clone());
        files.token = token.as_ref().and_then(|secret| secret.file.clone());
        section.finish();
        Self {
            secret_id: secret_id.map(|secret| secret.value.expose_secret().to_owned()).unwrap_or_default(),
            secret_key: secret_key.map(|secret| secret.value).unwrap_or_default(),
            token: token.map(|secret| secret.value),
            files,
        }
    }
}

impl fmt::Debug for Credentials {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Credentials")
            .field("secret_id", &REDACTED)
            .field("secret_key", &REDACTED)
            .field("token", &self.token.as_ref().map(|_| REDACTED))
            .field("files", &self.files)
            .finish()
    }
}

impl EnvdMount {
    fn read(mut section: Section<'_>) -> Option<Self> {
        let absolute = |text: &str| text.starts_with('/').then(|| text.to_owned());
        let path = "a path that starts with /";
        let name = section.optional("name");
        let image = section.optional("image");
        let image_registry_type = section.one_of("image_registry_type", &REGISTRY_TYPES);
        let mount_path = section.require("mount_path", path, String::new(), absolute);
        let sub_path = section.require("sub_path", path, String::new(), absolute);
        let read_only = section.flag("read_only");
        let for_all = section.flag("for_all");
        if name.is_some() != image.is_some() {
            section.problem(if name.is_some() { "image" } else { "name" }, "is required with the other of the two");
        }
        if for_all && name.is_none() {
            section.problem("for_all", "needs `name` and `image`");
        }
        section.finish();
        let (name, image) = (name?, image?);
        Some(Self { name, image, image_registry_type, mount_path, sub_path, read_only, for_all })
    }
}
