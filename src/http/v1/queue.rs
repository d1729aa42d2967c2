//! `?queue=`: waiting in line for room for an instance.

use tokio_util::sync::{CancellationToken, DropGuard};

use crate::{
    app::{App, instances::Queueing},
    domain::duration::Seconds,
    error::{Error, Result},
    http::extract::QueryReader,
};

/// How long to wait in line.
#[derive(Clone, Copy, Debug)]
pub struct QueueQuery(Option<Seconds>);

impl QueueQuery {
    pub fn from_query(query: &mut QueryReader) -> Self {
        Self(query.duration("queue"))
    }

    /// How to wait in line, if at all; the place is given up when the guard goes, as it does with its request. There is none for a
    /// place that `stays`.
    ///
    /// # Errors
    /// `validation_failed` for more than the configuration allows.
    pub fn queueing(self, app: &App, stays: bool) -> Result<(Option<Queueing>, Option<DropGuard>)> {
        let (asked, longest) = (self.0.map(Seconds::to_std), app.config.instances.max_wait);
        if asked.is_some_and(|asked| asked > longest) {
            return Err(Error::field("queue", format!("may be {} s at most", longest.as_secs())));
        }
        let given_up = CancellationToken::new();
        let guard = (!stays).then(|| given_up.clone().drop_guard());
        let queueing = asked.filter(|asked| !asked.is_zero()).map(|patience| Queueing { patience, given_up });
        Ok((queueing, guard))
    }
}
