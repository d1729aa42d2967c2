//! `ClientToken` (PROTOCOLS B.11) in the three readings that a client has to survive.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard};

use chrono::{DateTime, TimeDelta, Utc};
use serde_json::Value;

use super::error::{ApiError, ApiResult};
use crate::settings::ClientTokenMode;

const KEPT_FOR: TimeDelta = TimeDelta::hours(24);

type Key = (String, String);

enum Progress {
    Running,
    Done(Value),
}

struct Entry {
    params: Value,
    since: DateTime<Utc>,
    progress: Progress,
}

/// The tokens seen so far.
#[derive(Clone, Default)]
pub struct Tokens {
    entries: Arc<Mutex<HashMap<Key, Entry>>>,
}

/// What to do with a call that carries a token.
pub enum Admission {
    /// Do it, and tell the ticket how it went.
    Run(Ticket),
    /// Answer this instead.
    Replay(Value),
}

/// The right to run a call. Dropped without [`Ticket::done`], the token may be used again.
pub struct Ticket {
    tokens: Tokens,
    key: Option<Key>,
}

impl Tokens {
    fn lock(&self) -> MutexGuard<'_, HashMap<Key, Entry>> {
        self.entries.lock().unwrap_or_else(|poisoned| poisoned.into_inner())
    }

    /// Judges a call of `action` with these parameters.
    ///
    /// # Errors
    /// `FailedOperation.RequestInProgress` while the first call runs, `FailedOperation.DuplicateRequest`
    /// as `mode` says.
    pub fn admit(
        &self,
        mode: ClientTokenMode,
        action: &str,
        token: &str,
        params: Value,
        now: DateTime<Utc>,
    ) -> ApiResult<Admission> {
        let key = (action.to_owned(), token.to_owned());
        let mut entries = self.lock();
        entries.retain(|_, entry| now - entry.since < KEPT_FOR);
        if let Some(entry) = entries.get(&key) {
            match (&entry.progress, mode) {
                (Progress::Running, _) => return Err(in_progress()),
                (Progress::Done(_), ClientTokenMode::Forgotten) => {}
                (Progress::Done(answer), ClientTokenMode::Replay) if entry.params == params => {
                    return Ok(Admission::Replay(answer.clone()));
                }
                (Progress::Done(_), _) => return Err(duplicate()),
            }
        }
        entries.insert(key.clone(), Entry { params, since: now, progress: Progress::Running });
        Ok(Admission::Run(Ticket { tokens: self.clone(), key: Some(key) }))
    }
}

impl Ticket {
    /// Keeps the answer for those who ask again.
    pub fn done(mut self, answer: Value) {
        if let Some(key) = self.key.take()
            && let Some(entry) = self.tokens.lock().get_mut(&key)
        {
            entry.progress = Progress::Done(answer);
        }
    }
}

impl Drop for Ticket {
    fn drop(&mut self) {
        if let Some(key) = self.key.take() {
            self.tokens.lock().remove(&key);
        }
    }
}

fn in_progress() -> ApiError {
    let message = "A request with this ClientToken is still being processed.";
    ApiError::new("FailedOperation.RequestInProgress", message)
}

fn duplicate() -> ApiError {
    let message = "A request with this ClientToken was processed before.";
    ApiError::new("FailedOperation.DuplicateRequest", message)
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn admit(tokens: &Tokens, mode: ClientTokenMode, params: Value) -> ApiResult<Admission> {
        tokens.admit(mode, "StartSandboxInstance", "t1", params, DateTime::UNIX_EPOCH)
    }

    fn run(tokens: &Tokens, mode: ClientTokenMode, params: Value) -> Ticket {
        match admit(tokens, mode, params) {
            Ok(Admission::Run(ticket)) => ticket,
            _ => panic!("the call should have run"),
        }
    }

    fn code(outcome: ApiResult<Admission>) -> String {
        outcome.err().expect("an error").code.into_owned()
    }

    #[test]
    fn replays_the_same_and_refuses_the_different() {
        let tokens = Tokens::default();
        let mode = ClientTokenMode::Replay;
        let ticket = run(&tokens, mode, json!({"a": 1}));
        assert_eq!(code(admit(&tokens, mode, json!({"a": 1}))), "FailedOperation.RequestInProgress");
        ticket.done(json!("answer"));
        assert!(matches!(admit(&tokens, mode, json!({"a": 1})), Ok(Admission::Replay(v)) if v == "answer"));
        assert_eq!(code(admit(&tokens, mode, json!({"a": 2}))), "FailedOperation.DuplicateRequest");
    }

    #[test]
    fn duplicate_mode_never_replays() {
        let tokens = Tokens::default();
        run(&tokens, ClientTokenMode::Replay, json!({})).done(json!(1));
        let again = admit(&tokens, ClientTokenMode::DuplicateRequest, json!({}));
        assert_eq!(code(again), "FailedOperation.DuplicateRequest");
    }

    #[test]
    fn forgotten_mode_runs_again() {
        let tokens = Tokens::default();
        run(&tokens, ClientTokenMode::Replay, json!({})).done(json!(1));
        run(&tokens, ClientTokenMode::Forgotten, json!({})).done(json!(2));
        assert!(matches!(admit(&tokens, ClientTokenMode::Replay, json!({})), Ok(Admission::Replay(v)) if v == 2));
    }

    #[test]
    fn a_failed_call_frees_its_token() {
        let tokens = Tokens::default();
        drop(run(&tokens, ClientTokenMode::Replay, json!({})));
        run(&tokens, ClientTokenMode::Replay, json!({"other": true})).done(json!(1));
    }

    #[test]
    fn tokens_are_forgotten_after_a_day() {
        let tokens = Tokens::default();
        run(&tokens, ClientTokenMode::Replay, json!({})).done(json!(1));
        let later = DateTime::UNIX_EPOCH + TimeDelta::hours(25);
        let outcome = tokens.admit(ClientTokenMode::Replay, "StartSandboxInstance", "t1", json!({"b": 1}), later);
        assert!(matches!(outcome, Ok(Admission::Run(_))));
    }
}
