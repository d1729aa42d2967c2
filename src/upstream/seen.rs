//! Request ids of the cloud, for the history of the request that the calls were made for.

use std::sync::{Arc, Mutex, PoisonError};

use ags_client::{Action, AgsError, Repeat, Reply};

tokio::task_local! {
    static SEEN: Seen;
}

/// The cloud's id of the last call that changes something. Clones share it.
#[derive(Clone, Debug, Default)]
pub struct Seen(Arc<Mutex<Option<String>>>);

impl Seen {
    #[must_use]
    pub fn request_id(&self) -> Option<String> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// `work`, whose calls are noted here.
    pub fn noting<F: Future>(&self, work: F) -> impl Future<Output = F::Output> + use<F> {
        SEEN.scope(self.clone(), work)
    }
}

/// The cloud's id of the last call that changed something, where calls are noted.
#[must_use]
pub fn last_request_id() -> Option<String> {
    SEEN.try_with(Seen::request_id).ok().flatten()
}

/// `work` as a task of its own: its calls are noted with those of the present one.
pub fn carried<F: Future>(work: F) -> impl Future<Output = F::Output> {
    SEEN.scope(SEEN.try_with(Seen::clone).unwrap_or_default(), work)
}

/// Notes the id of a call, successful or not, that was not a mere look.
pub(super) fn note<A: Action, T>(outcome: &Result<Reply<T>, AgsError>) {
    if A::REPEAT == Repeat::Read {
        return;
    }
    let id = match outcome {
        Ok(reply) => reply.request_id.as_deref(),
        Err(error) => error.request_id(),
    };
    if let Some(id) = id {
        // Jobs' calls are nobody's.
        let _nobody = SEEN.try_with(|seen| {
            *seen.0.lock().unwrap_or_else(PoisonError::into_inner) = Some(id.to_owned());
        });
    }
}
