//! `[database]`: PostgreSQL.

use std::fmt;
use std::time::Duration;

use secrecy::{ExposeSecret, SecretString};

use super::section::Section;
use crate::telemetry::redact::REDACTED;

#[derive(Clone)]
pub struct Database {
    /// With its password, hence secret.
    pub url: SecretString,
    pub max_connections: u32,
    pub acquire_timeout: Duration,
    pub statement_timeout: Duration,
}

impl Database {
    pub(super) fn read(mut section: Section<'_>) -> Self {
        let database = Self {
            url: url(&mut section),
            max_connections: section.count("max_connections"),
            acquire_timeout: section.duration("acquire_timeout"),
            statement_timeout: section.duration("statement_timeout"),
        };
        section.finish();
        database
    }
}

fn url(section: &mut Section<'_>) -> SecretString {
    let before = section.problem_count();
    match section.secret("url") {
        Some(secret) => {
            let text = secret.value.expose_secret();
            if !text.starts_with("postgres://") && !text.starts_with("postgresql://") {
                section.problem("url", "is not an address such as \"postgres://user@host/name\"");
            }
            secret.value
        }
        None => {
            if section.problem_count() == before {
                section.problem("url", "is required: set DATABASE_URL, database.url or database.url_file");
            }
            SecretString::default()
        }
    }
}

impl fmt::Debug for Database {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Database")
            .field("url", &REDACTED)
            .field("max_connections", &self.max_connections)
            .field("acquire_timeout", &self.acquire_timeout)
            .field("statement_timeout", &self.statement_timeout)
            .finish()
    }
}
