//! The binary itself: ready file, signals, real instances.

use std::path::Path;
use std::process::Stdio;
use std::time::Duration;

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use serde_json::{Value, json};
use tokio::process::{Child, Command};

use crate::harness::{REGION, SECRET_ID, SECRET_KEY, client, now, signed};

struct Process {
    child: Child,
    url: String,
    admin_url: String,
}

async fn serve(directory: &Path) -> Process {
    serve_with(Command::new(env!("CARGO_BIN_EXE_ags-emulator")), directory).await
}

async fn serve_with(mut command: Command, directory: &Path) -> Process {
    let ready = directory.join("ready");
    let child = command
        .args(["serve", "--region", REGION, "--state"])
        .arg(directory.join("state"))
        .arg("--ready-file")
        .arg(&ready)
        .env("AGS_EMULATOR_SECRET_ID", SECRET_ID)
        .env("AGS_EMULATOR_SECRET_KEY", SECRET_KEY)
        .stdin(Stdio::null())
        .kill_on_drop(true)
        .spawn()
        .expect("the binary");
    // The file of a run that was killed may still be there.
    let pid = json!(child.id());
    let ready = until("the ready file", || {
        let text = std::fs::read_to_string(&ready).ok()?;
        let ready: Value = serde_json::from_str(&text).expect("never half a file");
        (ready["pid"] == pid).then_some(ready)
    })
    .await;
    let url = |name: &str| ready[name].as_str().expect("a URL").to_owned();
    Process { child, url: url("url"), admin_url: url("admin_url") }
}

async fn until<T>(what: &str, mut check: impl FnMut() -> Option<T>) -> T {
    for _ in 0..600 {
        if let Some(found) = check() {
            return found;
        }
        tokio::time::sleep(Duration::from_millis(25)).await;
    }
    panic!("{what} did not come");
}

async fn start_instance(process: &Process) -> String {
    let body = json!({"ToolName": "base", "AuthMode": "NONE"}).to_string();
    let sent = signed(&client(), &process.url, "StartSandboxInstance", body, now(), SECRET_KEY);
    let answer: Value = sent.send().await.expect("an answer").json().await.expect("JSON");
    let instance = &answer["Response"]["Instance"];
    assert_eq!(instance["Status"], "RUNNING", "{answer}");
    instance["InstanceId"].as_str().expect("an id").to_owned()
}

/// Processes whose command line names the instance.
fn processes_of(instance: &str) -> usize {
    let entries = std::fs::read_dir("/proc").expect("/proc").flatten();
    entries
        .filter_map(|entry| std::fs::read(entry.path().join("cmdline")).ok())
        .filter(|line| String::from_utf8_lossy(line).contains(instance))
        .count()
}

#[tokio::test]
async fn signals_leave_nothing_behind() {
    for signal in [Signal::SIGTERM, Signal::SIGINT] {
        let directory = tempfile::tempdir().expect("a directory");
        let mut process = serve(directory.path()).await;
        let id = start_instance(&process).await;
        let health = client()
            .get(format!("{}/health", process.url))
            .header("host", format!("49983-{id}.ags.localhost"))
            .send()
            .await
            .expect("an answer");
        assert_eq!(health.status(), 204);
        assert_ne!(processes_of(&id), 0, "the instance has a process");
        let pid = Pid::from_raw(process.child.id().expect("running").cast_signed());
        kill(pid, signal).expect("a signal");
        let status = tokio::time::timeout(Duration::from_secs(15), process.child.wait()).await;
        assert!(status.expect("an end").expect("a status").success());
        until("the end of the instance", || (processes_of(&id) == 0).then_some(())).await;
        assert!(!directory.path().join("ready").exists());
    }
}

#[tokio::test]
async fn a_killed_emulator_takes_its_instances_along() {
    let directory = tempfile::tempdir().expect("a directory");
    let mut process = serve(directory.path()).await;
    let id = start_instance(&process).await;
    process.child.kill().await.expect("killed");
    until("the end of the instance", || (processes_of(&id) == 0).then_some(())).await;
    let next = serve(directory.path()).await;
    let instances = directory.path().join("state/instances");
    assert!(!instances.join(&id).exists(), "the next start removes what was left");
    start_instance(&next).await;
}

#[tokio::test]
async fn a_daemon_that_is_killed_fails_its_instance() {
    let directory = tempfile::tempdir().expect("a directory");
    let process = serve(directory.path()).await;
    let id = start_instance(&process).await;
    let fail = format!("{}/instances/{id}/fail", process.admin_url);
    assert_eq!(client().post(fail).send().await.expect("an answer").status(), 204);
    until("the end of the instance", || (processes_of(&id) == 0).then_some(())).await;
}

/// As a job of a script in the background starts: with SIGINT ignored.
#[tokio::test]
async fn workloads_get_signals_that_the_emulator_was_born_ignoring() {
    let directory = tempfile::tempdir().expect("a directory");
    let mut command = Command::new("/bin/sh");
    command.args(["-c", r#"trap '' HUP INT QUIT; exec "$@""#, "sh", env!("CARGO_BIN_EXE_ags-emulator")]);
    let process = serve_with(command, directory.path()).await;
    let id = start_instance(&process).await;
    let script = "for signal in HUP INT QUIT; do sh -c \"kill -$signal \\$\\$; echo ignored\"; done; exit 0";
    let start = json!({"process": {"cmd": "/bin/sh", "args": ["-c", script]}, "stdin": false}).to_string();
    let mut body = vec![0];
    body.extend_from_slice(&u32::try_from(start.len()).expect("short").to_be_bytes());
    body.extend_from_slice(start.as_bytes());
    let answer = client()
        .post(format!("{}/process.Process/Start", process.url))
        .header("host", format!("49983-{id}.ags.localhost"))
        .header("content-type", "application/connect+json")
        .body(body)
        .send()
        .await
        .expect("an answer");
    let events = String::from_utf8_lossy(&answer.bytes().await.expect("events")).into_owned();
    assert!(events.contains("exit status 0"), "{events}");
    assert!(!events.contains("\"stdout\""), "{events}");
}

#[tokio::test]
async fn a_taken_port_is_said_in_a_sentence() {
    let directory = tempfile::tempdir().expect("a directory");
    let taken = tokio::net::TcpListener::bind("127.0.0.1:0").await.expect("a port");
    let output = Command::new(env!("CARGO_BIN_EXE_ags-emulator"))
        .args(["serve", "--simulate", "--listen", &taken.local_addr().expect("an address").to_string(), "--state"])
        .arg(directory.path())
        .output()
        .await
        .expect("the binary");
    assert!(!output.status.success());
    let text = String::from_utf8_lossy(&output.stderr);
    assert!(text.contains("ags-emulator: cannot listen on 127.0.0.1:"), "{text}");
}
