//! `[ports]`: the byte plane to what listens in sandboxes, and browsers' previews of it.

use std::time::Duration;

use super::section::Section;

#[derive(Clone, Debug)]
pub struct Ports {
    /// A request or tunnel that moves no byte for this long is cut.
    pub idle_timeout: Duration,
    /// Open requests and tunnels at once, on this replica.
    pub max_streams_per_instance: u32,
    pub max_streams_per_team: u32,
    /// Life of a preview when the request does not say.
    pub preview_ttl: Duration,
    pub max_preview_ttl: Duration,
}

impl Ports {
    pub(super) fn read(mut section: Section<'_>) -> Self {
        let ports = Self {
            idle_timeout: section.duration("idle_timeout"),
            max_streams_per_instance: section.count("max_streams_per_instance"),
            max_streams_per_team: section.count("max_streams_per_team"),
            preview_ttl: section.duration("preview_ttl"),
            max_preview_ttl: section.duration("max_preview_ttl"),
        };
        if ports.preview_ttl > ports.max_preview_ttl {
            section.problem("preview_ttl", "is longer than max_preview_ttl");
        }
        section.finish();
        ports
    }
}
