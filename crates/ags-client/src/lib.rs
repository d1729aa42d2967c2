//! Tencent Cloud AGS (API v2025-09-20): wire types and a signed HTTP client.
//!
//! [`types`] holds the objects, [`envelope`] what a response wraps them in, [`request`] the strict reader of
//! requests for a server, [`timeout`] the duration strings, and [`Action`] ties a request to its response and
//! says when it may be repeated. [`AgsClient`] makes the calls.

mod action;
mod client;
pub mod codes;
pub mod envelope;
pub mod request;
pub mod timeout;
pub mod types;

pub use action::{ACTIONS, Action, Repeat};
pub use client::{
    AgsClient, AgsError, Backoff, Builder, Clock, Counted, CredentialError, CredentialProvider, ErrorKind, Jitter,
    Limiter, Listing, MAX_PAGE, Outcome, Priority, Rates, Reply, Settings, SettingsError, Stage, StaticCredentials,
    system_clock, system_jitter,
};
pub use reqwest::Url;
pub use tc3::Credential;

/// Service name of the credential scope.
pub const SERVICE: &str = "ags";
/// API version, sent as `X-TC-Version`.
pub const VERSION: &str = "2025-09-20";
