//! Calls into an instance: they count as its use while they last, and wake it when they ask for that.

use std::{
    pin::Pin,
    task::{Context, Poll},
    time::Duration,
};

use axum::{
    body::{Body, HttpBody},
    extract::Request,
    response::{IntoResponse, Response},
};
use bytes::Bytes;
use http::{HeaderName, StatusCode, Uri, uri::PathAndQuery};
use http_body::{Frame, SizeHint};

use crate::{
    app::{App, activity::Use},
    domain::duration::Seconds,
    error::{Error, Result},
    ids::InstanceId,
};

/// What is below an instance and goes into it. Ports are counted where they are passed on, WebSockets where they are opened.
const INSIDE: [&str; 7] = ["exec", "execs", "processes", "code", "contexts", "files", "archive"];
pub const WAKE: &str = "wake";
/// The same wish in a request to a port, whose query is the sandbox's.
pub const WAKE_HEADER: HeaderName = HeaderName::from_static("x-sandbox-wake");

/// How long a call waits for a paused instance to run again.
#[derive(Clone, Copy, Debug)]
pub struct Wake(pub Duration);

/// Whether a route goes into an instance.
#[must_use]
pub fn goes_inside(path: &str) -> bool {
    inside(path).is_some()
}

fn inside(path: &str) -> Option<&str> {
    let (id, below) = path.strip_prefix("/v1/instances/")?.split_once('/')?;
    let first = below.split('/').next().unwrap_or_default();
    INSIDE.contains(&first).then_some(id)
}

/// Counts the use of instances, and takes `?wake=` out of the query for the caller's sake.
pub async fn around<F: Future<Output = Response>>(
    app: &App,
    mut request: Request,
    answer: impl FnOnce(Request) -> F,
) -> Response {
    let Some(id) = inside(request.uri().path()) else { return answer(request).await };
    let id: Option<InstanceId> = id.parse().ok();
    match take_wake(app, request.uri()) {
        Ok(None) => {}
        Ok(Some((wake, uri))) => {
            *request.uri_mut() = uri;
            request.extensions_mut().insert(wake);
        }
        Err(error) => return error.into_response(),
    }
    let used = id.map(|id| app.activity.enter(&id));
    let response = answer(request).await;
    // Who may not call does not use it.
    let refused = matches!(response.status(), StatusCode::UNAUTHORIZED | StatusCode::FORBIDDEN | StatusCode::NOT_FOUND);
    match used {
        Some(used) if refused => {
            used.disregard();
            response
        }
        Some(used) if !response.body().is_end_stream() => response.map(|body| Body::new(Using { body, _used: used })),
        _ => response,
    }
}

/// The wish to wake the instance, and the address without it.
fn take_wake(app: &App, uri: &Uri) -> Result<Option<(Wake, Uri)>> {
    let query = uri.query().unwrap_or_default();
    let is_wake = |pair: &&str| pair.split('=').next() == Some(WAKE);
    let mut wishes = query.split('&').filter(is_wake);
    let Some(wish) = wishes.next() else { return Ok(None) };
    if wishes.next().is_some() {
        return Err(Error::field(WAKE, "may be given once only"));
    }
    let value = url::form_urlencoded::parse(wish.as_bytes()).next().map(|(_, value)| value.into_owned());
    let wake = patience(app, WAKE, &value.unwrap_or_default())?;
    let rest = query.split('&').filter(|pair| !is_wake(pair)).collect::<Vec<_>>().join("&");
    let path = if rest.is_empty() { uri.path().to_owned() } else { format!("{}?{rest}", uri.path()) };
    let mut parts = uri.clone().into_parts();
    parts.path_and_query = Some(path.parse::<PathAndQuery>().map_err(Error::internal)?);
    Ok(Some((wake, Uri::from_parts(parts).map_err(Error::internal)?)))
}

/// # Errors
/// `validation_failed` for what is no duration, or longer than calls may wait.
pub fn patience(app: &App, field: &str, text: &str) -> Result<Wake> {
    let asked = Seconds::parse(text).map_err(|error| Error::field(field, error.to_string()))?.to_std();
    let longest = app.config.instances.max_wait;
    if asked > longest {
        return Err(Error::field(field, format!("may be {} s at most", longest.as_secs())));
    }
    Ok(Wake(asked))
}

/// An answer that is use for as long as it is sent.
struct Using {
    body: Body,
    _used: Use,
}

impl HttpBody for Using {
    type Data = Bytes;
    type Error = axum::Error;

    fn poll_frame(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, axum::Error>>> {
        Pin::new(&mut self.body).poll_frame(cx)
    }

    fn is_end_stream(&self) -> bool {
        self.body.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.body.size_hint()
    }
}
