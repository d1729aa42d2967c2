//! `[files]`: transfers.

use std::time::Duration;

use super::section::Section;

#[derive(Clone, Debug)]
pub struct Files {
    /// Bytes; `None` is no limit but the sandbox's disk.
    pub max_upload: Option<u64>,
    pub idle_timeout: Duration,
}

impl Files {
    pub(super) fn read(mut section: Section<'_>) -> Self {
        let files = Self {
            max_upload: Some(section.size("max_upload")).filter(|bytes| *bytes > 0),
            idle_timeout: section.duration("idle_timeout"),
        };
        section.finish();
        files
    }
}
