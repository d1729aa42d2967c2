//! `Idempotency-Key`: a creating call that is repeated gets the first one's answer, and creates nothing.
//!
//! A key is reserved before the call runs and its lock is renewed while it does. What the call makes is noted with the key
//! in the transaction that writes the intent: when the process dies in between, the repeated call finds that instead of
//! making another.

use std::time::Duration;

use serde_json::Value;
use sha2::{Digest, Sha256};
use sqlx::PgConnection;

use super::{App, lease};
use crate::{
    error::{Code, Error, Result},
    ids::TeamId,
    storage::idempotency,
};

pub const MAX_KEY: usize = 255;

/// A caller's key, and the call it stands for.
#[derive(Clone, Debug)]
pub struct Key {
    pub text: String,
    pub fingerprint: [u8; 32],
}

impl Key {
    /// # Errors
    /// `invalid_request` for a key that is empty, too long or not of printable ASCII.
    pub fn new(text: &str, method: &str, path: &str, body: &[u8]) -> Result<Self> {
        let printable = text.bytes().all(|b| b.is_ascii_graphic() || b == b' ');
        if text.is_empty() || text.len() > MAX_KEY || !printable {
            let detail = format!("Idempotency-Key has 1 to {MAX_KEY} printable ASCII characters.");
            return Err(Error::new(Code::InvalidRequest, detail));
        }
        let mut hash = Sha256::new();
        for part in [method.as_bytes(), b"\n", path.as_bytes(), b"\n", body] {
            hash.update(part);
        }
        Ok(Self { text: text.to_owned(), fingerprint: hash.finalize().into() })
    }
}

/// The call that is running, for the transaction that writes its intent.
#[derive(Clone, Debug, Default)]
pub struct Intent(Option<(TeamId, String)>);

impl Intent {
    /// Notes what the call is about to make.
    ///
    /// # Errors
    /// When the database fails.
    pub async fn note(&self, connection: &mut PgConnection, resource: &str) -> sqlx::Result<()> {
        match &self.0 {
            Some((team, key)) => idempotency::note(connection, team, key, resource).await,
            None => Ok(()),
        }
    }
}

/// An answer as it is kept.
#[derive(Clone, Debug, PartialEq)]
pub struct Answer {
    pub status: u16,
    pub body: Value,
    /// Fields of the body that are not kept.
    pub shown_once: &'static [&'static str],
    /// When to come back. Answers that say so are not kept.
    pub retry_after: Option<Duration>,
}

impl Answer {
    /// What may differ next time is not kept.
    fn is_final(&self) -> bool {
        self.status < 500 && self.status != 429
    }

    /// The body without what is shown once.
    fn kept(&self) -> Value {
        let mut body = self.body.clone();
        for field in self.shown_once {
            if let Some(value) = body.get_mut(*field) {
                *value = Value::Null;
            }
        }
        body
    }
}

/// What a call with a key is.
#[derive(Clone, Debug)]
pub enum Turn {
    /// The first: run it.
    First(Intent),
    /// The first one died after it had written this intent: answer with that.
    Resume(String),
    /// A repetition: give this answer.
    Replay(Answer),
}

/// Finds out what a call with this key is, and reserves the key for it.
///
/// # Errors
/// `idempotency_key_reused` when the key stood for another call; `idempotency_in_progress` while the first one runs.
pub async fn begin(app: &App, team: &TeamId, key: &Key) -> Result<Turn> {
    let lock = app.upkeep.claim_seconds();
    let keep = app.config.jobs.idempotency_retention.as_secs_f64();
    let first = || Turn::First(Intent(Some((team.clone(), key.text.clone()))));
    let mut connection = app.pool.acquire().await?;
    if idempotency::reserve(&mut connection, team, &key.text, &key.fingerprint, lock, keep).await? {
        return Ok(first());
    }
    let Some(kept) = idempotency::find(&mut connection, team, &key.text).await? else {
        // Released by the first call at this moment.
        return Err(in_progress());
    };
    if kept.fingerprint != key.fingerprint {
        let detail = "This Idempotency-Key was used for another request. Use a new one for each request.";
        return Err(Error::new(Code::IdempotencyKeyReused, detail));
    }
    if let Some(status) = kept.status {
        let status = u16::try_from(status).map_err(Error::internal)?;
        return Ok(Turn::Replay(Answer {
            status,
            body: kept.body.unwrap_or_default(),
            shown_once: &[],
            retry_after: None,
        }));
    }
    match idempotency::take_over(&mut connection, team, &key.text, lock).await? {
        Some(Some(resource)) => Ok(Turn::Resume(resource)),
        Some(None) => Ok(first()),
        None => Err(in_progress()),
    }
}

fn in_progress() -> Error {
    Error::new(Code::IdempotencyInProgress, "The first request with this Idempotency-Key still runs. Try again.")
}

/// Runs a call that holds a key, and keeps its answer if that is final.
///
/// # Errors
/// When the database fails.
pub async fn hold(app: &App, team: &TeamId, key: &Key, call: impl Future<Output = Answer>) -> Result<Answer> {
    let answer = lease::beating(app.upkeep.claim, call, || renew(app, team, key)).await;
    let mut connection = app.pool.acquire().await?;
    if answer.is_final() {
        idempotency::keep(&mut connection, team, &key.text, answer.status, &answer.kept()).await?;
    } else {
        idempotency::release(&mut connection, team, &key.text).await?;
    }
    Ok(answer)
}

async fn renew(app: &App, team: &TeamId, key: &Key) -> sqlx::Result<()> {
    idempotency::renew(&mut *app.pool.acquire().await?, team, &key.text, app.upkeep.claim_seconds()).await
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_fingerprint_tells_calls_apart() {
        let key = |path: &str, body: &[u8]| Key::new("k", "POST", path, body).unwrap().fingerprint;
        assert_eq!(key("/a", b"{}"), key("/a", b"{}"));
        assert_ne!(key("/a", b"{}"), key("/b", b"{}"));
        assert_ne!(key("/a", b"{}"), key("/a", b"{ }"));
    }

    #[test]
    fn keys_are_bounded_and_printable() {
        for bad in ["", "a\tb", "é", &"x".repeat(256)] {
            assert_eq!(Key::new(bad, "POST", "/", b"").unwrap_err().code(), Code::InvalidRequest, "{bad:?}");
        }
        assert!(Key::new(&"x".repeat(255), "POST", "/", b"").is_ok());
    }

    #[test]
    fn what_may_pass_is_not_kept() {
        let kept = |status| Answer { status, body: Value::Null, shown_once: &[], retry_after: None }.is_final();
        assert!(kept(201) && kept(422) && kept(409));
        assert!(!kept(429) && !kept(500) && !kept(503));
    }

    #[test]
    fn what_is_shown_once_is_not_kept() {
        let body = serde_json::json!({"id": "key1", "secret": "agsk_…"});
        let answer = Answer { status: 201, body, shown_once: &["secret"], retry_after: None };
        assert_eq!(answer.kept(), serde_json::json!({"id": "key1", "secret": null}));
    }
}
