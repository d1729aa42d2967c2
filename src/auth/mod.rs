//! From a credential to a caller.

mod caller;
mod grants;
mod passes;
mod signers;
mod tickets;
mod trail;

use std::{
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    time::Duration,
};

use http::{HeaderMap, HeaderName, header};
use moka::future::Cache;
use sqlx::PgPool;
use tokio::time::Instant;

pub use self::{
    caller::Caller,
    grants::Grants,
    passes::{Pass, Passes, presents_access, presents_pass, remove_passes},
    signers::{Signer, Signers},
    tickets::{Redeemed, Ticket, TicketGrant, Tickets},
    trail::{Start, Trail},
};
use crate::{
    domain::credential::{Digest, Peppers, PresentedKey},
    error::{Code, Error, Result},
    storage::keys,
};

/// How long a looked-up credential is believed. A revocation reaches every replica within this time.
const BELIEF: Duration = Duration::from_millis(900);
const CACHED_CREDENTIALS: u64 = 10_000;

/// In `Authorization`, of a request that one replica makes at another.
pub const REPLICA_SCHEME: &str = "Replica ";
pub const API_KEY_HEADER: &str = "x-api-key";

/// A caller who was looked up.
#[derive(Clone)]
struct Believed {
    caller: Arc<Caller>,
    until: Instant,
}

/// Whose a credential is.
pub struct Recognised {
    pub caller: Arc<Caller>,
    /// That the credential stood in.
    pub header: HeaderName,
    /// How long that is believed without asking again, unless it is [forgotten](Authenticator::forgotten) before.
    pub believed_until: Instant,
}

/// Turns credentials into callers.
#[derive(Clone)]
pub struct Authenticator {
    pool: PgPool,
    peppers: Arc<Peppers>,
    grants: Grants,
    cache: Cache<Digest, Believed>,
    /// How often all was forgotten.
    forgotten: Arc<AtomicU64>,
    /// Tokens to single instances.
    pub passes: Passes,
}

impl Authenticator {
    #[must_use]
    pub fn new(pool: PgPool, peppers: Arc<Peppers>, grants: Grants) -> Self {
        let cache = Cache::builder().max_capacity(CACHED_CREDENTIALS).time_to_live(BELIEF).build();
        let passes = Passes::new(pool.clone(), Arc::clone(&peppers));
        Self { pool, peppers, grants, cache, forgotten: Arc::default(), passes }
    }

    /// The caller behind a request's `Authorization: Bearer` or `X-API-Key`; or whom another replica acts for.
    ///
    /// # Errors
    /// `unauthenticated` when there is none, or it is unknown, expired or revoked.
    pub async fn authenticate(&self, headers: &HeaderMap) -> Result<Arc<Caller>> {
        self.recognise(headers).await.map(|recognised| recognised.caller)
    }

    /// As [`authenticate`](Self::authenticate), with what else is known of the credential.
    ///
    /// # Errors
    /// `unauthenticated`.
    pub async fn recognise(&self, headers: &HeaderMap) -> Result<Recognised> {
        if let Some(grant) = replica_grant(headers) {
            // Boxed, like what is looked up below: what is rare does not make what is moved for each request larger.
            let caller = Arc::new(Box::pin(self.grants.redeem_replica(grant)).await?);
            return Ok(Recognised { caller, header: header::AUTHORIZATION, believed_until: Instant::now() });
        }
        let (key, header) = presented(headers)?;
        let digest = self.peppers.digest(&key);
        let believed = self.cache.get(&digest).await.filter(|believed| believed.until > Instant::now());
        let Believed { caller, until } = match believed {
            Some(believed) => believed,
            None => Box::pin(self.look_up_once(&key, digest)).await?,
        };
        Ok(Recognised { caller, header, believed_until: until })
    }

    /// Looks a key up, for all who ask at the moment.
    async fn look_up_once(&self, key: &PresentedKey, digest: Digest) -> Result<Believed> {
        // The cache counts from when it is told; what was looked up slowly may be over before.
        self.cache.invalidate(&digest).await;
        self.cache.try_get_with(digest, self.look_up(key, digest)).await.map_err(|error: Arc<Error>| error.copy())
    }

    async fn look_up(&self, key: &PresentedKey, current: Digest) -> Result<Believed> {
        let until = Instant::now() + BELIEF;
        let mut connection = self.pool.acquire().await?;
        let found = keys::authenticate(&mut connection, &self.peppers.candidates(key)).await?;
        let found = found.ok_or_else(|| unauthenticated("The key is unknown, expired or revoked."))?;
        if let Ok(stored) = Digest::try_from(found.digest.as_slice())
            && stored != current
        {
            keys::replace_digest(&mut connection, &stored, &current).await?;
        }
        keys::touch(&mut connection, &found.key.id).await?;
        Ok(Believed { caller: Arc::new(Caller::of_key(found.key, found.team)), until })
    }

    /// Forgets what was believed: called on this replica after a revocation or a change of a team.
    pub fn forget_all(&self) {
        self.cache.invalidate_all();
        self.passes.forget_all();
        // Afterwards: who counted before may have found what is not there any more.
        self.forgotten.fetch_add(1, Ordering::AcqRel);
    }

    /// How often all was forgotten: what was recognised before the last time counts no more.
    #[must_use]
    pub fn forgotten(&self) -> u64 {
        self.forgotten.load(Ordering::Acquire)
    }
}

fn replica_grant(headers: &HeaderMap) -> Option<&str> {
    headers.get(header::AUTHORIZATION)?.to_str().ok()?.strip_prefix(REPLICA_SCHEME)
}

/// Whether one of the headers holds something of a key's form.
#[must_use]
pub fn presents_key(headers: &HeaderMap) -> bool {
    presented(headers).is_ok()
}

/// The key, and the header that it stands in. The other header is somebody else's: on its way to a sandbox it is kept.
fn presented(headers: &HeaderMap) -> Result<(PresentedKey, HeaderName)> {
    let bearer = headers.get(header::AUTHORIZATION).map(|value| {
        let text = value.to_str().unwrap_or_default();
        let (scheme, rest) = text.split_once(' ').unwrap_or((text, ""));
        if scheme.eq_ignore_ascii_case("bearer") { rest.trim() } else { "" }
    });
    let own = headers.get(API_KEY_HEADER).map(|value| value.to_str().unwrap_or_default().trim());
    if let Some(key) = bearer.and_then(PresentedKey::parse) {
        return Ok((key, header::AUTHORIZATION));
    }
    if let Some(key) = own.and_then(PresentedKey::parse) {
        return Ok((key, HeaderName::from_static(API_KEY_HEADER)));
    }
    Err(unauthenticated(match (bearer, own) {
        (None, None) => "Send `Authorization: Bearer agsk_…` or `X-API-Key: agsk_…`.",
        (Some(""), None) => "The Authorization header is not of the form `Bearer agsk_…`.",
        _ => "The key is not of the form `agsk_` and 64 hex digits.",
    }))
}

pub(crate) fn unauthenticated(detail: &str) -> Error {
    Error::new(Code::Unauthenticated, detail)
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
    }

    #[test]
    fn a_header_that_is_meant_for_the_sandbox_does_not_hide_the_key() {
        let key = format!("agsk_{}", "0f".repeat(32));
        let bearer = format!("Bearer {key}");
        for (pairs, header) in [
            ([("authorization", "Basic cm9vdDo="), ("x-api-key", key.as_str())], "x-api-key"),
            ([("authorization", "Bearer eyJhbGciOi"), ("x-api-key", &key)], "x-api-key"),
            ([("authorization", &bearer), ("x-api-key", "sk-of-another-service")], "authorization"),
            ([("authorization", &bearer), ("x-api-key", &key)], "authorization"),
        ] {
            assert_eq!(presented(&headers(&pairs)).map(|(_, name)| name).unwrap().as_str(), header);
        }
    }

    #[test]
    fn what_is_wrong_is_said() {
        for bad in [headers(&[]), headers(&[("authorization", "Bearer")]), headers(&[("x-api-key", "agsk_12")])] {
            assert_eq!(presented(&bad).map(|_| ()).unwrap_err().code(), Code::Unauthenticated);
        }
    }
}
