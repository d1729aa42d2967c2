//! Reading requests as FastAPI does: what does not fit is told by field (422).

use std::collections::BTreeMap;

use axum::Json;
use axum::response::{IntoResponse, Response};
use http::StatusCode;
use serde_json::{Map, Value, json};

use super::wire::Invalid;

/// `POST /execute`. Not `Debug`: the environment may hold secrets.
pub struct Execute {
    pub code: String,
    pub context_id: Option<String>,
    pub language: Option<String>,
    pub env_vars: BTreeMap<String, String>,
}

/// `POST /contexts`.
#[derive(Debug)]
pub struct Create {
    pub cwd: Option<String>,
    pub language: Option<String>,
}

impl Execute {
    /// # Errors
    /// What does not fit.
    pub fn read(body: &[u8]) -> Result<Self, Refusal> {
        let mut fields = Fields::read(body)?;
        let request = Self {
            code: fields.required("code"),
            context_id: fields.text("context_id"),
            language: fields.text("language"),
            env_vars: fields.texts("env_vars"),
        };
        fields.finish().map(|()| request)
    }
}

impl Create {
    /// # Errors
    /// What does not fit.
    pub fn read(body: &[u8]) -> Result<Self, Refusal> {
        let mut fields = Fields::read(body)?;
        let request = Self { cwd: fields.text("cwd"), language: fields.text("language") };
        fields.finish().map(|()| request)
    }
}

struct Fields {
    members: Map<String, Value>,
    invalid: Vec<Invalid>,
}

impl Fields {
    fn read(body: &[u8]) -> Result<Self, Refusal> {
        let invalid = |kind, msg, input| Invalid { kind, loc: vec!["body".into()], msg, input };
        match serde_json::from_slice(body) {
            Ok(Value::Object(members)) => Ok(Self { members, invalid: Vec::new() }),
            Ok(other) => {
                Err(Refusal(vec![invalid("model_attributes_type", "Input should be a valid dictionary", other)]))
            }
            Err(_) => Err(Refusal(vec![invalid("json_invalid", "JSON decode error", json!({}))])),
        }
    }

    fn reject(&mut self, path: &[&str], kind: &'static str, msg: &'static str, input: Value) {
        let loc = ["body"].iter().chain(path).map(|&part| part.to_owned()).collect();
        self.invalid.push(Invalid { kind, loc, msg, input });
    }

    fn text(&mut self, name: &str) -> Option<String> {
        match self.members.remove(name)? {
            Value::String(text) => Some(text),
            Value::Null => None,
            other => {
                self.reject(&[name], "string_type", "Input should be a valid string", other);
                None
            }
        }
    }

    fn required(&mut self, name: &str) -> String {
        match self.members.get(name) {
            None => {
                let members = self.members.clone().into();
                self.reject(&[name], "missing", "Field required", members);
            }
            Some(Value::Null) => {
                self.reject(&[name], "string_type", "Input should be a valid string", Value::Null);
            }
            Some(_) => {}
        }
        self.text(name).unwrap_or_default()
    }

    fn texts(&mut self, name: &str) -> BTreeMap<String, String> {
        let members = match self.members.remove(name) {
            Some(Value::Object(members)) => members,
            Some(Value::Null) | None => Map::new(),
            Some(other) => {
                self.reject(&[name], "dict_type", "Input should be a valid dictionary", other);
                Map::new()
            }
        };
        let mut texts = BTreeMap::new();
        for (key, value) in members {
            match value {
                Value::String(text) => drop(texts.insert(key, text)),
                other => self.reject(&[name, &key], "string_type", "Input should be a valid string", other),
            }
        }
        texts
    }

    fn finish(self) -> Result<(), Refusal> {
        if self.invalid.is_empty() { Ok(()) } else { Err(Refusal(self.invalid)) }
    }
}

/// What does not fit, as an answer.
pub struct Refusal(Vec<Invalid>);

impl IntoResponse for Refusal {
    fn into_response(self) -> Response {
        (StatusCode::UNPROCESSABLE_ENTITY, Json(json!({"detail": self.0}))).into_response()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn nulls_are_as_good_as_nothing() {
        let read = |text: &str| Execute::read(text.as_bytes()).map_err(|refusal| refusal.into_response().status());
        let request = read(r#"{"code":"1","context_id":null,"language":null,"env_vars":null}"#).ok().unwrap();
        assert_eq!((request.code.as_str(), request.context_id, request.env_vars.len()), ("1", None, 0));
        for bad in ["", "[]", "{}", r#"{"code":1}"#, r#"{"code":null}"#, r#"{"code":"","env_vars":{"A":1}}"#] {
            assert_eq!(read(bad).err(), Some(StatusCode::UNPROCESSABLE_ENTITY), "{bad}");
        }
    }
}
