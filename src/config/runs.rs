//! `[runs]`: what a run is given and what is kept of it.

use std::time::Duration;

use super::section::Section;

#[derive(Clone, Debug)]
pub struct Runs {
    /// Bytes of the body of a request for a run, its files included.
    pub max_body: u64,
    /// Bytes of the files that are collected, together.
    pub max_collected: u64,
    /// How long a run that has ended is kept.
    pub retention: Duration,
}

impl Runs {
    pub(super) fn read(mut section: Section<'_>) -> Self {
        let runs = Self {
            max_body: section.size("max_body"),
            max_collected: section.size("max_collected"),
            retention: section.duration("retention"),
        };
        section.finish();
        runs
    }
}
