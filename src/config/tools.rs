//! `[tools]`: what a tool of type custom gets when the request does not say.

use std::time::Duration;

use super::section::Section;

pub(super) const REGISTRY_TYPES: [&str; 3] = ["enterprise", "personal", "custom"];

#[derive(Clone, Debug)]
pub struct Tools {
    /// Id or name, within the caller's team, of the tool of an instance that names none.
    pub default_tool: Option<String>,
    /// Names of tools that every account of the cloud has; all teams may start them.
    pub shared: Vec<String>,
    pub image: String,
    /// `enterprise`, `personal` or `custom`.
    pub image_registry_type: String,
    pub cpu: String,
    pub memory: String,
    pub default_timeout: Duration,
    /// `PUBLIC`, `VPC` or `SANDBOX`.
    pub network: String,
    pub max_wait: Duration,
    pub probe: Probe,
}

/// Readiness by HTTP GET; the numbers as the cloud takes them.
#[derive(Clone, Debug)]
pub struct Probe {
    pub path: String,
    pub port: u16,
    /// `HTTP` or `HTTPS`.
    pub scheme: String,
    pub ready_timeout_ms: u32,
    pub timeout_ms: u32,
    pub period_ms: u32,
    pub success_threshold: u32,
    pub failure_threshold: u32,
}

impl Tools {
    pub(super) fn read(mut section: Section<'_>) -> Self {
        let tools = Self {
            default_tool: section.optional("default_tool"),
            shared: section.list("shared", "the name of a tool", |text| (!text.is_empty()).then(|| text.to_owned())),
            image: section.text("image", "an image such as \"python:3.11\""),
            image_registry_type: section.one_of("image_registry_type", &REGISTRY_TYPES),
            cpu: section.text("cpu", "cores such as \"1\" or \"500m\""),
            memory: section.text("memory", "memory such as \"2Gi\""),
            default_timeout: section.duration("default_timeout"),
            network: section.one_of("network", &["PUBLIC", "VPC", "SANDBOX"]),
            max_wait: section.duration("max_wait"),
            probe: Probe::read(section.section("probe")),
        };
        section.finish();
        tools
    }
}

impl Probe {
    fn read(mut section: Section<'_>) -> Self {
        let absolute = |text: &str| text.starts_with('/').then(|| text.to_owned());
        let probe = Self {
            path: section.require("path", "a path that starts with /", String::new(), absolute),
            port: section.port("port"),
            scheme: section.one_of("scheme", &["HTTP", "HTTPS"]),
            ready_timeout_ms: section.count("ready_timeout_ms"),
            timeout_ms: section.count("timeout_ms"),
            period_ms: section.count("period_ms"),
            success_threshold: section.count("success_threshold"),
            failure_threshold: section.count("failure_threshold"),
        };
        section.finish();
        probe
    }
}
