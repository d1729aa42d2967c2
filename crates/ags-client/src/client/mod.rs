//! The signed HTTP client.

mod attempt;
mod credentials;
mod error;
mod limiter;
mod paging;
mod seams;
mod settings;

use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use tokio::time::{Instant, sleep_until};
use tracing::Instrument;

pub use credentials::{CredentialError, CredentialProvider, StaticCredentials};
pub use error::{AgsError, ErrorKind, Outcome, Stage};
pub use limiter::{Limiter, Priority};
pub use paging::{Counted, Listing, MAX_PAGE};
pub use seams::{Clock, Jitter, system_clock, system_jitter};
pub use settings::{Backoff, Rates, Settings, SettingsError};

use crate::{Action, Repeat};
use attempt::Attempt;
use error::{Again, Fault, History};

/// A client of one endpoint, region and account. Cheap to clone; clones share connections and rate limit.
///
/// A call is signed anew for every attempt, waits for its turn under the rate limit, and is repeated with
/// growing random waits when that is safe: always after `RequestLimitExceeded` or a failed connect, as neither
/// has an effect, and after a fault whose effect is unknown only when the request [may be
/// repeated](Action::repeatable). Dropping the future abandons the call wherever it is.
#[derive(Clone)]
pub struct AgsClient(Arc<Inner>, Priority);

struct Inner {
    settings: Settings,
    http: reqwest::Client,
    credentials: Arc<dyn CredentialProvider>,
    limiter: Limiter,
    clock: Clock,
    jitter: Jitter,
}

/// A successful answer.
#[derive(Clone, Debug, PartialEq)]
pub struct Reply<T> {
    pub value: T,
    /// The cloud's id of the request.
    pub request_id: Option<String>,
    /// How often the call was sent.
    pub attempts: u32,
}

/// Makes a client of parts other than the defaults.
pub struct Builder(Inner);

impl AgsClient {
    /// A client with the system's clock and a rate limit of its own. A rustls provider must have been installed
    /// before `http` was built.
    pub fn new(
        settings: Settings,
        http: reqwest::Client,
        credentials: Arc<dyn CredentialProvider>,
    ) -> Result<AgsClient, SettingsError> {
        AgsClient::builder(settings, http, credentials).build()
    }

    pub fn builder(settings: Settings, http: reqwest::Client, credentials: Arc<dyn CredentialProvider>) -> Builder {
        let limiter = Limiter::new(settings.rates.clone());
        let (clock, jitter) = (system_clock(), system_jitter());
        Builder(Inner { settings, http, credentials, limiter, clock, jitter })
    }

    /// The same client for calls that nobody waits for: callers' calls go before them.
    #[must_use]
    pub fn in_background(&self) -> AgsClient {
        AgsClient(self.0.clone(), Priority::Background)
    }

    pub fn settings(&self) -> &Settings {
        &self.0.settings
    }

    /// The limiter that it shares with its clones.
    pub fn limiter(&self) -> &Limiter {
        &self.0.limiter
    }

    /// Calls an action within the deadline of the settings.
    pub async fn call<A: Action>(&self, request: &A) -> Result<Reply<A::Output>, AgsError> {
        self.call_within(request, self.0.settings.deadline).await
    }

    /// Calls an action; `limit` bounds all attempts and waits together.
    pub async fn call_within<A: Action>(&self, request: &A, limit: Duration) -> Result<Reply<A::Output>, AgsError> {
        let span = tracing::debug_span!("ags", action = A::NAME, region = %self.0.settings.region);
        self.run(request, limit).instrument(span).await
    }

    async fn run<A: Action>(&self, request: &A, limit: Duration) -> Result<Reply<A::Output>, AgsError> {
        let deadline = Instant::now() + limit;
        let mut history = History {
            action: A::NAME,
            read: A::REPEAT == Repeat::Read,
            repeatable: request.repeatable(),
            attempts: 0,
            effect: false,
        };
        let body = match serde_json::to_vec(request) {
            Ok(body) => Bytes::from(body),
            Err(error) => return Err(AgsError::new(ErrorKind::Request(error.into()).into(), history)),
        };
        let attempt = Attempt { client: &self.0, priority: self.1, action: A::NAME, body, deadline, limit };
        loop {
            history.attempts += 1;
            let fault = match attempt.make().await {
                Ok((value, request_id)) => return Ok(Reply { value, request_id, attempts: history.attempts }),
                Err(fault) => fault,
            };
            let Some(wait) = self.wait_before_next(&fault, &history, deadline) else {
                return Err(AgsError::new(fault, history));
            };
            tracing::debug!(attempt = history.attempts, fault = %fault.kind, ?wait, "the call is repeated");
            history.effect |= fault.kind.verdict().effect;
            sleep_until(Instant::now() + wait).await;
        }
    }

    /// How long to wait before the next attempt; `None` when there is none.
    fn wait_before_next(&self, fault: &Fault, history: &History, deadline: Instant) -> Option<Duration> {
        let settings = &self.0.settings;
        let wanted = match fault.kind.verdict().again {
            Again::Always => true,
            Again::IfRepeatable => history.repeatable,
            Again::Later | Again::Never => false,
        };
        if !wanted || history.attempts >= settings.max_attempts.get() {
            return None;
        }
        let wait = settings.backoff.wait(history.attempts, (self.0.jitter)());
        (Instant::now() + wait < deadline).then_some(wait)
    }
}

impl fmt::Debug for AgsClient {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("AgsClient").field("settings", &self.0.settings).finish_non_exhaustive()
    }
}

impl Builder {
    pub fn clock(mut self, clock: Clock) -> Self {
        self.0.clock = clock;
        self
    }

    pub fn jitter(mut self, jitter: Jitter) -> Self {
        self.0.jitter = jitter;
        self
    }

    /// Shares the rate limit of another client of the same account, in place of `settings.rates`.
    pub fn limiter(mut self, limiter: Limiter) -> Self {
        self.0.limiter = limiter;
        self
    }

    pub fn build(self) -> Result<AgsClient, SettingsError> {
        self.0.settings.check()?;
        Ok(AgsClient(Arc::new(self.0), Priority::Caller))
    }
}
