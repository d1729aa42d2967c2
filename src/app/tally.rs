//! How many there are of something: of each team, and in each instance.

use std::{collections::HashMap, hash::Hash};

use crate::ids::{InstanceId, TeamId};

/// Counts per team and per instance. What is down to nothing is forgotten.
#[derive(Default)]
pub(super) struct Tally {
    teams: HashMap<TeamId, u64>,
    instances: HashMap<InstanceId, u64>,
}

impl Tally {
    pub(super) fn of_team(&self, team: &TeamId) -> u64 {
        self.teams.get(team).copied().unwrap_or_default()
    }

    /// The teams that there are some of.
    pub(super) fn teams(&self) -> impl Iterator<Item = &TeamId> {
        self.teams.keys()
    }

    pub(super) fn of_instance(&self, instance: &InstanceId) -> u64 {
        self.instances.get(instance).copied().unwrap_or_default()
    }

    /// One more.
    pub(super) fn add(&mut self, team: &TeamId, instance: &InstanceId) {
        *self.teams.entry(team.clone()).or_default() += 1;
        *self.instances.entry(instance.clone()).or_default() += 1;
    }

    /// One less of those that were added.
    pub(super) fn remove(&mut self, team: &TeamId, instance: &InstanceId) {
        count_down(&mut self.teams, team);
        count_down(&mut self.instances, instance);
    }
}

fn count_down<K: Eq + Hash>(counts: &mut HashMap<K, u64>, key: &K) {
    if let Some(count) = counts.get_mut(key) {
        *count -= 1;
        if *count == 0 {
            counts.remove(key);
        }
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use super::*;
    use crate::{clock, ids::Ids};

    #[test]
    fn counts_are_apart_and_nothing_is_kept_of_what_is_gone() {
        let ids = Ids::new(Arc::new(clock::System));
        let (team, one, two): (TeamId, InstanceId, InstanceId) = (ids.next(), ids.next(), ids.next());
        let mut tally = Tally::default();
        tally.add(&team, &one);
        tally.add(&team, &two);
        assert_eq!((tally.of_team(&team), tally.of_instance(&one), tally.of_instance(&two)), (2, 1, 1));
        tally.remove(&team, &one);
        assert_eq!((tally.of_team(&team), tally.of_instance(&one)), (1, 0));
        tally.remove(&team, &two);
        assert!(tally.teams.is_empty() && tally.instances.is_empty());
    }
}
