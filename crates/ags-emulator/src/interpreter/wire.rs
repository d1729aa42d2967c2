//! What goes out: lines of JSON in ASCII (`PROTOCOLS` E.2).

use std::fmt::Write as _;

use bytes::Bytes;
use serde::Serialize;
use serde_json::{Map, Value};

use crate::clock::wall_now;

/// The keys of a result by MIME type; others stand under `extra`.
const FORMATS: [(&str, &str); 12] = [
    ("text/plain", "text"),
    ("text/html", "html"),
    ("text/markdown", "markdown"),
    ("image/svg+xml", "svg"),
    ("image/png", "png"),
    ("image/jpeg", "jpeg"),
    ("application/pdf", "pdf"),
    ("text/latex", "latex"),
    ("application/json", "json"),
    ("application/javascript", "javascript"),
    ("e2b/data", "data"),
    ("e2b/chart", "chart"),
];

/// An event of an execution.
#[derive(Clone, Debug, PartialEq)]
pub enum Event {
    NumberOfExecutions(u64),
    Stdout(String),
    Stderr(String),
    /// Representations by MIME type.
    Result {
        main: bool,
        data: Map<String, Value>,
    },
    Error {
        name: String,
        value: String,
        traceback: String,
    },
    Keepalive,
    EndOfExecution,
}

impl Event {
    /// An error of the interpreter, not of the code.
    pub fn trouble(name: &str, value: &str) -> Self {
        Self::Error { name: name.into(), value: value.into(), traceback: String::new() }
    }

    /// Whether it is output of nothing.
    pub fn is_empty(&self) -> bool {
        matches!(self, Self::Stdout(text) | Self::Stderr(text) if text.is_empty())
    }

    /// The event as a line.
    pub fn line(self) -> Bytes {
        let mut text = ascii(&self.document().to_string());
        text.push('\n');
        text.into()
    }

    fn document(self) -> Value {
        match self {
            Self::NumberOfExecutions(count) => {
                object([("type", "number_of_executions".into()), ("execution_count", count.into())])
            }
            Self::Stdout(text) => output("stdout", text),
            Self::Stderr(text) => output("stderr", text),
            Self::Result { main, data } => result(main, data),
            Self::Error { name, value, traceback } => object([
                ("type", "error".into()),
                ("name", name.into()),
                ("value", value.into()),
                ("traceback", traceback.into()),
            ]),
            Self::Keepalive => object([("type", "keepalive".into())]),
            Self::EndOfExecution => object([("type", "end_of_execution".into())]),
        }
    }
}

fn object<const N: usize>(members: [(&str, Value); N]) -> Value {
    Value::Object(members.into_iter().map(|(name, value)| (name.to_owned(), value)).collect())
}

fn output(stream: &str, text: String) -> Value {
    let now = wall_now().format("%Y-%m-%dT%H:%M:%S%.6fZ").to_string();
    object([("type", stream.into()), ("text", text.into()), ("timestamp", now.into())])
}

fn result(main: bool, mut data: Map<String, Value>) -> Value {
    let mut members = Map::from_iter([("type".to_owned(), Value::from("result"))]);
    for (mime, key) in FORMATS {
        if let Some(value) = data.remove(mime).filter(|value| !value.is_null()) {
            let value = match value {
                Value::String(text) if key == "text" => unquoted(&text).into(),
                other => other,
            };
            members.insert(key.to_owned(), value);
        }
    }
    members.insert("is_main_result".to_owned(), main.into());
    members.insert("extra".to_owned(), data.into());
    members.into()
}

/// A text in matching quotes loses them.
fn unquoted(text: &str) -> &str {
    let within = |quote| text.strip_prefix(quote).and_then(|rest| rest.strip_suffix(quote));
    within('\'').or_else(|| within('"')).unwrap_or(text)
}

/// JSON text in ASCII: what is beyond stands in strings only, where it can be escaped.
fn ascii(json: &str) -> String {
    let mut out = String::with_capacity(json.len() + 1);
    for character in json.chars() {
        if character.is_ascii() {
            out.push(character);
        } else {
            for unit in character.encode_utf16(&mut [0; 2]) {
                // Writing to a string does not fail.
                let _ok = write!(out, "\\u{unit:04x}");
            }
        }
    }
    out
}

/// An answer's error in the words of FastAPI.
#[derive(Debug, Serialize)]
pub struct Invalid {
    #[serde(rename = "type")]
    pub kind: &'static str,
    pub loc: Vec<String>,
    pub msg: &'static str,
    pub input: Value,
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn line(event: Event) -> String {
        String::from_utf8(event.line().into()).unwrap()
    }

    #[test]
    fn lines_are_ascii_and_whole() {
        let text = line(Event::trouble("N", "é😀\n\""));
        assert!(text.is_ascii() && text.find('\n') == Some(text.len() - 1), "{text}");
        assert_eq!(serde_json::from_str::<Value>(&text).unwrap()["value"], "é😀\n\"");
    }

    #[test]
    fn representations_have_keys_of_their_own() {
        let data = json!({"text/plain": "'a'", "image/png": "aGk=", "x/y": 1, "text/html": null, "application/json": {"a": 1}});
        let Value::Object(data) = data else { panic!() };
        let shown: Value = serde_json::from_str(&line(Event::Result { main: true, data })).unwrap();
        let expected = json!({"type": "result", "text": "a", "png": "aGk=", "json": {"a": 1}, "is_main_result": true, "extra": {"x/y": 1}});
        assert_eq!(shown, expected);
    }

    #[test]
    fn only_matching_quotes_are_lost() {
        for (text, bare) in [("'a'", "a"), ("\"a\"", "a"), ("'a\"", "'a\""), ("'", "'"), ("a", "a"), ("''", "")] {
            assert_eq!(unquoted(text), bare);
        }
    }
}
