//! The request that is being handled, as the log knows it: carried by the task, so that every line says whose it is without a
//! span being made for each request (docs/PERFORMANCE.md).

use std::{
    borrow::Cow,
    sync::{Arc, OnceLock},
};

use http::Method;
use tokio::task::futures::TaskLocalFuture;

use crate::ids::{KeyId, TeamId};

tokio::task_local! {
    static CURRENT: Option<RequestLog>;
}

/// What the layers of one request learn about it.
#[derive(Clone)]
pub struct RequestLog {
    id: Arc<str>,
    trace_id: Option<Arc<str>>,
    learnt: Arc<Learnt>,
}

struct Learnt {
    method: Method,
    route: Cow<'static, str>,
    caller: OnceLock<(TeamId, KeyId)>,
}

impl RequestLog {
    /// `route` is the pattern that the path is of; `trace_id` stood in a W3C `traceparent`.
    #[must_use]
    pub fn new(id: &str, method: Method, route: Cow<'static, str>, trace_id: Option<&str>) -> Self {
        let learnt = Arc::new(Learnt { method, route, caller: OnceLock::new() });
        Self { id: id.into(), trace_id: trace_id.map(Into::into), learnt }
    }

    /// Of another request that differs from this one in nothing that was learnt.
    #[must_use]
    pub fn again(&self, id: &str, trace_id: Option<&str>) -> Self {
        Self { id: id.into(), trace_id: trace_id.map(Into::into), learnt: Arc::clone(&self.learnt) }
    }

    /// Notes whose key answers for the call; the first that is noted stays.
    pub fn note(&self, team: &TeamId, key: &KeyId) {
        self.learnt.caller.get_or_init(|| (team.clone(), key.clone()));
    }

    /// Team and key, empty when nobody was noted.
    #[must_use]
    pub fn caller(&self) -> (&str, &str) {
        self.learnt.caller.get().map_or(("", ""), |(team, key)| (team.as_str(), key.as_str()))
    }

    #[must_use]
    pub fn id(&self) -> &str {
        &self.id
    }

    #[must_use]
    pub fn method(&self) -> &Method {
        &self.learnt.method
    }

    #[must_use]
    pub fn route(&self) -> &str {
        &self.learnt.route
    }

    /// What tells of the request in each of its lines.
    pub(super) fn fields(&self) -> impl Iterator<Item = (&'static str, &str)> {
        let always = [("request_id", self.id()), ("method", self.learnt.method.as_str()), ("route", self.route())];
        always.into_iter().chain(self.trace_id.as_deref().map(|id| ("trace_id", id)))
    }

    /// `work` as a part of this request.
    pub fn scope<F: Future>(self, work: F) -> impl Future<Output = F::Output> {
        CURRENT.scope(Some(self), work)
    }

    /// As [`scope`](Self::scope), for what does not wait.
    pub fn in_scope<T>(self, work: impl FnOnce() -> T) -> T {
        CURRENT.sync_scope(Some(self), work)
    }
}

/// The request that is being handled, if one is.
pub(super) fn present() -> Option<RequestLog> {
    CURRENT.try_with(Option::clone).ok().flatten()
}

/// The id of the request that is being handled, or an empty text outside of one.
#[must_use]
pub fn current_request_id() -> String {
    present().map(|log| log.id().to_owned()).unwrap_or_default()
}

/// `work` as a part of the present request, for a task of its own.
pub fn carried<F: Future>(work: F) -> impl Future<Output = F::Output> {
    CURRENT.scope(present(), work)
}

/// As [`carried`], for work that begins with what comes later.
pub fn carrying<T, F: Future>(work: impl FnOnce(T) -> F) -> impl FnOnce(T) -> TaskLocalFuture<Option<RequestLog>, F> {
    let log = present();
    move |with| CURRENT.scope(log, work(with))
}
