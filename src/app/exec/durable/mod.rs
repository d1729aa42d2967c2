//! Durable commands: what they print and how they end goes to files in the sandbox, which outlive every connection and
//! every gateway. [`tail`] reads them by offset.

pub(super) mod tail;

use std::time::Duration;

use bytes::{Bytes, BytesMut};
use envd_client::{Download, DownloadBody, EnvdClient, EnvdError, EnvdErrorKind, StartSpec};
use futures_util::StreamExt;
use http::{HeaderMap, HeaderValue, StatusCode, header};

use super::process::{CALL_LIMIT, SUPERUSER, late};
use crate::{
    app::{App, instances::Target},
    domain::{
        exec::{Exec, Offsets, Segment, Stream},
        instance::InstanceStatus,
    },
    error::{Code, Error, Result},
    ids::ExecId,
    storage::instances,
};

/// Runs a command with its output in files of the directory `$0`, and writes there its process id and its exit code. Between
/// it and the files are pipes: a script that opens `/dev/stderr` would cut a file short. It stays the command's parent
/// whatever it is sent (what a shell traps is reset in its children, POSIX `trap`), and a trapped signal ends a `wait`.
const WRAPPER: &str = r#"
(umask 077; mkdir "$0" && mkfifo "$0/out" "$0/err") || exit 125
trap : HUP INT QUIT TERM
cat < "$0/out" > "$0/stdout" &
cat < "$0/err" > "$0/stderr" &
/bin/sh -c 'echo $$ > "$0/pid"; exec "$@"' "$0" "$@" > "$0/out" 2> "$0/err"
code=$?
until wait; do :; done
echo $code > "$0/exit.new" && mv "$0/exit.new" "$0/exit"
exit $code
"#;

const PID: &str = "pid";
const EXIT: &str = "exit";

/// Where a command's files are.
pub(super) fn directory(exec: &ExecId) -> String {
    format!("/tmp/.ags-exec-{exec}")
}

/// Makes a durable command of one that is to be started.
pub(super) fn wrap(start: StartSpec, exec: &ExecId) -> StartSpec {
    let fixed = ["-c".to_owned(), WRAPPER.to_owned(), directory(exec), start.cmd];
    StartSpec { cmd: "/bin/sh".to_owned(), args: fixed.into_iter().chain(start.args).collect(), ..start }
}

/// What is in a command's files.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Written {
    pub(super) sizes: Offsets,
    /// How long it ran, once it has ended.
    ran: Option<Duration>,
}

/// How a durable command ended, by its files.
pub(super) struct Verdict {
    pub(super) exit_code: i32,
    pub(super) ran: Duration,
}

/// The files of one command.
#[derive(Clone)]
pub(super) struct Files<'a> {
    target: &'a Target,
    directory: String,
}

impl<'a> Files<'a> {
    pub(super) fn of(target: &'a Target, exec: &ExecId) -> Self {
        Self { target, directory: directory(exec) }
    }

    fn path(&self, name: &str) -> String {
        format!("{}/{name}", self.directory)
    }

    async fn call<T, F>(&self, make: impl Fn(EnvdClient) -> F) -> Result<T>
    where
        F: Future<Output = Result<T, EnvdError>>,
    {
        tokio::time::timeout(CALL_LIMIT, self.target.call(make)).await.map_err(|_| late())?
    }

    /// What there is by now; `None` when there are no such files (any more).
    ///
    /// # Errors
    /// When the sandbox cannot be reached.
    pub(super) async fn look(&self) -> Result<Option<Written>> {
        let listed = self.call(|envd| async move {
            match envd.list_dir(&self.directory, 1, Some(SUPERUSER), CALL_LIMIT).await {
                Err(error) if error.kind() == EnvdErrorKind::NotFound => Ok(None),
                other => other.map(Some),
            }
        });
        let Some(entries) = listed.await? else { return Ok(None) };
        let find = |name: &str| entries.iter().find(|entry| entry.name == name);
        let size = |name: &str| find(name).map_or(0, |entry| entry.size);
        let sizes = Offsets { stdout: size(Stream::Stdout.as_str()), stderr: size(Stream::Stderr.as_str()) };
        // Both times are the sandbox's own.
        let ran = find(EXIT).map(|exit| {
            let times = find(PID).and_then(|pid| pid.modified_at).zip(exit.modified_at);
            times.and_then(|(begun, ended)| (ended - begun).to_std().ok()).unwrap_or_default()
        });
        Ok(Some(Written { sizes, ran }))
    }

    /// How the command ended, if it left word of that.
    ///
    /// # Errors
    /// When the sandbox cannot be reached.
    pub(super) async fn verdict(&self) -> Result<Option<Verdict>> {
        let Some(ran) = self.look().await?.and_then(|written| written.ran) else { return Ok(None) };
        let path = self.path(EXIT);
        let text = self.call(|envd| {
            let path = &path;
            async move { gather(envd.download(path, Some(SUPERUSER), &HeaderMap::new()).await?.body, 16).await }
        });
        let text = text.await?;
        let exit_code = std::str::from_utf8(&text).ok().and_then(|text| text.trim().parse().ok());
        Ok(exit_code.map(|exit_code| Verdict { exit_code, ran }))
    }

    /// Opens what a stream's file has from one offset to another; `None` when it has not (any more).
    ///
    /// # Errors
    /// When the sandbox cannot be reached.
    pub(super) async fn open(&self, stream: Stream, from: u64, until: u64) -> Result<Option<DownloadBody>> {
        let range = HeaderValue::try_from(format!("bytes={from}-{}", until.saturating_sub(1)));
        let conditions = HeaderMap::from_iter([(header::RANGE, range.map_err(Error::internal)?)]);
        let path = self.path(stream.as_str());
        let opened = self.call(|envd| {
            let (path, conditions) = (&path, &conditions);
            async move {
                match envd.download(path, Some(SUPERUSER), conditions).await {
                    Err(error) if error.kind() == EnvdErrorKind::NotFound => Ok(None),
                    other => other.map(Some),
                }
            }
        });
        match opened.await? {
            Some(Download { status: StatusCode::PARTIAL_CONTENT, body, .. }) => Ok(Some(body)),
            None | Some(Download { status: StatusCode::RANGE_NOT_SATISFIABLE, .. }) => Ok(None),
            Some(Download { status, .. }) => {
                let detail = format!("The sandbox answered {status} for a part of a command's output.");
                Err(Error::new(Code::UpstreamError, detail))
            }
        }
    }

    /// The data of a piece that was left there; `None` when it is not there any more.
    async fn read(&self, segment: &Segment, at: Offsets) -> Result<Option<Bytes>> {
        let mut end = at;
        for (stream, len) in segment.outputs() {
            end.advance(stream, len);
        }
        let mut stdout = self.part(Stream::Stdout, at, end).await?;
        let mut stderr = self.part(Stream::Stderr, at, end).await?;
        let mut data = BytesMut::with_capacity(stdout.len() + stderr.len());
        for (stream, len) in segment.outputs() {
            let from = if stream == Stream::Stderr { &mut stderr } else { &mut stdout };
            data.extend_from_slice(&from.split_to(from.len().min(len as usize)));
        }
        Ok((data.len() as u64 == segment.output()).then(|| data.freeze()))
    }

    async fn part(&self, stream: Stream, at: Offsets, end: Offsets) -> Result<BytesMut> {
        let (from, until) = (at.of(stream), end.of(stream));
        if from == until {
            return Ok(BytesMut::new());
        }
        let Some(body) = self.open(stream, from, until).await? else { return Ok(BytesMut::new()) };
        gather(body, (until - from) as usize).await.map_err(|error| self.target.error(error))
    }

    /// Removes them.
    ///
    /// # Errors
    /// When the sandbox cannot be reached.
    pub(super) async fn remove(&self) -> Result<()> {
        self.call(|envd| async move { envd.remove(&self.directory, Some(SUPERUSER), CALL_LIMIT).await }).await
    }
}

/// The data of a piece that was left in the sandbox; `None` when that is gone, or the file.
///
/// # Errors
/// `invalid_state` while the instance is paused; when the sandbox cannot be reached.
pub(super) async fn left(app: &App, exec: &Exec, segment: &Segment, at: Offsets) -> Result<Option<Bytes>> {
    let mut connection = app.pool.acquire().await?;
    let instance = instances::find(&mut connection, &exec.team_id, &exec.instance_id).await?;
    drop(connection);
    let Some(instance) = instance.filter(|instance| !instance.status.is_ending()) else { return Ok(None) };
    if instance.status != InstanceStatus::Running {
        let detail = format!("This part of the output is in the instance, which is {}.", instance.status);
        return Err(Error::new(Code::InvalidState, detail));
    }
    Files::of(&Target::of(app, instance)?, &exec.id).read(segment, at).await
}

/// Reads a body until there are at least `enough` bytes, or it ends.
async fn gather(mut body: DownloadBody, enough: usize) -> Result<BytesMut, EnvdError> {
    let mut data = BytesMut::new();
    while data.len() < enough
        && let Some(piece) = body.next().await
    {
        data.extend_from_slice(&piece?);
    }
    Ok(data)
}
