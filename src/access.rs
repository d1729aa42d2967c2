//! From an instance to what its data plane needs: an endpoint and a token.
//!
//! Tokens come from one cache with a single flight per instance, end before the cloud's own expiry, and a rejected token
//! invalidates its own entry only.

use std::{
    sync::Arc,
    time::{Duration, Instant},
};

use ags_client::types::{AcquireSandboxInstanceTokenRequest, WireSecret};
use chrono::{DateTime, Utc};
use moka::{Expiry, future::Cache};
use secrecy::SecretString;

use crate::{clock::SharedClock, config::Instances, error::Error, upstream::Upstream};

const MAX_TOKENS: u64 = 100_000;

/// The cloud's tokens for one instance.
pub struct Token {
    pub access: SecretString,
    /// For ports other than envd's.
    pub traffic: Option<SecretString>,
    pub expires_at: Option<DateTime<Utc>>,
    acquired: Instant,
    keep: Duration,
}

impl Token {
    /// How long ago the cloud gave it.
    #[must_use]
    pub fn age(&self) -> Duration {
        self.acquired.elapsed()
    }
}

#[derive(Clone, Debug, PartialEq, Eq, Hash)]
struct Key {
    upstream: String,
    instance: String,
}

/// The token cache.
#[derive(Clone)]
pub struct Access {
    cache: Cache<Key, Arc<Token>>,
    clock: SharedClock,
    ttl: Duration,
    margin: Duration,
}

struct UntilRefresh;

impl Expiry<Key, Arc<Token>> for UntilRefresh {
    fn expire_after_create(&self, _: &Key, token: &Arc<Token>, _: Instant) -> Option<Duration> {
        Some(token.keep)
    }

    fn expire_after_update(&self, _: &Key, token: &Arc<Token>, _: Instant, _: Option<Duration>) -> Option<Duration> {
        Some(token.keep)
    }
}

impl Access {
    #[must_use]
    pub fn new(clock: SharedClock, config: &Instances) -> Self {
        let cache = Cache::builder().max_capacity(MAX_TOKENS).expire_after(UntilRefresh).build();
        Self { cache, clock, ttl: config.token_ttl, margin: config.token_refresh_margin }
    }

    /// A valid token of an instance; many callers at once cost one call to the cloud.
    ///
    /// # Errors
    /// What the cloud says to `AcquireSandboxInstanceToken`.
    pub async fn token(&self, upstream: &Upstream, instance: &str) -> Result<Arc<Token>, Error> {
        let key = Key { upstream: upstream.name().to_owned(), instance: instance.to_owned() };
        if let Some(token) = self.cache.get(&key).await {
            return Ok(token);
        }
        // Boxed: what is rare does not make what is moved for each call larger.
        let acquired = Box::pin(self.cache.try_get_with(key, self.acquire(upstream, instance))).await;
        acquired.map_err(|shared: Arc<Error>| {
            let inner = shared.inner();
            let mut error = Error::new(inner.code, inner.detail.clone()).retryable(inner.retryable);
            if let Some(upstream) = inner.upstream.clone() {
                error = error.with_upstream(upstream.code, upstream.request_id);
            }
            error.with_source(shared.to_string())
        })
    }

    async fn acquire(&self, upstream: &Upstream, instance: &str) -> Result<Arc<Token>, Error> {
        let request = AcquireSandboxInstanceTokenRequest { instance_id: instance.to_owned() };
        let answer = upstream.control.call(&request).await?.value;
        let remaining = answer.expires_at.and_then(|at| (at - self.clock.now()).to_std().ok());
        let keep = remaining
            .map_or(self.ttl, |left| left.saturating_sub(self.margin).max(Duration::from_secs(1)).min(self.ttl));
        Ok(Arc::new(Token {
            access: answer.token.into_secret(),
            traffic: answer.traffic_token.map(WireSecret::into_secret),
            expires_at: answer.expires_at,
            acquired: Instant::now(),
            keep,
        }))
    }

    /// Forgets `rejected`, unless another call has replaced it already.
    pub async fn reject(&self, upstream: &Upstream, instance: &str, rejected: &Arc<Token>) {
        let key = Key { upstream: upstream.name().to_owned(), instance: instance.to_owned() };
        if self.cache.get(&key).await.is_some_and(|held| Arc::ptr_eq(&held, rejected)) {
            self.cache.invalidate(&key).await;
        }
    }

    /// Forgets an instance that ended.
    pub async fn forget(&self, upstream: &str, instance: &str) {
        self.cache.invalidate(&Key { upstream: upstream.to_owned(), instance: instance.to_owned() }).await;
    }
}
