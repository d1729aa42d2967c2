//! TC3-HMAC-SHA256: sign and verify requests of Tencent Cloud API 3.0.
//!
//! Follows the public "Signature v3" document of Tencent Cloud. Everything here is pure: the time is an
//! argument, the raw body is hashed as given and never re-serialised, and no I/O takes place.
//!
//! A client calls [`sign`]; a server parses the header with [`Authorization::parse`], looks up the secret
//! key of [`Authorization::secret_id`] and calls [`verify`].

mod authorization;
mod canonical;
mod key;
mod sign;
mod verify;

pub use authorization::{Authorization, ParseError};
pub use canonical::{Header, Method, Payload, UNSIGNED_PAYLOAD};
pub use key::{Credential, SigningKey, scope_date};
pub use sign::{SignError, SignRequest, Signed, sign, sign_with};
pub use verify::{MAX_SKEW_SECONDS, VerifyError, VerifyRequest, verify, verify_with};

/// Name of the algorithm, first word of the `Authorization` header.
pub const ALGORITHM: &str = "TC3-HMAC-SHA256";
/// Last part of every credential scope.
pub const TERMINATOR: &str = "tc3_request";
/// Headers that every signature must cover.
pub const REQUIRED_HEADERS: [&str; 2] = ["content-type", "host"];
