//! Writes a stream into a file that belongs to a user.

use std::io;
use std::path::Path;

use bytes::Bytes;
use futures_util::{Stream, TryStreamExt as _};
use nix::unistd::{Gid, Uid, fchown};
use tokio::fs::File;
use tokio::io::AsyncWriteExt as _;

use crate::envd::filesystem::ops::ensure_dirs;
use crate::envd::rest_error::RestError;
use crate::envd::users::User;

/// Bytes handed to the file system at once.
const CHUNK: usize = 1024 * 1024;

/// Creates or truncates a file, with the directories above it, and writes the stream into it. It is the user's
/// before the first byte: a watcher sees it created, changed in its attributes and written.
///
/// # Errors
/// 400 for a directory or a broken stream, 507 when the disk is full, else 500.
pub async fn write<S>(path: &Path, user: &User, mut stream: S) -> Result<(), RestError>
where
    S: Stream<Item = io::Result<Bytes>> + Unpin,
{
    let mut file = create(path, user).await?;
    file.set_max_buf_size(CHUNK);
    while let Some(bytes) = stream
        .try_next()
        .await
        .map_err(|error| RestError::bad_request(format!("error reading request body: {error}")))?
    {
        file.write_all(&bytes).await.map_err(|error| RestError::writing("writing file", &error))?;
    }
    file.flush().await.map_err(|error| RestError::writing("writing file", &error))
}

/// Opens a file for writing, empty and the user's.
///
/// # Errors
/// As [`write`].
pub async fn create(path: &Path, user: &User) -> Result<File, RestError> {
    if tokio::fs::metadata(path).await.is_ok_and(|metadata| metadata.is_dir()) {
        return Err(RestError::bad_request(format!("path is a directory: {}", path.display())));
    }
    let (owned, owner) = (path.to_owned(), user.clone());
    let opened = tokio::task::spawn_blocking(move || {
        if let Some(parent) = owned.parent() {
            ensure_dirs(parent, &owner)?;
        }
        let file = std::fs::File::create(&owned)?;
        fchown(&file, Some(Uid::from_raw(owner.uid)), Some(Gid::from_raw(owner.gid)))?;
        Ok(file)
    });
    let opened = opened.await.unwrap_or_else(|error| Err(io::Error::other(error)));
    opened.map(File::from_std).map_err(|error| RestError::writing("opening file", &error))
}
