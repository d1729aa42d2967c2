//! `[jobs]`: the reaper, the reconciler, and the removal of old rows.

use std::time::Duration;

use super::section::Section;

#[derive(Clone, Debug)]
pub struct Jobs {
    pub enabled: bool,
    pub reap_interval: Duration,
    pub reap_batch: u32,
    pub reap_parallel: u32,
    pub reconcile_interval: Duration,
    pub reconcile_batch: u32,
    pub reconcile_after: Duration,
    pub prune_interval: Duration,
    pub prune_batch: u32,
    pub idempotency_retention: Duration,
    pub instance_retention: Duration,
}

impl Jobs {
    pub(super) fn read(mut section: Section<'_>) -> Self {
        let jobs = Self {
            enabled: section.flag("enabled"),
            reap_interval: section.duration("reap_interval"),
            reap_batch: section.count("reap_batch"),
            reap_parallel: section.count("reap_parallel"),
            reconcile_interval: section.duration("reconcile_interval"),
            reconcile_batch: section.count("reconcile_batch"),
            reconcile_after: section.duration("reconcile_after"),
            prune_interval: section.duration("prune_interval"),
            prune_batch: section.count("prune_batch"),
            idempotency_retention: section.duration("idempotency_retention"),
            instance_retention: section.duration("instance_retention"),
        };
        section.finish();
        jobs
    }
}
