//! The state behind the lock: tools, instances and keys.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use ags_client::types::{
    AuthMode, CustomConfigurationDetail, InstanceStatus, MetadataVar, MountOption, NetworkMode, SandboxInstance,
    SandboxTool, StopReason,
};
use chrono::{DateTime, SubsecRound as _, TimeDelta, Utc};
use indexmap::IndexMap;
use secrecy::{ExposeSecret as _, SecretString};
use subtle::ConstantTimeEq as _;
use tokio::sync::watch;
use tokio_util::sync::CancellationToken;

use super::persist::ApiKey;
use super::state;
use crate::instance::Instance;

/// A pair of tokens for the data plane.
#[derive(Clone)]
pub struct IssuedToken {
    pub token: SecretString,
    pub traffic: SecretString,
    /// `None`: as long as the instance.
    pub expires_at: Option<DateTime<Utc>>,
}

impl IssuedToken {
    fn alive(&self, now: DateTime<Utc>) -> bool {
        self.expires_at.is_none_or(|end| now < end)
    }
}

/// An instance, from the first call that named it until it is forgotten.
pub struct Record {
    pub id: String,
    pub tool_id: String,
    pub tool_name: String,
    pub status: InstanceStatus,
    /// Shown as UNHEALTHY while RUNNING.
    pub unhealthy: bool,
    pub persistent: Option<bool>,
    pub timeout: Duration,
    pub expires_at: Option<DateTime<Utc>>,
    pub stop_reason: Option<StopReason>,
    pub created_at: DateTime<Utc>,
    pub updated_at: DateTime<Utc>,
    pub ended_at: Option<DateTime<Utc>>,
    /// Orders instances that were created at the same time.
    pub sequence: u64,
    pub mount_options: Option<Vec<MountOption>>,
    pub custom: Option<CustomConfigurationDetail>,
    pub network_mode: Option<NetworkMode>,
    pub metadata: Vec<MetadataVar>,
    pub auth_mode: AuthMode,
    pub tokens: Vec<IssuedToken>,
    pub handle: Option<Arc<dyn Instance>>,
    /// Cancelled when streams into the instance must break off.
    pub links: CancellationToken,
    /// Sent to on every change, for those who wait.
    pub changed: watch::Sender<()>,
}

impl Record {
    /// The status as shown: UNHEALTHY is derived.
    pub fn shown_status(&self) -> InstanceStatus {
        match self.status {
            InstanceStatus::Running if self.unhealthy => InstanceStatus::Unhealthy,
            ref status => status.clone(),
        }
    }

    /// Changes the status and wakes those who wait.
    pub fn set_status(&mut self, status: InstanceStatus, now: DateTime<Utc>) {
        if state::is_final(&status) {
            self.ended_at = Some(now);
            self.expires_at = None;
            self.tokens.clear();
        }
        self.status = status;
        self.updated_at = now;
        self.changed.send_replace(());
    }

    /// Restarts the countdown.
    pub fn restart_countdown(&mut self, timeout: Duration, now: DateTime<Utc>) {
        self.timeout = timeout;
        self.expires_at = Some(now + crate::clock::to_delta(timeout));
        self.updated_at = now;
        self.changed.send_replace(());
    }

    /// Whether this is a live access token of the instance.
    pub fn accepts_token(&self, given: &[u8], now: DateTime<Utc>) -> bool {
        self.live(now).any(|t| same(&t.token, given))
    }

    /// Whether this is a live traffic token of the instance.
    pub fn accepts_traffic(&self, given: &[u8], now: DateTime<Utc>) -> bool {
        self.live(now).any(|t| same(&t.traffic, given))
    }

    fn live(&self, now: DateTime<Utc>) -> impl Iterator<Item = &IssuedToken> {
        self.tokens.iter().filter(move |t| t.alive(now))
    }

    /// As the API shows it; times to the second, as the cloud gives them.
    pub fn to_wire(&self) -> SandboxInstance {
        let ended =
            matches!(self.status, InstanceStatus::Stopped | InstanceStatus::StoppingFailed | InstanceStatus::Failed);
        SandboxInstance {
            instance_id: self.id.clone(),
            tool_id: self.tool_id.clone(),
            tool_name: self.tool_name.clone(),
            status: self.shown_status(),
            persistent: self.persistent,
            timeout_seconds: Some(self.timeout.as_secs()),
            expires_at: self.expires_at.map(|t| t.trunc_subsecs(0)),
            stop_reason: self.stop_reason.clone().filter(|_| ended),
            create_time: Some(self.created_at.trunc_subsecs(0)),
            update_time: Some(self.updated_at.trunc_subsecs(0)),
            mount_options: self.mount_options.clone(),
            custom_configuration: self.custom.clone(),
            network_mode: self.network_mode.clone(),
            metadata: Some(self.metadata.clone()),
            auth_mode: Some(self.auth_mode.clone()),
        }
    }
}

fn same(secret: &SecretString, given: &[u8]) -> bool {
    secret.expose_secret().as_bytes().ct_eq(given).into()
}

/// Everything there is.
#[derive(Default)]
pub struct State {
    /// By id, in order of creation.
    pub tools: IndexMap<String, SandboxTool>,
    pub instances: HashMap<String, Record>,
    /// By id, in order of creation.
    pub keys: IndexMap<String, ApiKey>,
    pub started: u64,
}

impl State {
    /// A tool by its name.
    pub fn tool_named(&self, name: &str) -> Option<&SandboxTool> {
        self.tools.values().find(|tool| tool.tool_name.as_deref() == Some(name))
    }

    /// How many instances are in a state that `counts`.
    pub fn count(&self, counts: impl Fn(&InstanceStatus) -> bool) -> usize {
        self.instances.values().filter(|record| counts(&record.status)).count()
    }

    /// Instances of a tool that are not over.
    pub fn live_instances_of(&self, tool_id: &str) -> usize {
        let live = |r: &&Record| r.tool_id == tool_id && !state::is_final(&r.status);
        self.instances.values().filter(live).count()
    }

    /// Forgets instances that ended longer ago than `retention`.
    pub fn forget_ended(&mut self, retention: TimeDelta, now: DateTime<Utc>) {
        self.instances.retain(|_, r| r.ended_at.is_none_or(|end| now - end < retention));
    }

    /// All instances, newest first.
    pub fn newest_first(&self) -> Vec<&Record> {
        let mut records: Vec<&Record> = self.instances.values().collect();
        records.sort_by_key(|r| std::cmp::Reverse((r.created_at, r.sequence)));
        records
    }
}
