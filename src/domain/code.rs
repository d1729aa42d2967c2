//! Code for the interpreter of an instance: what is asked for, and what becomes of it.

use std::{collections::BTreeMap, time::Duration};

use serde::{Deserialize, Deserializer, Serialize, de};
use serde_json::{Map, Value};
use utoipa::ToSchema;

use super::exec::{Limits, env_problems};
use crate::error::FieldError;

/// A language that the interpreter may have a kernel for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, ToSchema)]
#[serde(rename_all = "lowercase")]
pub enum Language {
    Python,
    #[serde(rename = "javascript")]
    JavaScript,
    #[serde(rename = "typescript")]
    TypeScript,
    Java,
    R,
    Bash,
}

/// By way of a text: what is none is a field that does not fit, not malformed JSON.
impl<'de> Deserialize<'de> for Language {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let name = String::deserialize(deserializer)?;
        let found = Self::ALL.into_iter().find(|language| language.as_str() == name);
        found.ok_or_else(|| de::Error::custom("must be `python`, `javascript`, `typescript`, `java`, `r` or `bash`"))
    }
}

impl Language {
    pub const ALL: [Self; 6] = [Self::Python, Self::JavaScript, Self::TypeScript, Self::Java, Self::R, Self::Bash];

    /// The interpreter's name for it.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Python => "python",
            Self::JavaScript => "javascript",
            Self::TypeScript => "typescript",
            Self::Java => "java",
            Self::R => "r",
            Self::Bash => "bash",
        }
    }
}

/// What to run, and where. Not `Debug`: the environment holds secrets.
#[derive(Clone, PartialEq, Eq)]
pub struct CodeSpec {
    pub code: String,
    /// The default context of a language. With neither this nor a context it is Python's.
    pub language: Option<Language>,
    pub context: Option<String>,
    /// On top of the instance's own, for this run.
    pub env: BTreeMap<String, String>,
    /// `None`: the configured default.
    pub timeout: Option<Duration>,
    /// Bytes per stream kept for a waiting answer.
    pub output_limit: Option<u64>,
}

impl CodeSpec {
    /// Everything that is wrong with it.
    #[must_use]
    pub fn problems(&self, limits: &Limits) -> Vec<FieldError> {
        let problem = |field: &str, message: &str| FieldError { field: field.into(), message: message.into() };
        let mut problems = Vec::new();
        if self.code.trim().is_empty() {
            problems.push(problem("code", "may not be empty"));
        }
        match (&self.context, self.language) {
            (Some(_), Some(_)) => {
                problems.push(problem("context_id", "may not stand beside `language`: a context has its own"));
            }
            (Some(context), None) if context.is_empty() => problems.push(problem("context_id", "may not be empty")),
            _ => {}
        }
        problems.extend(env_problems(&self.env));
        problems.extend(limits.problems(self.timeout, self.output_limit));
        problems
    }

    /// The variables of the run: the instance's, then the request's; later wins.
    #[must_use]
    pub fn environment(&self, instance: &BTreeMap<String, String>) -> BTreeMap<String, String> {
        instance.iter().chain(&self.env).map(|(name, value)| (name.clone(), value.clone())).collect()
    }
}

/// Why code stopped running.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, ToSchema)]
#[serde(rename_all = "lowercase")]
pub enum CodeReason {
    /// It ran to its end, or failed.
    Finished,
    /// It took longer than it may, and was interrupted.
    Timeout,
    /// The caller interrupted it.
    Interrupted,
    /// The way to it broke: whether it still runs is not known.
    Lost,
}

impl CodeReason {
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Finished => "finished",
            Self::Timeout => "timeout",
            Self::Interrupted => "interrupted",
            Self::Lost => "lost",
        }
    }
}

/// A value that the code showed.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Shown {
    pub is_main_result: bool,
    /// By format; `extra` by MIME type.
    pub formats: Map<String, Value>,
}

/// Why the code failed.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct CodeError {
    /// Such as `NameError`. Bash has none: there `value` is the exit status.
    #[schema(example = "NameError")]
    pub name: String,
    #[schema(example = "name 'x' is not defined")]
    pub value: String,
    pub traceback: String,
}

/// How a run ended.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct CodeExit {
    /// The so many-th run of its context; `None`: it never began.
    pub execution_count: Option<u64>,
    pub reason: CodeReason,
    /// In words, unless it is finished.
    pub error: Option<String>,
    pub duration: Duration,
}

/// What happens while code runs.
#[derive(Clone, Debug, PartialEq)]
pub enum CodeEvent {
    Started {
        execution_count: u64,
    },
    Stdout(String),
    Stderr(String),
    Result(Shown),
    Error(CodeError),
    /// The last one.
    Exit(CodeExit),
}

#[cfg(test)]
mod tests {
    use super::*;

    const LIMITS: Limits = Limits { max_timeout: Duration::from_secs(100), max_output_limit: 1000 };

    fn spec(code: &str) -> CodeSpec {
        CodeSpec {
            code: code.into(),
            language: None,
            context: None,
            env: BTreeMap::new(),
            timeout: None,
            output_limit: None,
        }
    }

    fn fields(spec: &CodeSpec) -> Vec<String> {
        spec.problems(&LIMITS).into_iter().map(|problem| problem.field).collect()
    }

    #[test]
    fn every_field_at_fault_is_named() {
        assert!(fields(&spec("1")).is_empty());
        let mut bad = spec(" \n");
        bad.language = Some(Language::R);
        bad.context = Some("c".into());
        bad.env = [("A=".to_owned(), String::new())].into();
        bad.timeout = Some(Duration::ZERO);
        bad.output_limit = Some(1001);
        assert_eq!(fields(&bad), ["code", "context_id", "env", "timeout", "output_limit"]);
        let mut empty = spec("1");
        empty.context = Some(String::new());
        assert_eq!(fields(&empty), ["context_id"]);
    }

    #[test]
    fn languages_read_as_they_are_named() {
        for language in Language::ALL {
            assert_eq!(serde_json::to_value(language).unwrap(), language.as_str());
            assert_eq!(serde_json::from_value::<Language>(language.as_str().into()).unwrap(), language);
        }
        assert!(serde_json::from_str::<Language>("1").unwrap_err().is_data());
    }
}
