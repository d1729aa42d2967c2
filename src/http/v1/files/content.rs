//! Contents as raw bytes, streamed both ways.

use std::time::Duration;

use axum::{
    body::Body,
    extract::State,
    response::{IntoResponse, Response},
};
use futures_util::stream;
use http::{HeaderMap, HeaderName, HeaderValue, StatusCode, header};
use http_body_util::BodyExt;
use percent_encoding::{AsciiSet, NON_ALPHANUMERIC, utf8_percent_encode};

use super::dto::{self, FileQuery, WrittenDto};
use crate::{
    app::{
        App,
        files::{self, Announced, Reading, parse_path},
    },
    auth::Caller,
    domain::scope::scope,
    error::{Code, Error, Result},
    http::{
        extract::{Authorized, Json, Path, Query},
        openapi::Failures,
        unread::Bounded,
    },
    ids::InstanceId,
};

/// For how long a caller that was refused is listened to: closing on what it still sends would destroy the answer on its way.
const LINGER: Duration = Duration::from_secs(5);

/// What the sandbox says of a file that is passed on.
const PASSED_ON: [HeaderName; 7] = [
    header::CONTENT_TYPE,
    header::CONTENT_LENGTH,
    header::CONTENT_RANGE,
    header::CONTENT_ENCODING,
    header::ACCEPT_RANGES,
    header::LAST_MODIFIED,
    header::ETAG,
];

/// A file name in `filename*` (RFC 8187): attr-char stay as they are.
const EXT_VALUE: &AsciiSet = &NON_ALPHANUMERIC
    .remove(b'!')
    .remove(b'#')
    .remove(b'$')
    .remove(b'&')
    .remove(b'+')
    .remove(b'-')
    .remove(b'.')
    .remove(b'^')
    .remove(b'_')
    .remove(b'`')
    .remove(b'|')
    .remove(b'~');

/// The content of a file, links followed, streamed as it is read.
///
/// `Range` and the `If-…` headers are honoured (206, 304, 412, 416), but for files whose length is only known by reading them
/// (`/proc`, `/sys`): these always come whole and without a Content-Length. An answer that breaks off does so visibly,
/// by closing the connection short of its length. `Content-Type` is the sandbox's guess; the headers keep browsers from
/// running anything on this origin.
#[utoipa::path(get, path = "/v1/instances/{id}/files", operation_id = "get_file", tag = "files",
    params(("id" = InstanceId, Path), FileQuery, ("Range" = Option<String>, Header, example = "bytes=0-1023")),
    responses(
        (status = 200, description = "The whole file.", body = dto::Bytes, content_type = "*/*"),
        (status = 206, description = "The range.", body = dto::Bytes, content_type = "*/*"),
        (status = 304, description = "The file is the one the caller has."), Failures))]
pub(super) async fn get_file(
    State(app): State<App>,
    caller: Authorized<scope::FilesRead>,
    Path(id): Path<InstanceId>,
    Query(query): Query<FileQuery>,
    conditions: HeaderMap,
) -> Result<Response> {
    let path = parse_path("path", &query.path)?;
    let files = files::of(&app, &caller, &id, query.user.as_deref()).await?;
    Ok(respond(&app, files.read(&path, &conditions).await?))
}

/// What `get_file` would answer, without the content: the same status and headers, conditions and `Range` included. Without a
/// Content-Length where only reading tells it.
#[utoipa::path(head, path = "/v1/instances/{id}/files", operation_id = "head_file", tag = "files",
    params(("id" = InstanceId, Path), FileQuery),
    responses((status = 200, description = "Content-Length, Content-Type, Last-Modified, Accept-Ranges."), Failures))]
pub(super) async fn head_file(
    state: State<App>,
    caller: Authorized<scope::FilesRead>,
    id: Path<InstanceId>,
    query: Query<FileQuery>,
    conditions: HeaderMap,
) -> Result<Response> {
    let mut response = get_file(state, caller, id, query, conditions).await?;
    // Of an empty body the server would say that the length is 0.
    *response.body_mut() = Body::from_stream(stream::empty::<Result<bytes::Bytes>>());
    Ok(response)
}

/// Writes a file from the raw body, with `Content-Length` or chunked, and answers with its size and SHA-256.
///
/// The bytes go to a temporary name (`.ags-upload-…`) beside the destination, which is then moved into place: readers see
/// the old file or the new one, never a part, and an upload that fails or is broken off leaves nothing. Links are
/// followed, missing directories made. A replaced file keeps its mode where the sandbox has `chmod`; the owner is
/// `user`. `If-None-Match: *` refuses to replace anything. A second name (hard link) of a replaced file keeps the old
/// content.
#[utoipa::path(put, path = "/v1/instances/{id}/files", operation_id = "put_file", tag = "files",
    params(("id" = InstanceId, Path), FileQuery),
    request_body(content = dto::Bytes, content_type = "application/octet-stream", description = "The content; any Content-Type is taken."),
    responses((status = 201, description = "The file is new.", body = WrittenDto),
        (status = 200, description = "The file was replaced.", body = WrittenDto), Failures))]
pub(super) async fn put_file(
    State(app): State<App>,
    caller: Authorized<scope::FilesWrite>,
    Path(id): Path<InstanceId>,
    Query(query): Query<FileQuery>,
    headers: HeaderMap,
    mut body: Body,
) -> Result<(StatusCode, Json<WrittenDto>)> {
    let written = write(&app, &caller, &id, &query, &headers, &mut body).await;
    if written.is_err() {
        linger(&app, &headers, body);
    }
    let written = written?;
    Ok((if written.created { StatusCode::CREATED } else { StatusCode::OK }, Json(written.into())))
}

async fn write(
    app: &App,
    caller: &Caller,
    id: &InstanceId,
    query: &FileQuery,
    headers: &HeaderMap,
    body: &mut Body,
) -> Result<files::Written> {
    let path = parse_path("path", &query.path)?;
    let announced = announced(headers)?;
    files::of(app, caller, id, query.user.as_deref()).await?.write(&path, announced, body).await
}

fn announced(headers: &HeaderMap) -> Result<Announced> {
    if headers.get(header::CONTENT_ENCODING).is_some_and(|encoding| encoding != "identity") {
        let detail = "The body is stored as it is sent: send it without Content-Encoding.";
        return Err(Error::new(Code::UnsupportedMediaType, detail));
    }
    if headers.contains_key(header::CONTENT_RANGE) {
        return Err(Error::new(Code::InvalidRequest, "A file is written as a whole: send it without Content-Range."));
    }
    let only_new = headers.get(header::IF_NONE_MATCH).is_some_and(|tags| tags == "*");
    Ok(Announced { length: length_of(headers), only_new })
}

pub(super) fn length_of(headers: &HeaderMap) -> Option<u64> {
    headers.get(header::CONTENT_LENGTH).and_then(|length| length.to_str().ok()?.parse().ok())
}

/// Reads on from a caller that was refused in the middle of its body. Not if it waits for a `100 Continue`: reading would
/// ask it to send.
pub(super) fn linger(app: &App, headers: &HeaderMap, mut body: Body) {
    if headers.contains_key(header::EXPECT) {
        return;
    }
    let draining = app.lifecycle.draining();
    app.lifecycle.spawn("linger", async move {
        let discard = async { while let Some(Ok(_)) = body.frame().await {} };
        let _ = draining.run_until_cancelled(tokio::time::timeout(LINGER, discard)).await;
    });
}

fn respond(app: &App, reading: Reading) -> Response {
    let refused = match reading.status {
        StatusCode::PRECONDITION_FAILED => {
            Some(Error::new(Code::PreconditionFailed, "The file is not the one that the If-… headers describe."))
        }
        StatusCode::RANGE_NOT_SATISFIABLE => {
            Some(Error::new(Code::RangeNotSatisfiable, "The file ends before that range begins."))
        }
        _ => None,
    };
    let refusal = refused.is_some();
    let mut response = match refused {
        Some(error) => error.into_response(),
        None => {
            let body = Bounded::new(reading.body, app.config.files.idle_timeout, &app.lifecycle);
            (reading.status, Body::from_stream(body)).into_response()
        }
    };
    let headers = response.headers_mut();
    for name in PASSED_ON {
        let describes_the_answer = matches!(name, header::CONTENT_TYPE | header::CONTENT_LENGTH);
        if let Some(value) = reading.headers.get(&name)
            && !(refusal && describes_the_answer)
        {
            headers.insert(name, value.clone());
        }
    }
    if !refusal {
        headers.entry(header::CONTENT_TYPE).or_insert(HeaderValue::from_static("application/octet-stream"));
        headers.extend(harmless(&reading.name));
    }
    response
}

/// What keeps a browser from doing anything with a sandbox's bytes on this origin but saving them.
pub(super) fn harmless(name: &str) -> [(HeaderName, HeaderValue); 5] {
    let fixed = HeaderValue::from_static;
    [
        (header::CONTENT_DISPOSITION, attachment(name)),
        (header::CONTENT_SECURITY_POLICY, fixed("sandbox; default-src 'none'; frame-ancestors 'none'")),
        (header::X_CONTENT_TYPE_OPTIONS, fixed("nosniff")),
        (HeaderName::from_static("cross-origin-resource-policy"), fixed("same-origin")),
        (header::CACHE_CONTROL, fixed("private, no-cache")),
    ]
}

/// `Content-Disposition: attachment` with the name, and a plain one for clients that do not know RFC 8187.
fn attachment(name: &str) -> HeaderValue {
    let plain: String = name
        .chars()
        .map(|c| if c.is_ascii_graphic() && !matches!(c, '"' | '\\' | '%') || c == ' ' { c } else { '_' })
        .collect();
    let mut text = format!("attachment; filename=\"{plain}\"");
    if plain != name {
        text.push_str("; filename*=UTF-8''");
        text.extend(utf8_percent_encode(name, EXT_VALUE));
    }
    HeaderValue::try_from(text).unwrap_or(HeaderValue::from_static("attachment"))
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn a_name_cannot_leave_its_header() {
        assert_eq!(attachment("a b.txt"), "attachment; filename=\"a b.txt\"");
        assert_eq!(attachment("a\"b\n"), "attachment; filename=\"a_b_\"; filename*=UTF-8''a%22b%0A");
        assert_eq!(attachment("é%"), "attachment; filename=\"__\"; filename*=UTF-8''%C3%A9%25");
        assert_eq!(attachment(""), "attachment; filename=\"\"");
    }

    proptest! {
        #[test]
        fn any_name_makes_a_header_with_one_quoted_part(name in "\\PC{0,40}|[\\x00-\\x7f]{0,40}") {
            let value = attachment(&name);
            let text = value.to_str().unwrap();
            prop_assert_eq!(text.matches('"').count(), 2, "{}", text);
            if let Some((_, encoded)) = text.split_once("\"; filename*=UTF-8''") {
                let decoded = percent_encoding::percent_decode_str(encoded).decode_utf8().unwrap();
                prop_assert_eq!(decoded.as_ref(), name.as_str());
            }
        }
    }
}
