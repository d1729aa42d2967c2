//! Which instances are used: what passes through this replica is noted in memory and told to the database now and then.

use std::{
    collections::HashMap,
    sync::{
        Arc, Mutex, PoisonError,
        atomic::{AtomicU32, AtomicU64, Ordering},
    },
    time::Duration,
};

use tokio::time::Instant;

use super::App;
use crate::{error::Result, ids::InstanceId, storage::instances};

/// How often the database is told.
const TELL: Duration = Duration::from_secs(2);
/// By now every replica has told of what was used before: once, and once more should it have failed.
pub const SLACK: Duration = Duration::from_secs(5);

/// The use of instances through this replica. Clones share it.
#[derive(Clone)]
pub struct Activity(Arc<Inner>);

struct Inner {
    origin: Instant,
    meters: Mutex<HashMap<InstanceId, Arc<Meter>>>,
    /// One tells at a time: who has told knows that all is told.
    telling: tokio::sync::Mutex<()>,
}

/// The use of one instance.
pub struct Meter {
    origin: Instant,
    /// Requests and streams that are under way.
    open: AtomicU32,
    /// When it was last used, in milliseconds since the origin; zero: never.
    last: AtomicU64,
    told: AtomicU64,
}

/// A use that goes on until it is dropped.
pub struct Use {
    meter: Arc<Meter>,
    counts: bool,
}

impl Use {
    /// It was none: whoever it was may not use the instance.
    pub fn disregard(mut self) {
        self.counts = false;
    }
}

impl Drop for Use {
    fn drop(&mut self) {
        if self.counts {
            self.meter.touch();
        }
        self.meter.open.fetch_sub(1, Ordering::AcqRel);
    }
}

impl Meter {
    fn touch(&self) {
        self.last.fetch_max(self.now(), Ordering::AcqRel);
    }

    fn now(&self) -> u64 {
        u64::try_from(self.origin.elapsed().as_millis()).unwrap_or(u64::MAX).max(1)
    }

    #[must_use]
    pub fn enter(self: &Arc<Self>) -> Use {
        self.open.fetch_add(1, Ordering::AcqRel);
        Use { meter: Arc::clone(self), counts: true }
    }

    /// When it was last used, if that is later than what was told.
    fn untold(&self) -> Option<u64> {
        if self.open.load(Ordering::Acquire) > 0 {
            self.touch();
        }
        let last = self.last.load(Ordering::Acquire);
        (last > self.told.load(Ordering::Acquire)).then_some(last)
    }
}

/// A use that the database is to be told of.
struct Untold {
    id: InstanceId,
    meter: Arc<Meter>,
    last: u64,
}

impl Default for Activity {
    fn default() -> Self {
        Self(Arc::new(Inner {
            origin: Instant::now(),
            meters: Mutex::default(),
            telling: tokio::sync::Mutex::default(),
        }))
    }
}

impl Activity {
    /// The meter of an instance.
    #[must_use]
    pub fn of(&self, id: &InstanceId) -> Arc<Meter> {
        let mut meters = self.0.meters.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(meter) = meters.get(id) {
            return Arc::clone(meter);
        }
        let origin = self.0.origin;
        let meter = Arc::new(Meter {
            origin,
            open: AtomicU32::default(),
            last: AtomicU64::default(),
            told: AtomicU64::default(),
        });
        meters.insert(id.clone(), Arc::clone(&meter));
        meter
    }

    /// Notes that an instance is used, for as long as what is answered is kept.
    #[must_use]
    pub fn enter(&self, id: &InstanceId) -> Use {
        self.of(id).enter()
    }

    /// Notes that an instance was used just now.
    pub fn touch(&self, id: &InstanceId) {
        self.of(id).touch();
    }

    /// What is to be told. What nobody uses any more is forgotten once it was told.
    fn untold(&self) -> Vec<Untold> {
        let mut untold = Vec::new();
        self.0.meters.lock().unwrap_or_else(PoisonError::into_inner).retain(|id, meter| match meter.untold() {
            Some(last) => {
                untold.push(Untold { id: id.clone(), meter: Arc::clone(meter), last });
                true
            }
            None => Arc::strong_count(meter) > 1,
        });
        untold
    }
}

/// Tells the database which instances were used through this replica, until the process drains and once more then.
pub async fn keep(app: App) {
    let draining = app.lifecycle.draining();
    loop {
        let ends = draining.run_until_cancelled(tokio::time::sleep(TELL)).await.is_none();
        if let Err(error) = tell(&app).await {
            tracing::warn!(%error, "the use of instances could not be noted");
        }
        if ends {
            return;
        }
    }
}

/// Tells the database once.
///
/// # Errors
/// When the database fails; it is told next time then.
pub async fn tell(app: &App) -> Result<()> {
    let _telling = app.activity.0.telling.lock().await;
    let untold = app.activity.untold();
    if untold.is_empty() {
        return Ok(());
    }
    let now = u64::try_from(app.activity.0.origin.elapsed().as_millis()).unwrap_or(u64::MAX);
    let ids: Vec<String> = untold.iter().map(|used| used.id.to_string()).collect();
    // An age, not a time: the database's clock counts, whatever this replica's says.
    #[expect(clippy::cast_precision_loss, reason = "milliseconds of a process's life")]
    let ages: Vec<f64> = untold.iter().map(|used| now.saturating_sub(used.last) as f64 / 1000.0).collect();
    let mut connection = app.pool.acquire().await?;
    instances::system_used(&mut connection, &ids, &ages).await?;
    for used in untold {
        used.meter.told.fetch_max(used.last, Ordering::AcqRel);
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{clock, ids::Ids};

    #[tokio::test(start_paused = true)]
    async fn a_use_is_told_once_and_again_for_as_long_as_it_goes_on() {
        let activity = Activity::default();
        let id: InstanceId = Ids::new(Arc::new(clock::System)).next();
        let tell = || {
            let untold = activity.untold();
            untold.iter().for_each(|used| used.meter.told.store(used.last, Ordering::Release));
            untold.len()
        };
        tokio::time::advance(Duration::from_secs(1)).await;
        activity.touch(&id);
        assert_eq!((tell(), tell()), (1, 0));
        assert!(activity.0.meters.lock().unwrap().is_empty(), "what is not used is forgotten");
        let used = activity.enter(&id);
        for _ in 0..3 {
            tokio::time::advance(Duration::from_secs(1)).await;
            assert_eq!(tell(), 1);
        }
        drop(used);
        tokio::time::advance(Duration::from_secs(1)).await;
        assert_eq!(tell(), 0, "its end was told with it");
    }
}
