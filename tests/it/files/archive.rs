//! Directories as archives.

use std::io::Read;

use bytes::Bytes;
use futures_util::stream;
use http::Method;
use reqwest::{Body, RequestBuilder};
use serde_json::json;
use tar::{Archive, Builder, EntryType, Header};

use super::{
    Sandbox,
    sandbox::{noise, query},
};
use crate::harness::{self, Answer, Api, Options, eventually, read};

fn request(sandbox: &Sandbox, method: Method, pairs: &[(&str, &str)]) -> RequestBuilder {
    sandbox.api().request(method, &format!("/v1/instances/{}/archive{}", sandbox.id, query(pairs)))
}

async fn get(sandbox: &Sandbox, path: &str) -> Vec<u8> {
    let response = request(sandbox, Method::GET, &[("path", path)]).send().await.unwrap();
    assert_eq!(response.status(), 200);
    assert_eq!(response.headers()["content-type"], "application/x-tar");
    response.bytes().await.expect("a whole archive").to_vec()
}

async fn put(sandbox: &Sandbox, path: &str, archive: impl Into<Body>) -> Answer {
    read(request(sandbox, Method::PUT, &[("path", path)]).body(archive)).await
}

/// An archive that is put together by hand.
struct Tar(Builder<Vec<u8>>);

impl Tar {
    fn new() -> Self {
        Self(Builder::new(Vec::new()))
    }

    /// Any header under any name, also one that no tool would write.
    fn raw(mut self, kind: EntryType, name: &str, target: &str, mode: u32, content: &[u8]) -> Self {
        let mut header = Header::new_gnu();
        header.set_entry_type(kind);
        header.set_size(content.len() as u64);
        header.set_mode(mode);
        header.set_mtime(1_000_000_000);
        header.set_uid(4711);
        header.set_gid(4711);
        header.as_old_mut().name[..name.len()].copy_from_slice(name.as_bytes());
        header.as_old_mut().linkname[..target.len()].copy_from_slice(target.as_bytes());
        header.set_cksum();
        self.0.append(&header, content).unwrap();
        self
    }

    fn file(self, name: &str, content: &[u8]) -> Self {
        self.raw(EntryType::Regular, name, "", 0o644, content)
    }

    fn link(self, name: &str, target: &str) -> Self {
        self.raw(EntryType::Symlink, name, target, 0o777, b"")
    }

    fn directory(self, name: &str) -> Self {
        self.raw(EntryType::Directory, name, "", 0o755, b"")
    }

    fn bytes(self) -> Vec<u8> {
        self.0.into_inner().unwrap()
    }
}

/// What `ls` and `sha256sum` say of a tree, owners and times included.
async fn described(sandbox: &Sandbox, directory: &str) -> String {
    let line = format!(
        "cd '{directory}' && find . -mindepth 1 -printf '%P %y %m %u %l %T@\\0' | sort -z | tr '\\0' '\\n' && \
         find . -type f -print0 | sort -z | xargs -0r sha256sum"
    );
    sandbox.shell(&line).await
}

#[test]
fn a_tree_comes_back_as_it_was() {
    harness::run(async {
        let sandbox = Sandbox::start().await;
        let long = "n".repeat(200);
        let line = format!(
            "mkdir -p /home/user/t/deep/er /home/user/t/empty && cd /home/user/t && printf '\\0\\377x' > bytes && : > none && \
             echo 1 > 'a b' && echo 2 > \"quote'\\\"s\" && echo 3 > \"$(printf 'new\\nline')\" && echo 4 > 'größe €' && \
             echo 5 > ./-dash && echo 6 > deep/er/{long} && ln -s deep/er to-dir && ln -s nowhere/at/all dangling && \
             ln -s /etc/hostname absolute && ln -s . loop && ln -s {long} deep/er/long-link && head -c 3000001 /dev/urandom > large && \
             chmod 751 bytes && chmod 555 deep && touch -h -d @1000000000 bytes to-dir && chown -hR user:user /home/user/t"
        );
        sandbox.shell(&line).await;
        let before = described(&sandbox, "/home/user/t").await;
        let archive = get(&sandbox, "t").await;
        let unpacked = put(&sandbox, "copied/here", archive.clone()).await.expect(200);
        let expected =
            json!({"path": "/home/user/copied/here", "files": 9, "directories": 3, "links": 5, "bytes": 3_000_016});
        assert_eq!(unpacked, expected);
        let after = described(&sandbox, "/home/user/copied/here").await;
        // The archive keeps whole seconds.
        let whole_seconds = |text: &str| -> Vec<String> {
            text.lines()
                .map(|line| line.split(' ').map(|word| word.split('.').next().unwrap_or(word)).collect())
                .collect()
        };
        assert_eq!(whole_seconds(&before), whole_seconds(&after), "{before}\n{after}");
        // And once more over what is there now.
        put(&sandbox, "copied/here", archive).await.expect(200);
        assert_eq!(described(&sandbox, "/home/user/copied/here").await, after);
    });
}

#[test]
fn what_is_packed_is_read_by_others_and_harmless_here() {
    harness::run(async {
        let sandbox = Sandbox::start().await;
        sandbox.put("dir ä/sub/file", "content").await.expect(201);
        sandbox.shell("cd '/home/user/dir ä' && ln sub/file second-name && chmod 700 sub && chown -R root sub").await;
        let response = request(&sandbox, Method::GET, &[("path", "dir ä"), ("user", "user")]).send().await.unwrap();
        let header = |name: &str| response.headers()[name].to_str().unwrap().to_owned();
        assert_eq!(
            header("content-disposition"),
            "attachment; filename=\"dir _.tar\"; filename*=UTF-8''dir%20%C3%A4.tar"
        );
        assert!(header("content-security-policy").starts_with("sandbox;"));
        assert_eq!(header("x-content-type-options"), "nosniff");
        let bytes = response.bytes().await.unwrap();
        let mut archive = Archive::new(&bytes[..]);
        let mut members = Vec::new();
        for entry in archive.entries().unwrap() {
            let mut entry = entry.unwrap();
            let mut content = String::new();
            entry.read_to_string(&mut content).unwrap();
            members.push((entry.path().unwrap().display().to_string(), entry.header().entry_type(), content));
        }
        members.sort_by(|a, b| a.0.cmp(&b.0));
        let seen: Vec<_> =
            members.iter().map(|(name, kind, content)| (name.as_str(), *kind, content.as_str())).collect();
        let expected = [
            ("./", EntryType::Directory, ""),
            ("./second-name", EntryType::Regular, "content"),
            ("./sub/", EntryType::Directory, ""),
            ("./sub/file", EntryType::Regular, "content"),
        ];
        assert_eq!(seen, expected);
    });
}

#[test]
fn what_is_unpacked_belongs_to_the_user_without_special_bits() {
    harness::run(async {
        let sandbox = Sandbox::start().await;
        let tar =
            Tar::new().raw(EntryType::Regular, "tool", "", 0o6755, b"#!").directory("d/").file("d/f", b"x").bytes();
        put(&sandbox, "mine", tar.clone()).await.expect(200);
        let line = "cd /home/user/mine && stat -c '%n %U:%G %a %Y' . tool d d/f";
        let seen = sandbox.shell(line).await;
        assert!(seen.starts_with(". user:user 755 "), "{seen}");
        assert!(
            seen.ends_with("tool user:user 755 1000000000\nd user:user 755 1000000000\nd/f user:user 644 1000000000\n"),
            "{seen}"
        );
        let as_root = request(&sandbox, Method::PUT, &[("path", "/opt/roots"), ("user", "root")]).body(tar.clone());
        assert_eq!(read(as_root).await.expect(200)["path"], "/opt/roots");
        assert_eq!(sandbox.shell("stat -c '%U %a' /opt/roots/tool").await, "root 755\n");
        sandbox.shell("mkdir /opt/closed").await;
        let denied = put(&sandbox, "/opt/closed", tar.clone()).await.problem(403, "permission_denied");
        assert!(denied["detail"].as_str().unwrap().contains("tool"), "{denied:#}");
        let unknown = request(&sandbox, Method::PUT, &[("path", "x"), ("user", "nobody-here")]).body(tar);
        assert_eq!(read(unknown).await.problem(422, "validation_failed")["errors"][0]["field"], "user");
    });
}

#[test]
fn nothing_lands_outside() {
    harness::run(async {
        let sandbox = Sandbox::start().await;
        sandbox
            .shell(
                "mkdir /home/user/out /home/user/in && ln -s ../out /home/user/in/there && chown -hR user /home/user",
            )
            .await;
        let cases = [
            ("leads up", Tar::new().file("../out/x", b"x")),
            ("leads up inside", Tar::new().file("a/../../out/x", b"x")),
            ("absolute", Tar::new().file("/home/user/out/x", b"x")),
            ("through its own link", Tar::new().link("l", "../out").file("l/x", b"x")),
            ("through its own link, spelled otherwise", Tar::new().link("./l", "../out").file("l//./x", b"x")),
            ("a directory over its own link", Tar::new().link("l", "../out").directory("l/").file("l/x", b"x")),
            ("through a link that was there", Tar::new().file("there/x", b"x")),
            ("a directory over a link that was there", Tar::new().directory("there/").file("there/x", b"x")),
            ("a file over its own link", Tar::new().link("l", "../out").file("l", b"x")),
            ("a hard link", Tar::new().raw(EntryType::Link, "h", "../out", 0o644, b"")),
            ("a device", Tar::new().raw(EntryType::Char, "null", "", 0o666, b"")),
            ("a block device", Tar::new().raw(EntryType::Block, "sda", "", 0o666, b"")),
            ("a pipe", Tar::new().raw(EntryType::Fifo, "pipe", "", 0o666, b"")),
        ];
        for (case, tar) in cases {
            let problem = put(&sandbox, "in", tar.bytes()).await.problem(422, "validation_failed");
            assert_eq!(problem["errors"][0]["field"], "body", "{case}");
            assert_eq!(sandbox.shell("ls -A /home/user/out").await, "", "{case}");
        }
        let fine = Tar::new().link("out-link", "../out").file("f/x", b"x");
        put(&sandbox, "in", fine.bytes()).await.expect(200);
        assert_eq!(sandbox.stat("in/out-link").await.expect(200)["symlink_target"], "/home/user/out");
        put(&sandbox, "in", Tar::new().file("f/x/under", b"x").bytes()).await.problem(409, "not_a_directory");
        put(&sandbox, "in", Tar::new().file("there", b"replaced").bytes()).await.expect(200);
        assert_eq!(sandbox.shell("ls -A /home/user/out").await, "", "the link was replaced, not followed");
    });
}

#[test]
fn what_is_no_archive_or_breaks_off_is_refused() {
    harness::run(async {
        let sandbox = Sandbox::with(Options::default().with("FILES__MAX_UPLOAD", "3MiB")).await;
        for body in [b"".to_vec(), b"x".to_vec(), noise(5000), vec![0x1f, 0x8b, 8, 0]] {
            put(&sandbox, "d", body).await.problem(400, "invalid_request");
        }
        let whole = Tar::new().file("first", b"1").file("second", &noise(200_000)).bytes();
        for end in [600, 1024, 100_000, whole.len() - 1024] {
            put(&sandbox, "d", whole[..end].to_vec()).await.problem(400, "invalid_request");
        }
        let gzip = request(&sandbox, Method::PUT, &[("path", "d")]).header("content-encoding", "gzip").body("x");
        read(gzip).await.problem(415, "unsupported_media_type");
        let large = Tar::new().file("large", &noise(4 << 20)).bytes();
        let known = put(&sandbox, "d", large.clone()).await.problem(413, "body_too_large");
        assert_eq!(known["limit"]["name"], "files.max_upload");
        let pieces = stream::iter(
            large
                .chunks(50_000)
                .map(|piece| Ok::<_, std::io::Error>(Bytes::copy_from_slice(piece)))
                .collect::<Vec<_>>(),
        );
        put(&sandbox, "d", Body::wrap_stream(pieces)).await.problem(413, "body_too_large");
        sandbox.put("file", "x").await.expect(201);
        put(&sandbox, "file", whole.clone()).await.problem(409, "already_exists");
        let empty = put(&sandbox, "made", Tar::new().bytes()).await.expect(200);
        assert_eq!(empty, json!({"path": "/home/user/made", "files": 0, "directories": 0, "links": 0, "bytes": 0}));
        let none_left = async || (sandbox.shell("ps -eo comm | grep -c '^tar$' || true").await == "0\n").then_some(());
        eventually(none_left).await;
    });
}

#[test]
fn a_full_disk_is_said() {
    harness::run(async {
        let sandbox = Sandbox::start().await;
        sandbox.shell("mkdir /home/user/small && mount -t tmpfs -o size=1m,mode=777 tmpfs /home/user/small").await;
        let tar = Tar::new().file("fits", b"x").file("large", &noise(8 << 20)).bytes();
        put(&sandbox, "small", tar).await.problem(507, "no_space");
    });
}

#[test]
fn a_sandbox_without_tar_says_so() {
    harness::run(async {
        let sandbox = Sandbox::start().await;
        sandbox.put("d/f", "x").await.expect(201);
        sandbox.shell("for tar in $(which -a tar); do rm -f \"$tar\"; done").await;
        let problem = read(request(&sandbox, Method::GET, &[("path", "d")])).await.problem(409, "program_missing");
        assert!(problem["detail"].as_str().unwrap().contains("tar"), "{problem:#}");
        put(&sandbox, "d", Tar::new().file("f", b"y").bytes()).await.problem(409, "program_missing");
    });
}

#[test]
fn an_archive_that_cannot_be_made_whole_does_not_look_so() {
    harness::run(async {
        let sandbox = Sandbox::start().await;
        sandbox.shell("mkdir /home/user/d && truncate -s 2G /home/user/d/large").await;
        let mut response = request(&sandbox, Method::GET, &[("path", "d")]).send().await.unwrap();
        response.chunk().await.unwrap().expect("a beginning");
        sandbox.shell("pkill -KILL -x tar").await;
        let error = loop {
            match response.chunk().await {
                Ok(Some(_)) => {}
                Ok(None) => panic!("a clean end"),
                Err(error) => break error,
            }
        };
        assert!(error.is_body() || error.is_decode(), "{error:?}");
    });
}

#[test]
fn a_caller_that_leaves_ends_the_packing_and_the_unpacking() {
    harness::run(async {
        let sandbox = Sandbox::start().await;
        sandbox.shell("mkdir /home/user/d && truncate -s 2G /home/user/d/large").await;
        let running = async || sandbox.shell("ps -eo comm | grep -c '^tar$' || true").await;
        let mut response = request(&sandbox, Method::GET, &[("path", "d")]).send().await.unwrap();
        response.chunk().await.unwrap().expect("a beginning");
        assert_eq!(running().await, "1\n");
        drop(response);
        eventually(async || (running().await == "0\n").then_some(())).await;

        let (sender, receiver) = tokio::sync::mpsc::channel::<Result<Bytes, std::io::Error>>(1);
        let body = Body::wrap_stream(stream::unfold(receiver, async |mut pieces| Some((pieces.recv().await?, pieces))));
        let upload = request(&sandbox, Method::PUT, &[("path", "up")]).body(body);
        let task = sandbox.stack.app.lifecycle.spawn("upload", async move { upload.send().await.map(drop) });
        let whole = Tar::new().file("large", &noise(1 << 20)).bytes();
        sender.send(Ok(Bytes::copy_from_slice(&whole[..600_000]))).await.unwrap();
        eventually(async || (running().await == "1\n").then_some(())).await;
        drop(sender.send(Err(std::io::Error::other("the sender gives up"))).await);
        assert!(task.await.unwrap().is_err());
        eventually(async || (running().await == "0\n").then_some(())).await;
    });
}

#[test]
fn archives_have_the_scopes_and_errors_of_files() {
    harness::run(async {
        let sandbox = Sandbox::start().await;
        sandbox.put("file", "x").await.expect(201);
        let get = async |pairs: &[(&str, &str)]| read(request(&sandbox, Method::GET, pairs)).await;
        get(&[("path", "absent")]).await.problem(404, "not_found");
        get(&[("path", "file")]).await.problem(409, "not_a_directory");
        for (pairs, field) in
            [(&[][..], "path"), (&[("path", "d"), ("depth", "1")], "depth"), (&[("path", "a\0")], "path")]
        {
            assert_eq!(get(pairs).await.problem(422, "validation_failed")["errors"][0]["field"], field);
        }
        let path = format!("/v1/instances/{}/archive?path=~", sandbox.id);
        let other = sandbox.stack.team("other").await;
        other.get(&path).await.problem(404, "not_found");
        let made = sandbox.api().post("/v1/keys", &json!({"name": "k", "scopes": ["files:read"]})).await.expect(201);
        let reader = Api::new(&sandbox.stack.url, made["secret"].as_str().unwrap());
        read(reader.request(Method::PUT, &path).body("x")).await.problem(403, "scope_missing");
        assert_eq!(reader.request(Method::GET, &path).send().await.unwrap().status(), 200);
    });
}
