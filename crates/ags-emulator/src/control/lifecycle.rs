//! The transitions of an instance: each is decided under the lock and carried out by a task, so that
//! it goes on whoever hangs up.

use std::collections::BTreeMap;
use std::future::Future;
use std::sync::Arc;
use std::time::Duration;

use ags_client::types::{InstanceStatus, SandboxInstance, StopReason};

use super::error::{ApiError, ApiResult};
use super::state::{self, Operation, Verdict};
use super::store::{Record, State};
use super::{Cloud, millis};
use crate::instance::{Instance, InstanceSpec, LaunchError};

/// How long a call waits for a transition that has no delay of its own (real time).
const PROMPT: Duration = Duration::from_secs(10);

/// What a running instance needs beyond what the API shows.
pub struct Launching {
    pub spec: InstanceSpec,
    pub fails: bool,
}

impl Cloud {
    /// Runs a task that ends with the emulator at the latest.
    pub(crate) fn run(&self, task: impl Future<Output = ()> + Send + 'static) {
        let stopping = self.stopping.clone();
        self.tasks.spawn(async move {
            tokio::select! {
                () = stopping.cancelled() => {}
                () = task => {}
            }
        });
    }

    /// Looks an instance up for an operation. `None`: it is under way or done already.
    pub(crate) fn judged<'a>(
        state: &'a mut State,
        id: &str,
        operation: Operation,
    ) -> ApiResult<Option<&'a mut Record>> {
        let record = state.instances.get_mut(id).ok_or_else(|| ApiError::no_instance(id))?;
        match state::judge(&record.status, operation) {
            Verdict::Go => Ok(Some(record)),
            Verdict::Already => Ok(None),
            Verdict::NotFound => Err(ApiError::no_instance(id)),
            Verdict::WrongState => Err(ApiError::wrong_state(id, record.status.as_str())),
        }
    }

    /// Waits (real time) until the instance has left `status`, at most `limit`.
    pub(crate) async fn settled(&self, id: &str, status: &InstanceStatus, limit: Duration) {
        let watched = self.with_state(|state| Some(state.instances.get(id)?.changed.subscribe()));
        let Some(mut changed) = watched else { return };
        // Not `wait_for`: its closure runs under the channel's lock, which senders take under the state's.
        let left = async {
            while self.with_state(|state| state.instances.get(id).is_some_and(|r| r.status == *status)) {
                if changed.changed().await.is_err() {
                    return;
                }
            }
        };
        // Out of time: the caller shows whatever state there is.
        drop(tokio::time::timeout(limit, left).await);
    }

    /// Brings a STARTING instance up and waits a while for it.
    pub(crate) async fn launch(self: &Arc<Self>, launching: Launching) -> ApiResult<SandboxInstance> {
        let id = launching.spec.id.clone();
        let tunables = self.tunables();
        let delay = millis(tunables.start_delay_ms);
        let cloud = self.clone();
        // Not `run`: what was launched must be stopped even when the emulator ends.
        self.tasks.spawn(async move { cloud.bring_up(launching, delay).await });
        self.expire_in_time(id.clone());
        if delay.is_zero() {
            let limit = millis(tunables.start_wait_ms);
            self.settled(&id, &InstanceStatus::Starting, limit).await;
        }
        self.show(&id)
    }

    /// The instance as the API shows it.
    pub(crate) fn show(&self, id: &str) -> ApiResult<SandboxInstance> {
        self.with_state(|state| state.instances.get(id).map(Record::to_wire).ok_or_else(|| ApiError::no_instance(id)))
    }

    async fn bring_up(self: Arc<Self>, launching: Launching, delay: Duration) {
        let id = launching.spec.id.clone();
        let (launched, ()) =
            tokio::join!(self.launch_ready(launching), self.unless_stopping(self.clock.sleep(delay), ()));
        let now = self.clock.now();
        let leftover = self.with_state(|state| {
            let record = state.instances.get_mut(&id)?;
            match launched {
                Ok(handle) if record.status == InstanceStatus::Starting && !self.stopping.is_cancelled() => {
                    let timeout = record.timeout;
                    record.handle = Some(handle.clone());
                    record.restart_countdown(timeout, now);
                    record.set_status(InstanceStatus::Running, now);
                    self.watch_exit(id.clone(), &handle);
                    None
                }
                Ok(handle) => Some(handle),
                Err(error) => {
                    tracing::warn!(instance = %id, %error, "an instance did not start");
                    if record.status == InstanceStatus::Starting {
                        record.stop_reason = Some(StopReason::Error);
                        record.set_status(InstanceStatus::StartingFailed, now);
                    }
                    None
                }
            }
        });
        if let Some(handle) = leftover {
            handle.stop().await;
        }
    }

    async fn launch_ready(&self, launching: Launching) -> Result<Arc<dyn Instance>, LaunchError> {
        if launching.fails {
            return Err(LaunchError::Exited("a fault rule struck".into()));
        }
        let handle = self.launcher.launch(launching.spec).await?;
        let ended = Err(LaunchError::Exited("the emulator ends".into()));
        match self.unless_stopping(handle.ready(), ended).await {
            Ok(()) => Ok(handle),
            Err(error) => {
                handle.stop().await;
                Err(error)
            }
        }
    }

    /// The future's outcome, or `otherwise` as soon as the emulator ends.
    async fn unless_stopping<T>(&self, future: impl Future<Output = T>, otherwise: T) -> T {
        tokio::select! {
            outcome = future => outcome,
            () = self.stopping.cancelled() => otherwise,
        }
    }

    /// An instance whose daemon ends by itself has FAILED.
    fn watch_exit(self: &Arc<Self>, id: String, handle: &Arc<dyn Instance>) {
        let exited = handle.exited();
        let cloud = self.clone();
        self.run(async move {
            exited.cancelled().await;
            let handle = cloud.with_state(|state| cloud.mark_failed(state, &id));
            if let Some(handle) = handle {
                handle.stop().await;
            }
        });
    }

    /// Marks a live instance FAILED and gives its remains.
    pub(crate) fn mark_failed(&self, state: &mut State, id: &str) -> Option<Arc<dyn Instance>> {
        let record = state.instances.get_mut(id)?;
        if state::is_final(&record.status) || record.status == InstanceStatus::Stopping {
            return None;
        }
        record.stop_reason = Some(StopReason::Error);
        record.links.cancel();
        record.set_status(InstanceStatus::Failed, self.clock.now());
        record.handle.clone()
    }

    /// Stops the instance when its countdown ends, however often that is restarted.
    fn expire_in_time(self: &Arc<Self>, id: String) {
        let cloud = self.clone();
        self.run(async move {
            while let Some((mut changed, deadline)) = cloud.next_deadline(&id) {
                let Some(deadline) = deadline else {
                    if changed.changed().await.is_err() {
                        return;
                    }
                    continue;
                };
                tokio::select! {
                    _ = changed.changed() => {}
                    () = cloud.clock.sleep_until(deadline) => cloud.expire(&id).await,
                }
            }
        });
    }

    fn next_deadline(&self, id: &str) -> Option<Deadline> {
        let paused_expire = self.tunables().paused_expire;
        self.with_state(|state| {
            let record = state.instances.get(id)?;
            if state::is_final(&record.status) {
                return None;
            }
            let counts = match record.status {
                InstanceStatus::Running | InstanceStatus::PauseFailed => true,
                InstanceStatus::Paused => paused_expire,
                _ => false,
            };
            Some((record.changed.subscribe(), record.expires_at.filter(|_| counts)))
        })
    }

    async fn expire(self: &Arc<Self>, id: &str) {
        let now = self.clock.now();
        let due = self.with_state(|state| {
            let record = state.instances.get(id);
            record.is_some_and(|r| r.expires_at.is_some_and(|end| end <= now))
        });
        if due {
            let stopped = self.stop(id, StopReason::Timeout, false).await;
            self.journal_own("timeout", id, stopped.err());
        }
    }

    /// Stops an instance.
    pub(crate) async fn stop(self: &Arc<Self>, id: &str, reason: StopReason, fails: bool) -> ApiResult<()> {
        let now = self.clock.now();
        let handle = self.with_state(|state| {
            let Some(record) = Self::judged(state, id, Operation::Stop)? else { return Ok(None) };
            record.stop_reason = Some(reason);
            record.links.cancel();
            record.set_status(InstanceStatus::Stopping, now);
            Ok(Some(record.handle.clone()))
        })?;
        let Some(handle) = handle else { return Ok(()) };
        let delay = millis(self.tunables().stop_delay_ms);
        let (cloud, task_id) = (self.clone(), id.to_owned());
        self.run(async move {
            cloud.clock.sleep(delay).await;
            cloud.tear_down(&task_id, handle, fails).await;
        });
        if delay.is_zero() {
            self.settled(id, &InstanceStatus::Stopping, PROMPT).await;
        }
        Ok(())
    }

    async fn tear_down(&self, id: &str, handle: Option<Arc<dyn Instance>>, fails: bool) {
        if let Some(handle) = handle.filter(|_| !fails) {
            handle.stop().await;
        }
        let now = self.clock.now();
        self.with_state(|state| {
            if let Some(record) = state.instances.get_mut(id) {
                if fails {
                    record.set_status(InstanceStatus::StoppingFailed, now);
                } else {
                    record.handle = None;
                    record.set_status(InstanceStatus::Stopped, now);
                }
            }
        });
    }

    /// Pauses a RUNNING instance and gives the state it is in then.
    pub(crate) async fn pause(self: &Arc<Self>, id: &str, fails: bool) -> ApiResult<InstanceStatus> {
        let (now, tunables) = (self.clock.now(), self.tunables());
        let started = self.with_state(|state| {
            let paused = state.count(state::occupies_paused);
            let Some(record) = Self::judged(state, id, Operation::Pause)? else { return Ok(false) };
            if paused >= tunables.max_paused {
                return Err(ApiError::instance_quota("paused", tunables.max_paused));
            }
            record.links.cancel();
            record.set_status(InstanceStatus::Pausing, now);
            Ok(true)
        })?;
        if started {
            let delay = millis(tunables.pause_delay_ms);
            let (cloud, task_id) = (self.clone(), id.to_owned());
            self.run(async move {
                cloud.clock.sleep(delay).await;
                cloud.freeze(&task_id, fails, tunables.paused_expire);
            });
            if delay.is_zero() {
                self.settled(id, &InstanceStatus::Pausing, PROMPT).await;
            }
        }
        Ok(self.show(id)?.status)
    }

    fn freeze(&self, id: &str, fails: bool, keeps_countdown: bool) {
        let now = self.clock.now();
        self.with_state(|state| {
            let record = state.instances.get_mut(id);
            let Some(record) = record.filter(|r| r.status == InstanceStatus::Pausing) else { return };
            let frozen = record.handle.as_ref().map(|handle| handle.pause());
            if fails || !matches!(frozen, Some(Ok(()))) {
                record.links = Default::default();
                record.set_status(InstanceStatus::PauseFailed, now);
                return;
            }
            if !keeps_countdown {
                record.expires_at = None;
            }
            record.set_status(InstanceStatus::Paused, now);
        });
    }

    /// Resumes a PAUSED instance; its countdown starts anew.
    pub(crate) async fn resume(self: &Arc<Self>, id: &str, timeout: Duration, fails: bool) -> ApiResult<()> {
        let (now, tunables) = (self.clock.now(), self.tunables());
        let started = self.with_state(|state| {
            let running = state.count(state::occupies_running);
            let Some(record) = Self::judged(state, id, Operation::Resume)? else { return Ok(false) };
            if running >= tunables.max_instances {
                return Err(ApiError::instance_quota("running", tunables.max_instances));
            }
            record.set_status(InstanceStatus::Resuming, now);
            Ok(true)
        })?;
        if started {
            let delay = millis(tunables.resume_delay_ms);
            let (cloud, task_id) = (self.clone(), id.to_owned());
            self.run(async move {
                cloud.clock.sleep(delay).await;
                cloud.thaw(&task_id, timeout, fails);
            });
            if delay.is_zero() {
                self.settled(id, &InstanceStatus::Resuming, PROMPT).await;
            }
        }
        Ok(())
    }

    fn thaw(&self, id: &str, timeout: Duration, fails: bool) {
        let now = self.clock.now();
        self.with_state(|state| {
            let record = state.instances.get_mut(id);
            let Some(record) = record.filter(|r| r.status == InstanceStatus::Resuming) else {
                return;
            };
            let thawed = record.handle.as_ref().map(|handle| handle.resume());
            if fails || !matches!(thawed, Some(Ok(()))) {
                record.set_status(InstanceStatus::ResumeFailed, now);
                return;
            }
            record.links = Default::default();
            record.restart_countdown(timeout, now);
            record.set_status(InstanceStatus::Running, now);
        });
    }
}

type Deadline = (tokio::sync::watch::Receiver<()>, Option<chrono::DateTime<chrono::Utc>>);

/// What every process of an instance finds in its environment.
pub fn base_environment(id: &str, tool_id: &str) -> BTreeMap<String, String> {
    BTreeMap::from([
        ("E2B_SANDBOX".into(), "true".into()),
        ("E2B_SANDBOX_ID".into(), id.into()),
        ("E2B_TEMPLATE_ID".into(), tool_id.into()),
    ])
}
