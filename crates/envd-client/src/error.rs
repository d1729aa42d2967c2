//! What can go wrong between here and a sandbox, in the terms a caller decides by.

use std::error::Error as StdError;
use std::fmt;

use http::StatusCode;
use serde::Deserialize;

/// The cause of an [`EnvdError`].
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum EnvdErrorKind {
    /// The access token is missing, wrong or expired (HTTP 401 of the edge or of the daemon).
    Unauthenticated,
    /// The user of the call does not exist in the sandbox.
    InvalidUser,
    PermissionDenied,
    /// The daemon knows no such process, path or watcher.
    NotFound,
    InvalidArgument,
    AlreadyExists,
    /// What is asked for does not fit the state it is asked of.
    FailedPrecondition,
    /// Too much, too often or too large.
    ResourceExhausted,
    /// The disk of the sandbox is full (HTTP 507).
    NoSpace,
    /// The deadline of the call has passed, here or there.
    Deadline,
    /// The call was given up: by the server, or because the source of an upload failed.
    Cancelled,
    Unimplemented,
    /// The daemon failed.
    Internal,
    /// No usable connection: refused, reset, silent, or HTTP 503.
    Unavailable,
    /// The edge has no such instance or port (HTTP 404 or 502 that is not the daemon's own answer).
    Gone,
    /// The answer is not what envd sends.
    Protocol,
}

impl EnvdErrorKind {
    fn as_str(self) -> &'static str {
        match self {
            Self::Unauthenticated => "the access token was refused",
            Self::InvalidUser => "no such user in the sandbox",
            Self::PermissionDenied => "permission denied",
            Self::NotFound => "not found",
            Self::InvalidArgument => "invalid argument",
            Self::AlreadyExists => "already exists",
            Self::FailedPrecondition => "failed precondition",
            Self::ResourceExhausted => "resource exhausted",
            Self::NoSpace => "no space left in the sandbox",
            Self::Deadline => "deadline exceeded",
            Self::Cancelled => "cancelled",
            Self::Unimplemented => "not implemented",
            Self::Internal => "internal error of the daemon",
            Self::Unavailable => "unavailable",
            Self::Gone => "no such instance or port",
            Self::Protocol => "unexpected answer",
        }
    }
}

/// Whose words an error repeats.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Speaker {
    /// envd itself: a Connect error, or an error of its REST endpoints.
    Daemon,
    /// Whatever stands before it.
    Edge,
    /// This crate.
    Local,
}

/// A failed call. `Display` names the kind and the text; the source is not repeated in it.
pub struct EnvdError {
    kind: EnvdErrorKind,
    speaker: Speaker,
    message: String,
    status: Option<StatusCode>,
    unknown_outcome: bool,
    source: Option<Box<dyn StdError + Send + Sync>>,
}

impl EnvdError {
    pub fn kind(&self) -> EnvdErrorKind {
        self.kind
    }

    /// The daemon's own words (`cwd '/x' does not exist`), fit for the caller whose sandbox it is.
    /// `None` for what the edge or this crate says.
    pub fn daemon_message(&self) -> Option<&str> {
        (self.speaker == Speaker::Daemon).then_some(self.message.as_str())
    }

    /// Status of the HTTP response, where one came; 200 for errors within a stream.
    pub fn http_status(&self) -> Option<StatusCode> {
        self.status
    }

    /// The instance or the port is not there (any more).
    pub fn gone(&self) -> bool {
        self.kind == EnvdErrorKind::Gone
    }

    /// A fresh token may help: 401, or 403 that is not the daemon's verdict.
    pub fn token_rejected(&self) -> bool {
        match self.kind {
            EnvdErrorKind::Unauthenticated => true,
            EnvdErrorKind::PermissionDenied => self.speaker == Speaker::Edge,
            _ => false,
        }
    }

    /// The request may have taken effect although no answer came.
    pub fn outcome_unknown(&self) -> bool {
        self.unknown_outcome
    }

    /// The same call may succeed later and certainly has not taken effect yet.
    /// Where [`outcome_unknown`](Self::outcome_unknown) holds, only a caller who knows the call to be idempotent may repeat it.
    pub fn retryable(&self) -> bool {
        !self.unknown_outcome && matches!(self.kind, EnvdErrorKind::Unavailable | EnvdErrorKind::ResourceExhausted)
    }

    pub(crate) fn local(kind: EnvdErrorKind, message: impl Into<String>) -> Self {
        Self {
            kind,
            speaker: Speaker::Local,
            message: message.into(),
            status: None,
            unknown_outcome: false,
            source: None,
        }
    }

    pub(crate) fn invalid(message: impl Into<String>) -> Self {
        Self::local(EnvdErrorKind::InvalidArgument, message)
    }

    /// The answer is there but makes no sense; what was asked for may have happened.
    pub(crate) fn protocol(message: impl Into<String>) -> Self {
        Self::local(EnvdErrorKind::Protocol, message).with_unknown_outcome()
    }

    pub(crate) fn with_unknown_outcome(mut self) -> Self {
        self.unknown_outcome = true;
        self
    }

    pub(crate) fn with_source(mut self, source: impl Into<Box<dyn StdError + Send + Sync>>) -> Self {
        self.source = Some(source.into());
        self
    }

    /// A Connect error: `code` as on the wire (PROTOCOLS D.3). An unknown code counts as `unknown`.
    pub(crate) fn connect(status: StatusCode, error: ConnectErrorBody) -> Self {
        Self {
            kind: kind_of_code(&error.code),
            speaker: Speaker::Daemon,
            message: error.message,
            status: Some(status),
            unknown_outcome: matches!(error.code.as_str(), "unavailable" | "unknown"),
            source: None,
        }
    }
}

impl fmt::Debug for EnvdError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("EnvdError")
            .field("kind", &self.kind)
            .field("speaker", &self.speaker)
            .field("message", &self.message)
            .field("status", &self.status)
            .field("unknown_outcome", &self.unknown_outcome)
            .field("source", &self.source)
            .finish()
    }
}

impl fmt::Display for EnvdError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.kind.as_str())?;
        if !self.message.is_empty() {
            write!(f, ": {}", self.message)?;
        }
        match self.status {
            Some(status) if status != StatusCode::OK => write!(f, " (HTTP {})", status.as_u16()),
            _ => Ok(()),
        }
    }
}

impl StdError for EnvdError {
    fn source(&self) -> Option<&(dyn StdError + 'static)> {
        self.source.as_deref().map(|e| e as &(dyn StdError + 'static))
    }
}

/// The error object of a unary reply and of an end-of-stream frame.
#[derive(Debug, Deserialize)]
pub(crate) struct ConnectErrorBody {
    pub(crate) code: String,
    #[serde(default)]
    pub(crate) message: String,
}

/// Error object of the daemon's REST endpoints (`code`, `message`) and of E2B's edge (`sandboxId` as well).
#[derive(Deserialize)]
struct RestErrorBody {
    #[serde(rename = "code")]
    _code: u16,
    message: String,
    #[serde(rename = "sandboxId")]
    sandbox_id: Option<serde::de::IgnoredAny>,
}

/// Which of envd's two protocols the failed request spoke.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Dialect {
    Rpc,
    Rest,
    /// The code interpreter's, whose errors are plain text.
    Code,
}

/// Makes an error of a response that is not a success. `body` may be cut short or empty.
pub(crate) fn from_response(dialect: Dialect, status: StatusCode, body: &[u8]) -> EnvdError {
    if let Ok(error) = serde_json::from_slice::<ConnectErrorBody>(body) {
        return EnvdError::connect(status, error);
    }
    if dialect == Dialect::Code
        && let Some((kind, message)) = of_interpreter(status, body)
    {
        return EnvdError {
            kind,
            speaker: Speaker::Daemon,
            message,
            status: Some(status),
            unknown_outcome: false,
            source: None,
        };
    }
    let rest = serde_json::from_slice::<RestErrorBody>(body).ok();
    let from_edge = rest.as_ref().is_none_or(|e| e.sandbox_id.is_some());
    // Over RPC the daemon answers with an integer code for one reason only: the token.
    let from_daemon = !from_edge
        && match dialect {
            Dialect::Rest => !matches!(status.as_u16(), 502..=504),
            Dialect::Rpc | Dialect::Code => status == StatusCode::UNAUTHORIZED,
        };
    let message = rest.map(|e| e.message).unwrap_or_default();
    let kind = if from_daemon { kind_of_daemon_status(status, &message) } else { kind_of_edge_status(status) };
    EnvdError {
        kind,
        speaker: if from_daemon { Speaker::Daemon } else { Speaker::Edge },
        message,
        status: Some(status),
        unknown_outcome: status == StatusCode::GATEWAY_TIMEOUT,
        source: None,
    }
}

/// Longest text of the interpreter's that is repeated, in characters.
const MAX_INTERPRETER_TEXT: usize = 500;

/// What the interpreter itself says (PROTOCOLS E.1); `None`: somebody before it does.
fn of_interpreter(status: StatusCode, body: &[u8]) -> Option<(EnvdErrorKind, String)> {
    let text = std::str::from_utf8(body).ok()?.trim();
    let is_text = !text.is_empty() && !text.starts_with(['{', '<']);
    let kind = match status.as_u16() {
        404 if text.starts_with("Context ") => EnvdErrorKind::NotFound,
        400 if text.contains("context_id") => EnvdErrorKind::InvalidArgument,
        422 => EnvdErrorKind::InvalidArgument,
        500 if is_text => EnvdErrorKind::Internal,
        _ => return None,
    };
    Some((kind, text.chars().take(MAX_INTERPRETER_TEXT).collect()))
}

fn kind_of_code(code: &str) -> EnvdErrorKind {
    use EnvdErrorKind as Kind;
    match code {
        "canceled" => Kind::Cancelled,
        "invalid_argument" | "out_of_range" => Kind::InvalidArgument,
        "deadline_exceeded" => Kind::Deadline,
        "not_found" => Kind::NotFound,
        "already_exists" => Kind::AlreadyExists,
        "permission_denied" => Kind::PermissionDenied,
        "resource_exhausted" => Kind::ResourceExhausted,
        "failed_precondition" | "aborted" => Kind::FailedPrecondition,
        "unimplemented" => Kind::Unimplemented,
        "unavailable" => Kind::Unavailable,
        // A bad token never gets as far as a Connect error (PROTOCOLS D.2): this is about the user.
        "unauthenticated" => Kind::InvalidUser,
        _ => Kind::Internal,
    }
}

fn kind_of_daemon_status(status: StatusCode, message: &str) -> EnvdErrorKind {
    use EnvdErrorKind as Kind;
    match status.as_u16() {
        400 | 406 | 415 | 416 => Kind::InvalidArgument,
        // 401 stands for a bad token, a bad signature and an unknown user; only the last speaks of a user.
        401 if message.contains("user") => Kind::InvalidUser,
        401 => Kind::Unauthenticated,
        403 => Kind::PermissionDenied,
        404 => Kind::NotFound,
        409 => Kind::AlreadyExists,
        413 | 429 => Kind::ResourceExhausted,
        501 => Kind::Unimplemented,
        507 => Kind::NoSpace,
        400..=499 => Kind::Protocol,
        _ => Kind::Internal,
    }
}

/// Nothing is known of the bodies of AGS's edge: the status alone decides (PROTOCOLS C.2, D.3).
fn kind_of_edge_status(status: StatusCode) -> EnvdErrorKind {
    use EnvdErrorKind as Kind;
    match status.as_u16() {
        400 => Kind::InvalidArgument,
        401 => Kind::Unauthenticated,
        403 => Kind::PermissionDenied,
        404 | 502 => Kind::Gone,
        // The instance is between two states, or the edge between two instances.
        409 | 503 => Kind::Unavailable,
        413 | 429 => Kind::ResourceExhausted,
        499 => Kind::Cancelled,
        500 => Kind::Internal,
        501 | 505 => Kind::Unimplemented,
        504 => Kind::Deadline,
        507 => Kind::NoSpace,
        _ => Kind::Protocol,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use EnvdErrorKind as Kind;

    fn classify(dialect: Dialect, status: u16, body: &str) -> EnvdError {
        from_response(dialect, StatusCode::from_u16(status).unwrap(), body.as_bytes())
    }

    #[test]
    fn a_connect_error_is_the_daemons_word_whatever_the_status() {
        let error = classify(Dialect::Rpc, 404, r#"{"code":"not_found","message":"process with pid 7 not found"}"#);
        assert_eq!(error.kind(), Kind::NotFound);
        assert_eq!(error.daemon_message(), Some("process with pid 7 not found"));
        assert_eq!(error.to_string(), "not found: process with pid 7 not found (HTTP 404)");
        assert!(!error.gone());
    }

    #[test]
    fn the_edge_says_gone_with_404_and_502() {
        let bodies =
            ["", "<html>nothing here</html>", r#"{"sandboxId":"i1","message":"The sandbox was not found","code":502}"#];
        for status in [404, 502] {
            for body in bodies {
                for dialect in [Dialect::Rpc, Dialect::Rest] {
                    let error = classify(dialect, status, body);
                    assert_eq!(error.kind(), Kind::Gone, "{dialect:?} {status} {body}");
                    assert_eq!(error.daemon_message(), None);
                }
            }
        }
    }

    #[test]
    fn a_missing_file_is_not_a_missing_instance() {
        let error = classify(Dialect::Rest, 404, r#"{"code":404,"message":"path '/x' does not exist"}"#);
        assert_eq!(error.kind(), Kind::NotFound);
        let error = classify(Dialect::Rpc, 404, r#"{"code":404,"message":"no route"}"#);
        assert_eq!(error.kind(), Kind::Gone);
    }

    #[test]
    fn a_bad_token_and_a_bad_user_are_told_apart() {
        let token = r#"{"code":401,"message":"unauthorized access, please provide a valid access token or method signing if supported"}"#;
        for dialect in [Dialect::Rpc, Dialect::Rest] {
            let error = classify(dialect, 401, token);
            assert_eq!(error.kind(), Kind::Unauthenticated);
            assert!(error.token_rejected());
        }
        assert!(classify(Dialect::Rpc, 401, "no").token_rejected());
        assert!(classify(Dialect::Rpc, 403, "no").token_rejected());

        let rpc = classify(Dialect::Rpc, 401, r#"{"code":"unauthenticated","message":"invalid username: 'x'"}"#);
        let rest = classify(Dialect::Rest, 401, r#"{"code":401,"message":"error looking up user 'x'"}"#);
        for error in [rpc, rest] {
            assert_eq!(error.kind(), Kind::InvalidUser);
            assert!(!error.token_rejected());
        }
    }

    #[test]
    fn only_what_cannot_have_happened_is_retryable() {
        assert!(classify(Dialect::Rpc, 503, "").retryable());
        assert!(classify(Dialect::Rpc, 429, "").retryable());
        assert!(!classify(Dialect::Rpc, 500, "").retryable());
        let cut = EnvdError::local(Kind::Unavailable, "cut").with_unknown_outcome();
        assert!(!cut.retryable());
        assert!(cut.outcome_unknown());
        assert!(classify(Dialect::Rest, 504, "").outcome_unknown());
    }

    #[test]
    fn the_interpreter_speaks_in_plain_text() {
        let error = classify(Dialect::Code, 404, "Context x not found");
        assert_eq!((error.kind(), error.daemon_message()), (Kind::NotFound, Some("Context x not found")));
        assert_eq!(classify(Dialect::Code, 500, "No such kernel: r").kind(), Kind::Internal);
        assert_eq!(classify(Dialect::Code, 500, "No such kernel: r").daemon_message(), Some("No such kernel: r"));
        assert_eq!(classify(Dialect::Code, 500, "<html></html>").daemon_message(), None);
        for body in ["", "nothing here", r#"{"sandboxId":"i","message":"The sandbox was not found","code":404}"#] {
            assert_eq!(classify(Dialect::Code, 404, body).kind(), Kind::Gone, "{body}");
        }
        assert!(classify(Dialect::Code, 401, r#"{"code":401,"message":"unauthorized access"}"#).token_rejected());
    }

    #[test]
    fn a_full_disk_has_its_own_kind() {
        let error = classify(Dialect::Rest, 507, r#"{"code":507,"message":"not enough disk space available"}"#);
        assert_eq!(error.kind(), Kind::NoSpace);
        assert_eq!(error.daemon_message(), Some("not enough disk space available"));
    }
}
