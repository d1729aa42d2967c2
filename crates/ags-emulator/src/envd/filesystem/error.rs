//! What a failed file operation means to the caller.

use std::io;

use connectrpc::ConnectError;

/// Why an operation failed; the text is the caller's.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum FsError {
    #[error("{0}")]
    NotFound(String),
    #[error("{0}")]
    AlreadyExists(String),
    #[error("{0}")]
    Invalid(String),
    #[error("{0}")]
    Precondition(String),
    #[error("{0}")]
    Internal(String),
}

impl FsError {
    /// `not_found` with a text of its own, else `internal` with what was attempted.
    pub fn new(missing: &str, doing: &str, error: &io::Error) -> Self {
        match error.kind() {
            io::ErrorKind::NotFound | io::ErrorKind::NotADirectory => Self::NotFound(format!("{missing}: {error}")),
            _ => Self::internal(doing, error),
        }
    }

    /// `internal` with what was attempted.
    pub fn internal(doing: &str, error: &io::Error) -> Self {
        Self::Internal(format!("error {doing}: {error}"))
    }
}

impl From<FsError> for ConnectError {
    fn from(error: FsError) -> Self {
        let text = error.to_string();
        match error {
            FsError::NotFound(_) => Self::not_found(text),
            FsError::AlreadyExists(_) => Self::already_exists(text),
            FsError::Invalid(_) => Self::invalid_argument(text),
            FsError::Precondition(_) => Self::failed_precondition(text),
            FsError::Internal(_) => Self::internal(text),
        }
    }
}
