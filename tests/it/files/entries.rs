//! Directories and what is in them.

use serde_json::{Value, json};

use super::{
    Sandbox,
    sandbox::{moving, sha256},
};
use crate::harness;

/// Names that something on the way might trip over.
const NAMES: &[&str] = &[
    "with space",
    " leading and trailing ",
    "it's",
    "say \"hi\"",
    "back\\slash",
    "new\nline",
    "tab\tand\rreturn",
    "100%",
    "%2e%2e%2f",
    "a+b",
    "a&b=c?d#e;f",
    "größe",
    "文件.txt",
    "e\u{301}",
    "🦀",
    "-rf",
    "--help",
    "*",
    "$(reboot)",
    "`id`",
    "...",
    ".hidden",
    "\u{1}\u{7f}",
    "a:b|c<d>",
];

#[test]
fn unusual_names_are_names() {
    harness::run(async {
        let sandbox = Sandbox::start().await;
        let long = "é".repeat(127);
        for name in NAMES.iter().copied().chain([long.as_str()]) {
            let path = format!("names/{name}");
            let written = sandbox.put(&path, name.to_owned()).await.expect(201);
            assert_eq!(written["path"], format!("/home/user/names/{name}"));
            assert_eq!(written["sha256"], sha256(name.as_bytes()));
            assert_eq!(sandbox.read(&path).await, name.as_bytes(), "{name:?}");
            assert_eq!(sandbox.stat(&path).await.expect(200)["name"], name);
            assert_eq!(sandbox.names("names").await, [name]);
            let moved = format!("moved/{name}/{name}");
            sandbox.post("/move", &moving(&path, &moved)).await.expect(200);
            sandbox.put(&moved, "again").await.expect(200);
            assert_eq!(sandbox.names(&format!("moved/{name}")).await, [name]);
            sandbox.delete("moved").await.expect(204);
        }
        sandbox.put("./~tilde", "x").await.expect(201);
        assert!(sandbox.names("~").await.contains(&"~tilde".to_owned()));
    });
}

#[test]
fn directories_are_made_listed_moved_and_removed() {
    harness::run(async {
        let sandbox = Sandbox::start().await;
        let made = sandbox.post("/mkdir", &json!({"path": "a/b"})).await.expect(201);
        assert_eq!((&made["path"], &made["type"]), (&json!("/home/user/a/b"), &json!("directory")));
        assert_eq!((&made["mode"], &made["permissions"]), (&json!(0o755), &json!("drwxr-xr-x")));
        assert_eq!((&made["owner"], &made["group"]), (&json!("user"), &json!("user")));
        sandbox.post("/mkdir", &json!({"path": "a/b"})).await.expect(200);
        sandbox.put("a/b/c.txt", "c").await.expect(201);
        sandbox.put("a/z.txt", "zz").await.expect(201);
        let paths = |items: Vec<Value>| -> Vec<String> {
            items.iter().map(|item| item["path"].as_str().unwrap().replace("/home/user/", "")).collect()
        };
        assert_eq!(paths(sandbox.list("a", 1).await), ["a/b", "a/z.txt"]);
        assert_eq!(paths(sandbox.list("a", 2).await), ["a/b", "a/b/c.txt", "a/z.txt"]);
        let moved = sandbox.post("/move", &moving("a/b", "x/y")).await.expect(200);
        assert_eq!(moved["path"], "/home/user/x/y");
        assert_eq!(sandbox.read("x/y/c.txt").await, b"c");
        sandbox.stat("a/b").await.problem(404, "not_found");
        sandbox.delete("x").await.expect(204);
        sandbox.delete("x").await.expect(204);
        assert_eq!(paths(sandbox.list("a", 9).await), ["a/z.txt"]);
    });
}

#[test]
fn links_devices_and_modes_are_described() {
    harness::run(async {
        let sandbox = Sandbox::start().await;
        sandbox.put("t/file", "12345").await.expect(201);
        let line = "cd /home/user/t && chmod 4751 file && ln -s file link && ln -s nowhere broken && mkfifo pipe \
                    && ln -s /tmp dir && mkdir sticky && chmod 1777 sticky && touch -d @1000000000.5 file";
        sandbox.shell(line).await;
        let stat = async |name: &str| sandbox.stat(&format!("t/{name}")).await.expect(200);
        let file = stat("file").await;
        assert_eq!((&file["mode"], &file["permissions"]), (&json!(0o4751), &json!("-rwsr-x--x")));
        assert_eq!((&file["size"], &file["type"], &file["target_type"]), (&json!(5), &json!("file"), &Value::Null));
        assert_eq!(file["modified_at"], "2001-09-09T01:46:40.500Z");
        assert_eq!(file["symlink_target"], Value::Null);
        let link = stat("link").await;
        assert_eq!((&link["type"], &link["target_type"]), (&json!("symlink"), &json!("file")));
        assert_eq!(
            (&link["symlink_target"], &link["permissions"]),
            (&json!("/home/user/t/file"), &json!("lrwxrwxrwx"))
        );
        let broken = stat("broken").await;
        assert_eq!((&broken["type"], &broken["target_type"]), (&json!("symlink"), &Value::Null));
        assert_eq!(broken["symlink_target"], "/home/user/t/broken");
        assert_eq!(stat("dir").await["target_type"], "directory");
        assert_eq!(stat("sticky").await["permissions"], "drwxrwxrwt");
        assert_eq!(
            (&stat("pipe").await["type"], &stat("pipe").await["permissions"]),
            (&json!("other"), &json!("prw-r--r--"))
        );
        assert_eq!(sandbox.names("t/dir").await, sandbox.names("/tmp").await, "the path itself is followed");
        for path in ["t/pipe", "/dev/null"] {
            harness::read(sandbox.content(http::Method::GET, path)).await.problem(409, "not_a_file");
            sandbox.put(path, "x").await.problem(409, "not_a_file");
        }
        harness::read(sandbox.content(http::Method::GET, "t/broken")).await.problem(404, "not_found");
    });
}

#[test]
fn what_does_not_fit_is_refused_with_its_own_code() {
    harness::run(async {
        let sandbox = Sandbox::start().await;
        sandbox.put("file", "x").await.expect(201);
        sandbox.put("full/file", "x").await.expect(201);
        let get = async |path: &str| harness::read(sandbox.content(http::Method::GET, path)).await;
        get("full").await.problem(409, "is_a_directory");
        get("absent").await.problem(404, "not_found");
        sandbox.put("full", "x").await.problem(409, "is_a_directory");
        sandbox.put("file/under", "x").await.problem(409, "not_a_directory");
        sandbox.put("file/under/it", "x").await.problem(409, "not_a_directory");
        let list = async |path: &str| sandbox.api().get(&sandbox.url(&format!("/list?path={path}"))).await;
        list("absent").await.problem(404, "not_found");
        list("file").await.problem(409, "not_a_directory");
        sandbox.post("/mkdir", &json!({"path": "file"})).await.problem(409, "already_exists");
        sandbox.post("/mkdir", &json!({"path": "file/under"})).await.problem(409, "not_a_directory");
        sandbox.post("/move", &moving("absent", "y")).await.problem(404, "not_found");
        sandbox.post("/move", &moving("file", "full")).await.problem(409, "is_a_directory");
        sandbox.post("/mkdir", &json!({"path": "dir"})).await.expect(201);
        sandbox.post("/move", &moving("dir", "full")).await.problem(409, "already_exists");
        sandbox.post("/move", &moving("full", "full/deeper")).await.problem(422, "validation_failed");
        let denied = sandbox.put("/sys/new", "x").await.problem(403, "permission_denied");
        assert!(denied["detail"].as_str().unwrap().contains("\"/sys/new\""), "{denied:#}");
        sandbox.put("/proc/new", "x").await.problem(404, "not_found");
        assert_eq!(sandbox.names("full").await, ["file"]);
        assert_eq!(sandbox.read("file").await, b"x");
    });
}

#[test]
fn links_that_lead_in_circles_are_listed_and_not_followed() {
    harness::run(async {
        let sandbox = Sandbox::start().await;
        sandbox.put("t/sub/file", "x").await.expect(201);
        sandbox.shell("cd /home/user/t && ln -s . self && ln -s ../.. sub/up && ln -s one two && ln -s two one").await;
        let paths: Vec<String> = sandbox
            .list("t", 64)
            .await
            .iter()
            .map(|item| item["path"].as_str().unwrap().replace("/home/user/t/", ""))
            .collect();
        assert_eq!(paths, ["one", "self", "sub", "sub/file", "sub/up", "two"]);
        let circle = sandbox.stat("t/one").await.expect(200);
        assert_eq!((&circle["type"], &circle["target_type"]), (&json!("symlink"), &Value::Null));
        harness::read(sandbox.content(http::Method::GET, "t/one")).await.problem(404, "not_found");
        assert_eq!(sandbox.read("t/self/self/sub/up/t/sub/file").await, b"x");
        sandbox.delete("t/self").await.expect(204);
        sandbox.delete("t/sub/up").await.expect(204);
        assert_eq!(sandbox.read("t/sub/file").await, b"x", "only the links are gone");
    });
}
