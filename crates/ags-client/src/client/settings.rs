//! What a client is configured with.

use std::collections::BTreeMap;
use std::num::NonZeroU32;
use std::time::Duration;

use reqwest::Url;

/// Calls per second and action that the cloud documents for an account.
const DEFAULT_QPS: NonZeroU32 = NonZeroU32::new(20).expect("20 is not zero");

/// Settings of an [`AgsClient`](super::AgsClient). TLS, proxies, connect timeout and connect-to overrides belong
/// to the [`reqwest::Client`], which should follow no redirects: a signature is for one host.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Settings {
    /// Scheme, host and port, such as `https://ags.tencentcloudapi.com`; the path is always `/`.
    pub endpoint: Url,
    /// Sent as `X-TC-Region`; not sent when empty.
    pub region: String,
    /// Language of error messages, sent as `X-TC-Language`.
    pub language: String,
    /// Longest wait for one answer.
    pub attempt_timeout: Duration,
    /// Longest duration of a call, with all its attempts and waits.
    pub deadline: Duration,
    /// How often a call is sent at most, the first time included.
    pub max_attempts: NonZeroU32,
    pub backoff: Backoff,
    pub rates: Rates,
}

impl Settings {
    /// The defaults: en-US, 20 s per attempt, 60 s in all, 5 attempts, 20 calls per second and action.
    pub fn new(endpoint: Url, region: impl Into<String>) -> Settings {
        Settings {
            endpoint,
            region: region.into(),
            language: "en-US".into(),
            attempt_timeout: Duration::from_secs(20),
            deadline: Duration::from_secs(60),
            max_attempts: NonZeroU32::new(5).expect("5 is not zero"),
            backoff: Backoff::default(),
            rates: Rates::default(),
        }
    }

    pub(super) fn check(&self) -> Result<(), SettingsError> {
        let url = &self.endpoint;
        if !matches!(url.scheme(), "http" | "https") || url.host_str().is_none() {
            return Err(SettingsError::Endpoint("must be an http or https address"));
        }
        if !url.username().is_empty() || url.password().is_some() {
            return Err(SettingsError::Endpoint("must not contain credentials"));
        }
        if url.path() != "/" || url.query().is_some() || url.fragment().is_some() {
            return Err(SettingsError::Endpoint("must have no path: actions are told apart by a header"));
        }
        let header_safe = |text: &str| text.bytes().all(|b| b.is_ascii_graphic());
        if !header_safe(&self.region) {
            return Err(SettingsError::Region);
        }
        if !header_safe(&self.language) {
            return Err(SettingsError::Language);
        }
        Ok(())
    }
}

/// Settings that no client can be made of.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum SettingsError {
    #[error("the endpoint {0}")]
    Endpoint(&'static str),
    #[error("the region contains a character that a header cannot carry")]
    Region,
    #[error("the language contains a character that a header cannot carry")]
    Language,
}

/// Full jitter: the n-th wait is drawn evenly from zero to `base * 2^n`, at most `cap`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Backoff {
    pub base: Duration,
    pub cap: Duration,
}

impl Default for Backoff {
    fn default() -> Self {
        Backoff { base: Duration::from_millis(500), cap: Duration::from_secs(8) }
    }
}

impl Backoff {
    /// The wait after `attempt` attempts (from 1 on); `random` is in `[0, 1)`.
    pub(super) fn wait(&self, attempt: u32, random: f64) -> Duration {
        let factor = 2_u32.saturating_pow(attempt.saturating_sub(1));
        self.base.saturating_mul(factor).min(self.cap).mul_f64(random.clamp(0.0, 1.0))
    }
}

/// Calls per second, for each action by itself.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Rates {
    pub default: NonZeroU32,
    /// Exceptions by the action's name.
    pub actions: BTreeMap<String, NonZeroU32>,
}

impl Default for Rates {
    fn default() -> Self {
        Rates { default: DEFAULT_QPS, actions: BTreeMap::new() }
    }
}

impl Rates {
    /// The same rate for every action.
    pub fn uniform(qps: NonZeroU32) -> Rates {
        Rates { default: qps, actions: BTreeMap::new() }
    }

    pub(super) fn of(&self, action: &str) -> NonZeroU32 {
        self.actions.get(action).copied().unwrap_or(self.default)
    }
}
