//! `[audit]`: what the history holds, and for how long.

use std::time::Duration;

use super::section::Section;

#[derive(Clone, Debug)]
pub struct Audit {
    /// Command lines and code are written down, without secrets.
    pub commands: bool,
    pub retention: Duration,
    pub usage_retention: Duration,
}

impl Audit {
    pub(super) fn read(mut section: Section<'_>) -> Self {
        let audit = Self {
            commands: section.flag("commands"),
            retention: section.duration("retention"),
            usage_retention: section.duration("usage_retention"),
        };
        section.finish();
        audit
    }
}
