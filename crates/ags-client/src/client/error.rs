//! What can go wrong with a call, and what that means for whoever made it.

use std::fmt;
use std::time::Duration;

use super::credentials::CredentialError;
use crate::codes;

/// A failed call. `Display` is for operators and carries the cloud's message; callers of a gateway are better
/// told by [`code`](Self::code) and the questions below. It holds no secret.
pub struct AgsError(Box<Inner>);

struct Inner {
    action: &'static str,
    kind: ErrorKind,
    http_status: Option<u16>,
    request_id: Option<String>,
    attempts: u32,
    outcome: Outcome,
    repeatable: bool,
}

/// How the last attempt failed.
#[derive(Debug)]
#[non_exhaustive]
pub enum ErrorKind {
    /// The API answered with an error.
    Api { code: String, message: String },
    /// Something answered that is not the API: an error page of a proxy, a body cut short.
    Http { status: u16 },
    /// No connection could be made, so nothing was sent.
    Connect(reqwest::Error),
    /// The connection failed while the answer was awaited.
    Exchange(reqwest::Error),
    /// The time was up. The duration is the limit that was hit.
    Timeout(Stage, Duration),
    /// The API answered, but not with the object that the action promises.
    Decode(serde_json::Error),
    /// There is no credential to sign with.
    Credential(CredentialError),
    /// The request cannot be put on the wire.
    Request(Box<dyn std::error::Error + Send + Sync>),
}

/// What a call was waiting for when its time was up.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Stage {
    /// Its turn under the client's own rate limit; nothing was sent.
    Turn,
    /// A credential; nothing was sent.
    Credential,
    /// The answer.
    Answer,
}

/// Whether the call may have had an effect.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Outcome {
    /// It is known: the call had no effect (or the thing it would remove is gone).
    Known,
    /// It may have taken effect. Look before acting on it.
    Unknown,
}

/// What one failed attempt says.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Verdict {
    /// The attempt may have had an effect.
    pub effect: bool,
    pub again: Again,
}

/// Whether another attempt makes sense.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Again {
    /// Yes, and it is safe: this one had no effect.
    Always,
    /// Yes, if the request may be repeated.
    IfRepeatable,
    /// Not in this call, but one made later may succeed.
    Later,
    Never,
}

/// One failed attempt.
#[derive(Debug)]
pub(super) struct Fault {
    pub kind: ErrorKind,
    pub http_status: Option<u16>,
    pub request_id: Option<String>,
}

impl From<ErrorKind> for Fault {
    fn from(kind: ErrorKind) -> Self {
        Fault { kind, http_status: None, request_id: None }
    }
}

impl ErrorKind {
    pub(super) fn verdict(&self) -> Verdict {
        let (effect, again) = match self {
            ErrorKind::Api { code, .. } => api_verdict(code),
            ErrorKind::Http { status: 429 } => (false, Again::Always),
            ErrorKind::Http { status: 300..500 } => (false, Again::Never),
            ErrorKind::Http { .. } | ErrorKind::Exchange(_) | ErrorKind::Timeout(Stage::Answer, _) => {
                (true, Again::IfRepeatable)
            }
            ErrorKind::Connect(_) => (false, Again::Always),
            ErrorKind::Timeout(Stage::Turn | Stage::Credential, _) => (false, Again::Later),
            ErrorKind::Decode(_) => (true, Again::Never),
            ErrorKind::Credential(error) if error.retryable => (false, Again::Later),
            ErrorKind::Credential(_) | ErrorKind::Request(_) => (false, Again::Never),
        };
        Verdict { effect, again }
    }
}

fn api_verdict(code: &str) -> (bool, Again) {
    let is_any = |parents: &[&str]| parents.iter().any(|parent| codes::is(code, parent));
    if codes::is(code, codes::REQUEST_LIMIT_EXCEEDED) {
        (false, Again::Always)
    } else if is_any(&[
        codes::INTERNAL_ERROR,
        codes::SERVICE_UNAVAILABLE,
        codes::DEPENDENCY_UNAVAILABLE,
        codes::REQUEST_IN_PROGRESS,
    ]) {
        (true, Again::IfRepeatable)
    } else if code == codes::DUPLICATE_REQUEST {
        (true, Again::Never)
    } else if is_any(&[codes::RESOURCE_INSUFFICIENT, codes::RESOURCE_UNAVAILABLE]) {
        (false, Again::Later)
    } else {
        (false, Again::Never)
    }
}

/// What the call knows besides its last attempt.
#[derive(Clone, Copy)]
pub(super) struct History {
    pub action: &'static str,
    /// The call changes nothing in any case.
    pub read: bool,
    pub repeatable: bool,
    pub attempts: u32,
    /// An earlier attempt may have had an effect.
    pub effect: bool,
}

impl AgsError {
    pub(super) fn new(fault: Fault, history: History) -> AgsError {
        let effect = !history.read && (history.effect || fault.kind.verdict().effect);
        let mut error = AgsError(Box::new(Inner {
            action: history.action,
            kind: fault.kind,
            http_status: fault.http_status,
            request_id: fault.request_id,
            attempts: history.attempts,
            outcome: Outcome::Known,
            repeatable: history.read || history.repeatable,
        }));
        // A repeated stop or delete that finds nothing tells what became of the first.
        if effect && !error.not_found() {
            error.0.outcome = Outcome::Unknown;
        }
        error
    }

    /// The action called.
    pub fn action(&self) -> &'static str {
        self.0.action
    }

    /// How the last attempt failed.
    pub fn kind(&self) -> &ErrorKind {
        &self.0.kind
    }

    /// The API's error code, if it was the API that answered.
    pub fn code(&self) -> Option<&str> {
        match &self.0.kind {
            ErrorKind::Api { code, .. } => Some(code),
            _ => None,
        }
    }

    /// Whether the API's code is `parent` or a detail of it; see [`crate::codes`].
    pub fn is_code(&self, parent: &str) -> bool {
        self.code().is_some_and(|code| codes::is(code, parent))
    }

    /// The API's message, meant for operators.
    pub fn message(&self) -> Option<&str> {
        match &self.0.kind {
            ErrorKind::Api { message, .. } => Some(message),
            _ => None,
        }
    }

    /// The cloud's id of the last attempt, if it said one.
    pub fn request_id(&self) -> Option<&str> {
        self.0.request_id.as_deref()
    }

    /// HTTP status of the last attempt, if there was an answer. Errors of the API come with 200.
    pub fn http_status(&self) -> Option<u16> {
        self.0.http_status
    }

    /// How often the call was sent, or tried to be.
    pub fn attempts(&self) -> u32 {
        self.0.attempts
    }

    /// Whether any attempt may have had an effect. Always `Known` for a call that changes nothing.
    pub fn outcome(&self) -> Outcome {
        self.0.outcome
    }

    /// Whether the same call, made again later, is both safe and may succeed.
    pub fn retryable(&self) -> bool {
        let safe = self.0.repeatable || self.0.outcome == Outcome::Known;
        let fault_may_pass = match self.0.kind.verdict().again {
            Again::Always | Again::IfRepeatable | Again::Later => true,
            Again::Never => false,
        };
        safe && fault_may_pass
    }

    /// Too many calls: by the cloud's count, or by the client's own.
    pub fn rate_limited(&self) -> bool {
        match &self.0.kind {
            ErrorKind::Api { code, .. } => codes::is(code, codes::REQUEST_LIMIT_EXCEEDED),
            ErrorKind::Http { status } => *status == 429,
            ErrorKind::Timeout(stage, _) => *stage == Stage::Turn,
            _ => false,
        }
    }

    /// The account's quota is full (`LimitExceeded.*`); not to be confused with the rate.
    pub fn quota_exceeded(&self) -> bool {
        self.is_code(codes::LIMIT_EXCEEDED)
    }

    /// The thing does not exist (any more).
    pub fn not_found(&self) -> bool {
        self.is_code(codes::RESOURCE_NOT_FOUND)
    }

    /// The `ClientToken` was used before and that call took effect: look the thing up.
    pub fn duplicate(&self) -> bool {
        self.is_code(codes::DUPLICATE_REQUEST)
    }

    /// The credentials were refused, or do not permit the call.
    pub fn auth_failed(&self) -> bool {
        self.is_code(codes::AUTH_FAILURE) || self.is_code(codes::UNAUTHORIZED_OPERATION)
    }

    /// The cloud could not be reached, did not answer in time, or something in between answered for it.
    pub fn unreachable(&self) -> bool {
        match &self.0.kind {
            ErrorKind::Connect(_) | ErrorKind::Exchange(_) | ErrorKind::Http { .. } => !self.rate_limited(),
            ErrorKind::Timeout(stage, _) => *stage == Stage::Answer,
            _ => false,
        }
    }
}

impl fmt::Display for AgsError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {}", self.0.action, self.0.kind)?;
        if self.0.attempts > 1 {
            write!(f, ", after {} attempts", self.0.attempts)?;
        }
        match self.request_id() {
            Some(id) => write!(f, " (request {id})"),
            None => Ok(()),
        }
    }
}

impl fmt::Display for ErrorKind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            ErrorKind::Api { code, message } => write!(f, "{code}: {message}"),
            ErrorKind::Http { status } => write!(f, "HTTP {status} with a body that is not the API's"),
            ErrorKind::Connect(_) => f.write_str("could not connect"),
            ErrorKind::Exchange(_) => f.write_str("the connection failed while the answer was awaited"),
            ErrorKind::Timeout(stage, limit) => write!(f, "{stage} took longer than {limit:?}"),
            ErrorKind::Decode(_) => f.write_str("the answer is not what the action promises"),
            ErrorKind::Credential(_) => f.write_str("no credential to sign with"),
            ErrorKind::Request(_) => f.write_str("the request cannot be put on the wire"),
        }
    }
}

impl fmt::Display for Stage {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Stage::Turn => "waiting for a turn under the client's rate limit",
            Stage::Credential => "getting a credential",
            Stage::Answer => "the answer",
        })
    }
}

impl fmt::Debug for AgsError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("AgsError")
            .field("action", &self.0.action)
            .field("kind", &self.0.kind)
            .field("http_status", &self.0.http_status)
            .field("request_id", &self.0.request_id)
            .field("attempts", &self.0.attempts)
            .field("outcome", &self.0.outcome)
            .finish()
    }
}

impl std::error::Error for AgsError {
    fn source(&self) -> Option<&(dyn std::error::Error + 'static)> {
        match &self.0.kind {
            ErrorKind::Connect(error) | ErrorKind::Exchange(error) => Some(error),
            ErrorKind::Decode(error) => Some(error),
            ErrorKind::Credential(error) => Some(error),
            ErrorKind::Request(error) => Some(error.as_ref()),
            ErrorKind::Api { .. } | ErrorKind::Http { .. } | ErrorKind::Timeout(..) => None,
        }
    }
}
