//! `POST /files/compose`: several files become one.

use std::fs;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use axum::Json;
use axum::extract::State;
use axum::response::{IntoResponse as _, Response};
use bytes::Bytes;
use http::StatusCode;
use serde::Deserialize;

use super::query;
use super::upload::Written;
use crate::envd::daemon::Daemon;
use crate::envd::filesystem::ops::{ensure_dirs, give};
use crate::envd::rest_error::RestError;
use crate::envd::users::User;

/// Body of the request.
#[derive(Debug, Deserialize)]
struct Wish {
    source_paths: Vec<String>,
    destination: String,
    username: Option<String>,
}

/// Concatenates the sources in order into the destination, which appears at once and whole, and removes them.
///
/// # Errors
/// 400 for nothing to compose, a source that is the destination or no file; 401, 404, 500, 507.
pub async fn compose(State(daemon): State<Arc<Daemon>>, body: Bytes) -> Result<Response, RestError> {
    let wish: Wish = serde_json::from_slice(&body)
        .map_err(|error| RestError::bad_request(format!("invalid request body: {error}")))?;
    if wish.source_paths.is_empty() {
        return Err(RestError::bad_request("source_paths must not be empty"));
    }
    let user = query::user(&daemon, wish.username.as_deref())?;
    let destination = query::resolve(&daemon, &wish.destination, &user)?;
    let sources =
        wish.source_paths.iter().map(|path| query::resolve(&daemon, path, &user)).collect::<Result<Vec<_>, _>>()?;
    if sources.contains(&destination) {
        let path = destination.display();
        return Err(RestError::bad_request(format!("source path cannot be the same as destination: {path}")));
    }
    let composed = daemon.tasks.spawn_blocking(move || {
        let composed = join(&sources, &destination, &user);
        composed.map(|()| Written::file(&destination))
    });
    let failed = |error: tokio::task::JoinError| RestError::new(StatusCode::INTERNAL_SERVER_ERROR, error.to_string());
    Ok(Json(composed.await.map_err(failed)??).into_response())
}

fn join(sources: &[PathBuf], destination: &Path, user: &User) -> Result<(), RestError> {
    for source in sources {
        check(source)?;
    }
    let directory = destination.parent().unwrap_or_else(|| Path::new("/"));
    ensure_dirs(directory, user).map_err(|error| RestError::writing("creating directory", &error))?;
    write(sources, directory, destination, user).map_err(|error| RestError::writing("composing files", &error))?;
    for source in sources {
        fs::remove_file(source).map_err(|error| RestError::writing("removing source", &error))?;
    }
    Ok(())
}

fn check(source: &Path) -> Result<(), RestError> {
    match fs::metadata(source) {
        Ok(metadata) if metadata.is_file() => Ok(()),
        Ok(_) => Err(RestError::bad_request(format!("source path is not a regular file: {}", source.display()))),
        Err(_) => Err(RestError::new(StatusCode::NOT_FOUND, format!("source file not found: {}", source.display()))),
    }
}

fn write(sources: &[PathBuf], directory: &Path, destination: &Path, user: &User) -> io::Result<()> {
    use std::os::unix::fs::PermissionsExt as _;
    let mut whole = tempfile::Builder::new()
        .prefix(".compose-")
        .permissions(fs::Permissions::from_mode(0o644))
        .tempfile_in(directory)?;
    for source in sources {
        io::copy(&mut fs::File::open(source)?, whole.as_file_mut())?;
    }
    give(whole.path(), user)?;
    whole.persist(destination)?;
    Ok(())
}
