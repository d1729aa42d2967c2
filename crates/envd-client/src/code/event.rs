//! What an execution tells, out of lines of JSON (PROTOCOLS E.2).

use serde_json::{Map, Value};

use crate::error::EnvdError;

/// Something that happens while code runs.
#[derive(Clone, Debug, PartialEq)]
pub enum CodeEvent {
    /// The code has begun; it is the so many-th of its context.
    Started {
        execution_count: u64,
    },
    Stdout(String),
    Stderr(String),
    Result(CodeResult),
    /// The code failed, or the interpreter did (`UnexpectedEndOfExecution`, `ContextRestarting` and the like).
    Error {
        name: String,
        value: String,
        traceback: String,
    },
    /// A sign of life, after 5 s of silence.
    Keepalive,
    /// The last one.
    End,
    /// Of a type that this version does not know.
    Unknown {
        kind: String,
    },
}

/// A value that the code shows, in one or several representations.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct CodeResult {
    /// The value of the code, not something displayed on the way.
    pub is_main_result: bool,
    /// By format: `text`, `html`, `png` (base64), `json` and so on; `extra` holds others by MIME type. Never null.
    pub formats: Map<String, Value>,
}

/// Parses one line. What is missing or of another type than expected counts as empty: only what is no JSON object with a
/// `type` fails.
pub(crate) fn parse(line: &[u8]) -> Result<CodeEvent, EnvdError> {
    let malformed = || EnvdError::protocol("a line of an execution that makes no sense");
    let Ok(Value::Object(mut members)) = serde_json::from_slice(line) else { return Err(malformed()) };
    let Some(Value::String(kind)) = members.remove("type") else { return Err(malformed()) };
    let mut text = |name: &str| match members.remove(name) {
        Some(Value::String(text)) => text,
        Some(Value::Null) | None => String::new(),
        Some(other) => other.to_string(),
    };
    Ok(match kind.as_str() {
        "stdout" => CodeEvent::Stdout(text("text")),
        "stderr" => CodeEvent::Stderr(text("text")),
        "error" => CodeEvent::Error { name: text("name"), value: text("value"), traceback: text("traceback") },
        "result" => CodeEvent::Result(result(members)),
        "number_of_executions" => {
            let count = members.get("execution_count").and_then(Value::as_u64);
            CodeEvent::Started { execution_count: count.unwrap_or_default() }
        }
        "keepalive" => CodeEvent::Keepalive,
        "end_of_execution" => CodeEvent::End,
        _ => CodeEvent::Unknown { kind },
    })
}

fn result(mut formats: Map<String, Value>) -> CodeResult {
    let is_main_result = formats.remove("is_main_result").and_then(|value| value.as_bool()).unwrap_or_default();
    formats.retain(|_, value| !value.is_null());
    CodeResult { is_main_result, formats }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use serde_json::json;

    use super::*;
    use crate::EnvdErrorKind;

    fn parsed(line: &str) -> CodeEvent {
        parse(line.as_bytes()).unwrap()
    }

    #[test]
    fn lines_become_events() {
        assert_eq!(
            parsed(r#"{"type": "number_of_executions", "execution_count": 3}"#),
            CodeEvent::Started { execution_count: 3 }
        );
        assert_eq!(
            parsed(r#"{"type": "stdout", "text": "h\u00e9", "timestamp": "t"}"#),
            CodeEvent::Stdout("hé".into())
        );
        assert_eq!(parsed(r#"{"type":"end_of_execution"}"#), CodeEvent::End);
        let CodeEvent::Result(result) =
            parsed(r#"{"type":"result","text":"2","png":null,"is_main_result":true,"extra":{}}"#)
        else {
            panic!("no result");
        };
        assert!(result.is_main_result);
        assert_eq!(Value::from(result.formats), json!({"text": "2", "extra": {}}));
    }

    #[test]
    fn what_is_not_known_is_told_and_what_is_missing_is_empty() {
        assert_eq!(parsed(r#"{"type":"telemetry","x":1}"#), CodeEvent::Unknown { kind: "telemetry".into() });
        assert_eq!(parsed(r#"{"type":"stderr"}"#), CodeEvent::Stderr(String::new()));
        let error = CodeEvent::Error { name: "E".into(), value: "1".into(), traceback: String::new() };
        assert_eq!(parsed(r#"{"type":"error","name":"E","value":1,"traceback":null}"#), error);
    }

    #[test]
    fn what_is_no_event_is_a_protocol_error() {
        for line in ["", "null", "[]", "{", "{}", r#"{"type":1}"#, "\u{fffd}"] {
            assert_eq!(parse(line.as_bytes()).unwrap_err().kind(), EnvdErrorKind::Protocol, "{line}");
        }
    }

    proptest! {
        #[test]
        fn parsing_never_panics(line in prop::collection::vec(any::<u8>(), 0..60)) {
            let _ = parse(&line);
        }

        #[test]
        fn whatever_an_object_holds_it_is_an_event(kind in "\\PC{0,9}", name in "[a-z_]{0,12}", number in any::<i64>()) {
            for kind in [kind.as_str(), "stdout", "error", "result", "number_of_executions"] {
                let line = json!({"type": kind, name.as_str(): number, "x": null});
                let is_event = line["type"].is_string();
                prop_assert_eq!(parse(line.to_string().as_bytes()).is_ok(), is_event);
            }
        }
    }
}
