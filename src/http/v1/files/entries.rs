//! What is there: list, stat, mkdir, move, delete.

use axum::extract::State;
use http::StatusCode;

use super::dto::{FileInfoDto, FileList, FileQuery, ListQuery, MakeDirectory, MoveFile};
use crate::{
    app::{
        App,
        files::{self, parse_path},
    },
    domain::scope::scope,
    error::Result,
    http::{
        extract::{Authorized, Json, Path, Query},
        openapi::Failures,
    },
    ids::InstanceId,
};

/// What is in a directory. A link to a directory is followed when it is the path itself, and nowhere below.
///
/// The whole listing is one answer; one that is too long is refused, so list a huge tree level by level.
#[utoipa::path(get, path = "/v1/instances/{id}/files/list", operation_id = "list_files", tag = "files",
    params(("id" = InstanceId, Path), ListQuery), responses((status = 200, body = FileList), Failures))]
pub(super) async fn list_files(
    State(app): State<App>,
    caller: Authorized<scope::FilesRead>,
    Path(id): Path<InstanceId>,
    Query(query): Query<ListQuery>,
) -> Result<Json<FileList>> {
    let path = parse_path("path", &query.path)?;
    let files = files::of(&app, &caller, &id, query.user.as_deref()).await?;
    let items = files.list(&path, query.depth.unwrap_or(1)).await?;
    Ok(Json(FileList { items: items.into_iter().map(FileInfoDto::from).collect() }))
}

/// Describes a file, directory or link; a link is described itself.
#[utoipa::path(get, path = "/v1/instances/{id}/files/stat", operation_id = "stat_file", tag = "files",
    params(("id" = InstanceId, Path), FileQuery), responses((status = 200, body = FileInfoDto), Failures))]
pub(super) async fn stat_file(
    State(app): State<App>,
    caller: Authorized<scope::FilesRead>,
    Path(id): Path<InstanceId>,
    Query(query): Query<FileQuery>,
) -> Result<Json<FileInfoDto>> {
    let path = parse_path("path", &query.path)?;
    let files = files::of(&app, &caller, &id, query.user.as_deref()).await?;
    Ok(Json(files.stat(&path).await?.into()))
}

/// Makes a directory, and those missing above it. One that is there already is no error.
#[utoipa::path(post, path = "/v1/instances/{id}/files/mkdir", operation_id = "make_directory", tag = "files",
    params(("id" = InstanceId, Path)), request_body = MakeDirectory,
    responses((status = 201, description = "It was made.", body = FileInfoDto),
        (status = 200, description = "It was there.", body = FileInfoDto), Failures))]
pub(super) async fn make_directory(
    State(app): State<App>,
    caller: Authorized<scope::FilesWrite>,
    Path(id): Path<InstanceId>,
    Json(body): Json<MakeDirectory>,
) -> Result<(StatusCode, Json<FileInfoDto>)> {
    let path = parse_path("path", &body.path)?;
    let files = files::of(&app, &caller, &id, body.user.as_deref()).await?;
    let (info, made) = files.make_dir(&path).await?;
    Ok((if made { StatusCode::CREATED } else { StatusCode::OK }, Json(info.into())))
}

/// Moves or renames a file, directory or link, at once, as rename(2) does. A file at the destination is replaced, a
/// directory only by a directory and if it is empty. Both must be on one file system.
#[utoipa::path(post, path = "/v1/instances/{id}/files/move", operation_id = "move_file", tag = "files",
    params(("id" = InstanceId, Path)), request_body = MoveFile,
    responses((status = 200, description = "The entry at its new place.", body = FileInfoDto), Failures))]
pub(super) async fn move_file(
    State(app): State<App>,
    caller: Authorized<scope::FilesWrite>,
    Path(id): Path<InstanceId>,
    Json(body): Json<MoveFile>,
) -> Result<Json<FileInfoDto>> {
    let source = parse_path("source", &body.source)?;
    let destination = parse_path("destination", &body.destination)?;
    let files = files::of(&app, &caller, &id, body.user.as_deref()).await?;
    Ok(Json(files.rename(&source, &destination).await?.into()))
}

/// Removes a file, link or directory, a directory with all that is in it. What is not there is removed already.
#[utoipa::path(delete, path = "/v1/instances/{id}/files", operation_id = "delete_file", tag = "files",
    params(("id" = InstanceId, Path), FileQuery), responses((status = 204), Failures))]
pub(super) async fn delete_file(
    State(app): State<App>,
    caller: Authorized<scope::FilesWrite>,
    Path(id): Path<InstanceId>,
    Query(query): Query<FileQuery>,
) -> Result<StatusCode> {
    let path = parse_path("path", &query.path)?;
    let files = files::of(&app, &caller, &id, query.user.as_deref()).await?;
    files.remove(&path).await?;
    Ok(StatusCode::NO_CONTENT)
}
