//! The commands that this replica follows, and those it followed until a short while ago.

use std::{
    collections::{HashMap, HashSet},
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use moka::future::Cache;

use super::{
    log::{Budget, Keeping, Log},
    session::Session,
    slots::Reservation,
};
use crate::{
    app::tally::Tally,
    config,
    domain::exec::Exec,
    error::{Code, Error, Result},
    ids::{ExecId, InstanceId, TeamId},
};

/// How long, and how many bytes of, the output of ended commands is kept for those who come back.
const KEPT_FOR: Duration = Duration::from_secs(600);
const KEPT_BYTES: u64 = 64 << 20;
/// What a session weighs besides its output.
const OVERHEAD: usize = 2048;
/// Smallest window: two of the daemon's largest events.
const MIN_WINDOW: u64 = 64 << 10;

/// The sessions of this replica. Clones share them.
#[derive(Clone)]
pub struct Execs {
    live: Arc<Mutex<Live>>,
    ended: Cache<ExecId, Arc<Session>>,
    replica: Arc<str>,
    /// The turn to ask the database for slots, or to give some back; and of which teams this replica has any there.
    slots: Arc<tokio::sync::Mutex<HashSet<TeamId>>>,
    /// What logs hold beyond their windows while the database lags behind.
    budget: Budget,
}

#[derive(Default)]
struct Live {
    sessions: HashMap<ExecId, Arc<Session>>,
    commands: Tally,
    /// Code in interpreters, which counts as commands do.
    code: Tally,
    /// What is about to begin.
    reserved: HashMap<TeamId, u64>,
    /// What this replica may follow of each team.
    slots: HashMap<TeamId, u64>,
}

/// A run of code that counts; dropping it ends that.
pub struct CodePermit {
    execs: Execs,
    team: TeamId,
    instance: InstanceId,
}

impl Execs {
    /// `replica`: what this process is called in the rows of the commands that it follows; unique to its run.
    #[must_use]
    pub fn new(replica: &str, memory_reserve: u64) -> Self {
        let weight =
            |_: &ExecId, session: &Arc<Session>| u32::try_from(session.log.held() + OVERHEAD).unwrap_or(u32::MAX);
        let ended = Cache::builder().max_capacity(KEPT_BYTES).weigher(weight).time_to_live(KEPT_FOR).build();
        let budget = Budget::new(memory_reserve);
        Self { live: Arc::default(), ended, replica: replica.into(), slots: Arc::default(), budget }
    }

    /// What this process is called.
    #[must_use]
    pub fn replica(&self) -> &str {
        &self.replica
    }

    fn table(&self) -> MutexGuard<'_, Live> {
        self.live.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// A log for a command's output from the place `first` on; of one that lives on by itself it is stored too.
    pub(super) fn log(&self, config: &config::Exec, exec: &Exec, first: u64) -> Log {
        let bytes = |size: u64| usize::try_from(size).unwrap_or(usize::MAX);
        let keeping = Keeping { most: bytes(config.stored_window), budget: self.budget.clone() };
        Log::new(exec.epoch, first, bytes(config.memory_window.max(MIN_WINDOW)), (!exec.foreground).then_some(keeping))
    }

    /// A place for one more of a team's, if this replica has a slot for it.
    pub(super) fn reserve(&self, team: &TeamId, most: u64) -> Option<Reservation> {
        let mut live = self.table();
        let slots = live.slots.get(team).copied().unwrap_or_default().min(most);
        if live.used(team) >= slots {
            return None;
        }
        *live.reserved.entry(team.clone()).or_default() += 1;
        Some(Reservation::new(self.clone(), team.clone()))
    }

    pub(super) fn unreserve(&self, team: &TeamId) {
        let mut live = self.table();
        if let Some(count) = live.reserved.get_mut(team) {
            *count -= 1;
            if *count == 0 {
                live.reserved.remove(team);
            }
        }
    }

    /// What is followed here of a team, or is about to be.
    pub(super) fn used(&self, team: &TeamId) -> u64 {
        self.table().used(team)
    }

    pub(super) fn slots(&self) -> &tokio::sync::Mutex<HashSet<TeamId>> {
        &self.slots
    }

    /// This replica may follow so many of a team.
    pub(super) fn grant(&self, team: &TeamId, slots: u64) {
        self.table().slots.insert(team.clone(), slots);
    }

    /// Lowers the slots to what is needed, of the teams that have some and of those that need some. Answers what that is.
    pub(super) fn trim(&self, held: &HashSet<TeamId>) -> HashMap<TeamId, u64> {
        let mut live = self.table();
        let using = live.commands.teams().chain(live.code.teams()).chain(live.reserved.keys());
        let teams: HashSet<TeamId> = using.chain(held).cloned().collect();
        let kept: HashMap<TeamId, u64> = teams.into_iter().map(|team| (team.clone(), live.used(&team))).collect();
        live.slots = kept.iter().filter(|(_, slots)| **slots > 0).map(|(team, slots)| (team.clone(), *slots)).collect();
        kept
    }

    /// Takes a session in that has a place, if its instance may run one more and its team's output leaves room.
    pub(super) fn admit(&self, session: &Arc<Session>, limits: &Limits, place: Reservation) -> Result<()> {
        let exec = &session.exec;
        // Given up when it counts, and without the lock.
        let _place = place;
        let mut live = self.table();
        let held = || -> u64 {
            let of_team = live.sessions.values().filter(|other| other.exec.team_id == exec.team_id);
            of_team.map(|other| other.log.held() as u64).sum()
        };
        if live.sessions.contains_key(&exec.id) {
            return Err(Error::new(Code::AlreadyExists, "The command was started already."));
        }
        live.check_counts(&exec.instance_id, limits)?;
        check(
            "exec_memory",
            limits.team_memory,
            held(),
            "Your team's commands hold as much output in memory as they may.",
        )?;
        live.insert(session);
        Ok(())
    }

    /// Counts a run of code that has a place, if its instance may run one more.
    pub(super) fn admit_code(
        &self,
        team: &TeamId,
        instance: &InstanceId,
        limits: &Limits,
        place: Reservation,
    ) -> Result<CodePermit> {
        // Given up when it counts, and without the lock.
        let _place = place;
        let mut live = self.table();
        live.check_counts(instance, limits)?;
        live.code.add(team, instance);
        metrics::gauge!("ags_gateway_code_running").increment(1.0);
        Ok(CodePermit { execs: self.clone(), team: team.clone(), instance: instance.clone() })
    }

    /// Takes a session in that ran already.
    pub(super) fn take_in(&self, session: &Arc<Session>) {
        self.table().insert(session);
    }

    /// A command ended, or never ran. `keep`: its output is kept for a while, for those who come back.
    pub(super) async fn retire(&self, session: &Arc<Session>, keep: bool) {
        if keep {
            self.ended.insert(session.exec.id.clone(), Arc::clone(session)).await;
        }
        self.table().remove(session);
    }

    /// The session of a command, live or lately ended, whoever's it is.
    pub(super) async fn get(&self, id: &ExecId) -> Option<Arc<Session>> {
        let live = self.table().sessions.get(id).cloned();
        match live {
            Some(session) => Some(session),
            None => self.ended.get(id).await,
        }
    }

    /// Whether a command is followed here, or was until a short while ago.
    pub async fn follows(&self, id: &ExecId) -> bool {
        self.get(id).await.is_some()
    }

    pub(super) fn live(&self) -> Vec<Arc<Session>> {
        self.table().sessions.values().cloned().collect()
    }

    /// Closes the streams from an instance that is about to be paused.
    pub async fn suspend(&self, instance: &InstanceId) {
        let sessions = self.live().into_iter().filter(|session| session.exec.instance_id == *instance);
        futures_util::future::join_all(sessions.map(|session| async move { session.suspend().await })).await;
    }

    /// How many commands are followed here.
    #[must_use]
    pub fn running(&self) -> usize {
        self.table().sessions.len()
    }
}

impl Drop for CodePermit {
    fn drop(&mut self) {
        self.execs.table().code.remove(&self.team, &self.instance);
        metrics::gauge!("ags_gateway_code_running").decrement(1.0);
    }
}

impl Live {
    fn used(&self, team: &TeamId) -> u64 {
        let reserved = self.reserved.get(team).copied().unwrap_or_default();
        self.commands.of_team(team) + self.code.of_team(team) + reserved
    }

    fn check_counts(&self, instance: &InstanceId, limits: &Limits) -> Result<()> {
        let of_instance = self.commands.of_instance(instance) + self.code.of_instance(instance);
        let said = "As many commands and as much code run in the instance as may.";
        check("max_execs_per_instance", limits.per_instance, of_instance, said)
    }

    fn insert(&mut self, session: &Arc<Session>) {
        let exec = &session.exec;
        if self.sessions.insert(exec.id.clone(), Arc::clone(session)).is_none() {
            self.commands.add(&exec.team_id, &exec.instance_id);
            metrics::gauge!("ags_gateway_execs_running").increment(1.0);
        }
    }

    /// Removes this very session, not another that follows the same command.
    fn remove(&mut self, session: &Arc<Session>) {
        let exec = &session.exec;
        if !self.sessions.get(&exec.id).is_some_and(|held| Arc::ptr_eq(held, session)) {
            return;
        }
        self.sessions.remove(&exec.id);
        self.commands.remove(&exec.team_id, &exec.instance_id);
        metrics::gauge!("ags_gateway_execs_running").decrement(1.0);
    }
}

/// What may run on this replica.
pub(super) struct Limits {
    pub(super) per_instance: u64,
    /// Bytes of output that are held for one team.
    pub(super) team_memory: u64,
}

fn check(name: &'static str, most: u64, used: u64, said: &str) -> Result<()> {
    if used < most {
        return Ok(());
    }
    let detail = format!("{said} Wait for some to end, or end them.");
    Err(Error::new(Code::QuotaExceeded, detail).with_limit(name, most, used))
}
