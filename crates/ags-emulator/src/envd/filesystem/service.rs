//! The RPC methods.

#![allow(refining_impl_trait)] // the traits promise less than what is returned

use std::os::fd::OwnedFd;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use buffa::MessageField;
use connectrpc::{ConnectError, RequestContext, Response, ServiceRequest, ServiceResult, ServiceStream};
use envd_proto::filesystem as wire;
use envd_proto::filesystem::watch_dir_response::{self, Event};
use tokio::io::unix::AsyncFd;
use tokio::time::Instant;

use super::entry::describe;
use super::error::FsError;
use super::inotify::{Change, Watch};
use super::{ops, watchers};
use crate::envd::daemon::Daemon;
use crate::envd::keepalive;
use crate::envd::process::table::until;
use crate::envd::users::{Names, User};

/// `filesystem.Filesystem`.
pub struct FilesystemService {
    daemon: Arc<Daemon>,
}

impl FilesystemService {
    #[must_use]
    pub fn new(daemon: Arc<Daemon>) -> Self {
        Self { daemon }
    }

    fn caller(&self, ctx: &RequestContext) -> Result<User, ConnectError> {
        self.daemon.caller(ctx.headers())
    }

    fn resolve(&self, path: &str, user: &User) -> Result<PathBuf, ConnectError> {
        self.daemon.resolve(path, user).map_err(|error| ConnectError::invalid_argument(error.to_string()))
    }

    async fn watch(&self, ctx: &RequestContext, wish: Wish) -> Result<(Watch, PathBuf), ConnectError> {
        let user = self.caller(ctx)?;
        let path = self.resolve(&wish.path, &user)?;
        let watched = path.clone();
        let watch = self.blocking(move || watchers::watch(&watched, wish.recursive, wish.allow_network)).await?;
        Ok((watch, path))
    }

    /// File systems block, so operations run where that stops nobody.
    async fn blocking<T: Send + 'static>(
        &self,
        operation: impl FnOnce() -> Result<T, FsError> + Send + 'static,
    ) -> Result<T, ConnectError> {
        let result = self.daemon.tasks.spawn_blocking(operation).await;
        Ok(result.map_err(|error| ConnectError::internal(error.to_string()))??)
    }

    fn includes_entry(&self, asked: bool) -> bool {
        asked && self.daemon.features.watch_entry
    }
}

/// What `WatchDir` and `CreateWatcher` ask for alike.
struct Wish {
    path: String,
    recursive: bool,
    allow_network: bool,
}

impl wire::Filesystem for FilesystemService {
    async fn stat(
        &self,
        ctx: RequestContext,
        request: ServiceRequest<'_, wire::StatRequest>,
    ) -> ServiceResult<wire::StatResponse> {
        let user = self.caller(&ctx)?;
        let path = self.resolve(&request.to_owned_message().path, &user)?;
        let names = self.daemon.accounts.names();
        let entry = self.blocking(move || ops::stat(&path, &names)).await?;
        Response::ok(wire::StatResponse { entry: MessageField::some(entry) })
    }

    async fn make_dir(
        &self,
        ctx: RequestContext,
        request: ServiceRequest<'_, wire::MakeDirRequest>,
    ) -> ServiceResult<wire::MakeDirResponse> {
        let user = self.caller(&ctx)?;
        let path = self.resolve(&request.to_owned_message().path, &user)?;
        let names = self.daemon.accounts.names();
        let made = move || {
            ops::make_dir(&path, &user)?;
            ops::stat(&path, &names)
        };
        let entry = self.blocking(made).await?;
        Response::ok(wire::MakeDirResponse { entry: MessageField::some(entry) })
    }

    async fn r#move(
        &self,
        ctx: RequestContext,
        request: ServiceRequest<'_, wire::MoveRequest>,
    ) -> ServiceResult<wire::MoveResponse> {
        let user = self.caller(&ctx)?;
        let request = request.to_owned_message();
        let source = self.resolve(&request.source, &user)?;
        let destination = self.resolve(&request.destination, &user)?;
        let names = self.daemon.accounts.names();
        let moved = move || {
            ops::rename(&source, &destination, &user)?;
            ops::stat(&destination, &names)
        };
        let entry = self.blocking(moved).await?;
        Response::ok(wire::MoveResponse { entry: MessageField::some(entry) })
    }

    async fn list_dir(
        &self,
        ctx: RequestContext,
        request: ServiceRequest<'_, wire::ListDirRequest>,
    ) -> ServiceResult<wire::ListDirResponse> {
        let user = self.caller(&ctx)?;
        let request = request.to_owned_message();
        let path = self.resolve(&request.path, &user)?;
        let names = self.daemon.accounts.names();
        let entries = self.blocking(move || ops::list(&path, request.depth, &names)).await?;
        Response::ok(wire::ListDirResponse { entries })
    }

    async fn remove(
        &self,
        ctx: RequestContext,
        request: ServiceRequest<'_, wire::RemoveRequest>,
    ) -> ServiceResult<wire::RemoveResponse> {
        let user = self.caller(&ctx)?;
        let path = self.resolve(&request.to_owned_message().path, &user)?;
        self.blocking(move || ops::remove(&path)).await?;
        Response::ok(wire::RemoveResponse::default())
    }

    async fn watch_dir(
        &self,
        ctx: RequestContext,
        request: ServiceRequest<'_, wire::WatchDirRequest>,
    ) -> ServiceResult<ServiceStream<wire::WatchDirResponse>> {
        let request = request.to_owned_message();
        let include_entry = self.includes_entry(request.include_entry);
        let wish =
            Wish { path: request.path, recursive: request.recursive, allow_network: request.allow_network_mounts };
        let (watch, root) = self.watch(&ctx, wish).await?;
        let following = Following {
            ready: watchers::readiness(&watch).map_err(|error| FsError::internal("watching", &error))?,
            watch,
            root,
            names: include_entry.then(|| self.daemon.accounts.names()),
            keepalive: keepalive::interval(ctx.headers()),
            deadline: ctx.time_remaining().map(|remaining| Instant::now() + remaining),
            failed: None,
        };
        Response::ok(following.stream())
    }

    async fn create_watcher(
        &self,
        ctx: RequestContext,
        request: ServiceRequest<'_, wire::CreateWatcherRequest>,
    ) -> ServiceResult<wire::CreateWatcherResponse> {
        let request = request.to_owned_message();
        let include_entry = self.includes_entry(request.include_entry);
        let wish =
            Wish { path: request.path, recursive: request.recursive, allow_network: request.allow_network_mounts };
        let (watch, root) = self.watch(&ctx, wish).await?;
        let watcher_id = self
            .daemon
            .watchers
            .add(watch, &root, include_entry, &self.daemon.tasks)
            .map_err(|error| FsError::internal("creating watcher", &error))?;
        Response::ok(wire::CreateWatcherResponse { watcher_id })
    }

    async fn get_watcher_events(
        &self,
        _ctx: RequestContext,
        request: ServiceRequest<'_, wire::GetWatcherEventsRequest>,
    ) -> ServiceResult<wire::GetWatcherEventsResponse> {
        let seen = self.daemon.watchers.take(&request.to_owned_message().watcher_id)?;
        let names = seen.include_entry.then(|| self.daemon.accounts.names());
        let events = seen.changes.into_iter().map(|change| event(change, &seen.root, names.as_ref())).collect();
        Response::ok(wire::GetWatcherEventsResponse { events })
    }

    async fn remove_watcher(
        &self,
        _ctx: RequestContext,
        request: ServiceRequest<'_, wire::RemoveWatcherRequest>,
    ) -> ServiceResult<wire::RemoveWatcherResponse> {
        self.daemon.watchers.remove(&request.to_owned_message().watcher_id)?;
        Response::ok(wire::RemoveWatcherResponse::default())
    }
}

/// `names`: the entry is wanted.
fn event(change: Change, root: &Path, names: Option<&Names>) -> wire::FilesystemEvent {
    let exists = [wire::EventType::Create, wire::EventType::Write, wire::EventType::Chmod].contains(&change.kind);
    let entry = names.filter(|_| exists).and_then(|names| describe(&root.join(&change.name), names).ok());
    wire::FilesystemEvent { name: change.name, r#type: change.kind.into(), entry: entry.into() }
}

/// What a stream of changes is made from.
struct Following {
    watch: Watch,
    ready: AsyncFd<OwnedFd>,
    root: PathBuf,
    /// Of owners, where the entries are wanted.
    names: Option<Names>,
    keepalive: Duration,
    deadline: Option<Instant>,
    /// Ends the stream behind the changes that came before.
    failed: Option<FsError>,
}

impl Following {
    /// Waits for changes, or for silence to have lasted.
    async fn next(&mut self) -> Result<Vec<Event>, ConnectError> {
        if let Some(error) = self.failed.take() {
            return Err(error.into());
        }
        tokio::select! {
            () = until(self.deadline) => Err(ConnectError::deadline_exceeded("context deadline exceeded")),
            guard = self.ready.readable() => {
                guard.map_err(|error| FsError::internal("watching", &error))?.clear_ready();
                let mut changes = Vec::new();
                let seen = self.watch.changes(&mut changes);
                self.failed = seen.err().map(|error| FsError::internal("watching", &error));
                let described = changes.into_iter().map(|change| event(change, &self.root, self.names.as_ref()));
                Ok(described.map(|event| Event::Filesystem(event.into())).collect())
            }
            () = tokio::time::sleep(self.keepalive) => {
                Ok(vec![Event::Keepalive(watch_dir_response::KeepAlive::default().into())])
            }
        }
    }

    fn stream(mut self) -> ServiceStream<wire::WatchDirResponse> {
        let message = |event| wire::WatchDirResponse { event: Some(event) };
        Box::pin(async_stream::try_stream! {
            yield message(Event::Start(watch_dir_response::StartEvent::default().into()));
            loop {
                for event in self.next().await? {
                    yield message(event);
                }
            }
        })
    }
}
