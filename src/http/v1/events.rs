//! What happens to an instance: as a list, and as it happens.

use std::{collections::VecDeque, convert::Infallible, time::Duration};

use axum::{
    body::Body,
    extract::State,
    response::{IntoResponse, Response},
};
use bytes::Bytes;
use chrono::{DateTime, Utc};
use futures_util::{StreamExt, stream};
use http::HeaderMap;
use serde::Serialize;
use tokio::time::Instant;
use utoipa::{IntoParams, ToSchema};
use utoipa_axum::{router::OpenApiRouter, routes};

use super::{
    Framing,
    exec::stream::{respond, wanted},
};
use crate::{
    app::{self, App},
    domain::{
        instance::{EventKind, InstanceEvent, InstanceStatus, StopReason},
        scope::scope,
    },
    error::{Error, Result},
    http::{
        extract::{Authorized, FromQuery, Path, Query, QueryReader},
        openapi::Failures,
        page::{List, PageQuery},
        unread::Bounded,
    },
    ids::InstanceId,
};

/// Between two looks at whether something has happened.
const LOOK: Duration = Duration::from_millis(500);
const LAST_EVENT_ID: &str = "last-event-id";

/// Something that happened to an instance.
#[derive(Debug, Serialize, ToSchema)]
#[schema(as = InstanceEvent)]
pub struct InstanceEventDto {
    /// Later ones are greater numbers.
    #[schema(example = "42")]
    pub id: String,
    pub at: DateTime<Utc>,
    /// `status`: it is in this state now. `expiring`: its life ends within a minute, unless it is given a new one. Streams
    /// also have `keepalive`, with nothing else.
    #[serde(rename = "type")]
    pub kind: EventKind,
    pub status: InstanceStatus,
    /// Why it ends.
    pub stop_reason: Option<StopReason>,
    /// When it is stopped at the latest, as it was then.
    pub expires_at: DateTime<Utc>,
}

impl From<InstanceEvent> for InstanceEventDto {
    fn from(event: InstanceEvent) -> Self {
        Self {
            id: event.id.to_string(),
            at: event.at,
            kind: event.kind,
            status: event.status,
            stop_reason: event.stop_reason,
            expires_at: event.expires_at,
        }
    }
}

impl InstanceEventDto {
    fn framed(&self, framing: Framing) -> Bytes {
        // Numbers, texts and nothing else: it cannot fail.
        let json = serde_json::to_string(self).unwrap_or_default();
        match framing {
            Framing::Sse => format!("event: {}\nid: {}\ndata: {json}\n\n", self.kind.as_str(), self.id).into(),
            _ => format!("{json}\n").into(),
        }
    }
}

fn keepalive(framing: Framing) -> Bytes {
    let json = r#"{"type":"keepalive"}"#;
    match framing {
        Framing::Sse => format!("event: keepalive\ndata: {json}\n\n").into(),
        _ => format!("{json}\n").into(),
    }
}

/// Which events.
#[derive(Debug, IntoParams)]
#[into_params(parameter_in = Query)]
pub struct EventsQuery {
    /// For a stream: the id of the last event that was seen. SSE says it in `Last-Event-ID`.
    #[param(example = 42)]
    after: Option<i64>,
    #[param(ignore)]
    page: PageQuery,
}

impl FromQuery for EventsQuery {
    fn from_query(query: &mut QueryReader) -> Self {
        Self { after: query.parsed("after"), page: PageQuery::from_query(query) }
    }
}

pub fn routes() -> OpenApiRouter<App> {
    OpenApiRouter::new().routes(routes!(list_instance_events))
}

/// What happened to an instance, newest first. With `Accept: text/event-stream`, or `application/x-ndjson`: oldest first, and
/// what happens from then on, until the instance has ended.
#[utoipa::path(get, path = "/v1/instances/{id}/events", operation_id = "list_instance_events", tag = "instances",
    params(("id" = InstanceId, Path), EventsQuery, PageQuery,
        ("Last-Event-ID" = Option<String>, Header, description = "The id of the last event that was seen.")),
    responses((status = 200, content(
        (List<InstanceEventDto> = "application/json"), (InstanceEventDto = "text/event-stream"),
        (InstanceEventDto = "application/x-ndjson"))), Failures))]
async fn list_instance_events(
    State(app): State<App>,
    caller: Authorized<scope::InstancesRead>,
    Path(id): Path<InstanceId>,
    Query(query): Query<EventsQuery>,
    headers: HeaderMap,
) -> Result<Response> {
    let Some(framing) = wanted(&headers) else {
        if query.after.is_some() {
            return Err(Error::field("after", "needs `Accept: text/event-stream` or `application/x-ndjson`"));
        }
        let page = app::instances::events(&app, &caller, &id, &query.page.into()).await?;
        return Ok(List::of(page, InstanceEventDto::from).into_response());
    };
    app::instances::get(&app, &caller, &id).await?;
    let after = last_seen(&headers)?.or(query.after).unwrap_or_default();
    let idle = app.config.files.idle_timeout;
    let feed =
        Feed { app: app.clone(), id, after, framing, waiting: VecDeque::new(), quiet: Instant::now(), over: false };
    let frames = stream::unfold(feed, |mut feed| async move { Some((feed.next().await?, feed)) });
    let frames = frames.map(Ok::<_, Infallible>).boxed();
    Ok(respond(framing, Body::from_stream(Bounded::new(frames, idle, &app.lifecycle))))
}

fn last_seen(headers: &HeaderMap) -> Result<Option<i64>> {
    let Some(value) = headers.get(LAST_EVENT_ID).filter(|value| !value.is_empty()) else { return Ok(None) };
    let id = value.to_str().ok().and_then(|text| text.parse().ok());
    id.map(Some).ok_or_else(|| Error::field("Last-Event-ID", "is not the id of an event"))
}

/// What feeds a stream of events.
struct Feed {
    app: App,
    id: InstanceId,
    after: i64,
    framing: Framing,
    waiting: VecDeque<InstanceEvent>,
    /// Since when nothing was said.
    quiet: Instant,
    /// The last event was told.
    over: bool,
}

impl Feed {
    /// The next frame; `None` at the end, and when the gateway drains: whoever follows comes again.
    async fn next(&mut self) -> Option<Bytes> {
        loop {
            if let Some(event) = self.waiting.pop_front() {
                self.after = event.id;
                self.over = event.status.is_final();
                self.quiet = Instant::now();
                return Some(InstanceEventDto::from(event).framed(self.framing));
            }
            if self.over {
                return None;
            }
            match app::instances::events_after(&self.app, &self.id, self.after).await {
                Ok(events) if !events.is_empty() => {
                    self.waiting.extend(events);
                    continue;
                }
                Ok(_) => {}
                Err(error) => tracing::warn!(instance = %self.id, %error, "events could not be read"),
            }
            if self.quiet.elapsed() >= self.app.config.exec.keepalive {
                self.quiet = Instant::now();
                return Some(keepalive(self.framing));
            }
            self.app.lifecycle.draining().run_until_cancelled(tokio::time::sleep(LOOK)).await?;
        }
    }
}
