//! The commands that this replica follows, and those it followed until a short while ago.

use std::{
    collections::HashMap,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use moka::future::Cache;

use super::session::Session;
use crate::{
    error::{Code, Error, Result},
    ids::{ExecId, TeamId},
};

/// How long, and how many bytes of, the output of ended commands is kept for those who come back.
const KEPT_FOR: Duration = Duration::from_secs(600);
const KEPT_BYTES: u64 = 64 << 20;
/// What a session weighs besides its output.
const OVERHEAD: usize = 2048;

/// The sessions of this replica. Clones share them.
#[derive(Clone)]
pub struct Execs {
    live: Arc<Mutex<Live>>,
    ended: Cache<ExecId, Arc<Session>>,
    replica: Arc<str>,
}

#[derive(Default)]
struct Live {
    sessions: HashMap<ExecId, Arc<Session>>,
    per_team: HashMap<TeamId, u64>,
}

impl Execs {
    /// `replica`: what this process is called in the rows of the commands that it follows; unique to its run.
    #[must_use]
    pub fn new(replica: &str) -> Self {
        let weight =
            |_: &ExecId, session: &Arc<Session>| u32::try_from(session.log.held() + OVERHEAD).unwrap_or(u32::MAX);
        let ended = Cache::builder().max_capacity(KEPT_BYTES).weigher(weight).time_to_live(KEPT_FOR).build();
        Self { live: Arc::default(), ended, replica: replica.into() }
    }

    pub(super) fn replica(&self) -> &str {
        &self.replica
    }

    fn live(&self) -> MutexGuard<'_, Live> {
        self.live.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Takes a session in, if its team may run one more. `elsewhere`: how many run by what the database says.
    pub(super) fn admit(&self, session: &Arc<Session>, max: u32, counted: u64) -> Result<()> {
        let mut live = self.live();
        let own = live.per_team.entry(session.team.clone()).or_default();
        let used = counted.max(*own);
        if used >= u64::from(max) {
            let detail = "Your team runs as many commands as it may. Wait for some to end, or end them.";
            return Err(Error::new(Code::QuotaExceeded, detail).with_limit("max_execs", u64::from(max), used));
        }
        *own += 1;
        live.sessions.insert(session.id.clone(), Arc::clone(session));
        metrics::gauge!("ags_gateway_execs_running").increment(1.0);
        Ok(())
    }

    /// A command ended, or never ran. `keep`: its output is kept for a while, for those who come back.
    pub(super) async fn retire(&self, session: &Arc<Session>, keep: bool) {
        if keep {
            self.ended.insert(session.id.clone(), Arc::clone(session)).await;
        }
        let mut live = self.live();
        if live.sessions.remove(&session.id).is_none() {
            return;
        }
        metrics::gauge!("ags_gateway_execs_running").decrement(1.0);
        if let Some(count) = live.per_team.get_mut(&session.team) {
            *count -= 1;
            if *count == 0 {
                live.per_team.remove(&session.team);
            }
        }
    }

    /// The session of a command, live or lately ended, whoever's it is.
    pub(super) async fn get(&self, id: &ExecId) -> Option<Arc<Session>> {
        let live = self.live().sessions.get(id).cloned();
        match live {
            Some(session) => Some(session),
            None => self.ended.get(id).await,
        }
    }

    pub(super) fn live_ids(&self) -> Vec<String> {
        self.live().sessions.keys().map(ToString::to_string).collect()
    }

    /// How many commands are followed here.
    #[must_use]
    pub fn running(&self) -> usize {
        self.live().sessions.len()
    }
}
