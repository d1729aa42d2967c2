//! Writing a file: a stream goes to a temporary name, which is then moved into place, so that nobody sees half a file.
//!
//! The caller's end of the stream is read here, hashed, and handed piece by piece to a task that sends it on. When the
//! caller breaks off, that task ends the upload in good order, so that the daemon is through with the temporary file
//! before it is removed.

use std::{
    pin::Pin,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    task::{Context, Poll},
};

use bytes::Bytes;
use envd_client::{EnvdClient, EnvdError, ProcessEvent, StartSpec};
use futures_util::StreamExt;
use http_body::{Body, Frame};
use http_body_util::BodyExt;
use sha2::{Digest, Sha256};
use tokio::{sync::mpsc, time::timeout};

use super::Files;
use crate::{
    domain::file::{FileInfo, FileKind, FilePath, join, parent_directory},
    error::{Code, Error, Result},
};

/// Hidden, and recognisable where a gateway died in the middle of an upload.
const TEMPORARY_PREFIX: &str = ".ags-upload-";
/// Pieces that were read from the caller and not yet sent on: all that an upload holds in memory.
const PIECES_IN_FLIGHT: usize = 4;
/// What envd's writes leave of a mode, like write(2): neither setuid nor setgid.
const KEPT_MODE: u32 = 0o1777;

/// A file that was written.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Written {
    /// Absolute.
    pub path: String,
    /// In bytes.
    pub size: u64,
    /// Of the content, in hex.
    pub sha256: String,
    /// Whether there was nothing at the path before.
    pub created: bool,
}

/// What a caller says beforehand of the content it is about to send.
#[derive(Clone, Copy, Debug, Default)]
pub struct Announced {
    /// In bytes.
    pub length: Option<u64>,
    /// Nothing may be replaced (`If-None-Match: *`).
    pub only_new: bool,
}

/// Where an upload goes, and what is there.
#[derive(Debug)]
struct Place {
    destination: String,
    temporary: String,
    replaced: Option<FileInfo>,
}

impl Files {
    /// Writes a file, replacing what was there at once and keeping its mode. Links are followed; missing directories are
    /// made. `body` is read to its end, or until the upload fails.
    ///
    /// # Errors
    /// `is_a_directory`, `not_a_file`, `not_a_directory`, `precondition_failed`, `body_too_large`, `no_space`;
    /// `invalid_request` when the body breaks off. Nothing is left behind then.
    pub async fn write<B>(&self, path: &FilePath, announced: Announced, body: &mut B) -> Result<Written>
    where
        B: Body<Data = Bytes> + Unpin,
        B::Error: std::error::Error + Send + Sync + 'static,
    {
        let staged = self.stage(path, announced, body).await?;
        Self::commit(vec![staged]).await?.pop().ok_or_else(|| Error::internal("one file was staged, none was written"))
    }

    /// Writes a file's content under a temporary name. It is gone again when the result is dropped.
    ///
    /// # Errors
    /// As [`write`](Self::write).
    pub async fn stage<B>(&self, path: &FilePath, announced: Announced, body: &mut B) -> Result<Staged>
    where
        B: Body<Data = Bytes> + Unpin,
        B::Error: std::error::Error + Send + Sync + 'static,
    {
        let limit = self.app.config.files.max_upload;
        if announced.length.zip(limit).is_some_and(|(length, limit)| length > limit) {
            return Err(too_large(limit.unwrap_or_default(), announced.length.unwrap_or_default()));
        }
        let place = self.place(path, announced.only_new).await?;
        let (sender, pieces) = mpsc::channel(PIECES_IN_FLIGHT);
        let task = self.app.lifecycle.spawn("upload", self.clone().receive(place, pieces));
        let read = self.pump(body, announced.length, sender).await;
        let received = task.await.map_err(Error::internal)?;
        match (read, received) {
            (Ok(Some(content)), Ok(temporary)) => Ok(Staged { temporary, content }),
            // What was wrong with the caller's end is the cause, whatever became of the other.
            (Err(error), _) | (Ok(_), Err(error)) => Err(error),
            (Ok(None), Ok(_)) => Err(Error::internal("an upload was taken before it was whole")),
        }
    }

    /// Moves staged files into place, whether or not the caller still waits for it.
    ///
    /// # Errors
    /// `is_a_directory` and others, where something has come in between. The files that follow are not written then.
    pub async fn commit(staged: Vec<Staged>) -> Result<Vec<Written>> {
        let Some(lifecycle) = staged.first().map(|staged| staged.temporary.files.app.lifecycle.clone()) else {
            return Ok(Vec::new());
        };
        let committed = lifecycle.spawn("commit", async move {
            let mut written = Vec::with_capacity(staged.len());
            for staged in staged {
                written.push(staged.commit().await?);
            }
            Ok(written)
        });
        committed.await.map_err(Error::internal)?
    }

    /// Where the content goes: the temporary file stands in the destination's directory, or if that is still to be made, in
    /// the closest one above it, which is on the same file system.
    async fn place(&self, path: &FilePath, only_new: bool) -> Result<Place> {
        let (directory, _) = path.file().map_err(|problem| super::invalid("path", problem))?;
        let (found, above) = tokio::try_join!(self.find(path.as_str()), self.followed(&directory))?;
        let Some(found) = found else {
            let directory = self.existing_directory(directory, above).await?;
            return Ok(self.place_in(&directory, path.as_str().to_owned(), None));
        };
        if only_new {
            let detail = format!("There is something at {:?} already.", found.path);
            return Err(Error::new(Code::PreconditionFailed, detail));
        }
        let replaced = match found.link.clone() {
            // One that leads nowhere is replaced itself.
            Some(link) if link.kind.is_none() => return Ok(self.place_in(&directory, found.path, None)),
            Some(link) => self.find(&link.target).await?.unwrap_or(found),
            None => found,
        };
        match replaced.kind {
            FileKind::File => {}
            FileKind::Directory => {
                let detail = format!("{:?} is a directory. Name a file in it.", replaced.path);
                return Err(Error::new(Code::IsADirectory, detail));
            }
            FileKind::Symlink | FileKind::Other => return Err(super::not_a_file(&replaced.path)),
        }
        let directory = parent_directory(&replaced.path).unwrap_or(directory);
        Ok(self.place_in(&directory, replaced.path.clone(), Some(replaced)))
    }

    fn place_in(&self, directory: &str, destination: String, replaced: Option<FileInfo>) -> Place {
        let temporary = join(directory, &format!("{TEMPORARY_PREFIX}{}", self.app.ids.token()));
        Place { destination, temporary, replaced }
    }

    /// The directory itself, or the closest one above it that exists.
    async fn existing_directory(&self, directory: String, found: Option<FileInfo>) -> Result<String> {
        let (mut directory, mut found) = (directory, found);
        loop {
            match found {
                Some(info) if info.kind == FileKind::Directory => return Ok(directory),
                Some(info) => return Err(super::not_a_directory(&info.path)),
                // A home that is missing is made by the daemon.
                None => match parent_directory(&directory) {
                    None => return Ok(directory),
                    Some(parent) => {
                        found = self.followed(&parent).await?;
                        directory = parent;
                    }
                },
            }
        }
    }

    /// Reads the caller's end to its last byte. `None` when the other end has failed meanwhile.
    async fn pump<B>(
        &self,
        body: &mut B,
        length: Option<u64>,
        pieces: mpsc::Sender<Option<Bytes>>,
    ) -> Result<Option<Content>>
    where
        B: Body<Data = Bytes> + Unpin,
        B::Error: std::error::Error + Send + Sync + 'static,
    {
        let limit = self.app.config.files.max_upload;
        let (mut size, mut hasher) = (0_u64, Sha256::new());
        while let Some(frame) = timeout(self.patience(), body.frame()).await.map_err(|_| stalled())? {
            let Ok(data) = frame.map_err(broken_off)?.into_data() else { continue };
            size += data.len() as u64;
            if let Some(limit) = limit.filter(|limit| size > *limit) {
                return Err(too_large(limit, size));
            }
            hasher.update(&data);
            if pieces.send(Some(data)).await.is_err() {
                return Ok(None);
            }
        }
        if let Some(length) = length.filter(|length| *length != size) {
            let detail = format!("The body has {size} bytes, its Content-Length says {length}.");
            return Err(Error::new(Code::InvalidRequest, detail));
        }
        if pieces.send(None).await.is_err() {
            return Ok(None);
        }
        Ok(Some(Content { size, sha256: hex::encode(hasher.finalize()) }))
    }

    /// The task that sends the pieces on.
    async fn receive(self, place: Place, pieces: mpsc::Receiver<Option<Bytes>>) -> Result<Temporary> {
        let whole = Arc::new(AtomicBool::new(false));
        let body = Pieces { pieces, whole: Arc::clone(&whole) };
        let user = Arc::clone(&self.user);
        let envd = self.target.envd().await?;
        let mut temporary = Temporary { files: self, place, done: false };
        match envd.upload(&temporary.place.temporary, Some(&user), body).await {
            Ok(_) if !whole.load(Ordering::Acquire) => {
                temporary.remove().await;
                Err(Error::new(Code::InvalidRequest, "The body broke off."))
            }
            Ok(receipt) => {
                // From here on the path does not depend on anybody's home.
                temporary.place.temporary = receipt.path;
                Ok(temporary)
            }
            Err(error) => {
                temporary.remove().await;
                Err(super::naming(&temporary.place.destination, temporary.files.target.error(error)))
            }
        }
    }
}

/// What was read from the caller.
#[derive(Debug)]
struct Content {
    size: u64,
    sha256: String,
}

/// The body of an upload, whose source may end without being whole.
struct Pieces {
    pieces: mpsc::Receiver<Option<Bytes>>,
    whole: Arc<AtomicBool>,
}

impl Body for Pieces {
    type Data = Bytes;
    type Error = EnvdError;

    fn poll_frame(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, EnvdError>>> {
        self.pieces.poll_recv(cx).map(|received| match received {
            Some(Some(data)) => Some(Ok(Frame::data(data))),
            Some(None) => {
                self.whole.store(true, Ordering::Release);
                None
            }
            None => None,
        })
    }
}

/// A file under its temporary name. Dropping it removes it.
struct Temporary {
    files: Files,
    place: Place,
    done: bool,
}

impl Temporary {
    /// Removes the file now. A failure is logged: the caller has learnt the cause, and there is no more to be done.
    async fn remove(&mut self) {
        self.done = true;
        self.files.remove_temporary(&self.place.temporary).await;
    }
}

impl Drop for Temporary {
    fn drop(&mut self) {
        if !self.done {
            let (files, path) = (self.files.clone(), std::mem::take(&mut self.place.temporary));
            let lifecycle = files.app.lifecycle.clone();
            lifecycle.spawn("remove temporary", async move { files.remove_temporary(&path).await });
        }
    }
}

impl Files {
    async fn remove_temporary(&self, path: &str) {
        if let Err(error) = self.remove_entry(path).await {
            let instance = &self.target.instance.id;
            tracing::warn!(%instance, %error, "a temporary file could not be removed");
        }
    }

    /// Gives a new file the mode of the one it replaces. There is no call for that: a helper process does it, in images
    /// that have `chmod`; elsewhere the mode is lost.
    async fn keep_mode(&self, temporary: &str, replaced: &FileInfo) {
        let mode = replaced.mode & KEPT_MODE;
        match self.entry(temporary).await {
            Ok(info) if info.mode == mode => return,
            Ok(_) => {}
            Err(error) => return tracing::debug!(%error, "the mode of a new file is not known"),
        }
        let (mode, user, patience) = (format!("{mode:04o}"), &*self.user, self.patience());
        let spec = StartSpec {
            cmd: "chmod".to_owned(),
            args: vec![mode, "--".to_owned(), temporary.to_owned()],
            user: Some(user.to_owned()),
            deadline: Some(patience),
            ..StartSpec::default()
        };
        if !matches!(self.call(|envd| run(envd, spec.clone())).await, Ok(true)) {
            tracing::info!(instance = %self.target.instance.id, "the mode of a replaced file was not kept");
        }
    }
}

/// Runs a helper to its end. Whether it succeeded.
async fn run(envd: EnvdClient, spec: StartSpec) -> Result<bool, EnvdError> {
    let mut events = envd.start(spec).await?;
    while let Some(event) = events.next().await {
        if let ProcessEvent::End { exit_code, .. } = event? {
            return Ok(exit_code == 0);
        }
    }
    Ok(false)
}

/// A file whose content is there, under its temporary name.
pub struct Staged {
    temporary: Temporary,
    content: Content,
}

impl Staged {
    /// Where it will be.
    #[must_use]
    pub fn destination(&self) -> &str {
        &self.temporary.place.destination
    }

    async fn commit(mut self) -> Result<Written> {
        let Temporary { files, place, .. } = &self.temporary;
        if let Some(replaced) = &place.replaced {
            files.keep_mode(&place.temporary, replaced).await;
        }
        match files.move_entry(&place.temporary, &place.destination).await {
            Ok(entry) => {
                let created = place.replaced.is_none();
                self.temporary.done = true;
                Ok(Written { path: entry.path, size: self.content.size, sha256: self.content.sha256, created })
            }
            Err(error) => {
                self.temporary.remove().await;
                Err(super::naming(&self.temporary.place.destination, error))
            }
        }
    }
}

pub(super) fn too_large(limit: u64, size: u64) -> Error {
    let detail = format!("A file may have up to {limit} bytes here.");
    Error::new(Code::BodyTooLarge, detail).with_limit("files.max_upload", limit, size)
}

pub(super) fn stalled() -> Error {
    Error::new(Code::InvalidRequest, "The body stood still for too long.")
}

pub(super) fn broken_off(source: impl std::error::Error + Send + Sync + 'static) -> Error {
    Error::new(Code::InvalidRequest, "The body broke off.").with_source(source)
}
