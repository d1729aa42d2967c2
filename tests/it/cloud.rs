//! The emulator's side of a test: its faults, its instances, its journal.

use std::{future::Future, time::Duration};

use ags_emulator::settings::Tunables;
use serde_json::{Value, json};

use crate::harness::Stack;

const PATIENCE: Duration = Duration::from_secs(15);
const LOOK: Duration = Duration::from_millis(20);

impl Stack {
    /// Adds a fault rule of the emulator.
    pub fn fault(&self, rule: Value) {
        self.emulator.cloud().faults.add(serde_json::from_value(rule).expect("a rule"));
    }

    /// Adds a fault that strikes one action.
    pub fn fault_in(&self, action: &str, kind: &str) {
        self.fault(json!({"match": {"action": action}, "kind": kind}));
    }

    pub fn no_faults(&self) {
        self.emulator.cloud().faults.clear();
    }

    pub fn tune(&self, change: impl FnOnce(&mut Tunables)) {
        let mut tunables = self.emulator.cloud().tunables();
        change(&mut tunables);
        self.emulator.cloud().set_tunables(tunables);
    }

    /// All instances of the cloud, as it shows them.
    pub fn upstream_instances(&self) -> Vec<Value> {
        self.emulator.cloud().with_state(|state| {
            state.instances.values().map(|record| serde_json::to_value(record.to_wire()).expect("JSON")).collect()
        })
    }

    /// The states of all instances of the cloud, sorted.
    pub fn upstream_states(&self) -> Vec<String> {
        let mut states: Vec<String> =
            self.upstream_instances().iter().map(|one| one["Status"].as_str().expect("a status").to_owned()).collect();
        states.sort();
        states
    }

    /// One instance of the cloud.
    pub fn upstream_instance(&self, id: &Value) -> Value {
        let wanted = |one: &Value| one["InstanceId"] == *id;
        self.upstream_instances().into_iter().find(wanted).expect("the instance in the cloud")
    }

    /// How often an action was called.
    pub fn calls(&self, action: &str) -> usize {
        self.emulator.cloud().journal.calls(|call| call.action == action).len()
    }

    /// Runs a statement on the gateway's database.
    pub async fn sql(&self, statement: &'static str) {
        sqlx::raw_sql(statement).execute(&self.app.pool).await.expect(statement);
    }
}

/// Waits until `look` finds something.
pub async fn eventually<T, F: Future<Output = Option<T>>>(what: &str, look: impl Fn() -> F) -> T {
    let found = async {
        loop {
            if let Some(found) = look().await {
                return found;
            }
            tokio::time::sleep(LOOK).await;
        }
    };
    tokio::time::timeout(PATIENCE, found).await.unwrap_or_else(|_| panic!("{what}: not within {PATIENCE:?}"))
}

/// The path of a tool or an instance.
pub fn path(thing: &Value) -> String {
    let id = thing["id"].as_str().expect("an id");
    let kind = if id.starts_with("tool") { "tools" } else { "instances" };
    format!("/v1/{kind}/{id}")
}
