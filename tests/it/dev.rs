//! `ags-gateway dev`: the local stack as a developer starts, breaks and stops it.

use std::{
    collections::BTreeMap,
    fs,
    os::unix::fs::PermissionsExt,
    path::Path,
    process::{Command, Stdio},
    time::Duration,
};

use devstack::{Child, ProcessId};
use nix::{
    sys::signal::{Signal, kill},
    unistd::Pid,
};
use tempfile::TempDir;

use crate::harness::{self, Api, eventually};

const PATIENCE: Duration = Duration::from_secs(60);

/// A supervisor and its state directory, which has a space in its name.
pub struct Dev {
    supervisor: Child,
    directory: TempDir,
}

/// dev.env as a shell reads it.
pub type Variables = BTreeMap<String, String>;

impl Dev {
    pub async fn start() -> Self {
        Self::with(&[]).await
    }

    pub async fn over_tls() -> Self {
        Self::with(&["--tls"]).await
    }

    async fn with(arguments: &[&str]) -> Self {
        let directory = tempfile::Builder::new().prefix("local stack ").tempdir().unwrap();
        let supervisor = spawn(directory.path(), arguments).await;
        Self { supervisor, directory }
    }

    /// Starts a supervisor again on the same state.
    async fn again(self) -> Self {
        let supervisor = spawn(self.directory.path(), &[]).await;
        Self { supervisor, directory: self.directory }
    }

    /// The variables of a ready stack, once they satisfy the condition.
    async fn variables(&self, condition: impl Fn(&Variables) -> bool) -> Variables {
        let file = self.directory.path().join("dev.env");
        eventually(async || {
            if let Some(status) = self.supervisor.exit_status() {
                panic!("the supervisor ended ({status}): {}", self.output());
            }
            Some(read_as_shell(&file)).filter(|seen| seen.contains_key("DATABASE_URL") && condition(seen))
        })
        .await
    }

    pub async fn ready(&self) -> Variables {
        self.variables(|_| true).await
    }

    fn output(&self) -> String {
        fs::read_to_string(self.directory.path().join("output")).unwrap_or_default()
    }

    /// The three processes that run now.
    fn processes(&self) -> Vec<ProcessId> {
        let text = fs::read_to_string(self.directory.path().join("run.json")).unwrap();
        let records: Vec<serde_json::Value> = serde_json::from_str(&text).unwrap();
        records.into_iter().map(|record| serde_json::from_value(record["process"].clone()).unwrap()).collect()
    }

    pub async fn stop(&self, signal: Signal) {
        let processes = self.processes();
        assert_eq!(processes.len(), 3);
        let status = self.supervisor.stop(signal, PATIENCE).await;
        assert!(status.success(), "{status}: {}", self.output());
        assert!(processes.iter().all(|process| !process.is_alive()), "{}", self.output());
        assert!(!self.directory.path().join("dev.env").exists());
    }
}

fn gateway(directory: &Path, arguments: &[&str]) -> Command {
    let output = fs::File::options().append(true).create(true).open(directory.join("output")).unwrap();
    let mut command = Command::new(env!("CARGO_BIN_EXE_ags-gateway"));
    command.args(arguments).stdin(Stdio::null()).stdout(output.try_clone().unwrap()).stderr(output);
    command
}

async fn spawn(directory: &Path, arguments: &[&str]) -> Child {
    let mut command = gateway(directory, &["dev", "--port", "0", "--state"]);
    command.arg(directory).args(arguments).env("DATABASE_URL", "postgres://stray.invalid/none");
    Child::spawn(command, Signal::SIGKILL).await.unwrap()
}

fn read_as_shell(file: &Path) -> Variables {
    let mut shell = Command::new("sh");
    shell.env_clear().args(["-c", "set -a; . \"$0\"; env"]).arg(file);
    let output = shell.output().unwrap();
    let text = String::from_utf8(output.stdout).unwrap();
    text.lines().filter_map(|line| line.split_once('=')).map(|(name, value)| (name.into(), value.into())).collect()
}

fn socket_of(variables: &Variables) -> &Path {
    Path::new(variables["DATABASE_URL"].split_once("?host=").unwrap().1)
}

pub fn api(variables: &Variables) -> Api {
    Api::new(&variables["AGS_GATEWAY_URL"], &variables["AGS_GATEWAY_KEY"])
}

#[test]
fn a_stack_serves_takes_a_replica_and_leaves_nothing() {
    harness::run(async {
        let dev = Dev::start().await;
        let variables = dev.ready().await;
        let mode = fs::metadata(dev.directory.path().join("dev.env")).unwrap().permissions().mode();
        assert_eq!(mode & 0o777, 0o600);
        let me = api(&variables).get("/v1/me").await.expect(200);
        assert_eq!(me["team"]["name"], "dev");
        assert!(!me["scopes"].as_array().unwrap().iter().any(|scope| scope == "admin"));
        let admin = Api::new(&variables["AGS_GATEWAY_URL"], &variables["AGS_GATEWAY_ADMIN_KEY"]);
        admin.get("/v1/teams").await.expect(200);
        let emulator = Api::anonymous(&variables["AGS_EMULATOR_ADMIN_URL"]);
        assert!(emulator.request(http::Method::GET, "/health").send().await.unwrap().status().is_success());
        assert!(dev.output().contains(&variables["AGS_GATEWAY_URL"]));

        let ready = dev.directory.path().join("replica.ready");
        let mut command = gateway(dev.directory.path(), &["serve", "--port", "0", "--config"]);
        command.arg(&variables["AGS_GATEWAY_CONFIG"]).arg("--ready-file").arg(&ready);
        let replica = Child::spawn(command, Signal::SIGKILL).await.unwrap();
        let text = eventually(async || fs::read_to_string(&ready).ok()).await;
        let url = serde_json::from_str::<serde_json::Value>(&text).unwrap()["url"].as_str().unwrap().to_owned();
        assert_ne!(url, variables["AGS_GATEWAY_URL"]);
        api(&variables).at(&url).get("/v1/me").await.expect(200);
        assert!(replica.stop(Signal::SIGTERM, PATIENCE).await.success());
        assert!(!ready.exists());

        dev.stop(Signal::SIGTERM).await;
        assert!(!socket_of(&variables).exists());
    });
}

#[test]
fn what_dies_comes_back_where_it_was() {
    harness::run(async {
        let dev = Dev::start().await;
        let before = dev.ready().await;
        for process in dev.processes() {
            kill(Pid::from_raw(process.pid), Signal::SIGKILL).unwrap();
            eventually(async || (dev.processes().len() == 3 && !dev.processes().contains(&process)).then_some(()))
                .await;
        }
        let after = dev.variables(|now| now["AGS_GATEWAY_PID"] != before["AGS_GATEWAY_PID"]).await;
        for name in ["AGS_GATEWAY_URL", "AGS_GATEWAY_KEY", "AGS_EMULATOR_URL", "AGS_EMULATOR_ADMIN_URL", "DATABASE_URL"]
        {
            assert_eq!(after[name], before[name], "{name}");
        }
        let back = ["the gateway is back", "the emulator is back", "PostgreSQL is back"];
        eventually(async || back.iter().all(|line| dev.output().contains(line)).then_some(())).await;
        api(&after).get("/v1/me").await.expect(200);
        dev.stop(Signal::SIGINT).await;
    });
}

#[test]
fn a_killed_supervisor_leaves_nothing_that_the_next_start_minds() {
    harness::run(async {
        let dev = Dev::start().await;
        let before = dev.ready().await;
        let processes = dev.processes();
        dev.supervisor.stop(Signal::SIGKILL, PATIENCE).await;
        let dev = dev.again().await;
        let after = dev.variables(|now| now["AGS_GATEWAY_KEY"] != before["AGS_GATEWAY_KEY"]).await;
        assert!(processes.iter().all(|process| !process.is_alive()));
        api(&after).get("/v1/me").await.expect(200);
        let old = Api::new(&after["AGS_GATEWAY_URL"], &before["AGS_GATEWAY_KEY"]);
        old.get("/v1/me").await.problem(401, "unauthenticated");

        let second = spawn(dev.directory.path(), &[]).await;
        assert_eq!(second.exited().await.code(), Some(1));
        let sentence = format!("already (pid {}): stop it, or choose another --state", dev.supervisor.id().pid);
        assert!(dev.output().contains(&sentence), "{}", dev.output());
        api(&after).get("/v1/me").await.expect(200);
        dev.stop(Signal::SIGTERM).await;
    });
}

#[test]
fn what_cannot_start_says_why_in_one_sentence() {
    harness::run(async {
        let directory = tempfile::tempdir().unwrap();
        fs::create_dir(directory.path().join("postgres")).unwrap();
        fs::write(directory.path().join("postgres/letter.txt"), "not a database").unwrap();
        let supervisor = spawn(directory.path(), &[]).await;
        assert_eq!(supervisor.exited().await.code(), Some(1));
        let output = fs::read_to_string(directory.path().join("output")).unwrap();
        let lines: Vec<&str> = output.lines().collect();
        assert_eq!(lines.len(), 1, "{output}");
        assert!(lines[0].starts_with("ags-gateway: ") && lines[0].contains("postgres"), "{output}");
        assert!(directory.path().join("postgres/letter.txt").exists());
    });
}
