//! `filesystem.Filesystem` over the wire.

use serde_json::{Value, json};

use crate::client::Client;
use crate::harness::Machine;

/// Calls a method of the service.
async fn call(client: &Client, method: &str, message: Value) -> anyhow::Result<Result<Value, (String, String)>> {
    client.call(&format!("filesystem.Filesystem/{method}"), message).await
}

fn code(result: Result<Value, (String, String)>) -> String {
    result.map_or_else(|(code, _)| code, |value| value.to_string())
}

#[tokio::test]
async fn a_directory_is_made_found_moved_and_removed() -> anyhow::Result<()> {
    for machine in Machine::all().await {
        let instance = machine.instance("tree").await?;
        let client = Client::new(&instance);
        let home = client.run("pwd").await?.out().trim().to_owned();

        let made = call(&client, "MakeDir", json!({"path": "a/b"})).await?.unwrap_or_default();
        let entry = &made["entry"];
        assert_eq!(entry["path"], format!("{home}/a/b"));
        assert_eq!((&entry["type"], &entry["mode"]), (&json!("FILE_TYPE_DIRECTORY"), &json!(493)));
        assert_eq!((&entry["owner"], &entry["permissions"]), (&json!("user"), &json!("drwxr-xr-x")));
        assert!(entry["size"].is_string() && entry["modifiedTime"].is_string(), "{entry}");
        let again = call(&client, "MakeDir", json!({"path": "a/b"})).await?;
        let text = format!("directory already exists: {home}/a/b");
        assert_eq!(again, Err(("already_exists".into(), text)));

        client.run("echo text >a/b/file; ln -s b/file a/link; ln -s loop a/loop").await?;
        let listed = call(&client, "ListDir", json!({"path": "~/a", "depth": 2})).await?.unwrap_or_default();
        let names: Vec<_> = listed["entries"].as_array().into_iter().flatten().map(|entry| &entry["name"]).collect();
        assert_eq!(names, ["b", "file", "link", "loop"]);
        let link = call(&client, "Stat", json!({"path": "a/link"})).await?.unwrap_or_default();
        assert_eq!(link["entry"]["symlinkTarget"], format!("{home}/a/b/file"));
        assert_eq!(link["entry"]["permissions"], "Lrwxrwxrwx");
        assert_eq!(code(call(&client, "ListDir", json!({"path": "a/loop"})).await?), "failed_precondition");
        assert_eq!(code(call(&client, "ListDir", json!({"path": "a/link"})).await?), "invalid_argument");
        assert_eq!(code(call(&client, "ListDir", json!({"path": "nothing"})).await?), "not_found");
        assert_eq!(code(call(&client, "Stat", json!({"path": "nothing"})).await?), "not_found");

        let wish = json!({"source": "a/b/file", "destination": "c/d/moved"});
        let moved = call(&client, "Move", wish.clone()).await?.unwrap_or_default();
        assert_eq!(moved["entry"]["path"], format!("{home}/c/d/moved"));
        assert_eq!(client.run("cat c/d/moved").await?.out(), "text\n");
        assert_eq!(code(call(&client, "Move", wish).await?), "not_found");
        for _ in 0..2 {
            assert_eq!(call(&client, "Remove", json!({"path": "a"})).await?, Ok(json!({})));
        }
        assert_eq!(client.run("ls").await?.out(), "c\n");
        instance.stop().await;
    }
    Ok(())
}

#[tokio::test]
async fn names_and_paths_are_checked() -> anyhow::Result<()> {
    let machine = Machine::best().await?;
    let instance = machine.instance("paths").await?;
    let client = Client::new(&instance);
    assert_eq!(code(call(&client, "Stat", json!({"path": "~root/x"})).await?), "invalid_argument");
    assert_eq!(code(call(&client, "Stat", json!({"path": "a\u{0}b"})).await?), "invalid_argument");
    let nobody = call(&client.user("ghost")?, "Stat", json!({"path": "/"})).await?;
    assert_eq!(nobody, Err(("unauthenticated".into(), "invalid username: 'ghost'".into())));
    let root = call(&client, "Stat", json!({"path": "/"})).await?.unwrap_or_default();
    assert_eq!((&root["entry"]["name"], &root["entry"]["path"]), (&json!("/"), &json!("/")));
    instance.stop().await;
    Ok(())
}

#[tokio::test]
async fn a_polled_watcher_has_seen_what_a_finished_call_did() -> anyhow::Result<()> {
    for machine in Machine::all().await {
        let instance = machine.instance("polled").await?;
        let client = Client::new(&instance);
        let created = call(&client, "CreateWatcher", json!({"path": "", "recursive": true})).await?;
        let id = created.unwrap_or_default()["watcherId"].take();
        assert!(id.as_str().is_some_and(|id| id.starts_with('w')), "{id}");
        let events = async || -> anyhow::Result<Vec<String>> {
            let seen = call(&client, "GetWatcherEvents", json!({"watcherId": id})).await?.unwrap_or_default();
            let events = seen["events"].as_array().cloned().unwrap_or_default();
            let text = |value: &Value| value.as_str().unwrap_or("?").to_owned();
            Ok(events.iter().map(|event| format!("{} {}", text(&event["name"]), text(&event["type"]))).collect())
        };
        client.post("/files?path=new.txt", "application/octet-stream", "text").await?;
        let expected = ["new.txt EVENT_TYPE_CREATE", "new.txt EVENT_TYPE_CHMOD", "new.txt EVENT_TYPE_WRITE"];
        assert_eq!(events().await?, expected);
        assert_eq!(events().await?, [""; 0]);
        call(&client, "MakeDir", json!({"path": "deep/er"})).await?.ok();
        client.run("echo >deep/er/file").await?;
        assert!(events().await?.contains(&"deep/er/file EVENT_TYPE_CREATE".to_owned()));
        assert_eq!(call(&client, "RemoveWatcher", json!({"watcherId": id})).await?, Ok(json!({})));
        assert_eq!(code(call(&client, "GetWatcherEvents", json!({"watcherId": id})).await?), "not_found");
        assert_eq!(code(call(&client, "RemoveWatcher", json!({"watcherId": id})).await?), "not_found");
        instance.stop().await;
    }
    Ok(())
}

#[tokio::test]
async fn a_streamed_watch_tells_changes_as_they_come() -> anyhow::Result<()> {
    let machine = Machine::best().await?;
    let instance = machine.instance("watch").await?;
    let client = Client::new(&instance);
    let watch = "filesystem.Filesystem/WatchDir";
    let gone = client.stream(watch, json!({"path": "/nowhere"})).await?.finish().await?;
    assert_eq!(gone.trailer["error"]["code"], "not_found");
    let file = client.stream(watch, json!({"path": "/etc/passwd"})).await?.finish().await?;
    assert_eq!(file.trailer["error"]["code"], "invalid_argument");

    let client = client.with("keepalive-ping-interval", "1")?;
    let mut frames = client.stream(watch, json!({"path": "/tmp", "includeEntry": true})).await?;
    assert_eq!(frames.message().await?, json!({"start": {}}));
    client.run("mkdir /tmp/new").await?;
    // Version 0.5.14 has no entry in its events.
    let expected = json!({"filesystem": {"name": "new", "type": "EVENT_TYPE_CREATE"}});
    assert_eq!(frames.message().await?, expected);
    assert_eq!(frames.message().await?, json!({"keepalive": {}}));
    instance.stop().await;
    Ok(())
}

#[tokio::test]
async fn later_versions_tell_the_entry() -> anyhow::Result<()> {
    let machine = Machine::best().await?;
    let mut spec = machine.spec("entry");
    spec.envd_version = "0.6.4".into();
    let instance = machine.launch(spec).await?;
    let client = Client::new(&instance);
    let wish = json!({"path": "/tmp", "includeEntry": true});
    let mut frames = client.stream("filesystem.Filesystem/WatchDir", wish).await?;
    frames.message().await?;
    client.run("mkdir /tmp/new").await?;
    assert_eq!(frames.message().await?["filesystem"]["entry"]["path"], "/tmp/new");
    instance.stop().await;
    Ok(())
}
