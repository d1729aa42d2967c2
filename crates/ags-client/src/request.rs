//! Reading requests on the server side, where a wrong type, a missing field or an unknown one is an error
//! that names the field.

mod query;

use serde::Serialize;
use serde::de::DeserializeOwned;
use serde_json::Value;

pub use query::decode_query;

use crate::codes;

/// Why a request body was refused. `field` is a path such as `NetworkConfiguration.NetworkMode` or `Tags[0].Key`.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum RequestFault {
    #[error("the body is not a JSON object")]
    NotAnObject,
    #[error("the parameter `{field}` is missing")]
    Missing { field: String },
    #[error("the parameter `{field}` is not valid: {reason}")]
    Invalid { field: String, reason: String },
    #[error("the parameter `{field}` is not known")]
    Unknown { field: String },
}

impl RequestFault {
    /// The API's error code for it.
    pub fn code(&self) -> &'static str {
        match self {
            RequestFault::NotAnObject | RequestFault::Invalid { .. } => codes::INVALID_PARAMETER,
            RequestFault::Missing { .. } => codes::MISSING_PARAMETER,
            RequestFault::Unknown { .. } => codes::UNKNOWN_PARAMETER,
        }
    }

    /// The field at fault, if it is one.
    pub fn field(&self) -> Option<&str> {
        match self {
            RequestFault::NotAnObject => None,
            RequestFault::Missing { field } | RequestFault::Invalid { field, .. } | RequestFault::Unknown { field } => {
                Some(field)
            }
        }
    }
}

/// Reads a request body; an empty one counts as `{}`. Fields that are not of this API version are ignored, as
/// newer SDKs send some: [`unknown_field`] finds them.
pub fn decode<T: Serialize + DeserializeOwned>(body: &[u8]) -> Result<T, RequestFault> {
    let body = if body.trim_ascii().is_empty() { b"{}" } else { body };
    if !body.trim_ascii_start().starts_with(b"{") {
        return Err(RequestFault::NotAnObject);
    }
    let mut reader = serde_json::Deserializer::from_slice(body);
    let value = serde_path_to_error::deserialize(&mut reader).map_err(json_fault)?;
    reader.end().map_err(|_| RequestFault::NotAnObject)?;
    // serde also reads a list as an object, field by field; the API does not.
    let list_for_object = |sent: &Value, known: Option<&Value>| sent.is_array() && known.is_some_and(Value::is_object);
    match find(body, &value, &list_for_object) {
        Some(field) => Err(RequestFault::Invalid { field, reason: "expected an object".to_owned() }),
        None => Ok(value),
    }
}

/// Reads a request body and refuses fields that this API version does not have.
pub fn decode_strict<T: Serialize + DeserializeOwned>(body: &[u8]) -> Result<T, RequestFault> {
    let value: T = decode(body)?;
    match unknown_field(body, &value) {
        Some(field) => Err(RequestFault::Unknown { field }),
        None => Ok(value),
    }
}

/// The first field of `body` that `decoded` has no place for.
pub fn unknown_field<T: Serialize>(body: &[u8], decoded: &T) -> Option<String> {
    find(body, decoded, &|_, known| known.is_none())
}

/// The first place where `wanted` holds for what was sent and for what `decoded` made of it. Every known field
/// that is not null is written back when `decoded` is serialised, so that the two can be compared.
fn find<T: Serialize>(body: &[u8], decoded: &T, wanted: &impl Fn(&Value, Option<&Value>) -> bool) -> Option<String> {
    let sent: Value = serde_json::from_slice(body).ok()?;
    let known = serde_json::to_value(decoded).ok()?;
    find_in(&sent, Some(&known), String::new(), wanted)
}

fn find_in(
    sent: &Value,
    known: Option<&Value>,
    path: String,
    wanted: &impl Fn(&Value, Option<&Value>) -> bool,
) -> Option<String> {
    if wanted(sent, known) {
        return Some(path);
    }
    match (sent, known?) {
        (Value::Object(sent), Value::Object(known)) => {
            sent.iter().filter(|(_, value)| !value.is_null()).find_map(|(name, value)| {
                let path = if path.is_empty() { name.clone() } else { format!("{path}.{name}") };
                find_in(value, known.get(name), path, wanted)
            })
        }
        (Value::Array(sent), Value::Array(known)) => sent
            .iter()
            .zip(known)
            .enumerate()
            .find_map(|(i, (sent, known))| find_in(sent, Some(known), format!("{path}[{i}]"), wanted)),
        _ => None,
    }
}

fn json_fault(error: serde_path_to_error::Error<serde_json::Error>) -> RequestFault {
    if error.inner().is_syntax() || error.inner().is_eof() {
        return RequestFault::NotAnObject;
    }
    let path = error.path().to_string();
    let text = error.into_inner().to_string();
    fault(&path, text.rsplit_once(" at line ").map_or(text.as_str(), |(head, _)| head))
}

/// What serde says went wrong at `path`, which is `.` for the whole.
fn fault(path: &str, text: &str) -> RequestFault {
    let path = if path == "." { "" } else { path };
    match missing_field(text) {
        Some(name) if path.is_empty() => RequestFault::Missing { field: name.to_owned() },
        Some(name) => RequestFault::Missing { field: format!("{path}.{name}") },
        None => RequestFault::Invalid { field: path.to_owned(), reason: text.to_owned() },
    }
}

/// serde tells a missing field only in its message.
fn missing_field(text: &str) -> Option<&str> {
    text.strip_prefix("missing field `")?.split('`').next()
}
