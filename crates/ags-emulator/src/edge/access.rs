//! Who may use a port of an instance (PROTOCOLS B.7, C.2).

use ags_client::types::{AuthMode, InstanceStatus};
use http::HeaderMap;
use tokio_util::sync::CancellationToken;

use super::route::Target;
use crate::control::Cloud;
use crate::control::store::Record;
use crate::envd;

/// Why a request does not get through.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Refusal {
    /// No such instance, or no longer.
    Gone,
    /// Starting, pausing, paused or resuming.
    NotRunning,
    Unauthorized,
}

impl Cloud {
    /// Admits a request to a port, or says why not. The token breaks streams off when the instance
    /// ends or is paused.
    pub(crate) fn admit_data(
        &self,
        target: &Target,
        headers: &HeaderMap,
        query: Option<&str>,
    ) -> Result<CancellationToken, Refusal> {
        let now = self.clock.now();
        let traffic_header = self.tunables().traffic_header;
        self.with_state(|state| {
            let record = state.instances.get(&target.instance).ok_or(Refusal::Gone)?;
            match record.status {
                InstanceStatus::Running | InstanceStatus::PauseFailed => {}
                InstanceStatus::Starting
                | InstanceStatus::Pausing
                | InstanceStatus::Paused
                | InstanceStatus::Resuming
                | InstanceStatus::ResumeFailed => return Err(Refusal::NotRunning),
                _ => return Err(Refusal::Gone),
            }
            if !needs_token(&record.auth_mode, target.port) {
                return Ok(record.links.clone());
            }
            let given = Given { headers, query, traffic_header: &traffic_header };
            let accepted = given.access().any(|token| record.accepts_token(token.as_ref(), now))
                || (target.port != envd::PORT && given.traffic_fits(record, now));
            if accepted { Ok(record.links.clone()) } else { Err(Refusal::Unauthorized) }
        })
    }
}

fn needs_token(mode: &AuthMode, port: u16) -> bool {
    match mode {
        AuthMode::None => false,
        AuthMode::Public => port == envd::PORT,
        _ => true,
    }
}

struct Given<'a> {
    headers: &'a HeaderMap,
    query: Option<&'a str>,
    traffic_header: &'a str,
}

impl Given<'_> {
    /// Everything that may be an access token: header, query, bearer.
    fn access(&self) -> impl Iterator<Item = std::borrow::Cow<'_, [u8]>> {
        let header = self.headers.get("x-access-token").map(|value| value.as_bytes());
        let bearer = self.headers.get("authorization").and_then(|value| value.as_bytes().strip_prefix(b"Bearer "));
        let query = url::form_urlencoded::parse(self.query.unwrap_or_default().as_bytes())
            .find(|(name, _)| name == "access_token")
            .map(|(_, value)| value.into_owned().into_bytes().into());
        header.into_iter().chain(bearer).map(Into::into).chain(query)
    }

    fn traffic_fits(&self, record: &Record, now: chrono::DateTime<chrono::Utc>) -> bool {
        self.headers.get(self.traffic_header).is_some_and(|value| record.accepts_traffic(value.as_bytes(), now))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn modes_choose_ports() {
        let asks = |mode| [needs_token(&mode, 49983), needs_token(&mode, 8000)];
        assert_eq!(asks(AuthMode::Default), [true, true]);
        assert_eq!(asks(AuthMode::Token), [true, true]);
        assert_eq!(asks(AuthMode::None), [false, false]);
        assert_eq!(asks(AuthMode::Public), [true, false]);
    }

    #[test]
    fn tokens_come_by_header_query_and_bearer() {
        let mut headers = HeaderMap::new();
        headers.insert("x-access-token", "a".parse().unwrap());
        headers.insert("authorization", "Bearer b".parse().unwrap());
        let given = Given { headers: &headers, query: Some("x=1&access_token=c%20d"), traffic_header: "t" };
        let found: Vec<Vec<u8>> = given.access().map(|token| token.into_owned()).collect();
        assert_eq!(found, [b"a".to_vec(), b"b".to_vec(), b"c d".to_vec()]);
    }
}
