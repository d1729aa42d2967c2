//! Where a client gets its credentials.

use futures_util::future::{BoxFuture, ready};
use tc3::Credential;

/// Supplies the credential for each attempt, so that temporary ones can be renewed between attempts. It must
/// answer from a cache: it is asked on every call and counts towards the call's deadline.
pub trait CredentialProvider: Send + Sync {
    fn credential(&self) -> BoxFuture<'_, Result<Credential, CredentialError>>;
}

/// No credential could be had. The text must hold no secret.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{reason}")]
pub struct CredentialError {
    pub reason: String,
    /// Whether a later call may do better.
    pub retryable: bool,
}

/// A credential that never changes.
#[derive(Clone, Debug)]
pub struct StaticCredentials(pub Credential);

impl CredentialProvider for StaticCredentials {
    fn credential(&self) -> BoxFuture<'_, Result<Credential, CredentialError>> {
        Box::pin(ready(Ok(self.0.clone())))
    }
}
