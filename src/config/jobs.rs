//! `[jobs]`: the reaper, the reconciler, and the removal of old rows.

use std::time::Duration;

use super::section::Section;
use crate::domain::reconciliation::Tolerance;

#[derive(Clone, Debug)]
pub struct Jobs {
    pub enabled: bool,
    pub claim: Duration,
    pub reap_interval: Duration,
    pub reap_batch: u32,
    pub reap_parallel: u32,
    pub idle_interval: Duration,
    pub reconcile_interval: Duration,
    pub reconcile_batch: u32,
    pub missing_grace: Duration,
    pub orphan_grace: Duration,
    pub brake: Tolerance,
    pub stop_backoff: Duration,
    pub settle_interval: Duration,
    pub prune_interval: Duration,
    pub prune_batch: u32,
    pub idempotency_retention: Duration,
    pub instance_retention: Duration,
}

impl Jobs {
    pub(super) fn read(mut section: Section<'_>) -> Self {
        let jobs = Self {
            enabled: section.flag("enabled"),
            claim: section.duration("claim"),
            reap_interval: section.duration("reap_interval"),
            reap_batch: section.count("reap_batch"),
            reap_parallel: section.count("reap_parallel"),
            idle_interval: section.duration("idle_interval"),
            reconcile_interval: section.duration("reconcile_interval"),
            reconcile_batch: section.count("reconcile_batch"),
            missing_grace: section.duration("missing_grace"),
            orphan_grace: section.duration("orphan_grace"),
            brake: Tolerance { count: section.count("brake_count"), percent: section.count("brake_percent") },
            stop_backoff: section.duration("stop_backoff"),
            settle_interval: section.duration("settle_interval"),
            prune_interval: section.duration("prune_interval"),
            prune_batch: section.count("prune_batch"),
            idempotency_retention: section.duration("idempotency_retention"),
            instance_retention: section.duration("instance_retention"),
        };
        section.finish();
        jobs
    }
}
