//! The runs that this replica drives.

use std::{
    collections::HashMap,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use tokio::sync::{Notify, watch};
use tokio_util::sync::CancellationToken;

use crate::{
    domain::{
        code::CodeEvent,
        run::{Run, RunStatus},
    },
    ids::RunId,
};

/// By id. Clones share them.
#[derive(Clone, Default)]
pub struct Runs(Arc<Mutex<HashMap<RunId, Arc<Live>>>>);

/// A run that is driven here.
pub struct Live {
    status: watch::Sender<RunStatus>,
    cancelled: CancellationToken,
    /// What its code does, for those who look on.
    pub code: CodeLog,
}

impl Runs {
    fn table(&self) -> MutexGuard<'_, HashMap<RunId, Arc<Live>>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// `memory`: bytes that are held of what its code prints and shows.
    pub(super) fn enter(&self, run: &Run, memory: usize) -> Arc<Live> {
        let live = Arc::new(Live {
            status: watch::Sender::new(run.status),
            cancelled: CancellationToken::new(),
            code: CodeLog::new(memory),
        });
        self.table().insert(run.id.clone(), Arc::clone(&live));
        live
    }

    /// Removes this very one, not another that drives the same run.
    pub(super) fn leave(&self, id: &RunId, live: &Arc<Live>) {
        let mut table = self.table();
        if table.get(id).is_some_and(|held| Arc::ptr_eq(held, live)) {
            table.remove(id);
        }
        drop(table);
        live.code.end();
    }

    #[must_use]
    pub fn get(&self, id: &RunId) -> Option<Arc<Live>> {
        self.table().get(id).cloned()
    }
}

impl Live {
    pub(super) fn moved(&self, status: RunStatus) {
        self.status.send_replace(status);
    }

    /// Waits until it is in another state, or is not driven here any more, `patience` at most.
    pub(super) async fn changed_from(&self, status: RunStatus, patience: Duration) {
        let mut seen = self.status.subscribe();
        // Either is as good to whoever looks again.
        drop(tokio::time::timeout(patience, seen.wait_for(|now| *now != status)).await);
    }

    pub(super) fn cancel(&self) {
        self.cancelled.cancel();
    }

    pub(super) fn cancelled(&self) -> &CancellationToken {
        &self.cancelled
    }

    pub(super) fn status(&self) -> watch::Receiver<RunStatus> {
        self.status.subscribe()
    }
}

/// The events of code so far, for those who look on. What is beyond its memory is not held.
pub struct CodeLog {
    held: Mutex<Held>,
    added: Notify,
}

struct Held {
    events: Vec<CodeEvent>,
    room: usize,
    ended: bool,
}

impl CodeLog {
    fn new(memory: usize) -> Self {
        Self { held: Mutex::new(Held { events: Vec::new(), room: memory, ended: false }), added: Notify::new() }
    }

    fn held(&self) -> MutexGuard<'_, Held> {
        self.held.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(super) fn push(&self, event: &CodeEvent) {
        let mut held = self.held();
        if let Some(room) = held.room.checked_sub(weight(event)) {
            held.room = room;
            held.events.push(event.clone());
        }
        drop(held);
        self.added.notify_waiters();
    }

    fn end(&self) {
        self.held().ended = true;
        self.added.notify_waiters();
    }

    /// Waits for the event of that number, counted from 0; `None` when there will be none.
    pub async fn event(&self, number: usize) -> Option<CodeEvent> {
        loop {
            let added = self.added.notified();
            {
                let held = self.held();
                if let Some(event) = held.events.get(number) {
                    return Some(event.clone());
                }
                if held.ended {
                    return None;
                }
            }
            added.await;
        }
    }
}

/// Bytes that an event is held with. The last ones are always held.
fn weight(event: &CodeEvent) -> usize {
    match event {
        CodeEvent::Stdout(text) | CodeEvent::Stderr(text) => text.len() + size_of::<CodeEvent>(),
        CodeEvent::Result(shown) => serde_json::to_vec(&shown.formats).map_or(0, |json| json.len()),
        CodeEvent::Started { .. } | CodeEvent::Error(_) | CodeEvent::Exit(_) => 0,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn events_are_held_up_to_the_memory_and_told_to_whoever_comes() {
        let log = CodeLog::new(size_of::<CodeEvent>() + 3);
        log.push(&CodeEvent::Started { execution_count: 1 });
        log.push(&CodeEvent::Stdout("abc".into()));
        log.push(&CodeEvent::Stdout("d".into()));
        assert_eq!(log.event(0).await, Some(CodeEvent::Started { execution_count: 1 }));
        assert_eq!(log.event(1).await, Some(CodeEvent::Stdout("abc".into())));
        let (next, ()) = tokio::join!(log.event(2), async { log.end() });
        assert_eq!(next, None);
    }
}
