//! The metadata key `x-custom-config` (PROTOCOLS C.4): a CustomConfiguration in lower camel case, as a
//! JSON string.

use ags_client::types::CustomConfiguration;
use serde_json::{Map, Value};

use super::error::Problem;
use crate::ids;

/// The metadata key.
pub const KEY: &str = "x-custom-config";

/// Reads the value.
///
/// # Errors
/// 400 for anything that is not such a configuration.
pub fn read(text: &str) -> Result<CustomConfiguration, Problem> {
    let bad = |error: serde_json::Error| Problem::bad(format!("{KEY}: {error}"));
    let mut value: Value = serde_json::from_str(text).map_err(bad)?;
    let Some(object) = value.as_object_mut() else {
        return Err(Problem::bad(format!("{KEY} is not a JSON object")));
    };
    object.remove("imageDigest");
    let sent = pascal(value);
    let config: CustomConfiguration = serde_json::from_value(sent.clone()).map_err(bad)?;
    let bytes = serde_json::to_vec(&sent).map_err(bad)?;
    match ags_client::request::unknown_field(&bytes, &config) {
        Some(field) => Err(Problem::bad(format!("{KEY}: `{field}` is not known"))),
        None => Ok(config),
    }
}

/// The value as get and list echo it: with the digest of its image.
pub fn echo(text: &str) -> String {
    let Ok(Value::Object(mut object)) = serde_json::from_str::<Value>(text) else { return text.to_owned() };
    if let Some(image) = object.get("image").and_then(Value::as_str) {
        let digest = ids::image_digest(image);
        object.insert("imageDigest".into(), digest.into());
    }
    Value::Object(object).to_string()
}

fn pascal(value: Value) -> Value {
    match value {
        Value::Object(members) => Value::Object(
            members.into_iter().map(|(name, value)| (pascal_name(&name), pascal(value))).collect::<Map<_, _>>(),
        ),
        Value::Array(items) => Value::Array(items.into_iter().map(pascal).collect()),
        other => other,
    }
}

fn pascal_name(name: &str) -> String {
    match name {
        "cpu" => "CPU".into(),
        "dnsConfig" => "DNSConfig".into(),
        _ => {
            let mut letters = name.chars();
            letters.next().map(|first| first.to_ascii_uppercase().to_string() + letters.as_str()).unwrap_or_default()
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_documented_form_is_read() {
        let config = read(
            r#"{"image":"python:3.11","imageDigest":"ignored","command":["sh"],"env":[{"name":"a_b","value":"c"}],
                "resources":{"cpu":"500m","memory":"1Gi"},
                "probe":{"httpGet":{"path":"/","port":80,"scheme":"HTTP"},"readyTimeoutMs":1000}}"#,
        )
        .unwrap();
        assert_eq!(config.image.as_deref(), Some("python:3.11"));
        assert_eq!(config.env.unwrap()[0].name, "a_b");
        assert_eq!(config.resources.unwrap().cpu.as_deref(), Some("500m"));
        assert_eq!(config.probe.unwrap().http_get.unwrap().port, Some(80));
    }

    #[test]
    fn anything_else_is_400() {
        for text in ["", "[]", r#"{"image":7}"#, r#"{"imagine":"x"}"#] {
            assert_eq!(read(text).unwrap_err().status, 400, "{text}");
        }
    }

    #[test]
    fn the_echo_knows_the_digest() {
        assert!(echo(r#"{"image":"x"}"#).contains(r#""imageDigest":"sha256:"#));
    }
}
