//! Uploads that are broken off, refused, or raced.

use std::sync::{
    Arc,
    atomic::{AtomicBool, Ordering},
};

use bytes::Bytes;
use futures_util::stream;
use http::Method;
use reqwest::Body;
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::TcpStream,
};

use super::{
    Sandbox,
    sandbox::{noise, sha256},
};
use crate::harness::{self, Answer, Options, eventually, read};

/// Sends the head of an upload and what is given of its body, over a connection of its own.
async fn begin(sandbox: &Sandbox, path: &str, framing: &str, body: &[u8]) -> TcpStream {
    let authority = sandbox.stack.url.trim_start_matches("http://");
    let mut connection = TcpStream::connect(authority).await.unwrap();
    let head = format!(
        "PUT {}?path={path} HTTP/1.1\r\nhost: {authority}\r\nauthorization: Bearer {}\r\n{framing}\r\n\r\n",
        sandbox.url(""),
        sandbox.stack.key
    );
    connection.write_all(head.as_bytes()).await.unwrap();
    connection.write_all(body).await.unwrap();
    connection
}

async fn until_temporary(sandbox: &Sandbox, directory: &str) {
    let temporary = |name: &String| name.starts_with(".ags-upload-");
    eventually(async || sandbox.names(directory).await.iter().any(temporary).then_some(())).await;
}

#[test]
fn an_upload_that_is_broken_off_leaves_nothing() {
    harness::run(async {
        let sandbox = Sandbox::start().await;
        sandbox.put("d/old", "old").await.expect(201);
        let piece = noise(100_000);
        let chunk = [format!("{:x}\r\n", piece.len()).into_bytes(), piece.clone(), b"\r\n".to_vec()].concat();
        for (framing, body) in [("content-length: 1000000", &piece), ("transfer-encoding: chunked", &chunk)] {
            for path in ["d/old", "d/new", "d/not/made/yet"] {
                let connection = begin(&sandbox, path, framing, body).await;
                until_temporary(&sandbox, "d").await;
                drop(connection);
                sandbox.until_names("d", &["old"]).await;
                assert_eq!(sandbox.read("d/old").await, b"old");
            }
        }
    });
}

#[test]
fn a_hang_up_at_any_moment_leaves_the_old_file_or_the_new_one() {
    harness::run(async {
        let sandbox = Sandbox::start().await;
        sandbox.put("d/file", "old").await.expect(201);
        for sent in [0, 1, 100, 65_536, 99_999, 100_000] {
            let connection = begin(&sandbox, "d/file", "content-length: 100000", &vec![b'n'; sent]).await;
            drop(connection);
        }
        sandbox.until_names("d", &["file"]).await;
        let content = sandbox.read("d/file").await;
        assert!(content == b"old" || content == vec![b'n'; 100_000], "{} bytes", content.len());
    });
}

#[test]
fn an_upload_over_the_limit_is_refused_with_the_limit() {
    harness::run(async {
        let sandbox = Sandbox::with(Options::default().with("FILES__MAX_UPLOAD", "100KiB")).await;
        let known = sandbox.put("d/a", vec![b'x'; 102_401]).await.problem(413, "body_too_large");
        assert_eq!(
            (known["limit"]["name"].as_str(), known["limit"]["value"].as_u64()),
            (Some("files.max_upload"), Some(102_400))
        );
        let pieces = stream::iter((0..4000).map(|_| Ok::<_, std::io::Error>(Bytes::from(vec![b'x'; 10_000]))));
        sandbox.put("d/a", Body::wrap_stream(pieces)).await.problem(413, "body_too_large");
        sandbox.stat("d").await.problem(404, "not_found");
        sandbox.put("d/a", vec![b'x'; 102_400]).await.expect(201);
        assert_eq!(sandbox.names("d").await, ["a"]);
    });
}

#[test]
fn a_full_disk_is_said_and_nothing_is_left() {
    harness::run(async {
        let sandbox = Sandbox::start().await;
        let small = "mkdir /home/user/small && mount -t tmpfs -o size=1m tmpfs /home/user/small && echo mounted";
        assert_eq!(sandbox.shell(small).await, "mounted\n");
        sandbox.put("small/fits", vec![b'x'; 100_000]).await.expect(201);
        sandbox.put("small/large", noise(8 << 20)).await.problem(507, "no_space");
        sandbox.put("small/fits", noise(8 << 20)).await.problem(507, "no_space");
        assert_eq!(sandbox.names("small").await, ["fits"]);
        assert_eq!(sandbox.read("small/fits").await, vec![b'x'; 100_000]);
    });
}

#[test]
fn readers_see_the_old_file_or_the_new_one() {
    harness::run(async {
        let sandbox = Arc::new(Sandbox::start().await);
        let length = 2_000_000;
        sandbox.put("file", vec![b'0'; length]).await.expect(201);
        let done = Arc::new(AtomicBool::new(false));
        let reader = sandbox.stack.app.lifecycle.spawn("reader", {
            let (sandbox, done) = (Arc::clone(&sandbox), Arc::clone(&done));
            async move {
                let mut reads = 0;
                while !done.load(Ordering::Relaxed) {
                    let content = sandbox.read("file").await;
                    assert_eq!(content.len(), length);
                    assert!(content.iter().all(|byte| *byte == content[0]), "two versions in one answer");
                    reads += 1;
                }
                reads
            }
        });
        for version in b'1'..=b'9' {
            sandbox.put("file", vec![version; length]).await.expect(200);
        }
        done.store(true, Ordering::Relaxed);
        assert!(reader.await.unwrap() > 0, "something was read meanwhile");
    });
}

#[test]
fn of_several_writers_one_wins_as_a_whole() {
    harness::run(async {
        let sandbox = Sandbox::start().await;
        let contents: Vec<Vec<u8>> = (b'a'..=b'f').map(|letter| vec![letter; 700_000 + usize::from(letter)]).collect();
        for _ in 0..3 {
            let writers = contents.iter().map(|content| sandbox.put("d/contested", content.clone()));
            for written in futures_util::future::join_all(writers).await {
                assert!(matches!(written.status.as_u16(), 200 | 201), "{:#}", written.body);
            }
            let content = sandbox.read("d/contested").await;
            assert!(contents.contains(&content), "{} bytes of several writers", content.len());
            assert_eq!(sandbox.names("d").await, ["contested"]);
        }
    });
}

#[test]
fn a_replaced_file_keeps_its_mode_and_a_link_stays_a_link() {
    harness::run(async {
        let sandbox = Sandbox::start().await;
        sandbox.put("bin/run me", "#!/bin/sh\necho 1\n").await.expect(201);
        sandbox
            .shell("cd /home/user && chmod 751 'bin/run me' && ln -s 'bin/run me' link && ln -s nowhere broken")
            .await;
        let written = sandbox.put("link", "#!/bin/sh\necho 2\n").await.expect(200);
        assert_eq!(written["path"], "/home/user/bin/run me");
        assert_eq!(sandbox.shell("'/home/user/bin/run me'").await, "2\n");
        assert_eq!(sandbox.stat("bin/run me").await.expect(200)["mode"], 0o751);
        assert_eq!(sandbox.stat("link").await.expect(200)["type"], "symlink");
        assert_eq!(sandbox.names("bin").await, ["run me"]);
        sandbox.put("broken", "x").await.expect(201);
        assert_eq!(sandbox.stat("broken").await.expect(200)["type"], "file");
    });
}

#[test]
fn a_refused_upload_is_answered_before_its_body_has_ended() {
    harness::run(async {
        let sandbox = Sandbox::start().await;
        let mut connection = begin(&sandbox, "~", "content-length: 10000000", &noise(500_000)).await;
        let mut answer = vec![0; 2000];
        let length = connection.read(&mut answer).await.unwrap();
        let text = String::from_utf8_lossy(&answer[..length]).into_owned();
        assert!(text.starts_with("HTTP/1.1 422"), "{text}");
        assert!(connection.write_all(&noise(500_000)).await.is_ok(), "what is still sent does not destroy the answer");
    });
}

/// A form with one part for each file; the names are put in as they are.
fn form(files: &[(&str, &[u8])]) -> Vec<u8> {
    let mut body = Vec::new();
    for (name, content) in files {
        let head = format!("--edge\r\ncontent-disposition: form-data; name=\"file\"; {name}\r\n\r\n");
        body.extend_from_slice(head.as_bytes());
        body.extend_from_slice(content);
        body.extend_from_slice(b"\r\n");
    }
    body.extend_from_slice(b"--edge--\r\n");
    body
}

async fn post_form(sandbox: &Sandbox, rest: &str, body: Vec<u8>) -> Answer {
    let request = sandbox.api().request(Method::POST, &sandbox.url(rest));
    read(request.header("content-type", "multipart/form-data; boundary=edge").body(body)).await
}

#[test]
fn a_form_writes_all_its_files_or_none() {
    harness::run(async {
        let sandbox = Sandbox::start().await;
        let large = noise(3_000_000);
        let files: &[(&str, &[u8])] = &[
            ("filename=\"a.txt\"", b"a"),
            ("filename=\"sub/b c.bin\"", &large),
            ("filename*=utf-8''gr%C3%BC%C3%9Fe", b""),
            ("filename=\"/tmp/absolute\"", b"x"),
        ];
        let written = post_form(&sandbox, "?path=dir", form(files)).await.expect(201);
        let paths: Vec<_> = written["items"].as_array().unwrap().iter().map(|item| &item["path"]).collect();
        assert_eq!(
            paths,
            ["/home/user/dir/a.txt", "/home/user/dir/sub/b c.bin", "/home/user/dir/grüße", "/tmp/absolute"]
        );
        assert_eq!(written["items"][1]["sha256"], sha256(&large));
        assert!(sandbox.read("dir/sub/b c.bin").await == large);

        let twice = form(&[("filename=\"n/1\"", b"1"), ("filename=\"n/2\"", b"2"), ("filename=\"n/1\"", b"3")]);
        let problem = post_form(&sandbox, "", twice).await.problem(422, "validation_failed");
        assert_eq!(problem["errors"][0]["field"], "file");
        let mut cut = form(&[("filename=\"n/1\"", b"1"), ("filename=\"n/2\"", &large)]);
        cut.truncate(2_000_000);
        post_form(&sandbox, "", cut).await.problem(400, "invalid_request");
        post_form(&sandbox, "", form(&[("", b"1")])).await.problem(422, "validation_failed");
        post_form(&sandbox, "", form(&[])).await.problem(422, "validation_failed");
        sandbox.put("file", "x").await.expect(201);
        let under = form(&[("filename=\"n/1\"", b"1"), ("filename=\"file/under\"", b"2")]);
        post_form(&sandbox, "", under).await.problem(409, "not_a_directory");
        let json = sandbox.post("", &serde_json::json!({})).await;
        json.problem(415, "unsupported_media_type");
        sandbox.until_names("~", &[".bash_logout", ".bashrc", ".profile", "dir", "file"]).await;
    });
}
