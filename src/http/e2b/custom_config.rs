//! The metadata key `x-custom-config` (PROTOCOLS C.4): what AGS lets clients of E2B say of a sandbox's container, as a JSON
//! string in lower camel case.

use serde::Deserialize;
use serde_json::{Map, Value};

use crate::{
    domain::spec::{Container, Env, Port, Probe, Resources},
    error::{Error, Result},
};

/// The metadata key.
pub const KEY: &str = "x-custom-config";

#[derive(Debug, Default, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields, default)]
struct Config {
    image: Option<String>,
    image_registry_type: Option<String>,
    /// Told by the cloud; of no effect in a request.
    #[serde(rename = "imageDigest")]
    _image_digest: Option<String>,
    command: Option<Vec<String>>,
    args: Option<Vec<String>>,
    env: Vec<Pair>,
    ports: Option<Vec<Port>>,
    resources: Option<Resources>,
    probe: Option<WireProbe>,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct Pair {
    name: String,
    value: String,
}

#[derive(Debug, Default, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields, default)]
struct WireProbe {
    http_get: HttpGet,
    ready_timeout_ms: Option<u32>,
    probe_timeout_ms: Option<u32>,
    probe_period_ms: Option<u32>,
    success_threshold: Option<u32>,
    failure_threshold: Option<u32>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields, default)]
struct HttpGet {
    path: Option<String>,
    port: Option<u16>,
    scheme: Option<String>,
}

impl From<WireProbe> for Probe {
    fn from(probe: WireProbe) -> Self {
        Self {
            path: probe.http_get.path,
            port: probe.http_get.port,
            scheme: probe.http_get.scheme,
            ready_timeout_ms: probe.ready_timeout_ms,
            timeout_ms: probe.probe_timeout_ms,
            period_ms: probe.probe_period_ms,
            success_threshold: probe.success_threshold,
            failure_threshold: probe.failure_threshold,
        }
    }
}

/// Reads the value of the key.
///
/// # Errors
/// `validation_failed` for anything that is not such a configuration.
pub fn read(text: &str) -> Result<Container> {
    // A struct would be read from a list, too.
    let object: serde_json::Result<Map<String, Value>> = serde_json::from_str(text);
    let config = object.and_then(|object| serde_json::from_value::<Config>(Value::Object(object)));
    let config = config.map_err(|error| Error::field(format!("metadata.{KEY}"), error.to_string()))?;
    Ok(Container {
        image: config.image,
        image_registry_type: config.image_registry_type,
        command: config.command,
        args: config.args,
        env: Env(config.env.into_iter().map(|pair| (pair.name, pair.value)).collect()),
        ports: config.ports,
        resources: config.resources,
        probe: config.probe.map(Probe::from),
        dns: None,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_documented_form_is_read() {
        let container = read(
            r#"{"image":"python:3.11","imageRegistryType":"enterprise","imageDigest":"sha256:0","command":["sh"],
                "env":[{"name":"a_b","value":"c"}],"ports":[{"name":"web","port":80,"protocol":"TCP"}],
                "resources":{"cpu":"500m","memory":"1Gi"},
                "probe":{"httpGet":{"path":"/","port":80,"scheme":"HTTP"},"readyTimeoutMs":1000,"probeTimeoutMs":7}}"#,
        )
        .unwrap();
        assert_eq!(container.image.as_deref(), Some("python:3.11"));
        assert_eq!(container.env.0["a_b"], "c");
        assert_eq!(container.resources.unwrap().cpu.as_deref(), Some("500m"));
        let probe = container.probe.unwrap();
        assert_eq!((probe.port, probe.ready_timeout_ms, probe.timeout_ms), (Some(80), Some(1000), Some(7)));
        assert!(read("{}").unwrap().is_empty());
    }

    #[test]
    fn anything_else_is_refused() {
        for text in ["", "[]", r#"{"image":7}"#, r#"{"imagine":"x"}"#, r#"{"probe":{"port":1}}"#] {
            assert_eq!(read(text).unwrap_err().inner().fields[0].field, "metadata.x-custom-config", "{text}");
        }
    }
}
