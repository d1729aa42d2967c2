//! What `/files` requests have in common: the query, the right to ask, the user and the path.

use std::path::PathBuf;
use std::time::{SystemTime, UNIX_EPOCH};

use http::HeaderMap;
use secrecy::{ExposeSecret as _, SecretString};
use serde::Deserialize;
use subtle::ConstantTimeEq as _;

use crate::envd::daemon::Daemon;
use crate::envd::rest_error::RestError;
use crate::envd::signature::{Operation, Signed};
use crate::envd::users::User;

/// Query of `/files`.
#[derive(Debug, Default, Deserialize)]
#[serde(default)]
pub struct FilesQuery {
    pub path: Option<String>,
    pub username: Option<String>,
    signature: Option<String>,
    signature_expiration: Option<i64>,
}

impl FilesQuery {
    /// Checks the token header, or without one the signature; a daemon without a token checks nothing.
    ///
    /// # Errors
    /// 401 with the texts that clients compare.
    pub fn authorize(&self, daemon: &Daemon, headers: &HeaderMap, operation: Operation) -> Result<(), RestError> {
        let Some(token) = &daemon.token else {
            return Ok(());
        };
        if let Some(given) = headers.get("x-access-token") {
            return match same(given.as_bytes(), token) {
                true => Ok(()),
                false => Err(RestError::unauthorized("access token present in header but does not match")),
            };
        }
        let signed = Signed {
            path: self.path.as_deref().unwrap_or_default(),
            operation,
            username: self.username.as_deref().unwrap_or_default(),
            expiration: self.signature_expiration,
        };
        signed
            .verify(self.signature.as_deref(), token, unix_now())
            .map_err(|error| RestError::unauthorized(error.to_string()))
    }

    /// The user of the query, or the default.
    ///
    /// # Errors
    /// 401: there is no such user.
    pub fn user(&self, daemon: &Daemon) -> Result<User, RestError> {
        user(daemon, self.username.as_deref())
    }
}

/// The user of a name, or without one the default.
///
/// # Errors
/// 401: there is no such user.
pub fn user(daemon: &Daemon, name: Option<&str>) -> Result<User, RestError> {
    let unknown = || RestError::unauthorized(format!("invalid username: '{}'", name.unwrap_or_default()));
    daemon.user(name).ok_or_else(unknown)
}

/// What a path means for a user.
///
/// # Errors
/// 400.
pub fn resolve(daemon: &Daemon, path: &str, user: &User) -> Result<PathBuf, RestError> {
    daemon.resolve(path, user).map_err(|error| RestError::bad_request(error.to_string()))
}

/// Compares in constant time.
#[must_use]
pub fn same(given: &[u8], token: &SecretString) -> bool {
    bool::from(given.ct_eq(token.expose_secret().as_bytes()))
}

/// The daemon lives on the machine's clock, as a sandbox's does.
#[allow(clippy::disallowed_methods)]
fn unix_now() -> i64 {
    let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    since.as_secs().cast_signed()
}
