//! Directories as tar archives.

use axum::{
    body::Body,
    extract::State,
    response::{IntoResponse, Response},
};
use http::{HeaderMap, HeaderValue, header};
use serde::Serialize;
use utoipa::{IntoParams, ToSchema};

use super::{
    content::{harmless, length_of, linger},
    dto::{self, required_path},
};
use crate::{
    app::{
        App,
        files::{self, Unpacked, parse_path},
    },
    auth::Caller,
    domain::scope::scope,
    error::{Code, Error, Result},
    http::{
        extract::{Authorized, FromQuery, Json, Path, Query, QueryReader},
        openapi::Failures,
        unread::Bounded,
    },
    ids::InstanceId,
};

const TAR: HeaderValue = HeaderValue::from_static("application/x-tar");

/// Which directory, and whose.
#[derive(Debug, IntoParams)]
#[into_params(parameter_in = Query)]
pub(super) struct ArchiveQuery {
    /// The directory. Absolute, or under the user's home (`~` is the home itself).
    #[param(min_length = 1, max_length = 4095, example = "project")]
    pub path: String,
    /// The sandbox's user: relative paths are under its home, and what is unpacked is unpacked by it. Default: `user` for
    /// code interpreters, else `root`, unless configured otherwise.
    #[param(example = "user")]
    pub user: Option<String>,
}

impl FromQuery for ArchiveQuery {
    fn from_query(query: &mut QueryReader) -> Self {
        Self { path: required_path(query), user: query.text("user") }
    }
}

/// What was unpacked.
#[derive(Debug, Serialize, ToSchema)]
#[schema(as = UnpackedArchive)]
pub(super) struct UnpackedDto {
    /// The directory: absolute, links resolved.
    #[schema(example = "/home/user/project")]
    path: String,
    #[schema(example = 12)]
    files: u64,
    /// Those that the archive names.
    #[schema(example = 3)]
    directories: u64,
    /// Symbolic ones.
    #[schema(example = 0)]
    links: u64,
    /// Of all files together.
    #[schema(example = 20480)]
    bytes: u64,
}

impl From<Unpacked> for UnpackedDto {
    fn from(unpacked: Unpacked) -> Self {
        let Unpacked { path, files, directories, links, bytes } = unpacked;
        Self { path, files, directories, links, bytes }
    }
}

/// What is in a directory as a tar archive, streamed as it is packed by the sandbox's own `tar`.
///
/// Names are relative to the directory (`./a`), links are kept as links, files with several names (hard links) are packed as
/// often where `tar` is GNU's. An archive that could not be made whole breaks off visibly; that files change while they are
/// packed is not seen as a failure. A sandbox without `tar` answers 409 `program_missing`.
#[utoipa::path(get, path = "/v1/instances/{id}/archive", operation_id = "get_archive", tag = "files",
    params(("id" = InstanceId, Path), ArchiveQuery),
    responses((status = 200, description = "The archive.", body = dto::Bytes, content_type = "application/x-tar"), Failures))]
pub(super) async fn get_archive(
    State(app): State<App>,
    caller: Authorized<scope::FilesRead>,
    Path(id): Path<InstanceId>,
    Query(query): Query<ArchiveQuery>,
) -> Result<Response> {
    let path = parse_path("path", &query.path)?;
    let packing = files::of(&app, &caller, &id, query.user.as_deref()).await?.pack(&path).await?;
    let body = Bounded::new(packing.body, app.config.files.idle_timeout, &app.lifecycle);
    let mut response = Body::from_stream(body).into_response();
    let headers = response.headers_mut();
    headers.insert(header::CONTENT_TYPE, TAR);
    headers.extend(harmless(&format!("{}.tar", packing.name)));
    Ok(response)
}

/// Unpacks a tar archive below a directory, as it arrives. The directory is made if it is missing.
///
/// Files, directories and symbolic links are taken, with their modes (without setuid, setgid and sticky bits) and times; what is
/// unpacked belongs to `user`, who must be allowed to write there. What is in the way is replaced, but for directories. A
/// member that would land outside (`..`, an absolute name, a way through a symbolic link), hard links, devices, pipes and
/// names that are not UTF-8 are refused. Unlike a single file, an archive is not written at once: what came before a failure
/// stays.
#[utoipa::path(put, path = "/v1/instances/{id}/archive", operation_id = "put_archive", tag = "files",
    params(("id" = InstanceId, Path), ArchiveQuery),
    request_body(content = dto::Bytes, content_type = "application/x-tar", description = "The archive, uncompressed; any Content-Type is taken."),
    responses((status = 200, body = UnpackedDto), Failures))]
pub(super) async fn put_archive(
    State(app): State<App>,
    caller: Authorized<scope::FilesWrite>,
    Path(id): Path<InstanceId>,
    Query(query): Query<ArchiveQuery>,
    headers: HeaderMap,
    mut body: Body,
) -> Result<Json<UnpackedDto>> {
    let unpacked = unpack(&app, &caller, &id, &query, &headers, &mut body).await;
    if unpacked.is_err() {
        linger(&app, &headers, body);
    }
    Ok(Json(unpacked?.into()))
}

async fn unpack(
    app: &App,
    caller: &Caller,
    id: &InstanceId,
    query: &ArchiveQuery,
    headers: &HeaderMap,
    body: &mut Body,
) -> Result<Unpacked> {
    let path = parse_path("path", &query.path)?;
    if headers.get(header::CONTENT_ENCODING).is_some_and(|encoding| encoding != "identity") {
        let detail = "Archives are taken uncompressed: send it without Content-Encoding.";
        return Err(Error::new(Code::UnsupportedMediaType, detail));
    }
    files::of(app, caller, id, query.user.as_deref()).await?.unpack(&path, length_of(headers), body).await
}
