//! Instances as the E2B endpoint shows them (PROTOCOLS F.3, F.4).

use std::collections::BTreeMap;

use ags_client::types::InstanceStatus;
use chrono::{DateTime, SecondsFormat, TimeDelta, Utc};
use secrecy::ExposeSecret as _;
use serde_json::{Map, Value, json};

use super::custom_config;
use crate::control::Cloud;
use crate::control::instances::issue;
use crate::control::store::Record;
use crate::control::validate;

/// Shown where the tool says nothing.
const DEFAULT_CORES: f64 = 2.0;
const DEFAULT_MEMORY_MIB: u64 = 1024;
const DISK_MIB: u64 = 10_240;
/// A paused instance has no end; something has to be shown.
const PAUSED_END: TimeDelta = TimeDelta::days(30);

/// `running` or `paused`; `None` is not found.
pub fn state(status: &InstanceStatus) -> Option<&'static str> {
    match status {
        InstanceStatus::Starting | InstanceStatus::Running | InstanceStatus::PauseFailed | InstanceStatus::Resuming => {
            Some("running")
        }
        InstanceStatus::Pausing | InstanceStatus::Paused | InstanceStatus::ResumeFailed => Some("paused"),
        _ => None,
    }
}

/// The metadata as a map, with the echo of a custom configuration.
pub fn metadata(record: &Record) -> BTreeMap<String, String> {
    record
        .metadata
        .iter()
        .map(|pair| match pair.name.as_str() {
            custom_config::KEY => (pair.name.clone(), custom_config::echo(&pair.value)),
            _ => (pair.name.clone(), pair.value.clone()),
        })
        .collect()
}

impl Cloud {
    /// What create, connect and resume answer; the tokens are those of the first time.
    pub fn e2b_sandbox(&self, record: &mut Record) -> Value {
        let lasting = record.tokens.iter().find(|token| token.expires_at.is_none()).cloned();
        let tokens = lasting.unwrap_or_else(|| issue(record, None));
        json!({
            "templateID": record.tool_id,
            "alias": record.tool_name,
            "sandboxID": record.id,
            "clientID": "ags",
            "envdVersion": self.settings.envd_version,
            "envdAccessToken": tokens.token.expose_secret(),
            "trafficAccessToken": tokens.traffic.expose_secret(),
            "domain": null,
        })
    }

    /// An entry of the list.
    pub fn e2b_listed(&self, record: &Record, state: &str) -> Value {
        Value::Object(self.common(record, state))
    }

    /// The info of one sandbox.
    pub fn e2b_detail(&self, record: &Record, state: &str) -> Value {
        let mut members = self.common(record, state);
        let lasting = record.tokens.iter().find(|token| token.expires_at.is_none());
        members.insert("envdAccessToken".into(), json!(lasting.map(|token| token.token.expose_secret())));
        members.insert("domain".into(), Value::Null);
        members.insert("allowInternetAccess".into(), Value::Bool(true));
        members.insert("lifecycle".into(), json!({"onTimeout": "kill", "autoResume": false}));
        Value::Object(members)
    }

    fn common(&self, record: &Record, state: &str) -> Map<String, Value> {
        let resources = record.custom.as_ref().and_then(|custom| custom.resources.as_ref());
        let cores = resources.and_then(|r| r.cpu.as_deref()).and_then(validate::cores).unwrap_or(DEFAULT_CORES);
        let memory = resources.and_then(|r| r.memory.as_deref()).and_then(validate::bytes).map(|bytes| bytes >> 20);
        let end = record.expires_at.unwrap_or(record.updated_at + PAUSED_END);
        let members = json!({
            "templateID": record.tool_id,
            "alias": record.tool_name,
            "sandboxID": record.id,
            "clientID": "ags",
            "startedAt": time(record.created_at),
            "endAt": time(end),
            "cpuCount": cores.ceil().max(1.0) as u64,
            "memoryMB": memory.unwrap_or(DEFAULT_MEMORY_MIB),
            "diskSizeMB": DISK_MIB,
            "state": state,
            "envdVersion": self.settings.envd_version,
            "metadata": metadata(record),
        });
        match members {
            Value::Object(members) => members,
            _ => Map::new(),
        }
    }
}

fn time(at: DateTime<Utc>) -> String {
    at.to_rfc3339_opts(SecondsFormat::Micros, true)
}

/// One point of the metrics, from what envd measures.
pub fn metric(measured: &Value) -> Value {
    let number = |name: &str| measured.get(name).cloned().unwrap_or_else(|| json!(0));
    let at = measured.get("ts").and_then(Value::as_i64).unwrap_or_default();
    json!({
        "timestamp": DateTime::from_timestamp(at, 0).map(time),
        "timestampUnix": at,
        "cpuCount": number("cpu_count"),
        "cpuUsedPct": number("cpu_used_pct"),
        "memUsed": number("mem_used"),
        "memTotal": number("mem_total"),
        "memCache": number("mem_cache"),
        "diskUsed": number("disk_used"),
        "diskTotal": number("disk_total"),
    })
}
