//! The one error of the gateway's operations. It has three faces: what the caller may read (`detail` and the structured
//! parts), what the operator needs (`source`), and a stable `code`.

use std::{error::Error as StdError, fmt, time::Duration};

use chrono::{DateTime, Utc};
use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

use crate::failover;

pub type Result<T, E = Error> = std::result::Result<T, E>;

macro_rules! codes {
    ($($variant:ident = $text:literal, $status:literal, $retryable:literal, $title:literal;)*) => {
        /// Stable error codes, each with its HTTP status.
        #[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, ToSchema)]
        #[serde(rename_all = "snake_case")]
        pub enum Code {
            $(#[doc = concat!("`", stringify!($status), "` ", $title)] $variant,)*
        }

        impl Code {
            pub const ALL: &[Self] = &[$(Self::$variant),*];

            #[must_use]
            pub const fn as_str(self) -> &'static str {
                match self { $(Self::$variant => $text,)* }
            }

            #[must_use]
            pub const fn status(self) -> u16 {
                match self { $(Self::$variant => $status,)* }
            }

            /// Whether the same call may succeed later, unless the error says otherwise.
            #[must_use]
            pub const fn retryable(self) -> bool {
                match self { $(Self::$variant => $retryable,)* }
            }

            #[must_use]
            pub const fn title(self) -> &'static str {
                match self { $(Self::$variant => $title,)* }
            }
        }
    };
}

codes! {
    MalformedJson = "malformed_json", 400, false, "The body is not JSON";
    InvalidRequest = "invalid_request", 400, false, "The request cannot be understood";
    Unauthenticated = "unauthenticated", 401, false, "No valid credential";
    ScopeMissing = "scope_missing", 403, false, "The credential lacks a scope";
    NotGranted = "not_granted", 403, false, "The team was not granted this";
    OriginNotAllowed = "origin_not_allowed", 403, false, "The origin is not allowed";
    PermissionDenied = "permission_denied", 403, false, "The user in the sandbox may not do this";
    NotFound = "not_found", 404, false, "There is no such thing";
    MethodNotAllowed = "method_not_allowed", 405, false, "The method does not fit the path";
    NameTaken = "name_taken", 409, false, "The name is taken";
    InvalidState = "invalid_state", 409, false, "The state does not allow this";
    ToolInUse = "tool_in_use", 409, false, "The tool has live instances";
    ToolTypeUnsupported = "tool_type_unsupported", 409, false, "The tool's type does not allow this";
    AlreadyExists = "already_exists", 409, false, "It exists already";
    IsADirectory = "is_a_directory", 409, false, "It is a directory";
    NotADirectory = "not_a_directory", 409, false, "It is not a directory";
    NotAFile = "not_a_file", 409, false, "It is not a regular file";
    UnsupportedFileSystem = "unsupported_file_system", 409, false, "The file system does not allow this";
    ProgramMissing = "program_missing", 409, false, "The sandbox lacks a program";
    IdempotencyInProgress = "idempotency_in_progress", 409, true, "The first call with this key still runs";
    OutputExpired = "output_expired", 410, false, "The output has left the window";
    PreconditionFailed = "precondition_failed", 412, false, "A precondition does not hold";
    BodyTooLarge = "body_too_large", 413, false, "The body is too large";
    UnsupportedMediaType = "unsupported_media_type", 415, false, "The content type is not supported";
    RangeNotSatisfiable = "range_not_satisfiable", 416, false, "The range lies outside the file";
    ValidationFailed = "validation_failed", 422, false, "A field is not valid";
    IdempotencyKeyReused = "idempotency_key_reused", 422, false, "The idempotency key was used for another request";
    RateLimited = "rate_limited", 429, true, "Too many requests";
    QuotaExceeded = "quota_exceeded", 429, true, "A quota is used up";
    Internal = "internal", 500, false, "The gateway failed";
    NotSupported = "not_supported", 501, false, "The cloud's sandboxes cannot do this";
    InstanceStartFailed = "instance_start_failed", 502, false, "The instance did not start";
    PortNotOpen = "port_not_open", 502, true, "Nothing listens on the port";
    UpstreamError = "upstream_error", 502, false, "The cloud refused or failed";
    UpstreamUnavailable = "upstream_unavailable", 503, true, "The cloud cannot be reached";
    UpstreamThrottled = "upstream_throttled", 503, true, "The cloud is throttling the account";
    Unavailable = "unavailable", 503, true, "The gateway is not ready";
    UpstreamTimeout = "upstream_timeout", 504, false, "The cloud did not answer in time";
    NoSpace = "no_space", 507, false, "The sandbox's disk is full";
}

/// A field of the request and what is wrong with it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, ToSchema)]
pub struct FieldError {
    /// Path of the field, such as `probe.port` or `env`.
    pub field: String,
    pub message: String,
}

/// The cloud's side of a failure.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct UpstreamRef {
    /// The cloud's error code, when it gave one.
    pub code: Option<String>,
    /// The cloud's request id, to quote to its support.
    pub request_id: Option<String>,
}

/// The sandbox that a failure is about.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, ToSchema)]
pub struct SandboxRef {
    pub id: String,
    pub status: String,
    pub stop_reason: Option<String>,
    pub stopped_at: Option<DateTime<Utc>>,
}

/// The limit that was hit.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, ToSchema)]
pub struct LimitRef {
    pub name: String,
    pub value: u64,
    pub used: u64,
}

/// A failed operation.
pub struct Error(Box<Inner>);

/// What an [`Error`] carries.
#[derive(Debug)]
pub struct Inner {
    pub code: Code,
    pub detail: String,
    pub retryable: bool,
    pub fields: Vec<FieldError>,
    pub upstream: Option<UpstreamRef>,
    pub sandbox: Option<SandboxRef>,
    pub limit: Option<LimitRef>,
    pub retry_after: Option<Duration>,
    /// Number in the line for an instance: 1 is next.
    pub queue_position: Option<u64>,
    pub source: Option<Box<dyn StdError + Send + Sync>>,
}

impl Error {
    /// `detail` is read by callers: it says what happened and, where known, what to do next. Nothing internal in it.
    pub fn new(code: Code, detail: impl Into<String>) -> Self {
        Self(Box::new(Inner {
            code,
            detail: detail.into(),
            retryable: code.retryable(),
            fields: Vec::new(),
            upstream: None,
            sandbox: None,
            limit: None,
            retry_after: None,
            queue_position: None,
            source: None,
        }))
    }

    /// A fault of ours: the caller learns nothing but the request id, the log has the source.
    pub fn internal(source: impl Into<Box<dyn StdError + Send + Sync>>) -> Self {
        Self::new(Code::Internal, "Something failed inside the gateway. Quote the request id to its operators.")
            .with_source(source)
    }

    /// `thing` is what was looked for: `instance`, `tool`, …
    #[must_use]
    pub fn not_found(thing: &str) -> Self {
        Self::new(Code::NotFound, format!("There is no such {thing}, or it belongs to another team."))
    }

    /// One field is at fault.
    pub fn field(field: impl Into<String>, message: impl Into<String>) -> Self {
        Self::fields(vec![FieldError { field: field.into(), message: message.into() }])
    }

    /// Several fields are at fault.
    ///
    /// # Panics
    /// Never; an empty list yields an error without fields.
    #[must_use]
    pub fn fields(fields: Vec<FieldError>) -> Self {
        let detail = fields.first().map_or_else(
            || "The request is not valid.".to_owned(),
            |first| format!("{}: {}", first.field, first.message),
        );
        let mut error = Self::new(Code::ValidationFailed, detail);
        error.0.fields = fields;
        error
    }

    /// Names a field that is at fault, in an error of another kind than `validation_failed`.
    #[must_use]
    pub fn with_field(mut self, field: impl Into<String>, message: impl Into<String>) -> Self {
        self.0.fields.push(FieldError { field: field.into(), message: message.into() });
        self
    }

    /// Says it in other words.
    #[must_use]
    pub fn with_detail(mut self, detail: impl Into<String>) -> Self {
        self.0.detail = detail.into();
        self
    }

    #[must_use]
    pub fn with_source(mut self, source: impl Into<Box<dyn StdError + Send + Sync>>) -> Self {
        self.0.source = Some(source.into());
        self
    }

    #[must_use]
    pub fn with_upstream(mut self, code: Option<String>, request_id: Option<String>) -> Self {
        self.0.upstream = Some(UpstreamRef { code, request_id });
        self
    }

    #[must_use]
    pub fn with_sandbox(mut self, sandbox: SandboxRef) -> Self {
        self.0.sandbox = Some(sandbox);
        self
    }

    #[must_use]
    pub fn with_limit(mut self, name: impl Into<String>, value: u64, used: u64) -> Self {
        self.0.limit = Some(LimitRef { name: name.into(), value, used });
        self
    }

    #[must_use]
    pub fn with_retry_after(mut self, after: Duration) -> Self {
        self.0.retry_after = Some(after);
        self
    }

    #[must_use]
    pub fn with_queue_position(mut self, position: u64) -> Self {
        self.0.queue_position = Some(position);
        self
    }

    #[must_use]
    pub fn retryable(mut self, retryable: bool) -> Self {
        self.0.retryable = retryable;
        self
    }

    /// What a caller may read of this error, once more: several callers share one failed look-up.
    /// The log keeps the source's text.
    #[must_use]
    pub fn copy(&self) -> Self {
        let inner = self.inner();
        Self(Box::new(Inner {
            code: inner.code,
            detail: inner.detail.clone(),
            retryable: inner.retryable,
            fields: inner.fields.clone(),
            upstream: inner.upstream.clone(),
            sandbox: inner.sandbox.clone(),
            limit: inner.limit.clone(),
            retry_after: inner.retry_after,
            queue_position: inner.queue_position,
            source: inner.source.as_ref().map(|source| source.to_string().into()),
        }))
    }

    #[must_use]
    pub fn code(&self) -> Code {
        self.0.code
    }

    /// Whether it says that what was asked for is over, or never was.
    #[must_use]
    pub fn is_over(&self) -> bool {
        let ended = self.0.sandbox.as_ref().is_some_and(|sandbox| sandbox.stopped_at.is_some());
        self.0.code == Code::NotFound || (self.0.code == Code::InvalidState && ended)
    }

    #[must_use]
    pub fn detail(&self) -> &str {
        &self.0.detail
    }

    #[must_use]
    pub fn inner(&self) -> &Inner {
        &self.0
    }

    #[must_use]
    pub fn into_inner(self) -> Inner {
        *self.0
    }
}

impl fmt::Debug for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

impl fmt::Display for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {}", self.0.code.as_str(), self.0.detail)
    }
}

impl StdError for Error {
    fn source(&self) -> Option<&(dyn StdError + 'static)> {
        self.0.source.as_deref().map(|source| source as &(dyn StdError + 'static))
    }
}

/// A database that cannot be reached is a passing state, not a bug.
impl From<sqlx::Error> for Error {
    fn from(error: sqlx::Error) -> Self {
        if let Some(said) = error.as_database_error() {
            failover::note(said);
        }
        let detail = match &error {
            sqlx::Error::PoolTimedOut | sqlx::Error::Io(_) | sqlx::Error::PoolClosed | sqlx::Error::WorkerCrashed => {
                "The gateway's database cannot be reached. Try again shortly."
            }
            sqlx::Error::Database(said) if failover::passes(said.as_ref()) => {
                "The gateway's database is not ready for this. Try again shortly."
            }
            _ if holds_nul(&error) => {
                let detail = "A text has a NUL character, which cannot be stored.";
                return Self::new(Code::ValidationFailed, detail).with_source(error);
            }
            _ => return Self::internal(error),
        };
        Self::new(Code::Unavailable, detail).with_retry_after(Duration::from_secs(1)).with_source(error)
    }
}

/// Whether the database refused a text, or a text within JSON, for a NUL character. What goes to sandboxes may have them.
fn holds_nul(error: &sqlx::Error) -> bool {
    let code = error.as_database_error().and_then(|error| error.code());
    matches!(code.as_deref(), Some("22021" | "22P05"))
}
