//! Watching directories.

use std::collections::VecDeque;

use futures_util::StreamExt;
use http::Method;
use reqwest::Response;
use serde_json::{Value, json};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::TcpSocket,
};
use tokio_tungstenite::tungstenite::Message;

use super::{Sandbox, sandbox::query};
use crate::{
    harness::{self, Api, Options, eventually, read},
    ws::{Socket, open},
};

const LINES: &str = "application/x-ndjson";
const ORIGIN: &str = "http://app.example.com";

/// The events of a watch as lines of JSON.
struct Lines {
    response: Response,
    rest: String,
    events: VecDeque<Value>,
}

impl Lines {
    async fn open(sandbox: &Sandbox, at: &Api, pairs: &[(&str, &str)]) -> Self {
        let path = sandbox.url(&format!("/watch{}", query(pairs)));
        let request = at.request(Method::GET, &path).header("accept", LINES);
        let response = request.send().await.unwrap();
        assert_eq!(response.status(), 200, "{}", response.text().await.unwrap());
        assert_eq!(response.headers()["content-type"], LINES);
        Self { response, rest: String::new(), events: VecDeque::new() }
    }

    /// A watch that is armed.
    async fn armed(sandbox: &Sandbox, pairs: &[(&str, &str)]) -> Self {
        let mut lines = Self::open(sandbox, &sandbox.api(), pairs).await;
        assert_eq!(lines.next().await.unwrap()["type"], "watching");
        lines
    }

    /// The next event that is no keepalive; `None` at a clean end.
    async fn next(&mut self) -> Option<Value> {
        loop {
            while let Some(event) = self.events.pop_front() {
                if event["type"] != "keepalive" {
                    return Some(event);
                }
            }
            let chunk = self.response.chunk().await.expect("no broken stream")?;
            self.rest.push_str(std::str::from_utf8(&chunk).expect("whole characters"));
            while let Some((line, rest)) = self.rest.split_once('\n') {
                self.events.push_back(serde_json::from_str(line).expect("an event a line"));
                self.rest = rest.to_owned();
            }
        }
    }

    /// Types and names of the events up to the one of that type and name.
    async fn until(&mut self, kind: &str, name: &str) -> Vec<(String, String)> {
        let mut seen = Vec::new();
        loop {
            let event = self.next().await.expect("further events");
            let of = |field: &str| event[field].as_str().unwrap_or_default().to_owned();
            seen.push((of("type"), of("name")));
            if seen.last().is_some_and(|(is, named)| is == kind && named == name) {
                return seen;
            }
        }
    }
}

fn pairs(seen: &[(String, String)]) -> Vec<(&str, &str)> {
    seen.iter().map(|(kind, name)| (kind.as_str(), name.as_str())).collect()
}

#[test]
fn changes_are_told_in_order_once_the_watch_is_armed() {
    harness::run(async {
        let sandbox = Sandbox::start().await;
        sandbox.shell("mkdir -p /home/user/d/deep").await;
        let mut watch = Lines::open(&sandbox, &sandbox.api(), &[("path", "d")]).await;
        assert_eq!(watch.next().await.unwrap(), json!({"type": "watching", "path": "/home/user/d"}));
        sandbox
            .shell("cd /home/user/d && echo x > a && chmod 600 a && mv a b && rm b && touch deep/unseen && mkdir z")
            .await;
        let seen = watch.until("create", "z").await;
        let expected = [
            ("create", "a"),
            ("write", "a"),
            ("chmod", "a"),
            ("rename", "a"),
            ("create", "b"),
            ("remove", "b"),
            ("create", "z"),
        ];
        assert_eq!(pairs(&seen), expected);
    });
}

#[test]
fn server_sent_events_carry_type_path_and_entry() {
    harness::run(async {
        let sandbox = Sandbox::with(Options { envd_version: Some("0.6.4"), ..Options::default() }).await;
        sandbox.post("/mkdir", &json!({"path": "d"})).await.expect(201);
        let mut response = sandbox.api().request(Method::GET, &sandbox.url("/watch?path=d")).send().await.unwrap();
        assert_eq!(response.headers()["content-type"], "text/event-stream");
        assert_eq!(response.headers()["x-accel-buffering"], "no");
        assert_eq!(response.headers()["cache-control"], "no-store");
        let mut text = String::new();
        while !text.ends_with("\n\n") {
            text.push_str(std::str::from_utf8(&response.chunk().await.unwrap().unwrap()).unwrap());
        }
        sandbox.shell("echo 12345 > /home/user/d/file").await;
        while text.matches("\n\n").count() < 3 {
            text.push_str(std::str::from_utf8(&response.chunk().await.unwrap().unwrap()).unwrap());
        }
        let blocks: Vec<(&str, Value)> = text
            .split_terminator("\n\n")
            .map(|block| block.split_once("\ndata: ").unwrap())
            .map(|(event, data)| (event, serde_json::from_str(data).unwrap()))
            .collect();
        assert_eq!(blocks[0].0, "event: watching");
        let (event, data) = &blocks[2];
        assert_eq!(
            (*event, &data["type"], &data["path"]),
            ("event: write", &json!("write"), &json!("/home/user/d/file"))
        );
        assert_eq!((&data["entry"]["size"], &data["entry"]["type"]), (&json!(6), &json!("file")));
        assert_eq!(data["entry"]["owner"], "root");
    });
}

#[test]
fn silence_is_broken_by_keepalives() {
    harness::run(async {
        let sandbox = Sandbox::with(Options::default().with("EXEC__KEEPALIVE", "100ms")).await;
        let mut response = sandbox.api().request(Method::GET, &sandbox.url("/watch?path=/tmp")).send().await.unwrap();
        let mut text = String::new();
        while text.matches("event: keepalive\ndata: {\"type\":\"keepalive\"}\n\n").count() < 2 {
            text.push_str(std::str::from_utf8(&response.chunk().await.unwrap().unwrap()).unwrap());
        }
        let mut over_socket = socket(&sandbox, &sandbox.api(), "/tmp").await;
        assert_eq!(message(&mut over_socket).await.unwrap(), json!({"type": "keepalive"}));
    });
}

#[test]
fn a_recursive_watch_follows_directories_made_later() {
    harness::run(async {
        let sandbox = Sandbox::start().await;
        sandbox.shell("mkdir -p '/home/user/d/old one'").await;
        let mut watch = Lines::armed(&sandbox, &[("path", "~/d"), ("recursive", "true")]).await;
        sandbox.put("d/old one/ä\n\"'-.txt", "x").await.expect(201);
        watch.until("create", "old one/ä\n\"'-.txt").await;
        sandbox.shell("mkdir -p /home/user/d/new/deep").await;
        watch.until("create", "new/deep").await;
        sandbox.shell("touch /home/user/d/new/deep/-file").await;
        let mut event = watch.next().await.unwrap();
        while event["name"] != "new/deep/-file" {
            event = watch.next().await.unwrap();
        }
        assert_eq!((&event["type"], &event["path"]), (&json!("create"), &json!("/home/user/d/new/deep/-file")));
    });
}

#[test]
fn what_cannot_be_watched_is_a_problem_before_anything_streams() {
    harness::run(async {
        let sandbox = Sandbox::start().await;
        sandbox.put("file", "x").await.expect(201);
        sandbox.shell("cd /home/user && ln -s nowhere broken && ln -s file to-file && mkdir d && ln -s d to-d").await;
        let watch =
            async |pairs: &[(&str, &str)]| sandbox.api().get(&sandbox.url(&format!("/watch{}", query(pairs)))).await;
        watch(&[("path", "absent")]).await.problem(404, "not_found");
        watch(&[("path", "broken")]).await.problem(404, "not_found");
        watch(&[("path", "file")]).await.problem(409, "not_a_directory");
        watch(&[("path", "to-file")]).await.problem(409, "not_a_directory");
        for (wrong, field) in [
            (&[][..], "path"),
            (&[("path", "a\0")], "path"),
            (&[("path", "d"), ("recursive", "maybe")], "recursive"),
            (&[("path", "d"), ("depth", "1")], "depth"),
            (&[("path", "d"), ("user", "nobody-here")], "user"),
        ] {
            let problem = watch(wrong).await.problem(422, "validation_failed");
            assert_eq!(problem["errors"][0]["field"], field, "{wrong:?}");
        }
        let network = json!({"code": "invalid_argument", "message": "cannot watch path on network filesystem: /mnt"});
        sandbox
            .stack
            .fault(json!({"match": {"path": "/filesystem.Filesystem/WatchDir"}, "kind": "http", "status": 400,
            "body": network.to_string(), "times": 1}));
        watch(&[("path", "d")]).await.problem(409, "unsupported_file_system");
        let other = sandbox.stack.team("other").await;
        other.get(&sandbox.url("/watch?path=d")).await.problem(404, "not_found");
        read(Api::anonymous(&sandbox.stack.url).request(Method::GET, &sandbox.url("/watch?path=d")))
            .await
            .problem(401, "unauthenticated");
        Lines::armed(&sandbox, &[("path", "to-d")]).await;
    });
}

/// How many watches the sandbox has, its daemon's included.
async fn watches(sandbox: &Sandbox) -> String {
    sandbox.shell("find /proc/[0-9]*/fd -lname anon_inode:inotify 2>/dev/null | wc -l").await.trim().to_owned()
}

#[test]
fn a_watch_ends_in_the_sandbox_when_its_viewer_leaves() {
    harness::run(async {
        let sandbox = Sandbox::start().await;
        let before = watches(&sandbox).await;
        let watch = Lines::armed(&sandbox, &[("path", "/tmp")]).await;
        assert_ne!(watches(&sandbox).await, before, "the watch is seen there");
        drop(watch);
        eventually(async || (watches(&sandbox).await == before).then_some(())).await;
        let socket = socket(&sandbox, &sandbox.api(), "/tmp").await;
        assert_ne!(watches(&sandbox).await, before);
        drop(socket);
        eventually(async || (watches(&sandbox).await == before).then_some(())).await;
    });
}

#[test]
fn the_end_says_why() {
    harness::run(async {
        let sandbox = Sandbox::start().await;
        sandbox.shell("mkdir /home/user/d").await;
        let mut lines = Lines::armed(&sandbox, &[("path", "d")]).await;
        let mut over_socket = socket(&sandbox, &sandbox.api(), "d").await;
        sandbox.shell("rmdir /home/user/d").await;
        assert_eq!(lines.until("end", "").await.first().unwrap(), &("remove".to_owned(), ".".to_owned()));
        assert!(lines.next().await.is_none(), "a clean end");
        assert_eq!(end_of(&mut over_socket).await, (json!("removed"), 1000));

        let (replica, url) = sandbox.stack.replica().await;
        let there = sandbox.api().at(&url);
        let mut lines = Lines::open(&sandbox, &there, &[("path", "/tmp")]).await;
        let mut over_socket = socket(&sandbox, &there, "/tmp").await;
        replica.lifecycle.drain();
        lines.next().await.unwrap();
        assert_eq!(lines.next().await.unwrap(), json!({"type": "end", "reason": "draining"}));
        assert!(lines.next().await.is_none());
        assert_eq!(end_of(&mut over_socket).await, (json!("draining"), 1001));

        let mut lines = Lines::armed(&sandbox, &[("path", "/tmp")]).await;
        let mut over_socket = socket(&sandbox, &sandbox.api(), "/tmp").await;
        sandbox.stop_upstream().await;
        assert_eq!(lines.next().await.unwrap(), json!({"type": "end", "reason": "unreachable"}));
        assert_eq!(end_of(&mut over_socket).await, (json!("unreachable"), 1011));
    });
}

/// A watch over a WebSocket that is armed.
async fn socket(sandbox: &Sandbox, api: &Api, path: &str) -> Socket {
    let key = format!("Bearer {}", api.key());
    let path = sandbox.url(&format!("/watch{}", query(&[("path", path)])));
    let headers = [("authorization", key), ("sec-websocket-protocol", "ags.files.v1".to_owned())];
    let mut socket = open(api, &path, &headers).await.expect("a socket");
    assert_eq!(message(&mut socket).await.unwrap()["type"], "watching");
    socket
}

/// The next event, or the code with which the socket closes.
async fn message(socket: &mut Socket) -> Result<Value, u16> {
    loop {
        match socket.next().await.expect("a close frame").unwrap() {
            Message::Text(text) => return Ok(serde_json::from_str(&text).unwrap()),
            Message::Close(frame) => return Err(frame.expect("a code").code.into()),
            _ => {}
        }
    }
}

/// The reason of the last event, and the code of the close frame.
async fn end_of(socket: &mut Socket) -> (Value, u16) {
    let mut last = Value::Null;
    loop {
        match message(socket).await {
            Ok(event) => last = event,
            Err(code) => return (last["reason"].clone(), code),
        }
    }
}

#[test]
fn a_page_watches_with_a_ticket() {
    harness::run(async {
        let sandbox = Sandbox::with(Options::default().with("SERVER__WEBSOCKET_ORIGINS", ORIGIN)).await;
        sandbox.shell("mkdir /home/user/d").await;
        let made = sandbox.api().post("/v1/keys", &json!({"name": "k", "scopes": ["files:read"]})).await.expect(201);
        let reader = Api::new(&sandbox.stack.url, made["secret"].as_str().unwrap());
        let wanted = json!({"instance_id": sandbox.id, "scopes": ["files:read"]});
        let path = sandbox.url("/watch?path=d");
        let protocol = async |wanted: &Value| {
            let ticket = reader.post("/v1/tickets", wanted).await.expect(201);
            format!("ags.files.v1, ticket.{}", ticket["ticket"].as_str().unwrap())
        };
        let headers = |protocol: &str, origin: &str| {
            [("sec-websocket-protocol", protocol.to_owned()), ("origin", origin.to_owned())]
        };
        let first = protocol(&wanted).await;
        assert_eq!(open(&reader, &path, &headers(&first, "http://evil.example.com")).await.unwrap_err(), 403);
        let mut socket = open(&reader, &path, &headers(&first, ORIGIN)).await.unwrap();
        assert_eq!(message(&mut socket).await.unwrap(), json!({"type": "watching", "path": "/home/user/d"}));
        sandbox.shell("echo > /home/user/d/é").await;
        let event = message(&mut socket).await.unwrap();
        assert_eq!((&event["type"], &event["path"]), (&json!("create"), &json!("/home/user/d/é")));
        assert_eq!(open(&reader, &path, &headers(&first, ORIGIN)).await.unwrap_err(), 401, "a ticket is for one use");

        let exec = sandbox.api().post("/v1/tickets", &json!({"instance_id": sandbox.id})).await.expect(201);
        let exec = format!("ags.files.v1, ticket.{}", exec["ticket"].as_str().unwrap());
        assert_eq!(
            open(&reader, &path, &headers(&exec, ORIGIN)).await.unwrap_err(),
            403,
            "a ticket for commands alone"
        );
        let absent = sandbox.url("/watch?path=absent");
        let second = protocol(&wanted).await;
        assert_eq!(open(&reader, &absent, &headers(&second, ORIGIN)).await.unwrap_err(), 404);
        reader.post("/v1/tickets", &json!({"instance_id": sandbox.id})).await.problem(403, "scope_missing");
        let useless = json!({"instance_id": sandbox.id, "scopes": ["files:write"]});
        reader.post("/v1/tickets", &useless).await.problem(422, "validation_failed");
    });
}

#[test]
fn a_viewer_that_does_not_read_loses_events_and_is_told_how_many() {
    harness::run(async {
        const BATCHES: usize = 16;
        const FILES: usize = 2000;
        let sandbox = Sandbox::start().await;
        sandbox.shell("mkdir /home/user/d").await;
        let authority = sandbox.stack.url.trim_start_matches("http://");
        let socket = TcpSocket::new_v4().unwrap();
        // Smaller than a segment, it would be read at the pace of timers.
        socket.set_recv_buffer_size(128 << 10).unwrap();
        let mut connection = socket.connect(authority.parse().unwrap()).await.unwrap();
        let head = format!(
            "GET {} HTTP/1.1\r\nhost: {authority}\r\nauthorization: Bearer {}\r\naccept: {LINES}\r\nconnection: close\r\n\r\n",
            sandbox.url("/watch?path=d"),
            sandbox.stack.key
        );
        connection.write_all(head.as_bytes()).await.unwrap();
        let mut first = [0; 12];
        connection.read_exact(&mut first).await.unwrap();
        assert_eq!(&first, b"HTTP/1.1 200");
        // Long names fill the connection's buffers sooner.
        let long = "x".repeat(230);
        for batch in 0..BATCHES {
            sandbox
                .shell(&format!("cd /home/user/d && seq -f '{long}-{batch}-%g' {FILES} | xargs touch && rm -f *"))
                .await;
        }
        sandbox.shell("rmdir /home/user/d").await;
        let mut answer = String::new();
        connection.read_to_string(&mut answer).await.unwrap();
        let events: Vec<Value> = answer
            .lines()
            .filter(|line| line.starts_with("{\"type\""))
            .map(|line| serde_json::from_str(line).expect("an event"))
            .filter(|event: &Value| event["type"] != "keepalive" && event["type"] != "watching")
            .collect();
        assert_eq!(events.last().unwrap(), &json!({"type": "end", "reason": "removed"}));
        let lost: u64 = events.iter().filter_map(|event| event["events"].as_u64()).sum();
        let told = events.iter().filter(|event| !event["name"].is_null()).count() as u64;
        assert!(lost > 0, "{told} events fitted into the buffers");
        // Each file: create, chmod, remove; and the end of the directory itself.
        assert_eq!(told + lost, (3 * BATCHES * FILES + 1) as u64, "{lost} lost");
    });
}
