//! `[instances]`: lives and waits.

use std::time::Duration;

use super::section::Section;

/// Shortest and longest life that v1 accepts (API.md).
pub const MIN_TIMEOUT: Duration = Duration::from_secs(30);
pub const MAX_TIMEOUT: Duration = Duration::from_secs(24 * 3_600);

#[derive(Clone, Debug)]
pub struct Instances {
    pub timeout: Duration,
    pub port: u16,
    pub startup_timeout: Duration,
    pub wait: Duration,
    pub max_wait: Duration,
    pub backstop_margin: Duration,
    pub token_ttl: Duration,
    pub token_refresh_margin: Duration,
}

impl Instances {
    pub(super) fn read(mut section: Section<'_>) -> Self {
        let instances = Self {
            timeout: section.duration("timeout"),
            port: section.port("port"),
            startup_timeout: section.duration("startup_timeout"),
            wait: section.duration("wait"),
            max_wait: section.duration("max_wait"),
            backstop_margin: section.duration("backstop_margin"),
            token_ttl: section.duration("token_ttl"),
            token_refresh_margin: section.duration("token_refresh_margin"),
        };
        if !instances.timeout.is_zero() && !(MIN_TIMEOUT..=MAX_TIMEOUT).contains(&instances.timeout) {
            section.problem("timeout", "must be between 30s and 24h");
        }
        section.finish();
        instances
    }
}
