//! How many requests and tunnels may be under way at once, per team and per instance, on this replica.

use std::{
    collections::HashMap,
    hash::Hash,
    sync::{
        Arc, Mutex, PoisonError, Weak,
        atomic::{AtomicU32, Ordering},
    },
};

use crate::{
    app::activity::{Activity, Meter, Use},
    config,
    error::{Code, Error, Result},
    ids::{InstanceId, TeamId},
};

const PER_INSTANCE: &str = "ports.max_streams_per_instance";
const PER_TEAM: &str = "ports.max_streams_per_team";

struct Gauge {
    name: &'static str,
    limit: u32,
    used: AtomicU32,
}

impl Gauge {
    fn take(self: &Arc<Self>) -> Result<Taken> {
        let used = self.used.fetch_add(1, Ordering::Relaxed);
        let taken = Taken(Arc::clone(self));
        if used < self.limit {
            return Ok(taken);
        }
        let detail = format!(
            "{used} requests and tunnels to ports are open; {} may be ({}). End some first.",
            self.limit, self.name
        );
        Err(Error::new(Code::QuotaExceeded, detail).with_limit(self.name, u64::from(self.limit), u64::from(used)))
    }
}

struct Taken(Arc<Gauge>);

impl Drop for Taken {
    fn drop(&mut self) {
        self.0.used.fetch_sub(1, Ordering::Relaxed);
    }
}

/// A place among the streams of an instance and of its team, and use of the instance; free again when the last clone is
/// dropped.
#[derive(Clone)]
pub struct Permit {
    _taken: Arc<(Taken, Taken, Use)>,
}

/// The gauges of one instance and its team.
pub(super) struct Gauges {
    instance: Arc<Gauge>,
    team: Arc<Gauge>,
    meter: Arc<Meter>,
}

impl Gauges {
    /// # Errors
    /// `quota_exceeded` with the limit's name.
    pub(super) fn permit(&self) -> Result<Permit> {
        Ok(Permit { _taken: Arc::new((self.instance.take()?, self.team.take()?, self.meter.enter())) })
    }
}

/// All gauges that somebody uses.
#[derive(Clone)]
pub(super) struct Limits {
    per_instance: u32,
    per_team: u32,
    instances: Arc<Shelf<InstanceId>>,
    teams: Arc<Shelf<TeamId>>,
}

impl Limits {
    pub(super) fn new(config: &config::Ports) -> Self {
        Self {
            per_instance: config.max_streams_per_instance,
            per_team: config.max_streams_per_team,
            instances: Arc::default(),
            teams: Arc::default(),
        }
    }

    pub(super) fn of(&self, team: &TeamId, instance: &InstanceId, activity: &Activity) -> Gauges {
        Gauges {
            meter: activity.of(instance),
            instance: self.instances.get(instance, PER_INSTANCE, self.per_instance),
            team: self.teams.get(team, PER_TEAM, self.per_team),
        }
    }
}

struct Shelf<K>(Mutex<HashMap<K, Weak<Gauge>>>);

impl<K> Default for Shelf<K> {
    fn default() -> Self {
        Self(Mutex::default())
    }
}

impl<K: Clone + Eq + Hash> Shelf<K> {
    fn get(&self, key: &K, name: &'static str, limit: u32) -> Arc<Gauge> {
        let mut gauges = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(gauge) = gauges.get(key).and_then(Weak::upgrade) {
            return gauge;
        }
        if gauges.len() == gauges.capacity() {
            gauges.retain(|_, gauge| gauge.strong_count() > 0);
        }
        let gauge = Arc::new(Gauge { name, limit, used: AtomicU32::new(0) });
        gauges.insert(key.clone(), Arc::downgrade(&gauge));
        gauge
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{clock, ids::Ids};

    #[test]
    fn a_place_is_free_again_when_it_is_let_go_and_a_refusal_takes_none() {
        let ids = Ids::new(Arc::new(clock::System));
        let limits = Limits { per_instance: 2, per_team: 3, instances: Arc::default(), teams: Arc::default() };
        let (team, one, two): (TeamId, InstanceId, InstanceId) = (ids.next(), ids.next(), ids.next());
        let activity = Activity::default();
        let (one, two) = (limits.of(&team, &one, &activity), limits.of(&team, &two, &activity));
        let first = one.permit().unwrap();
        let _second = one.permit().unwrap();
        let named = |refused: Result<Permit>| refused.map(|_| ()).unwrap_err().into_inner().limit.unwrap();
        for _ in 0..2 {
            assert_eq!((named(one.permit()).name, named(one.permit()).used), (PER_INSTANCE.to_owned(), 2));
        }
        let _third = two.permit().unwrap();
        assert_eq!(named(two.permit()).name, PER_TEAM);
        drop(first.clone());
        assert!(one.permit().is_err(), "a clone still holds it");
        drop(first);
        assert!(one.permit().is_ok());
    }
}
