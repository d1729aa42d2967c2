//! `POST /files`.

use std::io;
use std::path::Path;
use std::pin::Pin;
use std::sync::{Arc, Mutex, PoisonError};
use std::task::{Context, Poll};
use std::time::Duration;

use axum::body::Body;
use axum::extract::{Query, State};
use bytes::Bytes;
use futures_util::stream::BoxStream;
use futures_util::{Stream, StreamExt as _, TryStreamExt as _};
use http::{HeaderMap, StatusCode, header};
use multer::Multipart;
use serde::Serialize;

use super::query::{self, FilesQuery};
use super::{gunzip, writer};
use crate::envd::daemon::Daemon;
use crate::envd::paths::base_name;
use crate::envd::rest_error::RestError;
use crate::envd::signature::Operation;
use crate::envd::users::User;

/// How long the rest of a body is read.
const READ_OUT: Duration = Duration::from_secs(10);

/// What was written, in the answer.
#[derive(Debug, PartialEq, Eq, Serialize)]
pub struct Written {
    path: String,
    name: String,
    r#type: &'static str,
}

impl Written {
    /// A file at a path.
    #[must_use]
    pub fn file(path: &Path) -> Self {
        Self { path: path.to_string_lossy().into_owned(), name: base_name(path), r#type: "file" }
    }
}

/// Writes one file from a raw body, or as many as a form has parts named `file`.
///
/// # Errors
/// 400, 401, 500, 507.
pub async fn upload(
    State(daemon): State<Arc<Daemon>>,
    Query(query): Query<FilesQuery>,
    headers: HeaderMap,
    body: Body,
) -> Result<String, RestError> {
    query.authorize(&daemon, &headers, Operation::Write)?;
    let user = query.user(&daemon)?;
    let target = Target { daemon: &daemon, user, path: query.path.filter(|path| !path.is_empty()) };
    let body = gunzip::decoded(&headers, body)?;
    let kind = headers.get(header::CONTENT_TYPE).and_then(|kind| kind.to_str().ok()).unwrap_or_default();
    let written = match kind.split(';').next().unwrap_or_default().trim() {
        "application/octet-stream" => vec![target.raw(body).await?],
        "multipart/form-data" => target.form(kind, body).await?,
        other => return Err(RestError::bad_request(format!("unsupported content type: {other}"))),
    };
    serde_json::to_string(&written)
        .map_err(|error| RestError::new(StatusCode::INTERNAL_SERVER_ERROR, error.to_string()))
}

struct Target<'a> {
    daemon: &'a Daemon,
    user: User,
    path: Option<String>,
}

type Content = BoxStream<'static, io::Result<Bytes>>;

impl Target<'_> {
    async fn raw(&self, mut body: Content) -> Result<Written, RestError> {
        let path = self
            .path
            .as_deref()
            .ok_or_else(|| RestError::bad_request("path query parameter is required for raw body upload"))?;
        let path = query::resolve(self.daemon, path, &self.user)?;
        let result = writer::write(&path, &self.user, &mut body).await;
        if result.is_err() {
            read_out(body).await;
        }
        result.map(|()| Written::file(&path))
    }

    async fn form(&self, content_type: &str, body: Content) -> Result<Vec<Written>, RestError> {
        let boundary = multer::parse_boundary(content_type).map_err(|error| malformed(&error))?;
        let body = Shared(Arc::new(Mutex::new(body)));
        let result = self.parts(&mut Multipart::new(body.clone(), boundary)).await;
        // Not only when refused: a form ends before its body does, by a chunk's end or an epilogue.
        read_out(body).await;
        result
    }

    async fn parts(&self, form: &mut Multipart<'_>) -> Result<Vec<Written>, RestError> {
        let mut written: Vec<Written> = Vec::new();
        while let Some(part) = form.next_field().await.map_err(|error| malformed(&error))? {
            if part.name() != Some("file") {
                continue;
            }
            // The file name is the path, directories included, unless the query names one.
            let given = self.path.as_deref().or(part.file_name()).unwrap_or_default();
            let path = query::resolve(self.daemon, given, &self.user)?;
            let file = Written::file(&path);
            if written.contains(&file) {
                return Err(RestError::bad_request(format!(
                    "you cannot upload multiple files to the same path '{}' in one upload request, only the first \
                     specified file was uploaded",
                    file.path
                )));
            }
            writer::write(&path, &self.user, part.map_err(io::Error::other)).await?;
            written.push(file);
        }
        Ok(written)
    }
}

/// A body that is still at hand when the reader of its form is done.
#[derive(Clone)]
struct Shared(Arc<Mutex<Content>>);

impl Stream for Shared {
    type Item = io::Result<Bytes>;

    fn poll_next(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Self::Item>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).poll_next_unpin(cx)
    }
}

/// Reads what is left of a body, within limits: a client that is still sending would see a broken connection instead
/// of the answer.
async fn read_out(mut rest: impl Stream<Item = io::Result<Bytes>> + Unpin) {
    let read = async { while rest.try_next().await.is_ok_and(|bytes| bytes.is_some()) {} };
    let _too_long = tokio::time::timeout(READ_OUT, read).await;
}

fn malformed(error: &multer::Error) -> RestError {
    RestError::bad_request(format!("error parsing multipart form: {error}"))
}
