//! What callers send and get.

use std::collections::BTreeMap;

use envd_client::CodeContext;
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};
use utoipa::ToSchema;

use crate::{
    app::code::Collected,
    domain::{
        code::{CodeError, CodeEvent, CodeExit, CodeReason, CodeSpec, Language, Shown},
        duration::Seconds,
    },
    http::{idempotency::Creation, v1::exec::milliseconds},
};

/// Code to be run.
#[derive(Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
#[schema(example = json!({"code": "x = 20\nx + 1", "language": "python"}))]
pub struct CodeRequest {
    #[schema(min_length = 1, example = "x = 20\nx + 1")]
    pub code: String,
    /// Runs it in the default context of this language. Default: `python`. Not together with `context_id`.
    pub language: Option<Language>,
    /// Runs it in this context, which has a language of its own.
    pub context_id: Option<String>,
    /// On top of the instance's environment, for this run only.
    #[serde(default)]
    #[schema(required = false)]
    pub env: BTreeMap<String, String>,
    /// It is interrupted then; the context lives on. Default: 60 s.
    #[schema(required = false)]
    pub timeout: Option<Seconds>,
    /// Bytes of stdout and of stderr kept for a waiting answer. Default: 1 MiB.
    #[schema(required = false)]
    pub output_limit: Option<u64>,
}

impl From<CodeRequest> for CodeSpec {
    fn from(request: CodeRequest) -> Self {
        Self {
            code: request.code,
            language: request.language,
            context: request.context_id,
            env: request.env,
            timeout: request.timeout.map(Seconds::to_std),
            output_limit: request.output_limit,
        }
    }
}

/// A value that the code showed, in one or several representations.
#[derive(Clone, Debug, Default, Serialize, ToSchema)]
pub struct CodeResult {
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(example = "21")]
    pub text: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub html: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub markdown: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub svg: Option<String>,
    /// In base64, as `jpeg` and `pdf`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub png: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub jpeg: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub pdf: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub latex: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub json: Option<Value>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub javascript: Option<String>,
    /// A table's data.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub data: Option<Value>,
    /// What is needed to draw a chart again.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub chart: Option<Value>,
    /// The value of the last expression, not something displayed on the way.
    pub is_main_result: bool,
    /// Other representations, by MIME type.
    #[serde(skip_serializing_if = "Map::is_empty")]
    #[schema(value_type = Object, required = false)]
    pub extra: Map<String, Value>,
}

impl From<Shown> for CodeResult {
    fn from(shown: Shown) -> Self {
        let mut formats = shown.formats;
        let mut extra = match formats.remove("extra") {
            Some(Value::Object(extra)) => extra,
            _ => Map::new(),
        };
        let [json, data, chart] = ["json", "data", "chart"].map(|name| formats.remove(name));
        let mut text = |name: &str| match formats.remove(name)? {
            Value::String(text) => Some(text),
            other => Some(other.to_string()),
        };
        let result = Self {
            text: text("text"),
            html: text("html"),
            markdown: text("markdown"),
            svg: text("svg"),
            png: text("png"),
            jpeg: text("jpeg"),
            pdf: text("pdf"),
            latex: text("latex"),
            javascript: text("javascript"),
            json,
            data,
            chart,
            is_main_result: shown.is_main_result,
            extra: Map::new(),
        };
        extra.extend(formats);
        Self { extra, ..result }
    }
}

/// Code that ran to its end. Code that failed is a success of this call.
#[derive(Debug, Serialize, ToSchema)]
pub struct CodeAnswer {
    pub results: Vec<CodeResult>,
    pub stdout: String,
    pub stderr: String,
    /// Why it failed: what the code raised, or that it was interrupted.
    pub error: Option<CodeError>,
    /// The so many-th run of its context.
    pub execution_count: Option<u64>,
    pub reason: CodeReason,
    pub timed_out: bool,
    /// Whether output beyond `output_limit`, or results beyond 16 MiB, were cut.
    pub truncated: bool,
    pub duration_ms: u64,
}

impl From<Collected> for CodeAnswer {
    fn from(collected: Collected) -> Self {
        let exit = collected.exit;
        Self {
            results: collected.results.into_iter().map(CodeResult::from).collect(),
            stdout: collected.stdout.finish().0,
            stderr: collected.stderr.finish().0,
            error: collected.error,
            execution_count: exit.execution_count,
            reason: exit.reason,
            timed_out: exit.reason == CodeReason::Timeout,
            truncated: collected.truncated,
            duration_ms: milliseconds(exit.duration),
        }
    }
}

/// An event as it is sent.
#[derive(Serialize)]
#[serde(tag = "type", rename_all = "lowercase")]
pub enum EventDto {
    Started { execution_count: u64 },
    Stdout { data: String },
    Stderr { data: String },
    Result(Box<CodeResult>),
    Error(CodeError),
    Exit(ExitDto),
    Keepalive,
}

#[derive(Serialize)]
pub struct ExitDto {
    execution_count: Option<u64>,
    reason: CodeReason,
    error: Option<String>,
    duration_ms: u64,
}

impl EventDto {
    pub fn name(&self) -> &'static str {
        match self {
            Self::Started { .. } => "started",
            Self::Stdout { .. } => "stdout",
            Self::Stderr { .. } => "stderr",
            Self::Result(_) => "result",
            Self::Error(_) => "error",
            Self::Exit(_) => "exit",
            Self::Keepalive => "keepalive",
        }
    }
}

impl From<CodeEvent> for EventDto {
    fn from(event: CodeEvent) -> Self {
        match event {
            CodeEvent::Started { execution_count } => Self::Started { execution_count },
            CodeEvent::Stdout(data) => Self::Stdout { data },
            CodeEvent::Stderr(data) => Self::Stderr { data },
            CodeEvent::Result(shown) => Self::Result(Box::new(shown.into())),
            CodeEvent::Error(error) => Self::Error(error),
            CodeEvent::Exit(CodeExit { execution_count, reason, error, duration }) => {
                Self::Exit(ExitDto { execution_count, reason, error, duration_ms: milliseconds(duration) })
            }
        }
    }
}

/// What a context shall be.
#[derive(Debug, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct CreateContext {
    /// Default: `python`.
    pub language: Option<Language>,
    /// Where its code runs. Default: the home of the instance's user.
    #[schema(example = "/home/user", min_length = 1)]
    pub cwd: Option<String>,
}

/// A context: a kernel with its state.
#[derive(Debug, Serialize, ToSchema)]
#[schema(as = CodeContext)]
pub struct ContextDto {
    pub id: String,
    #[schema(example = "python")]
    pub language: String,
    pub cwd: String,
}

impl Creation for ContextDto {}

impl Creation for CodeAnswer {}

impl From<CodeContext> for ContextDto {
    fn from(context: CodeContext) -> Self {
        Self { id: context.id, language: context.language, cwd: context.cwd }
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn a_result_keeps_what_it_does_not_know() {
        let formats = json!({"text": 1, "json": {"a": 1}, "sound": "x", "extra": {"x/y": 2}});
        let Value::Object(formats) = formats else { panic!("no object") };
        let event = EventDto::from(CodeEvent::Result(Shown { is_main_result: true, formats }));
        let expected = json!({"type": "result", "text": "1", "json": {"a": 1}, "is_main_result": true,
            "extra": {"x/y": 2, "sound": "x"}});
        assert_eq!(serde_json::to_value(event).unwrap(), expected);
    }

    #[test]
    fn events_are_called_what_their_type_says() {
        let exit = CodeExit {
            execution_count: Some(1),
            reason: CodeReason::Timeout,
            error: None,
            duration: std::time::Duration::from_millis(5),
        };
        for event in [CodeEvent::Started { execution_count: 1 }, CodeEvent::Stdout("a".into()), CodeEvent::Exit(exit)] {
            let event = EventDto::from(event);
            assert_eq!(serde_json::to_value(&event).unwrap()["type"], event.name());
        }
        assert_eq!(serde_json::to_value(EventDto::Keepalive).unwrap(), json!({"type": "keepalive"}));
    }
}
