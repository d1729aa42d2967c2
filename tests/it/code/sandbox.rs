//! A stack with one running instance that interprets code.

use std::ops::Deref;

use reqwest::Response;
use serde_json::{Value, json};

use crate::{
    exec::Sandbox,
    harness::{Answer, Options, eventually},
};

pub struct Interpreter(Sandbox);

impl Deref for Interpreter {
    type Target = Sandbox;

    fn deref(&self) -> &Sandbox {
        &self.0
    }
}

impl Interpreter {
    pub async fn start() -> Self {
        Self::with(Options::default(), json!({})).await
    }

    /// `instance`: fields of the instance beside its tool.
    pub async fn with(options: Options, instance: Value) -> Self {
        Self(Sandbox::of(&json!({"name": "ci", "type": "code-interpreter"}), options, instance).await)
    }

    /// To be asked at one gateway only: each counts by itself what it allows.
    pub fn at_one_gateway(self) -> Self {
        Self(self.0.at_one_gateway())
    }

    pub async fn code(&self, spec: &Value) -> Answer {
        self.api.post(&self.path("code"), spec).await
    }

    /// The answer to Python that was waited for.
    pub async fn python(&self, code: &str) -> Value {
        self.code(&json!({"code": code})).await.expect(200)
    }

    /// The answer to code of a language that was waited for.
    pub async fn run(&self, language: &str, code: &str) -> Value {
        self.code(&json!({"code": code, "language": language, "timeout": "2m"})).await.expect(200)
    }

    /// The start of a stream of events.
    pub async fn stream(&self, spec: &Value, accept: &str) -> Response {
        self.stream_of("code", spec, accept).await
    }

    /// What a shell line prints in the instance, beside the interpreter.
    pub async fn shell(&self, line: &str) -> String {
        self.0.run(line).await["stdout"].as_str().expect("text").to_owned()
    }

    /// Waits until a file is there.
    pub async fn until_file(&self, path: &str) {
        eventually(async || (self.shell(&format!("test -e {path} && echo yes")).await == "yes\n").then_some(())).await;
    }
}

/// The events of a stream of lines, but for signs of life.
pub fn events(lines: &str) -> Vec<Value> {
    let events = lines.lines().map(|line| serde_json::from_str::<Value>(line).expect("JSON"));
    events.filter(|event| event["type"] != "keepalive").collect()
}

pub fn text_of(events: &[Value], stream: &str) -> String {
    events.iter().filter(|event| event["type"] == stream).map(|event| event["data"].as_str().unwrap()).collect()
}

/// The only result's text of an answer.
#[track_caller]
pub fn text(answer: &Value) -> &str {
    assert_eq!(answer["error"], Value::Null, "{answer:#}");
    answer["results"][0]["text"].as_str().unwrap_or_else(|| panic!("no text: {answer:#}"))
}
