//! How the operations and the jobs that look after them know of each other.

use std::{
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    time::Duration,
};

use tokio::sync::{Notify, watch};

/// What wakes the jobs, and whether the first look after the start is done. Clones share both.
#[derive(Clone, Debug)]
pub struct Upkeep {
    /// Something is to be stopped now.
    pub reap: Arc<Notify>,
    /// Wakes the reconciler.
    pub reconcile: Arc<Notify>,
    /// Somebody needs a pass, whenever the last one was.
    asked: Arc<AtomicBool>,
    reconciled: watch::Sender<bool>,
    /// How long a claim on a row lasts unless it is renewed.
    pub claim: Duration,
}

impl Upkeep {
    #[must_use]
    pub fn new(claim: Duration) -> Self {
        Self {
            reap: Arc::default(),
            reconcile: Arc::default(),
            asked: Arc::default(),
            reconciled: watch::Sender::new(false),
            claim,
        }
    }

    /// Asks for a pass of the reconciler: an outcome is unknown.
    pub fn ask(&self) {
        self.asked.store(true, Ordering::Release);
        self.reconcile.notify_one();
    }

    /// Whether a pass was asked for since this was called last.
    #[must_use]
    pub fn is_asked(&self) -> bool {
        self.asked.swap(false, Ordering::AcqRel)
    }

    /// Whether what the last run left behind has been looked into.
    #[must_use]
    pub fn is_reconciled(&self) -> bool {
        *self.reconciled.borrow()
    }

    pub fn mark_reconciled(&self) {
        self.reconciled.send_replace(true);
    }

    /// Waits for [`mark_reconciled`](Self::mark_reconciled).
    pub async fn reconciled(&self) {
        // The sender lives in self.
        drop(self.reconciled.subscribe().wait_for(|done| *done).await);
    }

    #[must_use]
    pub fn claim_seconds(&self) -> f64 {
        self.claim.as_secs_f64()
    }
}
