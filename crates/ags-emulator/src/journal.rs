//! What was asked of the emulator, for tests that look at the cloud's side.

use std::collections::{BTreeMap, VecDeque};
use std::sync::Mutex;

use chrono::{DateTime, Utc};
use serde::Serialize;

/// Calls kept; older ones only remain in the counters.
const KEPT_CALLS: usize = 20_000;

/// One call, or one thing the emulator did by itself.
#[derive(Clone, Debug, Serialize)]
pub struct Call {
    /// Emulator time.
    pub at: DateTime<Utc>,
    pub wall_at: DateTime<Utc>,
    /// An action name of the signed API, a route of the E2B endpoint, or `timeout`.
    pub action: String,
    /// `account:<secret id>`, `api_key:<key id>` or `system`.
    pub by: String,
    pub instance: Option<String>,
    pub client_token: Option<String>,
    /// `None` is success.
    pub error: Option<String>,
    pub request_id: String,
    /// Whether a fault rule threw the answer away after the effect.
    pub response_lost: bool,
}

/// Counters of one action.
#[derive(Clone, Debug, Default, Serialize)]
pub struct Counter {
    pub calls: u64,
    pub ok: u64,
    /// By code.
    pub errors: BTreeMap<String, u64>,
}

#[derive(Default)]
struct Inner {
    calls: VecDeque<Call>,
    counters: BTreeMap<String, Counter>,
}

/// Counters per action and the latest calls.
#[derive(Default)]
pub struct Journal {
    inner: Mutex<Inner>,
}

impl Journal {
    fn with<T>(&self, f: impl FnOnce(&mut Inner) -> T) -> T {
        f(&mut self.inner.lock().unwrap_or_else(|poisoned| poisoned.into_inner()))
    }

    pub fn add(&self, call: Call) {
        self.with(|inner| {
            let counter = inner.counters.entry(call.action.clone()).or_default();
            counter.calls += 1;
            match &call.error {
                None => counter.ok += 1,
                Some(code) => *counter.errors.entry(code.clone()).or_default() += 1,
            }
            if inner.calls.len() == KEPT_CALLS {
                inner.calls.pop_front();
            }
            inner.calls.push_back(call);
        });
    }

    pub fn counters(&self) -> BTreeMap<String, Counter> {
        self.with(|inner| inner.counters.clone())
    }

    /// The latest calls that `wanted` picks, oldest first.
    pub fn calls(&self, wanted: impl Fn(&Call) -> bool) -> Vec<Call> {
        self.with(|inner| inner.calls.iter().filter(|call| wanted(call)).cloned().collect())
    }

    /// Starts counting anew.
    pub fn clear(&self) {
        self.with(|inner| *inner = Inner::default());
    }
}
