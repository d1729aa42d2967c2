//! The private PostgreSQL, with the system's own binaries.

use std::{fs, os::unix::fs::PermissionsExt, path::Path, time::Duration};

use devstack::{
    Child, ProcessId,
    postgres::{Options, Postgres, Temporary},
};
use nix::sys::signal::Signal;
use sqlx::{Connection, PgConnection};

fn options(directory: &Path) -> Options {
    Options { data: directory.join("postgres"), log: directory.join("postgres.log"), durable: false }
}

async fn query(url: &str, sql: &'static str) -> String {
    let mut connection = PgConnection::connect(url).await.unwrap();
    sqlx::query_scalar(sql).fetch_one(&mut connection).await.unwrap()
}

fn socket_of(url: &str) -> &Path {
    Path::new(url.split_once("host=").unwrap().1)
}

#[tokio::test]
async fn data_is_kept_below_directories_the_server_may_not_enter() {
    let directory = tempfile::tempdir().unwrap();
    let deep = directory.path().join("d".repeat(120)).join("e".repeat(120));
    fs::create_dir_all(&deep).unwrap();
    fs::set_permissions(directory.path(), fs::Permissions::from_mode(0o700)).unwrap();

    let first = Postgres::start(&options(&deep)).await.unwrap();
    first.create_database("kept").await.unwrap();
    first.create_database("kept").await.unwrap();
    let url = first.url("kept");
    let mut connection = PgConnection::connect(&url).await.unwrap();
    sqlx::query("CREATE TABLE t AS SELECT 'here'::text AS a").execute(&mut connection).await.unwrap();
    assert_eq!(query(&url, "SHOW listen_addresses").await, "");
    let process = first.child().id().clone();
    assert!(first.stop().await.success());
    assert!(!process.is_alive());
    assert!(!socket_of(&url).exists());

    let second = Postgres::start(&options(&deep)).await.unwrap();
    assert_eq!(query(&second.url("kept"), "SELECT a FROM t").await, "here");
    second.stop().await;
}

#[tokio::test]
async fn a_server_that_a_killed_run_left_behind_is_ended() {
    let directory = tempfile::tempdir().unwrap();
    let first = Postgres::start(&options(directory.path())).await.unwrap();
    let process = first.child().id().clone();
    let second = Postgres::start(&options(directory.path())).await.unwrap();
    assert!(!process.is_alive());
    assert_eq!(query(&second.url("postgres"), "SELECT 'fine'").await, "fine");
    second.stop().await;
    drop(first);
}

#[tokio::test]
async fn data_of_another_version_and_data_that_is_none_are_told_apart() {
    let directory = tempfile::tempdir().unwrap();
    let options = options(directory.path());
    Postgres::start(&options).await.unwrap().stop().await;
    fs::write(options.data.join("PG_VERSION"), "9\n").unwrap();
    let error = Postgres::start(&options).await.unwrap_err().to_string();
    assert!(error.contains("was made by PostgreSQL 9, but only"), "{error}");
    fs::remove_file(options.data.join("PG_VERSION")).unwrap();
    let error = Postgres::start(&options).await.unwrap_err().to_string();
    assert!(error.contains("is not a PostgreSQL data directory"), "{error}");
}

#[tokio::test]
async fn broken_data_is_refused_in_the_servers_own_words() {
    let directory = tempfile::tempdir().unwrap();
    let options = options(directory.path());
    Postgres::start(&options).await.unwrap().stop().await;
    fs::write(options.data.join("postgresql.conf"), "no_such_setting = 1\n").unwrap();
    let error = Postgres::start(&options).await.unwrap_err().to_string();
    assert!(error.starts_with("PostgreSQL did not start"), "{error}");
    assert!(error.contains("FATAL") && !error.contains('\n'), "{error}");
}

#[tokio::test]
async fn a_temporary_server_leaves_nothing() {
    let server = Temporary::start().await.unwrap();
    let url = server.postgres().url("postgres");
    assert_eq!(query(&url, "SELECT 'fine'").await, "fine");
    let process = server.postgres().child().id().clone();
    server.stop().await.unwrap();
    assert!(!process.is_alive());
    assert!(!socket_of(&url).exists());
}

#[tokio::test]
async fn a_killed_run_leaves_nothing_either() {
    let directory = tempfile::tempdir().unwrap();
    let noted = directory.path().join("url");
    let script = format!("echo $DATABASE_URL > {0}.new && mv {0}.new {0} && exec sleep 300", noted.display());
    let mut command = std::process::Command::new(env!("CARGO_BIN_EXE_with-postgres"));
    command.args(["--", "sh", "-c", &script]).env("TMPDIR", directory.path());
    let child = Child::spawn(command, Signal::SIGKILL).await.unwrap();
    let url = eventually(|| fs::read_to_string(&noted).ok()).await;
    let socket = socket_of(url.trim());
    assert!(socket.exists());
    child.stop(Signal::SIGKILL, Duration::from_secs(10)).await;
    eventually(|| (!socket.exists()).then_some(())).await;
    let left = || fs::read_dir(directory.path()).unwrap().count();
    eventually(|| (left() == 1).then_some(())).await;
}

/// Looks until there is something to see; half a minute at most.
async fn eventually<T>(look: impl Fn() -> Option<T>) -> T {
    let found = async {
        loop {
            if let Some(found) = look() {
                return found;
            }
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    };
    tokio::time::timeout(Duration::from_secs(30), found).await.expect("in half a minute")
}

#[tokio::test]
async fn the_command_runs_with_a_database_and_its_exit_code_is_passed_on() {
    let mut command = std::process::Command::new(env!("CARGO_BIN_EXE_with-postgres"));
    let directory = tempfile::tempdir().unwrap();
    let pid_file = directory.path().join("pid");
    let script = format!("test -n \"$DATABASE_URL\" && echo $PPID > {} && exit 7", pid_file.display());
    command.args(["--", "sh", "-c", &script]);
    let child = Child::spawn(command, Signal::SIGKILL).await.unwrap();
    let status = tokio::time::timeout(Duration::from_secs(60), child.exited()).await.unwrap();
    assert_eq!(status.code(), Some(7));
    let pid = fs::read_to_string(pid_file).unwrap().trim().parse().unwrap();
    assert!(ProcessId::of(pid).is_none());
}
