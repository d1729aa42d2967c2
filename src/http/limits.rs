//! Requests per second, and the headers that tell of them (draft-ietf-httpapi-ratelimit-headers).

use std::sync::{Arc, OnceLock};

use axum::{extract::Request, response::Response};
use http::{HeaderName, HeaderValue, request::Parts};

use crate::{
    app::{
        App,
        rates::{Rates, Standing},
    },
    auth::Caller,
    error::Result,
};

const LIMIT: HeaderName = HeaderName::from_static("ratelimit");
const POLICY: HeaderName = HeaderName::from_static("ratelimit-policy");

/// What is counted of one request: once, by the replica that was asked.
#[derive(Clone)]
struct Counted {
    rates: Rates,
    standing: Arc<OnceLock<Standing>>,
}

/// Tells every caller that is known where its team stands.
pub async fn around<F: Future<Output = Response>>(
    app: &App,
    mut request: Request,
    answer: impl FnOnce(Request) -> F,
) -> Response {
    let counted = Counted { rates: app.rates.clone(), standing: Arc::default() };
    request.extensions_mut().insert(counted.clone());
    let mut response = answer(request).await;
    if let Some(standing) = counted.standing.get() {
        let headers = [(LIMIT, remaining(standing)), (POLICY, format!("\"requests\";q={};w=1", standing.rate))];
        for (name, value) in headers {
            if let Ok(value) = HeaderValue::try_from(value) {
                response.headers_mut().insert(name, value);
            }
        }
    }
    response
}

fn remaining(standing: &Standing) -> String {
    let seconds = standing.wait.as_secs_f64().ceil().max(1.0);
    format!("\"requests\";r={};t={seconds}", standing.remaining)
}

/// Counts a request when it is known who makes it.
///
/// # Errors
/// `rate_limited`.
pub fn count(parts: &Parts, caller: &Caller) -> Result<()> {
    let Some(counted) = parts.extensions.get::<Counted>().filter(|_| !caller.by_replica) else { return Ok(()) };
    let rate = caller.team.quotas.requests_per_second;
    counted.standing.get_or_init(|| counted.rates.count(caller.team_id(), rate)).check()
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    #[test]
    fn the_headers_are_structured_fields() {
        let standing = Standing { rate: 20, remaining: 7, wait: Duration::ZERO, refused: false };
        assert_eq!(remaining(&standing), "\"requests\";r=7;t=1");
        let standing = Standing { rate: 20, remaining: 0, wait: Duration::from_millis(2100), refused: true };
        assert_eq!(remaining(&standing), "\"requests\";r=0;t=3");
    }
}
