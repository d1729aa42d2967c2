//! What the process calls put on the wire, and what they make of the answers.

use std::time::Duration;

use bytes::Bytes;
use envd_client::{EnvdErrorKind, Input, ProcessEvent, PtySize, Selector, Signal, StartSpec};
use futures_util::StreamExt;

use crate::daemon::{Daemon, Seen};
use crate::harness::{SOON, Server, soon};

fn spec(cmd: &str) -> StartSpec {
    StartSpec { cmd: cmd.into(), ..Default::default() }
}

#[tokio::test]
async fn start_says_all_it_was_told() {
    let (daemon, mut seen) = Daemon::new();
    let server = Server::start(daemon.router()).await;
    let spec = StartSpec {
        cmd: "echo".into(),
        args: vec!["a".into(), "b".into()],
        envs: [("K".to_owned(), "v".to_owned())].into(),
        cwd: Some("/tmp".into()),
        user: Some("root".into()),
        tag: Some("t".into()),
        stdin: true,
        pty: None,
        deadline: Some(Duration::from_secs(60)),
    };
    let events: Vec<_> = server.client().start(spec).await.unwrap().map(Result::unwrap).collect().await;

    assert_eq!(events[0], ProcessEvent::Started { pid: 7 });
    assert_eq!(events[1], ProcessEvent::Stdout("a b".into()));
    let end = ProcessEvent::End { exit_code: 0, exited: true, status: "exit status 0".into(), error: None };
    assert_eq!(events[2..], [end]);

    let Some(Seen::Start(headers, request)) = seen.recv().await else { panic!("no start was seen") };
    assert_eq!(headers["x-access-token"], "tok_envd");
    assert_eq!(headers["authorization"], "Basic cm9vdDo=");
    assert_eq!(headers["connect-timeout-ms"], "60000");
    assert_eq!(headers["keepalive-ping-interval"], "30");
    assert_eq!(headers["connect-protocol-version"], "1");
    assert_eq!(headers["content-type"], "application/connect+proto");
    assert_eq!(headers["accept-encoding"], "identity");
    assert_eq!(headers["host"], "49983-ins-1.region.example");
    assert_eq!(request.process.args, ["a", "b"]);
    assert_eq!(request.process.envs.get("K").map(String::as_str), Some("v"));
    assert_eq!(request.process.cwd.as_deref(), Some("/tmp"));
    assert_eq!(request.tag.as_deref(), Some("t"));
    assert_eq!(request.stdin, Some(true));
    assert!(!request.pty.is_set());
}

#[tokio::test]
async fn start_says_nothing_it_was_not_told() {
    let (daemon, mut seen) = Daemon::new();
    let server = Server::start(daemon.router()).await;
    let client = server.client();
    client.start(spec("echo")).await.unwrap();
    let Some(Seen::Start(headers, request)) = seen.recv().await else { panic!("no start was seen") };
    assert!(!headers.contains_key("authorization"));
    assert!(!headers.contains_key("connect-timeout-ms"));
    assert_eq!((request.process.cwd.as_ref(), request.tag.as_ref()), (None, None));
    assert_eq!(request.stdin, Some(false), "unset would mean a pipe nobody writes to");

    let terminal = StartSpec { pty: Some(PtySize { cols: 80, rows: 24 }), ..spec("echo") };
    client.start(terminal).await.unwrap();
    let Some(Seen::Start(_, request)) = seen.recv().await else { panic!("no start was seen") };
    assert_eq!((request.pty.size.cols, request.pty.size.rows, request.stdin), (80, 24, None));
}

#[tokio::test]
async fn every_event_has_its_form() {
    let (daemon, _seen) = Daemon::new();
    let server = Server::start(daemon.router()).await;
    let events: Vec<_> =
        server.client().start(spec("every-channel")).await.unwrap().map(Result::unwrap).collect().await;
    let killed = ProcessEvent::End {
        exit_code: -1,
        exited: false,
        status: "signal: killed".into(),
        error: Some("signal: killed".into()),
    };
    let expected = [
        ProcessEvent::Started { pid: 7 },
        ProcessEvent::Stdout(Bytes::from_static(b"\xff\x00out")),
        ProcessEvent::Stderr("err".into()),
        ProcessEvent::Keepalive,
        ProcessEvent::Pty("tty".into()),
        killed,
    ];
    assert_eq!(events, expected);
}

#[tokio::test]
async fn a_stream_fails_with_the_daemons_words() {
    let (daemon, _seen) = Daemon::new();
    let server = Server::start(daemon.router()).await;
    let client = server.client();

    let mut events = client.start(spec("refused")).await.unwrap();
    let error = events.next().await.unwrap().unwrap_err();
    assert_eq!(error.kind(), EnvdErrorKind::InvalidArgument);
    assert_eq!(error.daemon_message(), Some("cwd '/x' does not exist"));
    assert_eq!(error.http_status().map(|s| s.as_u16()), Some(200));
    assert!(events.next().await.is_none());

    let mut events = client.start(spec("outlive-deadline")).await.unwrap();
    assert_eq!(events.next().await.unwrap().unwrap(), ProcessEvent::Started { pid: 7 });
    assert_eq!(events.next().await.unwrap().unwrap_err().kind(), EnvdErrorKind::Deadline);
    assert!(events.next().await.is_none());
}

#[tokio::test]
async fn connect_follows_a_pid_or_a_tag() {
    let (daemon, _seen) = Daemon::new();
    let server = Server::start(daemon.router()).await;
    let client = server.client();

    let events: Vec<_> = client.connect(&Selector::Pid(7)).await.unwrap().map(Result::unwrap).collect().await;
    assert_eq!(events[0], ProcessEvent::Started { pid: 7 });
    assert!(matches!(events[1], ProcessEvent::End { exit_code: 0, .. }));

    let mut events = client.connect(&Selector::Tag("t".into())).await.unwrap();
    let error = events.next().await.unwrap().unwrap_err();
    assert_eq!(error.kind(), EnvdErrorKind::NotFound);
    assert!(!error.gone());
}

#[tokio::test]
async fn unary_calls_reach_the_daemon() {
    let (daemon, mut seen) = Daemon::new();
    let server = Server::start(daemon.router()).await;
    let client = server.client();
    let pid = Selector::Pid(7);

    let [process] = &client.list(SOON).await.unwrap()[..] else { panic!("one process was listed") };
    assert_eq!((process.pid, process.tag.as_deref(), process.cmd.as_str()), (7, Some("t"), "/bin/bash"));
    assert_eq!((&process.args[..], process.cwd.as_deref()), (&["-l".to_owned()][..], Some("/tmp")));
    assert_eq!(process.envs["K"], "v");

    client.send_input(&pid, Input::Stdin("in".into()), SOON).await.unwrap();
    let Some(Seen::Unary(call)) = seen.recv().await else { panic!("no call was seen") };
    assert!(call.contains("Pid(7)") && call.contains(r#"Stdin(b"in")"#), "{call}");

    client.send_input(&Selector::Tag("t".into()), Input::Pty("\u{4}".into()), SOON).await.unwrap();
    let Some(Seen::Unary(call)) = seen.recv().await else { panic!("no call was seen") };
    assert!(call.contains(r#"Tag("t")"#) && call.contains(r#"Pty(b"\x04")"#), "{call}");

    client.update(&pid, PtySize { cols: 90, rows: 30 }, SOON).await.unwrap();
    let Some(Seen::Unary(call)) = seen.recv().await else { panic!("no call was seen") };
    assert!(call.contains("cols: 90") && call.contains("rows: 30"), "{call}");

    for (signal, name) in [(Signal::Kill, "SIGKILL"), (Signal::Terminate, "SIGTERM")] {
        let error = client.send_signal(&pid, signal, SOON).await.unwrap_err();
        assert_eq!(error.kind(), EnvdErrorKind::NotFound);
        assert_eq!(error.daemon_message(), Some("process with pid 7 not found"));
        let Some(Seen::Unary(call)) = seen.recv().await else { panic!("no call was seen") };
        assert!(call.contains(name), "{call}");
    }
}

#[tokio::test]
async fn a_deadline_ends_a_unary_call_at_both_ends() {
    let (daemon, mut seen) = Daemon::new();
    let server = Server::start(daemon.router()).await;
    let error = server.client().close_stdin(&Selector::Pid(7), Duration::from_millis(50)).await.unwrap_err();
    assert_eq!(error.kind(), EnvdErrorKind::Deadline);
    assert!(matches!(soon(seen.recv()).await, Some(Seen::HungUp("close_stdin"))));
}

#[test]
fn secrets_of_a_process_stay_out_of_debug_output() {
    let spec = StartSpec {
        args: vec!["hunter2".into()],
        envs: [("PASSWORD".to_owned(), "hunter2".to_owned())].into(),
        ..spec("login")
    };
    let shown = format!("{spec:?}");
    assert!(shown.contains("login") && !shown.contains("hunter2"), "{shown}");
}
