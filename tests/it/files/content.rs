//! Contents up and down.

use http::Method;
use reqwest::header;

use super::{
    Sandbox,
    sandbox::{noise, sha256},
};
use crate::harness::{self, eventually, read};

#[test]
fn what_is_written_is_read_and_described() {
    harness::run(async {
        let sandbox = Sandbox::start().await;
        let content = noise(3_000_001);
        let written = sandbox.put("dir/deep/a.bin", content.clone()).await.expect(201);
        assert_eq!(written["path"], "/home/user/dir/deep/a.bin");
        assert_eq!(written["size"], 3_000_001);
        assert_eq!(written["sha256"], sha256(&content));
        assert!(sandbox.read("/home/user/dir/deep/a.bin").await == content, "the same bytes");
        assert!(sandbox.read("~/dir/deep/a.bin").await == content, "the same bytes");
        assert_eq!(sandbox.put("dir/deep/a.bin", "short").await.expect(200)["size"], 5);
        assert_eq!(sandbox.read("dir/deep/a.bin").await, b"short");
        assert_eq!(sandbox.names("dir/deep").await, ["a.bin"], "no temporary file is left");
        let owner = sandbox.shell("stat -c '%U:%G %a' /home/user/dir/deep/a.bin /home/user/dir").await;
        assert_eq!(owner, "user:user 644\nuser:user 755\n");
    });
}

#[test]
fn the_user_decides_home_and_owner() {
    harness::run(async {
        let sandbox = Sandbox::start().await;
        let request = sandbox.api().request(Method::PUT, &sandbox.url("?path=mine&user=root")).body("r");
        assert_eq!(read(request).await.expect(201)["path"], "/root/mine");
        assert_eq!(sandbox.shell("stat -c %U /root/mine").await, "root\n");
        let unknown = sandbox.api().get(&sandbox.url("?path=mine&user=nobody-here")).await;
        let problem = unknown.problem(422, "validation_failed");
        assert_eq!(problem["errors"][0]["field"], "user");
    });
}

#[test]
fn an_empty_file_and_a_chunked_body_are_files_too() {
    harness::run(async {
        let sandbox = Sandbox::start().await;
        let written = sandbox.put("empty", "").await.expect(201);
        assert_eq!(written["sha256"], sha256(b""));
        let response = sandbox.fetch("empty").await;
        assert_eq!(response.headers()[header::CONTENT_LENGTH], "0");
        assert!(response.bytes().await.unwrap().is_empty());
        let pieces = futures_util::stream::iter((0..100).map(|_| Ok::<_, std::io::Error>(vec![b'x'; 1000])));
        let written = sandbox.put("chunked", reqwest::Body::wrap_stream(pieces)).await.expect(201);
        assert_eq!(written["size"], 100_000);
        assert_eq!(sandbox.read("chunked").await, vec![b'x'; 100_000]);
    });
}

#[test]
fn ranges_and_conditions_are_honoured() {
    harness::run(async {
        let sandbox = Sandbox::start().await;
        sandbox.put("digits.txt", "0123456789").await.expect(201);
        let get = async |name: &str, value: &str| {
            sandbox.content(Method::GET, "digits.txt").header(name, value).send().await.unwrap()
        };
        for (range, part, described) in [
            ("bytes=2-4", "234", "bytes 2-4/10"),
            ("bytes=7-", "789", "bytes 7-9/10"),
            ("bytes=-2", "89", "bytes 8-9/10"),
        ] {
            let response = get("range", range).await;
            assert_eq!(response.status(), 206, "{range}");
            assert_eq!(response.headers()[header::CONTENT_RANGE], described);
            assert_eq!(response.headers()[header::CONTENT_LENGTH], part.len().to_string());
            assert_eq!(response.text().await.unwrap(), part);
        }
        let beyond = get("range", "bytes=10-").await;
        assert_eq!(beyond.headers()[header::CONTENT_RANGE], "bytes */10");
        assert_eq!(beyond.headers()[header::CONTENT_TYPE], "application/problem+json");
        assert_eq!(beyond.status(), 416);
        assert!(beyond.text().await.unwrap().contains("range_not_satisfiable"));
        let whole = sandbox.fetch("digits.txt").await;
        assert_eq!(whole.headers()[header::ACCEPT_RANGES], "bytes");
        let date = whole.headers()[header::LAST_MODIFIED].to_str().unwrap().to_owned();
        let same = get("if-modified-since", &date).await;
        assert_eq!(same.status(), 304);
        assert!(same.bytes().await.unwrap().is_empty());
        let request =
            sandbox.content(Method::GET, "digits.txt").header("if-unmodified-since", "Sun, 06 Nov 1994 08:49:37 GMT");
        read(request).await.problem(412, "precondition_failed");
        let request = sandbox.content(Method::PUT, "digits.txt").header("if-none-match", "*").body("new");
        read(request).await.problem(412, "precondition_failed");
        let request = sandbox.content(Method::PUT, "other.txt").header("if-none-match", "*").body("new");
        read(request).await.expect(201);
        assert_eq!(sandbox.read("digits.txt").await, b"0123456789");
    });
}

#[test]
fn head_says_what_get_says_without_the_content() {
    harness::run(async {
        let sandbox = Sandbox::start().await;
        sandbox.put("a.txt", "hello").await.expect(201);
        sandbox.put("empty", "").await.expect(201);
        sandbox.shell("ln -s a.txt /home/user/link && mkdir /home/user/d").await;
        let ask = async |method: Method, path: &str, condition: (&str, &str)| {
            let request = sandbox.content(method, path).header(condition.0, condition.1);
            let response = request.send().await.unwrap();
            let (status, mut headers) = (response.status(), response.headers().clone());
            for name in [header::DATE, header::TRANSFER_ENCODING] {
                headers.remove(name);
            }
            // What is of the one request alone.
            for name in ["x-request-id", "ratelimit"] {
                headers.remove(name);
            }
            (status, headers, response.bytes().await.unwrap())
        };
        let none = ("x-none", "");
        let date = ask(Method::GET, "a.txt", none).await.1[header::LAST_MODIFIED].to_str().unwrap().to_owned();
        for (path, condition, status) in [
            ("a.txt", none, 200),
            ("link", none, 200),
            ("empty", none, 200),
            ("/proc/version", none, 200),
            ("a.txt", ("range", "bytes=1-2"), 206),
            ("a.txt", ("if-modified-since", date.as_str()), 304),
        ] {
            let (get, head) = (ask(Method::GET, path, condition).await, ask(Method::HEAD, path, condition).await);
            assert_eq!((head.0, head.0.as_u16()), (get.0, status), "{path}");
            assert_eq!(head.1, get.1, "{path} {condition:?}");
            assert!(head.2.is_empty());
        }
        for (path, condition, status) in
            [("absent", none, 404), ("d", none, 409), ("a.txt", ("range", "bytes=5-"), 416)]
        {
            assert_eq!(ask(Method::HEAD, path, condition).await.0, status, "{path}");
            assert_eq!(ask(Method::GET, path, condition).await.0, status, "{path}");
        }
        let whole = ask(Method::HEAD, "link", none).await.1;
        assert_eq!(
            (&whole[header::CONTENT_LENGTH], &whole[header::ACCEPT_RANGES]),
            (&"5".parse().unwrap(), &"bytes".parse().unwrap())
        );
        let unknown = ask(Method::HEAD, "/proc/version", none).await.1;
        assert!(!unknown.contains_key(header::CONTENT_LENGTH), "only reading tells");
    });
}

#[test]
fn what_a_sandbox_serves_is_harmless_on_this_origin() {
    harness::run(async {
        let sandbox = Sandbox::start().await;
        sandbox.put("page \"1\".html", "<script>alert(1)</script>").await.expect(201);
        for method in [Method::GET, Method::HEAD] {
            let response = sandbox.content(method, "page \"1\".html").send().await.unwrap();
            let header = |name: &str| response.headers()[name].to_str().unwrap().to_owned();
            let disposition = header("content-disposition");
            assert_eq!(disposition, "attachment; filename=\"page _1_.html\"; filename*=UTF-8''page%20%221%22.html");
            assert!(header("content-security-policy").starts_with("sandbox;"));
            assert_eq!(header("x-content-type-options"), "nosniff");
            assert_eq!(response.headers().get_all("x-content-type-options").iter().count(), 1);
            assert_eq!(header("cross-origin-resource-policy"), "same-origin");
            assert_eq!(header("cache-control"), "private, no-cache");
        }
    });
}

#[test]
fn files_without_a_length_come_whole() {
    harness::run(async {
        let sandbox = Sandbox::start().await;
        for path in ["/proc/version", "/proc/self/mounts", "/sys/kernel/mm/transparent_hugepage/enabled"] {
            if sandbox.stat(path).await.status == 404 {
                continue;
            }
            let content = sandbox.read(path).await;
            assert!(!content.is_empty(), "{path}");
            if path == "/proc/version" {
                assert_eq!(content, sandbox.shell("cat /proc/version").await.as_bytes());
            }
        }
        let ranged = sandbox.content(Method::GET, "/proc/version").header("range", "bytes=0-3").send().await.unwrap();
        assert_eq!(ranged.status(), 200, "a server may ignore a range");
    });
}

#[test]
fn a_download_that_breaks_off_does_not_look_whole() {
    harness::run(async {
        let sandbox = Sandbox::start().await;
        sandbox.shell("truncate -s 2G /home/user/large").await;
        let mut response = sandbox.fetch("large").await;
        assert_eq!(response.content_length(), Some(2 << 30));
        response.chunk().await.unwrap().expect("a beginning");
        sandbox.stop_upstream().await;
        let mut read = 0;
        let error = loop {
            match response.chunk().await {
                Ok(Some(chunk)) => read += chunk.len(),
                Ok(None) => panic!("it ended as if whole, after {read} bytes"),
                Err(error) => break error,
            }
        };
        assert!(error.is_body() || error.is_decode() || error.is_request(), "{error:?}");
        assert!(read < 2 << 30);
    });
}

#[test]
fn a_reader_that_hangs_up_frees_the_sandbox() {
    harness::run(async {
        let sandbox = Sandbox::start().await;
        sandbox.shell("truncate -s 2G /home/user/large").await;
        let open = "ls -l /proc/[0-9]*/fd 2>/dev/null | grep -c /home/user/large || true";
        let mut response = sandbox.fetch("large").await;
        response.chunk().await.unwrap().expect("a beginning");
        assert_eq!(sandbox.shell(open).await.trim(), "1");
        drop(response);
        eventually(async || (sandbox.shell(open).await.trim() == "0").then_some(())).await;
    });
}
