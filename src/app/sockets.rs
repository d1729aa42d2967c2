//! How many WebSockets are open here: of each team, and to each instance.

use std::sync::{Arc, Mutex, PoisonError};

use super::{App, activity::Use, holds::Hold, tally::Tally};
use crate::{
    auth::Caller,
    error::{Code, Error, Result},
    ids::{InstanceId, TeamId},
};

/// The sockets of this replica. Clones share them.
#[derive(Clone, Default)]
pub struct Sockets(Arc<Mutex<Tally>>);

/// A socket that is open, or about to be. Dropping it gives the place free.
pub struct Permit {
    sockets: Sockets,
    team: TeamId,
    instance: InstanceId,
    hold: Arc<Hold>,
    _used: Use,
}

impl Permit {
    /// Waits until the key that opened the socket has ended.
    pub async fn ended(&self) {
        self.hold.ended().cancelled().await;
    }
}

impl Sockets {
    /// A place for one more.
    ///
    /// # Errors
    /// `quota_exceeded`, naming the limit.
    pub fn open(&self, app: &App, caller: &Caller, instance: &InstanceId) -> Result<Permit> {
        let (limits, team) = (&app.config.exec, caller.team_id());
        let mut open = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        check("max_sockets_per_team", limits.max_sockets_per_team.into(), open.of_team(team))?;
        check("max_sockets_per_instance", limits.max_sockets_per_instance.into(), open.of_instance(instance))?;
        open.add(team, instance);
        metrics::gauge!("ags_gateway_websockets_open").increment(1.0);
        let hold = app.holders.hold_key(caller);
        let used = app.activity.enter(instance);
        Ok(Permit { sockets: self.clone(), team: team.clone(), instance: instance.clone(), hold, _used: used })
    }
}

fn check(name: &'static str, most: u64, used: u64) -> Result<()> {
    if used < most {
        return Ok(());
    }
    let detail = "As many WebSockets are open as may be. Close some, or wait.";
    Err(Error::new(Code::QuotaExceeded, detail).with_limit(name, most, used))
}

impl Drop for Permit {
    fn drop(&mut self) {
        self.sockets.0.lock().unwrap_or_else(PoisonError::into_inner).remove(&self.team, &self.instance);
        metrics::gauge!("ags_gateway_websockets_open").decrement(1.0);
    }
}
