//! `[auth]`: what API keys and tickets are stored under.

use std::fmt;
use std::time::Duration;

use secrecy::{ExposeSecret, SecretString};

use super::section::Section;
use crate::{domain::seal::Seals, telemetry::redact::REDACTED};

/// Shortest secret, in bytes: the output of SHA-256.
pub const MIN_SECRET_BYTES: usize = 32;

#[derive(Clone)]
pub struct Auth {
    /// Pepper of the HMAC; at least [`MIN_SECRET_BYTES`].
    pub secret: SecretString,
    /// The pepper before a rotation; keys stored under it are still good.
    pub previous_secret: Option<SecretString>,
    /// What secrets that must be known in the clear are sealed under. Default: `secret`.
    pub encryption_secret: Option<SecretString>,
    /// The one before a rotation.
    pub previous_encryption_secret: Option<SecretString>,
    pub ticket_ttl: Duration,
}

impl Auth {
    pub(super) fn read(mut section: Section<'_>) -> Self {
        let before = section.problem_count();
        let secret = long_enough(&mut section, "secret");
        if secret.is_none() && section.problem_count() == before {
            let text = "is required: set AGS_GATEWAY__AUTH__SECRET, auth.secret or auth.secret_file, at least 32 bytes";
            section.problem("secret", text);
        }
        let auth = Self {
            secret: secret.unwrap_or_default(),
            previous_secret: long_enough(&mut section, "previous_secret"),
            encryption_secret: long_enough(&mut section, "encryption_secret"),
            previous_encryption_secret: long_enough(&mut section, "previous_encryption_secret"),
            ticket_ttl: section.duration("ticket_ttl"),
        };
        section.finish();
        auth
    }

    /// The keys of sealed secrets: each secret there is, the present one first.
    #[must_use]
    pub fn seals(&self) -> Seals {
        let own = self.encryption_secret.iter().chain(&self.previous_encryption_secret);
        Seals::derive(own.chain([&self.secret]).chain(&self.previous_secret))
    }
}

fn long_enough(section: &mut Section<'_>, name: &str) -> Option<SecretString> {
    let secret = section.secret(name)?.value;
    if secret.expose_secret().len() < MIN_SECRET_BYTES {
        section.problem(name, format!("is shorter than {MIN_SECRET_BYTES} bytes"));
    }
    Some(secret)
}

impl fmt::Debug for Auth {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Auth")
            .field("secret", &REDACTED)
            .field("previous_secret", &self.previous_secret.as_ref().map(|_| REDACTED))
            .field("encryption_secret", &self.encryption_secret.as_ref().map(|_| REDACTED))
            .field("previous_encryption_secret", &self.previous_encryption_secret.as_ref().map(|_| REDACTED))
            .field("ticket_ttl", &self.ticket_ttl)
            .finish()
    }
}
