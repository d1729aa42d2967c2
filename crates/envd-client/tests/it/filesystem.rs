//! The filesystem calls.

use envd_client::{EntryKind, EnvdErrorKind, TransportSettings};

use crate::daemon::{Daemon, Seen};
use crate::harness::{SOON, Server};

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
