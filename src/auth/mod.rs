//! From a credential to a caller.

mod caller;
mod tickets;

use std::{sync::Arc, time::Duration};

use http::{HeaderMap, header};
use moka::future::Cache;
use sqlx::PgPool;

pub use self::{
    caller::Caller,
    tickets::{Redeemed, Ticket, TicketGrant, Tickets},
};
use crate::{
    domain::credential::{Digest, Peppers, PresentedKey},
    error::{Code, Error, Result},
    storage::keys,
};

/// How long a looked-up credential is believed. A revocation reaches every replica within this time.
const BELIEF: Duration = Duration::from_millis(900);
const CACHED_CREDENTIALS: u64 = 10_000;

pub const API_KEY_HEADER: &str = "x-api-key";

/// Turns credentials into callers.
#[derive(Clone)]
pub struct Authenticator {
    pool: PgPool,
    peppers: Arc<Peppers>,
    cache: Cache<Digest, Arc<Caller>>,
}

impl Authenticator {
    #[must_use]
    pub fn new(pool: PgPool, peppers: Arc<Peppers>) -> Self {
        let cache = Cache::builder().max_capacity(CACHED_CREDENTIALS).time_to_live(BELIEF).build();
        Self { pool, peppers, cache }
    }

    /// The caller behind a request's `Authorization: Bearer` or `X-API-Key`.
    ///
    /// # Errors
    /// `unauthenticated` when there is none, or it is unknown, expired or revoked.
    pub async fn authenticate(&self, headers: &HeaderMap) -> Result<Arc<Caller>> {
        let key = presented(headers)?;
        let digest = self.peppers.digest(&key);
        self.cache.try_get_with(digest, self.look_up(&key, digest)).await.map_err(|error: Arc<Error>| copy(&error))
    }

    async fn look_up(&self, key: &PresentedKey, current: Digest) -> Result<Arc<Caller>> {
        let mut connection = self.pool.acquire().await?;
        let found = keys::authenticate(&mut connection, &self.peppers.candidates(key)).await?;
        let found = found.ok_or_else(|| unauthenticated("The key is unknown, expired or revoked."))?;
        if let Ok(stored) = Digest::try_from(found.digest.as_slice())
            && stored != current
        {
            keys::replace_digest(&mut connection, &stored, &current).await?;
        }
        keys::touch(&mut connection, &found.key.id).await?;
        Ok(Arc::new(Caller::of_key(found.key, found.team)))
    }

    /// Forgets what was believed: called on this replica after a revocation or a change of a team.
    pub fn forget_all(&self) {
        self.cache.invalidate_all();
    }
}

fn presented(headers: &HeaderMap) -> Result<PresentedKey> {
    let bearer = headers.get(header::AUTHORIZATION).map(|value| {
        let text = value.to_str().unwrap_or_default();
        let (scheme, rest) = text.split_once(' ').unwrap_or((text, ""));
        if scheme.eq_ignore_ascii_case("bearer") { rest.trim() } else { "" }
    });
    let text = match (bearer, headers.get(API_KEY_HEADER)) {
        (Some(text), _) if !text.is_empty() => text,
        (_, Some(value)) => value.to_str().unwrap_or_default().trim(),
        (Some(_), None) => return Err(unauthenticated("The Authorization header is not of the form `Bearer agsk_…`.")),
        (None, None) => {
            return Err(unauthenticated("Send `Authorization: Bearer agsk_…` or `X-API-Key: agsk_…`."));
        }
    };
    PresentedKey::parse(text).ok_or_else(|| unauthenticated("The key is not of the form `agsk_` and 64 hex digits."))
}

pub(crate) fn unauthenticated(detail: &str) -> Error {
    Error::new(Code::Unauthenticated, detail)
}

/// Several callers share one failed look-up; each gets its own copy of what a caller may read.
fn copy(error: &Error) -> Error {
    Error::new(error.code(), error.detail()).retryable(error.inner().retryable)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn headers(pairs: &[(&'static str, &str)]) -> HeaderMap {
        pairs.iter().map(|(name, value)| (http::HeaderName::from_static(name), value.parse().unwrap())).collect()
    }

    #[test]
    fn either_header_carries_the_key() {
        let key = format!("agsk_{}", "0f".repeat(32));
        assert!(presented(&headers(&[("authorization", &format!("Bearer {key}"))])).is_ok());
        assert!(presented(&headers(&[("authorization", &format!("bearer {key}"))])).is_ok());
        assert!(presented(&headers(&[("x-api-key", &key)])).is_ok());
        // A Basic header meant for the sandbox does not hide the key.
        assert!(presented(&headers(&[("authorization", "Basic cm9vdDo="), ("x-api-key", &key)])).is_ok());
    }

    #[test]
    fn what_is_wrong_is_said() {
        for bad in [headers(&[]), headers(&[("authorization", "Bearer")]), headers(&[("x-api-key", "agsk_12")])] {
            assert_eq!(presented(&bad).map(|_| ()).unwrap_err().code(), Code::Unauthenticated);
        }
    }
}
