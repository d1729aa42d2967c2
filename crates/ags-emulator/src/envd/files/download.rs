//! `GET /files`.

use std::io::{self, SeekFrom, Write as _};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use axum::body::Body;
use axum::extract::{Query, State};
use axum::response::Response;
use bytes::Bytes;
use chrono::{DateTime, Timelike as _, Utc};
use flate2::Compression;
use flate2::write::GzEncoder;
use futures_util::Stream;
use http::response::Builder;
use http::{HeaderMap, StatusCode, header};
use tokio::fs::File;
use tokio::io::{AsyncRead, AsyncReadExt as _, AsyncSeekExt as _};
use tokio_util::io::ReaderStream;

use super::conditions::{self, Answer};
use super::content::{self, SNIFFED};
use super::encoding::{Encoding, negotiate};
use super::query::{self, FilesQuery};
use crate::envd::daemon::Daemon;
use crate::envd::paths::base_name;
use crate::envd::rest_error::RestError;
use crate::envd::signature::Operation;

/// Bytes read at once; also what one download holds in memory.
const CHUNK: usize = 256 * 1024;

/// Sends a file: whole, a part, or compressed.
///
/// # Errors
/// 400 for a directory or a path that means nothing, 401, 404, 406, 500.
pub async fn download(
    State(daemon): State<Arc<Daemon>>,
    Query(query): Query<FilesQuery>,
    headers: HeaderMap,
) -> Result<Response, RestError> {
    query.authorize(&daemon, &headers, Operation::Read)?;
    let user = query.user(&daemon)?;
    let path = query::resolve(&daemon, query.path.as_deref().unwrap_or_default(), &user)?;
    let mut file = OpenFile::open(path).await?;
    let encoding =
        negotiate(&headers).map_err(|error| RestError::new(StatusCode::NOT_ACCEPTABLE, error.to_string()))?;
    let reply = Response::builder()
        .header(header::CONTENT_DISPOSITION, content::disposition(&base_name(&file.path)))
        .header(header::VARY, "Accept-Encoding");
    if encoding == Encoding::Gzip && !conditions::present(&headers) {
        let kind = file.content_type().await?;
        let reply = reply.header(header::CONTENT_TYPE, kind).header(header::CONTENT_ENCODING, "gzip");
        return finish(reply, Body::from_stream(gzip(file.file)));
    }
    file.answer(reply, &headers).await
}

struct OpenFile {
    file: File,
    path: PathBuf,
    size: u64,
    modified: DateTime<Utc>,
}

impl OpenFile {
    async fn open(path: PathBuf) -> Result<Self, RestError> {
        let metadata = tokio::fs::metadata(&path).await.map_err(|error| unreadable(&path, &error))?;
        if metadata.is_dir() {
            return Err(RestError::bad_request(format!("path '{}' is a directory", path.display())));
        }
        if !metadata.is_file() {
            // Opening a pipe nobody writes to, or a terminal, would wait for ever.
            return Err(RestError::bad_request(format!("path '{}' is not a regular file", path.display())));
        }
        let file = File::open(&path).await.map_err(|error| unreadable(&path, &error))?;
        let modified = metadata.modified().map_or(DateTime::UNIX_EPOCH, DateTime::<Utc>::from);
        Ok(Self { file, path, size: metadata.len(), modified: modified.with_nanosecond(0).unwrap_or(modified) })
    }

    async fn content_type(&mut self) -> Result<String, RestError> {
        let mut beginning = Vec::with_capacity(SNIFFED);
        (&mut self.file)
            .take(SNIFFED as u64)
            .read_to_end(&mut beginning)
            .await
            .map_err(|error| unreadable(&self.path, &error))?;
        self.seek(0).await?;
        Ok(content::content_type(&self.path, &beginning))
    }

    async fn seek(&mut self, offset: u64) -> Result<(), RestError> {
        let sought = self.file.seek(SeekFrom::Start(offset)).await;
        sought.map(drop).map_err(|error| unreadable(&self.path, &error))
    }

    /// Uncompressed, with ranges and conditions. The length is what the file system says, so that files it says
    /// nothing about, such as those in `/proc`, come out empty here.
    async fn answer(mut self, reply: Builder, headers: &HeaderMap) -> Result<Response, RestError> {
        let reply = reply
            .header(header::ACCEPT_RANGES, "bytes")
            .header(header::LAST_MODIFIED, conditions::format_date(self.modified));
        let size = self.size;
        let (reply, offset, length) = match conditions::evaluate(headers, size, self.modified) {
            Answer::NotModified => return finish(reply.status(StatusCode::NOT_MODIFIED), Body::empty()),
            Answer::PreconditionFailed => {
                return finish(reply.status(StatusCode::PRECONDITION_FAILED), Body::empty());
            }
            Answer::NotSatisfiable => {
                let reply = reply
                    .status(StatusCode::RANGE_NOT_SATISFIABLE)
                    .header(header::CONTENT_RANGE, format!("bytes */{size}"));
                return finish(reply, Body::from("invalid range: failed to overlap\n"));
            }
            Answer::Whole => (reply, 0, size),
            Answer::Part { offset, length } => {
                let range = format!("bytes {offset}-{}/{size}", offset + length - 1);
                (reply.status(StatusCode::PARTIAL_CONTENT).header(header::CONTENT_RANGE, range), offset, length)
            }
        };
        let reply =
            reply.header(header::CONTENT_TYPE, self.content_type().await?).header(header::CONTENT_LENGTH, length);
        self.seek(offset).await?;
        let body = ReaderStream::with_capacity(self.file.take(length), CHUNK);
        finish(reply, Body::from_stream(body))
    }
}

fn finish(reply: Builder, body: Body) -> Result<Response, RestError> {
    let failed = |error: http::Error| RestError::new(StatusCode::INTERNAL_SERVER_ERROR, error.to_string());
    reply.body(body).map_err(failed)
}

fn unreadable(path: &Path, error: &io::Error) -> RestError {
    match error.kind() {
        io::ErrorKind::NotFound | io::ErrorKind::NotADirectory => {
            RestError::new(StatusCode::NOT_FOUND, format!("path '{}' does not exist", path.display()))
        }
        _ => RestError::new(
            StatusCode::INTERNAL_SERVER_ERROR,
            format!("error opening file '{}': {error}", path.display()),
        ),
    }
}

fn gzip(mut from: impl AsyncRead + Unpin + Send + 'static) -> impl Stream<Item = io::Result<Bytes>> + Send {
    async_stream::try_stream! {
        let mut encoder = GzEncoder::new(Vec::new(), Compression::fast());
        let mut buffer = vec![0; CHUNK];
        loop {
            let length = from.read(&mut buffer).await?;
            if length == 0 {
                break;
            }
            encoder.write_all(&buffer[..length])?;
            if !encoder.get_ref().is_empty() {
                yield Bytes::from(std::mem::take(encoder.get_mut()));
            }
        }
        yield Bytes::from(encoder.finish()?);
    }
}
