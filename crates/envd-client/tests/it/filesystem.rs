//! The filesystem calls.

use envd_client::{ChangeKind, EntryKind, EnvdErrorKind, TransportSettings, WatchEvent, WatchSpec};
use futures_util::StreamExt;

use crate::daemon::{Daemon, Seen};
use crate::harness::{SOON, Server, soon};

async fn unary(seen: &mut tokio::sync::mpsc::UnboundedReceiver<Seen>) -> String {
    match seen.recv().await {
        Some(Seen::Unary(call)) => call,
        other => panic!("not a unary call: {other:?}"),
    }
}

#[tokio::test]
async fn calls_carry_paths_and_users() {
    let (daemon, mut seen) = Daemon::new();
    let server = Server::start(daemon.router()).await;
    let client = server.client();

    let entry = client.stat("~/link", Some("root"), SOON).await.unwrap();
    assert_eq!(unary(&mut seen).await, r#"(Some("Basic cm9vdDo="), "~/link")"#);
    assert_eq!((entry.name.as_str(), entry.path.as_str(), entry.kind), ("link", "~/link", EntryKind::Symlink));
    assert_eq!((entry.size, entry.mode, entry.permissions.as_str()), (5, 0o644, "-rw-r--r--"));
    assert_eq!((entry.owner.as_str(), entry.group.as_str()), ("user", "1000"));
    assert_eq!((entry.symlink_target.as_deref(), entry.modified_at), (Some("/target"), None));

    assert_eq!(client.make_dir("/d", None, SOON).await.unwrap().kind, EntryKind::Directory);
    assert_eq!(client.move_entry("/a", "/b", None, SOON).await.unwrap().path, "/b");
    assert_eq!(unary(&mut seen).await, r#"("/a", "/b")"#);
    client.remove("/b", None, SOON).await.unwrap();
    assert_eq!(unary(&mut seen).await, r#""/b""#);
}

#[tokio::test]
async fn errors_keep_their_meaning() {
    let (daemon, _seen) = Daemon::new();
    let server = Server::start(daemon.router()).await;
    let client = server.client();

    let error = client.stat("/missing", None, SOON).await.unwrap_err();
    assert_eq!(error.kind(), EnvdErrorKind::NotFound);
    assert_eq!(error.daemon_message(), Some("file not found: /missing"));
    assert_eq!(error.http_status().map(|s| s.as_u16()), Some(404));

    let error = client.make_dir("/there", None, SOON).await.unwrap_err();
    assert_eq!(error.kind(), EnvdErrorKind::AlreadyExists);

    let error = client.stat("/x", Some("a:b"), SOON).await.unwrap_err();
    assert_eq!(error.kind(), EnvdErrorKind::InvalidArgument);
}

#[tokio::test]
async fn a_listing_may_be_larger_than_four_mebibytes() {
    let (daemon, _seen) = Daemon::new();
    let server = Server::start(daemon.router()).await;
    // More than 400 bytes each.
    let entries = server.client().list_dir("/d", 40_000, None, SOON).await.unwrap();
    assert_eq!(entries.len(), 40_000);
    assert_eq!(entries[39_999].name, format!("{:0200}", 39_999));
}

#[tokio::test]
async fn a_reply_has_a_limit() {
    let (daemon, _seen) = Daemon::new();
    let server = Server::start(daemon.router()).await;
    let client = server.client_with(TransportSettings { max_message: 10_000, ..Default::default() });
    assert_eq!(client.list_dir("/d", 10, None, SOON).await.unwrap().len(), 10);
    let error = client.list_dir("/d", 100, None, SOON).await.unwrap_err();
    assert_eq!(error.kind(), EnvdErrorKind::ResourceExhausted);
    assert!(!error.retryable());
}

#[tokio::test]
async fn a_watch_tells_every_kind_of_change_and_why_it_ends() {
    let (daemon, mut seen) = Daemon::new();
    let server = Server::start(daemon.router()).await;
    let spec = WatchSpec {
        path: "/events".into(),
        recursive: true,
        include_entry: true,
        user: Some("root".into()),
        ..WatchSpec::default()
    };
    let mut watch = server.client().watch_dir(spec).await.unwrap();
    assert_eq!(unary(&mut seen).await, r#"(Some("Basic cm9vdDo="), Some("30"), true, true, false)"#);
    assert_eq!(watch.next().await.unwrap().unwrap(), WatchEvent::Started);
    for expected in [ChangeKind::Create, ChangeKind::Write, ChangeKind::Remove, ChangeKind::Rename, ChangeKind::Chmod] {
        let WatchEvent::Change { name, kind, entry } = watch.next().await.unwrap().unwrap() else {
            panic!("not a change");
        };
        assert_eq!((name.as_str(), kind), ("a", expected));
        assert_eq!(entry.map(|entry| entry.path).as_deref(), (kind == ChangeKind::Create).then_some("/events/a"));
    }
    assert_eq!(watch.next().await.unwrap().unwrap(), WatchEvent::Keepalive);
    let error = watch.next().await.unwrap().unwrap_err();
    assert_eq!((error.kind(), error.daemon_message()), (EnvdErrorKind::Internal, Some("watcher error: overflow")));
    assert!(watch.next().await.is_none());
}

#[tokio::test]
async fn a_watch_ends_at_the_daemon_when_it_is_dropped() {
    let (daemon, mut seen) = Daemon::new();
    let server = Server::start(daemon.router()).await;
    let client = server.client();
    let watch_of = |path: &str| client.watch_dir(WatchSpec { path: path.into(), ..WatchSpec::default() });
    let mut watch = watch_of("/silent").await.unwrap();
    unary(&mut seen).await;
    assert_eq!(watch.next().await.unwrap().unwrap(), WatchEvent::Started);
    drop(watch);
    assert!(matches!(soon(seen.recv()).await, Some(Seen::HungUp("watch"))));

    let error = match watch_of("/missing").await {
        Ok(mut watch) => watch.next().await.unwrap().unwrap_err(),
        Err(error) => error,
    };
    assert_eq!(error.kind(), EnvdErrorKind::NotFound);
}
