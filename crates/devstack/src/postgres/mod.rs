//! A private PostgreSQL: own data directory, Unix socket only, no privileges.

mod binaries;
mod data;
mod socket;
mod temporary;

use std::{
    fs::File,
    io,
    os::{
        fd::{AsRawFd, OwnedFd},
        unix::process::CommandExt,
    },
    path::{Path, PathBuf},
    process::{Command, ExitStatus, Stdio},
    time::{Duration, Instant},
};

use nix::{
    fcntl::{FcntlArg, FdFlag, OFlag, fcntl, open},
    sys::{signal::Signal, stat::Mode},
    unistd::{Gid, Uid, User},
};
use sqlx::{AssertSqlSafe, Connection, Executor, PgConnection};

pub use binaries::{Binaries, major_of};
use socket::SocketDir;
pub use temporary::Temporary;

use crate::{Child, files};

/// SIGINT is PostgreSQL's fast shutdown: clients are cut, the data is left clean.
const SHUTDOWN: Signal = Signal::SIGINT;
const START_PATIENCE: Duration = Duration::from_secs(60);
const STOP_PATIENCE: Duration = Duration::from_secs(10);
const POLL: Duration = Duration::from_millis(10);
const SUPERUSER: &str = "postgres";

/// One sentence for the terminal.
#[derive(Debug, thiserror::Error)]
#[error("{0}")]
pub struct Error(pub String);

pub type Result<T> = std::result::Result<T, Error>;

/// What a server is started with.
#[derive(Clone, Debug)]
pub struct Options {
    /// Made by `initdb` when absent.
    pub data: PathBuf,
    /// Receives the server's messages; appended to.
    pub log: PathBuf,
    /// Whether data must survive a crash of the machine. Tests do without and are faster.
    pub durable: bool,
}

/// A running server.
#[derive(Debug)]
pub struct Postgres {
    child: Child,
    socket: SocketDir,
}

impl Postgres {
    /// Starts a server and waits until it takes connections. A server that an earlier, killed run left behind on the
    /// same data is ended first.
    ///
    /// # Errors
    /// One sentence: PostgreSQL is not installed; the data is of another version, not ours, or broken.
    pub async fn start(options: &Options) -> Result<Self> {
        let account = Account::for_server()?;
        let major = data::check(&options.data, &account)?;
        let binaries = Binaries::find(major).map_err(|missing| missing.explain(&options.data))?;
        if major.is_none() {
            data::initialise(options, &binaries, &account)?;
        }
        data::end_stale_server(&options.data);
        let socket = SocketDir::create(&options.data, &account)?;
        let command = server_command(options, &binaries, &account, socket.path())?;
        let child = Child::spawn(command, SHUTDOWN)
            .await
            .map_err(|error| Error(format!("{} cannot be started: {error}", binaries.postgres.display())))?;
        let postgres = Self { child, socket };
        postgres.accepting(options).await?;
        Ok(postgres)
    }

    async fn accepting(&self, options: &Options) -> Result<()> {
        let deadline = Instant::now() + START_PATIENCE;
        loop {
            let attempt = PgConnection::connect(&self.url(SUPERUSER)).await;
            let Err(error) = attempt else { return Ok(()) };
            if let Some(status) = self.child.exit_status() {
                return Err(Error(format!("PostgreSQL did not start ({status}): {}", last_words(&options.log))));
            }
            if Instant::now() >= deadline {
                return Err(Error(format!("PostgreSQL does not take connections: {error}")));
            }
            tokio::time::sleep(POLL).await;
        }
    }

    /// The address of one of its databases.
    #[must_use]
    pub fn url(&self, database: &str) -> String {
        format!("postgres://{SUPERUSER}@localhost/{database}?host={}", self.socket.path().display())
    }

    /// Makes the database unless it exists. The name is a plain identifier.
    ///
    /// # Errors
    /// When the server refuses.
    pub async fn create_database(&self, name: &str) -> Result<()> {
        let failed = |error: sqlx::Error| Error(format!("database {name} cannot be made: {error}"));
        let mut connection = PgConnection::connect(&self.url(SUPERUSER)).await.map_err(failed)?;
        let found: Option<i32> = sqlx::query_scalar("SELECT 1 FROM pg_database WHERE datname = $1")
            .bind(name)
            .fetch_optional(&mut connection)
            .await
            .map_err(failed)?;
        if found.is_none() {
            connection.execute(AssertSqlSafe(format!("CREATE DATABASE \"{name}\""))).await.map_err(failed)?;
        }
        connection.close().await.map_err(failed)
    }

    #[must_use]
    pub fn child(&self) -> &Child {
        &self.child
    }

    /// Shuts down, cutting clients, and removes the socket.
    pub async fn stop(self) -> ExitStatus {
        self.child.stop(SHUTDOWN, STOP_PATIENCE).await
    }
}

/// Whom the server runs as: PostgreSQL refuses to be root.
#[derive(Clone, Debug)]
struct Account {
    uid: Uid,
    gid: Gid,
    /// Whether it is another than ours.
    switch: bool,
}

impl Account {
    fn for_server() -> Result<Self> {
        let uid = Uid::effective();
        if !uid.is_root() {
            return Ok(Self { uid, gid: Gid::effective(), switch: false });
        }
        let user = ["postgres", "nobody"].iter().find_map(|name| User::from_name(name).ok().flatten());
        let user = user.ok_or_else(|| Error("there is no user postgres or nobody to run PostgreSQL as".to_owned()))?;
        Ok(Self { uid: user.uid, gid: user.gid, switch: true })
    }

    fn give(&self, path: &Path) -> io::Result<()> {
        std::os::unix::fs::chown(path, Some(self.uid.as_raw()), Some(self.gid.as_raw()))
    }

    /// A command of this account: nothing of our environment, nothing to read.
    fn command(&self, program: &Path) -> Command {
        let mut command = Command::new(program);
        command.env_clear().env("PATH", "/usr/bin:/bin").env("LC_ALL", "C").env("TZ", "UTC");
        command.current_dir("/").stdin(Stdio::null());
        if self.switch {
            command.uid(self.uid.as_raw()).gid(self.gid.as_raw());
        }
        command
    }
}

fn server_command(options: &Options, binaries: &Binaries, account: &Account, socket: &Path) -> Result<Command> {
    let log = append_to(&options.log)?;
    let door = Door::open(&options.data)?;
    let mut command = account.command(&binaries.postgres);
    command.arg("-D").arg(door.path()).arg("-k").arg(socket).args(["-h", "", "-c", "max_connections=200"]);
    command.args(["-c", "unix_socket_permissions=0700"]);
    if !options.durable {
        command.args(["-c", "fsync=off", "-c", "synchronous_commit=off", "-c", "full_page_writes=off"]);
    }
    command.stdout(Stdio::null()).stderr(log);
    door.pass_to(&mut command);
    Ok(command)
}

/// The data directory as an inherited descriptor. The server's account may enter the directory, but perhaps not the ones
/// above it (a clone below /root, a temporary directory of mode 0700); a path through /proc/self/fd skips those.
struct Door(OwnedFd);

impl Door {
    fn open(directory: &Path) -> Result<Self> {
        open(directory, OFlag::O_PATH | OFlag::O_DIRECTORY | OFlag::O_CLOEXEC, Mode::empty())
            .map(Self)
            .map_err(|error| Error(format!("{} cannot be opened: {error}", directory.display())))
    }

    fn path(&self) -> String {
        format!("/proc/self/fd/{}", self.0.as_raw_fd())
    }

    /// Lets the child keep the descriptor that [`path`](Self::path) names.
    fn pass_to(self, command: &mut Command) {
        let keep = move || fcntl(&self.0, FcntlArg::F_SETFD(FdFlag::empty())).map(drop).map_err(io::Error::from);
        #[expect(unsafe_code, reason = "the closure makes one system call and allocates nothing, as fork requires")]
        unsafe {
            command.pre_exec(keep);
        }
    }
}

fn append_to(log: &Path) -> Result<File> {
    files::append(log).map_err(|error| Error(format!("{} cannot be written: {error}", log.display())))
}

/// The last line that says why.
fn last_words(log: &Path) -> String {
    let text = std::fs::read(log).unwrap_or_default();
    let text = String::from_utf8_lossy(&text);
    let telling = |line: &&str| ["FATAL:", "PANIC:", "error:"].iter().any(|mark| line.contains(mark));
    let line = text.lines().rev().find(telling).or_else(|| text.lines().next_back());
    line.map_or_else(|| format!("see {}", log.display()), |line| line.trim().to_owned())
}
