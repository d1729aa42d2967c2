//! Requests that repeat the one before them on their connection: what was found out for that one is used again, and nobody
//! notices but by the time it takes.

use std::collections::BTreeMap;

use http::Method;
use serde_json::{Value, json};
use tokio::{
    io::{AsyncBufReadExt, AsyncReadExt, AsyncWriteExt, BufReader},
    net::TcpStream,
};

use super::web::{Web, query, values};
use crate::harness::{self, Options, Program, eventually};

const FIELDS: &str = " HTTP/1.1\nHost: HOST\nAuthorization: KEY\nX-Own: mine\n\n";
const LAST: &str = " HTTP/1.1\nHost: HOST\nAuthorization: KEY\nConnection: close\n\n";

/// An answer as it came.
#[derive(Debug, PartialEq, Eq)]
struct Answer {
    line: String,
    fields: BTreeMap<String, Vec<String>>,
    body: String,
}

impl Answer {
    fn field(&self, name: &str) -> &str {
        self.fields.get(name).map_or("", |values| &values[0])
    }

    /// Without what differs from answer to answer.
    fn comparable(mut self) -> Self {
        let id = self.fields.remove("x-request-id").unwrap_or_default().concat();
        assert!(!id.is_empty(), "{self:?}");
        self.fields.remove("date");
        self.body = self.body.replace(&id, "ID");
        self
    }
}

/// Reads an answer to a `GET`.
async fn answer(stream: &mut BufReader<TcpStream>) -> Answer {
    let mut line = String::new();
    stream.read_line(&mut line).await.unwrap();
    let mut fields: BTreeMap<String, Vec<String>> = BTreeMap::new();
    loop {
        let mut field = String::new();
        stream.read_line(&mut field).await.unwrap();
        let Some((name, value)) = field.trim_end().split_once(": ") else { break };
        fields.entry(name.to_owned()).or_default().push(value.to_owned());
    }
    let mut answer = Answer { line: line.trim_end().to_owned(), fields, body: String::new() };
    let mut body = Vec::new();
    if answer.field("transfer-encoding") == "chunked" {
        loop {
            let mut size = String::new();
            stream.read_line(&mut size).await.unwrap();
            let size = u64::from_str_radix(size.trim_end(), 16).unwrap();
            stream.take(size + 2).read_to_end(&mut body).await.unwrap();
            body.truncate(body.len() - 2);
            if size == 0 {
                break;
            }
        }
    } else if !["204", "304"].iter().any(|status| answer.line.contains(status)) {
        let length = answer.field("content-length").parse().unwrap();
        stream.take(length).read_to_end(&mut body).await.unwrap();
    }
    answer.body = String::from_utf8_lossy(&body).into_owned();
    answer
}

/// A connection with requests one after the other.
struct Connection<'a> {
    web: &'a Web,
    stream: BufReader<TcpStream>,
}

impl<'a> Connection<'a> {
    async fn to(web: &'a Web, url: &str) -> Self {
        let stream = TcpStream::connect(url.strip_prefix("http://").unwrap()).await.unwrap();
        Self { web, stream: BufReader::new(stream) }
    }

    async fn get(&mut self, target: &str) -> Answer {
        self.ask(&format!("GET {target}{FIELDS}")).await
    }

    async fn ask(&mut self, text: &str) -> Answer {
        let asked = self.web.fill(text);
        self.stream.get_mut().write_all(asked.as_bytes()).await.unwrap();
        answer(&mut self.stream).await
    }
}

/// How many repetitions a gateway has answered as such.
async fn repeats(web: &Web, program: &Program) -> u64 {
    let url = format!("{}/metrics", program.url);
    let client = reqwest::Client::builder().no_proxy().build().unwrap();
    let text = client.get(url).bearer_auth(&web.stack.admin_key).send().await.unwrap().text().await.unwrap();
    let line = text.lines().find_map(|line| line.strip_prefix("ags_gateway_port_repeats_total "));
    line.map_or(0, |count| count.parse().unwrap())
}

fn told(fields: Value) -> String {
    format!("/fields{}", query(&[("of", &fields.to_string())]))
}

/// What a server may answer.
fn targets() -> Vec<String> {
    let statuses = [201, 204, 304, 400, 401, 403, 404, 409, 429, 500, 502].map(|code| {
        let edge = format!(r#"{{"code":{code},"message":"of the server's own"}}"#);
        format!("/status{}", query(&[("code", &code.to_string()), ("body", &edge), ("kind", "application/json")]))
    });
    let fixed = [
        "/a%2F..//b?c=%20d&e=f?g",
        "/mirror",
        "/download?n=0",
        "/download?n=5",
        "/download?n=300000",
        "/download?n=300000&chunked=1",
        "/trailers",
        "/endless",
        "/oddities",
        "/page",
        "/redirect?to=/elsewhere",
        "/redirect?to=http://HOST/elsewhere",
    ];
    let told = [
        told(json!([["Date", "Thu, 01 Jan 1970 00:00:00 GMT"], ["X-Kept", "yes"], ["x-kept", "twice"]])),
        told(json!([["Connection", "keep-alive"], ["Keep-Alive", "timeout=5"], ["Proxy-Authenticate", "Basic"]])),
        told(json!([["Connection", "close, X-Hop"], ["X-Hop", "1"]])),
        told(json!([["X-Access-Token", "leaked"], ["E2b-Traffic-Access-Token", "leaked"], ["Alt-Svc", "h3=\":443\""]])),
        told(json!([["Content-Security-Policy", "default-src *"], ["Access-Control-Allow-Origin", "*"]])),
        told(json!([["Content-Disposition", "Attachment; filename=a"], ["Refresh", "0"], ["X-Request-Id", "theirs"]])),
    ];
    fixed.into_iter().map(str::to_owned).chain(statuses).chain(told).collect()
}

#[test]
fn a_repetition_is_answered_like_any_other_request() {
    harness::run(async {
        let web = Web::start().await;
        let program = Program::start(&web.stack).await;
        for prefix in [String::new(), web.url("")] {
            let asked = |target: &str| web.fill(&format!("{prefix}{target}"));
            let before = repeats(&web, &program).await;
            for target in targets() {
                let target = asked(&target);
                let first = Connection::to(&web, &program.url).await.get(&target).await.comparable();
                let mut connection = Connection::to(&web, &program.url).await;
                // The second shows that they repeat: how those are answered that follow is known from then on.
                for _ in 0..2 {
                    connection.get(&asked("/statistics")).await;
                }
                let repeated = connection.get(&target).await.comparable();
                assert_eq!(repeated, first, "{target}");
            }
            // But for some before which what was believed was over.
            let (taken, asked) = (repeats(&web, &program).await - before, targets().len() as u64);
            assert!(taken <= asked && taken * 2 >= asked, "{taken} of {asked}");
        }
    });
}

#[test]
fn each_repetition_has_an_id_of_its_own() {
    harness::run(async {
        let web = Web::start().await;
        let mut connection = Connection::to(&web, &web.stack.url).await;
        let mut ids = Vec::new();
        for _ in 0..5 {
            let answer = connection.get("/mirror").await;
            let seen: Value = serde_json::from_str(&answer.body).unwrap();
            let id = answer.field("x-request-id").to_owned();
            assert_eq!(values(&seen, "x-request-id"), [&id]);
            assert_eq!(values(&seen, "x-own"), ["mine"]);
            assert!(!ids.contains(&id), "{ids:?}");
            ids.push(id);
        }
    });
}

#[test]
fn what_tells_requests_apart_is_each_repetitions_own() {
    harness::run(async {
        let web = Web::start().await;
        let program = Program::start(&web.stack).await;
        let before = repeats(&web, &program).await;
        let mut connection = Connection::to(&web, &program.url).await;
        for n in 0..10 {
            let own = [
                ("X-Request-ID", format!("own-{n}")),
                ("Traceparent", format!("00-{n:032x}-0123456789abcdef-01")),
                ("tracestate", format!("vendor={n}")),
            ];
            if n == 5 {
                // It is asked for once more with a fresh token, and is the same request still.
                web.stack.emulator.cloud().expire_tokens(Some(&web.upstream_id));
            }
            let fields: String = own.iter().map(|(name, value)| format!("{name}: {value}\n")).collect();
            let answer =
                connection.ask(&format!("GET /mirror HTTP/1.1\nHost: HOST\nAuthorization: KEY\n{fields}\n")).await;
            assert_eq!((answer.line.as_str(), answer.field("x-request-id")), ("HTTP/1.1 200 OK", own[0].1.as_str()));
            let seen: Value = serde_json::from_str(&answer.body).unwrap();
            for (name, value) in &own {
                assert_eq!(values(&seen, &name.to_ascii_lowercase()), [value], "{n}");
            }
        }
        assert!(repeats(&web, &program).await - before >= 5);
        // What is no id is replaced by one.
        let asked = |id: &str| format!("GET /mirror HTTP/1.1\nHost: HOST\nAuthorization: KEY\nX-Request-ID: {id}\n\n");
        for _ in 0..2 {
            connection.ask(&asked("good")).await;
        }
        let answer = connection.ask(&asked("<b>")).await;
        let id = answer.field("x-request-id");
        assert_eq!(id.len(), 36, "{id}");
        let seen: Value = serde_json::from_str(&answer.body).unwrap();
        assert_eq!(values(&seen, "x-request-id"), [id]);
    });
}

#[test]
fn repetitions_and_others_come_in_turns() {
    harness::run(async {
        let web = Web::start().await;
        let mut text = String::new();
        for n in 0..20 {
            text.push_str(&format!("GET /simple/{n}{FIELDS}"));
        }
        text.push_str(&format!("GET /last{LAST}"));
        let answers = web.wire(&text).await;
        let found: Vec<usize> = (0..20)
            .map(|n| answers.find(&format!("\"/simple/{n}\"")).unwrap_or_else(|| panic!("{n}: {answers}")))
            .collect();
        assert!(found.is_sorted(), "{found:?}");
        assert_eq!(answers.matches("HTTP/1.1 200 OK\r\n").count(), 21);
        assert!(answers.contains("\"/last\""), "{answers}");
    });
}

#[test]
fn a_client_that_has_sent_all_gets_all_its_answers() {
    harness::run(async {
        let web = Web::start().await;
        let mut stream = web.connect().await;
        let asked: String = (0..5).map(|n| format!("GET /part/{n}{FIELDS}")).collect();
        stream.write_all(web.fill(&asked).as_bytes()).await.unwrap();
        stream.shutdown().await.unwrap();
        let mut answers = String::new();
        stream.read_to_string(&mut answers).await.unwrap();
        for n in 0..5 {
            assert!(answers.contains(&format!("\"/part/{n}\"")), "{n}: {answers}");
        }
    });
}

#[test]
fn the_last_answer_of_a_draining_gateway_says_that_it_is() {
    harness::run(async {
        let web = Web::start().await;
        let (_other, url) = web.stack.replica().await;
        let other = harness::Api::anonymous(&url).bearing(&web.stack.key);
        let mut connection = Connection::to(&web, &web.stack.url).await;
        for _ in 0..2 {
            assert_eq!(connection.get("/mirror").await.field("connection"), "");
        }
        let asked = web.fill(&format!("GET /held{FIELDS}"));
        connection.stream.get_mut().write_all(asked.as_bytes()).await.unwrap();
        let ask = async |path: &str| harness::read(other.request(Method::GET, &web.url(path))).await.expect(200);
        eventually(async || (ask("/statistics").await["open"] == 1).then_some(())).await;
        web.stack.app.lifecycle.drain();
        ask("/release").await;
        let held = answer(&mut connection.stream).await;
        assert_eq!((held.body.as_str(), held.field("connection")), ("at last", "close"));
        assert_eq!(connection.stream.read_to_end(&mut Vec::new()).await.unwrap(), 0);
    });
}

#[test]
fn what_ended_ends_for_repetitions_too() {
    harness::run(async {
        let web = Web::start().await;
        let mut connection = Connection::to(&web, &web.stack.url).await;
        let mut status = async || connection.get("/mirror").await.line;
        for _ in 0..3 {
            assert_eq!(status().await, "HTTP/1.1 200 OK");
        }
        // The cloud's token: nobody notices.
        web.stack.emulator.cloud().expire_tokens(Some(&web.upstream_id));
        assert_eq!(status().await, "HTTP/1.1 200 OK");
        // The instance: another gateway may believe in it for a moment.
        web.api().delete(&format!("/v1/instances/{}", web.id)).await.expect(204);
        let refused = loop {
            let line = status().await;
            if line != "HTTP/1.1 200 OK" {
                break line;
            }
        };
        assert_eq!(refused, "HTTP/1.1 409 Conflict");
    });
}

#[test]
fn a_key_that_was_revoked_repeats_nothing() {
    harness::run(async {
        let web = Web::start().await.at_one_gateway();
        let made = web.api().post("/v1/keys", &json!({"name": "polls", "scopes": ["ports"]})).await.expect(201);
        let (id, key) = (made["id"].as_str().unwrap(), made["secret"].as_str().unwrap());
        let mut connection = Connection::to(&web, &web.stack.url).await;
        let asked = web.fill(&format!("GET /mirror{FIELDS}")).replace(&web.stack.key, key);
        let mut get = async || {
            connection.stream.get_mut().write_all(asked.as_bytes()).await.unwrap();
            answer(&mut connection.stream).await.line
        };
        for _ in 0..3 {
            assert_eq!(get().await, "HTTP/1.1 200 OK");
        }
        web.api().delete(&format!("/v1/keys/{id}")).await.expect(204);
        assert_eq!(get().await, "HTTP/1.1 401 Unauthorized");
    });
}

#[test]
fn each_limit_holds_for_repetitions_too() {
    harness::run(async {
        let web = Web::with(Options::default().with("PORTS__MAX_STREAMS_PER_INSTANCE", "1")).await.at_one_gateway();
        let mut connection = Connection::to(&web, &web.stack.url).await;
        for _ in 0..3 {
            assert_eq!(connection.get("/mirror").await.line, "HTTP/1.1 200 OK");
        }
        let mut other = Connection::to(&web, &web.stack.url).await;
        let asked = web.fill(&format!("GET /ticks{LAST}"));
        other.stream.get_mut().write_all(asked.as_bytes()).await.unwrap();
        let mut begun = String::new();
        other.stream.read_line(&mut begun).await.unwrap();
        assert_eq!(begun, "HTTP/1.1 200 OK\r\n");
        let refused = connection.get("/mirror").await;
        assert_eq!(refused.line, "HTTP/1.1 429 Too Many Requests", "{refused:?}");
        assert!(refused.body.contains("ports.max_streams_per_instance"), "{refused:?}");
    });
}
