//! Files of a running instance.
//!
//! The sandbox's daemon does the work, as root: the call's user decides where relative paths start and whom new files
//! belong to, not what may be touched.

#[cfg(fuzzing)]
pub mod archive;
#[cfg(not(fuzzing))]
mod archive;
mod read;
mod watch;
mod write;

use std::{future::Future, sync::Arc, time::Duration};

use envd_client::{EntryInfo, EntryKind, EnvdClient, EnvdError};

pub use self::{
    archive::{Packing, Unpacked},
    read::Reading,
    watch::{Change, Seen, Watch, WatchEnd},
    write::{Announced, Staged, Written},
};
use super::{
    App,
    instances::{self, Target},
};
use crate::{
    auth::Caller,
    domain::file::{FileInfo, FileKind, FilePath, InvalidPath, Link, from_go_permissions},
    error::{Code, Error, Result},
    ids::InstanceId,
};

const MAX_USER: usize = 64;
/// Levels of a listing.
pub const MAX_DEPTH: u32 = 64;

/// The files of one running instance, seen as one of its users. Cheap to clone.
#[derive(Clone)]
pub struct Files {
    app: App,
    target: Target,
    user: Arc<str>,
}

/// The files of an instance of the caller's; `user` is the tool type's default one if none is named.
///
/// # Errors
/// `not_found`; `invalid_state` when the instance does not run; `validation_failed` for what cannot be a user's name.
pub async fn of(app: &App, caller: &Caller, id: &InstanceId, user: Option<&str>) -> Result<Files> {
    user.map_or(Ok(()), check_user)?;
    let target = instances::running(app, caller, id).await?;
    let user = user.unwrap_or_else(|| target.default_user(app)).into();
    Ok(Files { app: app.clone(), target, user })
}

fn check_user(user: &str) -> Result<()> {
    if user.is_empty() || user.len() > MAX_USER || user.contains(|c: char| c == ':' || c.is_control()) {
        let message = format!("must have 1 to {MAX_USER} bytes, none of them a colon or a control character");
        return Err(Error::field("user", message));
    }
    Ok(())
}

/// A path of a request, or the error that names its field.
///
/// # Errors
/// `validation_failed`.
pub fn parse_path(field: &str, text: &str) -> Result<FilePath> {
    FilePath::parse(text).map_err(|problem| invalid(field, problem))
}

fn invalid(field: &str, problem: InvalidPath) -> Error {
    Error::field(field, problem.to_string())
}

impl Files {
    /// Describes an entry; of a link, the link itself.
    ///
    /// # Errors
    /// `not_found`.
    pub async fn stat(&self, path: &FilePath) -> Result<FileInfo> {
        self.entry(path.as_str()).await
    }

    /// What is in a directory and `depth` levels below, each directory before its content and names in order. A link to a
    /// directory is followed when it is the path itself.
    ///
    /// # Errors
    /// `not_found`; `not_a_directory`; `validation_failed` when the listing would be too long for one answer.
    pub async fn list(&self, path: &FilePath, depth: u32) -> Result<Vec<FileInfo>> {
        let (user, patience, path) = (&*self.user, self.patience(), path.as_str());
        let listed = self.call(|envd| async move { envd.list_dir(path, depth, Some(user), patience).await }).await;
        match listed {
            Ok(entries) => Ok(entries.into_iter().map(FileInfo::from).collect()),
            Err(error) if error.code() == Code::ValidationFailed => Err(self.unless_directory(path, error).await),
            Err(error) if error.code() == Code::UpstreamThrottled => {
                Err(Error::field("depth", "the listing is too long for one answer: list fewer levels at a time")
                    .with_source(error))
            }
            Err(error) => Err(error),
        }
    }

    /// The daemon calls a path that is no directory an invalid argument, among others.
    async fn unless_directory(&self, path: &str, error: Error) -> Error {
        match self.followed(path).await {
            Ok(Some(info)) if info.kind != FileKind::Directory => not_a_directory(&info.path),
            _ => error,
        }
    }

    /// Makes a directory and what is missing above it. The flag says whether it was made now.
    ///
    /// # Errors
    /// `already_exists` when something else has the name, `not_a_directory` when something above it is none.
    pub async fn make_dir(&self, path: &FilePath) -> Result<(FileInfo, bool)> {
        let (user, patience, path) = (&*self.user, self.patience(), path.as_str());
        match self.call(|envd| async move { envd.make_dir(path, Some(user), patience).await }).await {
            Ok(entry) => Ok((entry.into(), true)),
            Err(error) if error.code() == Code::AlreadyExists => Ok((self.entry(path).await?, false)),
            Err(error) if error.code() == Code::ValidationFailed => match self.find(path).await {
                Ok(Some(info)) => {
                    let detail = format!("There is something at {:?} that is not a directory.", info.path);
                    Err(Error::new(Code::AlreadyExists, detail))
                }
                Ok(None) => Err(Error::new(Code::NotADirectory, "Something above the path is not a directory.")),
                Err(_) => Err(error),
            },
            Err(error) => Err(naming(path, error)),
        }
    }

    /// Renames, as rename(2) does: a file at the destination is replaced, missing directories above it are made.
    ///
    /// # Errors
    /// `not_found` for the source; `already_exists` or `is_a_directory` for a destination that cannot be replaced.
    pub async fn rename(&self, source: &FilePath, destination: &FilePath) -> Result<FileInfo> {
        source.entry().map_err(|problem| invalid("source", problem))?;
        destination.entry().map_err(|problem| invalid("destination", problem))?;
        let moved = self.move_entry(source.as_str(), destination.as_str()).await;
        moved.map_err(|error| naming(destination.as_str(), error))
    }

    /// Removes an entry, a directory with all that is in it. What is not there is removed already.
    ///
    /// # Errors
    /// `permission_denied`, `validation_failed` for a path that names no entry.
    pub async fn remove(&self, path: &FilePath) -> Result<()> {
        path.entry().map_err(|problem| invalid("path", problem))?;
        self.remove_entry(path.as_str()).await.map_err(|error| naming(path.as_str(), error))
    }

    /// What is at a path, links followed.
    async fn followed(&self, path: &str) -> Result<Option<FileInfo>> {
        match self.find(path).await? {
            Some(FileInfo { link: Some(Link { kind: None, .. }), .. }) => Ok(None),
            Some(FileInfo { link: Some(link), .. }) => self.find(&link.target).await,
            found => Ok(found),
        }
    }

    /// A directory, as it was named and where it is.
    async fn directory(&self, path: &FilePath) -> Result<(FileInfo, String)> {
        let named = self.entry(path.as_str()).await?;
        let (kind, at) = match &named.link {
            None => (Some(named.kind), named.path.clone()),
            Some(link) => (link.kind, link.target.clone()),
        };
        match kind {
            Some(FileKind::Directory) => Ok((named, at)),
            Some(_) => Err(not_a_directory(&named.path)),
            None => Err(Error::new(Code::NotFound, format!("The link {:?} leads nowhere.", named.path))),
        }
    }

    async fn find(&self, path: &str) -> Result<Option<FileInfo>> {
        match self.entry(path).await {
            Ok(info) => Ok(Some(info)),
            Err(error) if is_absent(&error) => Ok(None),
            Err(error) => Err(error),
        }
    }

    async fn entry(&self, path: &str) -> Result<FileInfo> {
        let (user, patience) = (&*self.user, self.patience());
        self.call(|envd| async move { envd.stat(path, Some(user), patience).await }).await.map(FileInfo::from)
    }

    async fn move_entry(&self, source: &str, destination: &str) -> Result<FileInfo> {
        let (user, patience) = (&*self.user, self.patience());
        let call = |envd: EnvdClient| async move { envd.move_entry(source, destination, Some(user), patience).await };
        self.call(call).await.map(FileInfo::from)
    }

    async fn remove_entry(&self, path: &str) -> Result<()> {
        let (user, patience) = (&*self.user, self.patience());
        self.call(|envd| async move { envd.remove(path, Some(user), patience).await }).await
    }

    async fn call<T, F>(&self, make: impl Fn(EnvdClient) -> F) -> Result<T>
    where
        F: Future<Output = Result<T, EnvdError>>,
    {
        self.target.call(make).await
    }

    /// The error for a file's content that broke off.
    #[must_use]
    pub fn error(&self, error: EnvdError) -> Error {
        self.target.error(error)
    }

    /// How long anything may stand still.
    fn patience(&self) -> Duration {
        self.app.config.files.idle_timeout
    }
}

/// The sandbox says that there is nothing, as against the cloud saying that there is no sandbox.
fn is_absent(error: &Error) -> bool {
    let said_by_sandbox = || error.inner().source.as_ref().is_some_and(|source| source.is::<EnvdError>());
    error.code() == Code::NotFound && said_by_sandbox()
}

/// What the sandbox refused, with the path that was asked for: the daemon may name another one, or none.
fn naming(path: &str, error: Error) -> Error {
    if error.code() != Code::PermissionDenied {
        return error;
    }
    error.with_detail(format!(
        "The sandbox denies this at {path:?}: by its permissions, or a file system that is read-only."
    ))
}

fn not_a_file(path: &str) -> Error {
    Error::new(Code::NotAFile, format!("{path:?} is a device, pipe or socket: only files have content here."))
}

fn not_a_directory(path: &str) -> Error {
    Error::new(Code::NotADirectory, format!("{path:?} is not a directory."))
}

impl From<EntryInfo> for FileInfo {
    fn from(entry: EntryInfo) -> Self {
        let seen = kind(entry.kind);
        let is_link = entry.symlink_target.is_some() || entry.kind == EntryKind::Symlink;
        // The daemon gives the mode of a link's target, but the permissions of the link.
        let (permissions, mode) = from_go_permissions(&entry.permissions).unwrap_or((entry.permissions, entry.mode));
        let link = entry.symlink_target.map(|target| {
            let leads_nowhere = seen == FileKind::Other && target == entry.path;
            Link { kind: (!leads_nowhere).then_some(seen), target }
        });
        Self {
            kind: if is_link { FileKind::Symlink } else { seen },
            name: entry.name,
            path: entry.path,
            size: entry.size,
            mode,
            permissions,
            owner: entry.owner,
            group: entry.group,
            modified_at: entry.modified_at,
            link,
        }
    }
}

fn kind(kind: EntryKind) -> FileKind {
    match kind {
        EntryKind::File => FileKind::File,
        EntryKind::Directory => FileKind::Directory,
        EntryKind::Symlink => FileKind::Symlink,
        EntryKind::Unspecified | EntryKind::Unknown(_) => FileKind::Other,
    }
}
