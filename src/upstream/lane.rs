//! Calls that nobody waits for keep out of the way of those that somebody does: they share an account's rate limit.

tokio::task_local! {
    static BACKGROUND: ();
}

/// `work`, whose calls of the cloud leave callers' calls the way. Tasks that it starts are not part of it.
pub fn in_background<F: Future>(work: F) -> impl Future<Output = F::Output> {
    BACKGROUND.scope((), work)
}

pub(super) fn is_background() -> bool {
    BACKGROUND.try_with(|()| ()).is_ok()
}
