//! Bodies of any size and pace, both ways.

use std::time::Duration;

use futures_util::{StreamExt, stream};
use http::Method;
use tokio::io::{AsyncBufReadExt, AsyncReadExt, AsyncWriteExt, BufReader};

use super::web::{Web, pattern, sha256, values};
use crate::harness::{self, Options, eventually};

const LARGE: usize = 48 << 20;

#[test]
fn large_bodies_go_through_whole_in_either_framing() {
    harness::run(async {
        let web = Web::start().await;
        let content = pattern(LARGE);
        let digest = sha256(&content);
        for rest in [format!("/download?n={LARGE}"), format!("/download?n={LARGE}&chunked=1")] {
            let answer = web.get(&rest).send().await.unwrap();
            assert_eq!(answer.content_length().is_some(), !rest.contains("chunked"));
            assert_eq!(sha256(&answer.bytes().await.unwrap()), digest);
        }
        let seen = web.seen(web.request(Method::PUT, "/up").body(content.clone())).await;
        assert_eq!((seen["sha256"].as_str().unwrap(), seen["length"].as_u64()), (digest.as_str(), Some(LARGE as u64)));
        assert_eq!(values(&seen, "content-length"), [LARGE.to_string()]);
        let pieces = stream::iter(
            content.chunks(100_000).map(|piece| Ok::<_, std::io::Error>(piece.to_vec())).collect::<Vec<_>>(),
        );
        let seen = web.seen(web.request(Method::POST, "/up").body(reqwest::Body::wrap_stream(pieces))).await;
        assert_eq!(seen["sha256"], digest);
        assert_eq!(values(&seen, "transfer-encoding"), ["chunked"]);
        let echoed = web.request(Method::POST, "/echo").body(content).send().await.unwrap();
        assert_eq!(sha256(&echoed.bytes().await.unwrap()), digest);
    });
}

#[test]
fn http2_carries_the_same() {
    harness::run(async {
        let web = Web::start().await;
        let client = web.browser().http2_prior_knowledge().build().unwrap();
        let content = pattern(8 << 20);
        let request = client.post(web.at("/echo")).bearer_auth(web.api().key()).body(content.clone());
        let answer = request.send().await.unwrap();
        assert_eq!(answer.version(), http::Version::HTTP_2);
        assert_eq!(sha256(&answer.bytes().await.unwrap()), sha256(&content));
        let cookies =
            client.get(web.at("/")).bearer_auth(web.api().key()).header("cookie", "a=1").header("cookie", "b=2");
        assert_eq!(values(&web.seen(cookies).await, "cookie"), ["a=1; b=2"]);
        let many = (0..50).map(|n| client.get(web.at(&format!("/{n}"))).bearer_auth(web.api().key()).send());
        for (n, answer) in futures_util::future::join_all(many).await.into_iter().enumerate() {
            let seen: serde_json::Value = serde_json::from_slice(&answer.unwrap().bytes().await.unwrap()).unwrap();
            assert_eq!(seen["target"], format!("/{n}"));
        }
    });
}

#[test]
fn trailers_go_through_both_ways() {
    harness::run(async {
        let web = Web::start().await;
        let asked = "GET /trailers HTTP/1.1\nHost: HOST\nAuthorization: KEY\nTE: trailers\nConnection: close\n\n";
        let answer = web.wire(asked).await.to_ascii_lowercase();
        assert!(answer.contains("\r\ntrailer: x-sum, x-more\r\n"), "{answer}");
        assert!(answer.contains("0\r\nx-sum: 42\r\nx-more: yes\r\n"), "{answer}");
        let sent = "POST / HTTP/1.1\nHost: HOST\nAuthorization: KEY\nTransfer-Encoding: chunked\nTrailer: X-Sum\nConnection: close\n\n\
                    3\nabc\n0\nX-Sum: 7\n\n";
        let answer = web.wire(sent).await.to_ascii_lowercase();
        assert!(answer.contains(r#""trailers": [["x-sum", "7"]]"#), "{answer}");
    });
}

#[test]
fn a_server_is_asked_before_a_body_is_sent() {
    harness::run(async {
        let web = Web::start().await;
        let head = |path: &str| {
            let text = format!(
                "POST {path} HTTP/1.1\nHost: HOST\nAuthorization: KEY\nContent-Length: 3\nExpect: 100-continue\nConnection: close\n\n"
            );
            web.fill(&text)
        };
        let mut stream = BufReader::new(web.connect().await);
        stream.write_all(head("/welcome").as_bytes()).await.unwrap();
        let mut line = String::new();
        stream.read_line(&mut line).await.unwrap();
        assert_eq!(line, "HTTP/1.1 100 Continue\r\n");
        stream.write_all(b"abc").await.unwrap();
        let mut rest = String::new();
        stream.read_to_string(&mut rest).await.unwrap();
        assert!(rest.contains("HTTP/1.1 200 OK") && rest.contains(r#""length": 3"#), "{rest}");
        // A server that wants no body says so instead.
        let mut stream = BufReader::new(web.connect().await);
        stream.write_all(head("/refuse").as_bytes()).await.unwrap();
        let mut line = String::new();
        stream.read_line(&mut line).await.unwrap();
        assert_eq!(line, "HTTP/1.1 413 Payload Too Large\r\n");
    });
}

#[test]
fn events_arrive_when_they_are_sent() {
    harness::run(async {
        let web = Web::start().await;
        let mut events = web.get("/events").send().await.unwrap().bytes_stream();
        assert_eq!(events.next().await.unwrap().unwrap(), "data: one\n\n");
        web.seen(web.get("/release")).await;
        assert_eq!(events.next().await.unwrap().unwrap(), "data: two\n\n");
        assert!(events.next().await.is_none());
    });
}

#[test]
fn what_breaks_off_behind_never_ends_cleanly_in_front() {
    harness::run(async {
        let web = Web::start().await;
        for rest in ["/broken", "/broken?chunked=1"] {
            let answer = web.get(rest).send().await.unwrap();
            assert_eq!(answer.status(), 200);
            web.seen(web.get("/release")).await;
            assert!(answer.bytes().await.is_err(), "{rest}");
        }
    });
}

#[test]
fn a_stream_is_cut_when_its_instance_stops() {
    harness::run(async {
        let web = Web::start().await;
        let mut streams = Vec::new();
        for client in [web.browser(), web.browser().http2_prior_knowledge()] {
            let request = client.build().unwrap().get(web.at("/ticks")).bearer_auth(web.api().key());
            let mut stream = request.send().await.unwrap().bytes_stream();
            assert_eq!(stream.next().await.unwrap().unwrap(), "tick\n");
            streams.push(stream);
        }
        web.api().delete(&format!("/v1/instances/{}", web.id)).await.expect(204);
        for mut stream in streams {
            assert!(stream.next().await.unwrap().is_err());
        }
    });
}

#[test]
fn a_client_that_goes_ends_the_request_behind() {
    harness::run(async {
        let web = Web::with(Options::default().with("SERVER__HALF_CLOSED_TIMEOUT", "200ms")).await;
        let mut stream = web.get("/ticks").send().await.unwrap().bytes_stream();
        stream.next().await.unwrap().unwrap();
        assert_eq!(web.statistics().await["open"], 1);
        drop(stream);
        eventually(async || (web.statistics().await["dropped"] == 1).then_some(())).await;
    });
}

#[test]
fn silence_has_a_limit_and_the_whole_has_none() {
    harness::run(async {
        let limit = Duration::from_secs(1);
        let web = Web::with(Options::default().with("PORTS__IDLE_TIMEOUT", "1s")).await;
        let answer = web.get("/ticks").send().await.unwrap();
        assert!(answer.bytes().await.is_err());
        // Something moves all the time, for longer than the limit.
        let pace = stream::unfold(0, move |sent| async move {
            tokio::time::sleep(limit / 4).await;
            (sent < 8).then_some((Ok::<_, std::io::Error>("x"), sent + 1))
        });
        let slow = web.request(Method::POST, "/").body(reqwest::Body::wrap_stream(pace));
        assert_eq!(web.seen(slow).await["length"], 8);
    });
}

#[test]
fn a_slow_reader_holds_the_server_back() {
    harness::run(async {
        let web = Web::start().await;
        let length = 256 << 20;
        let mut stream = web.connect().await;
        let text = format!("GET /download?n={length} HTTP/1.1\nHost: HOST\nAuthorization: KEY\n\n");
        stream.write_all(web.fill(&text).as_bytes()).await.unwrap();
        let mut first = [0_u8; 1024];
        stream.read_exact(&mut first).await.unwrap();
        // Others are served meanwhile, and what is on the way stays what the buffers between take.
        web.seen(web.get("/")).await;
        let mut left = Vec::new();
        let drained = tokio::time::timeout(Duration::from_secs(120), async {
            let mut total = first.len();
            left.resize(1 << 20, 0);
            while total < length {
                total += stream.read(&mut left).await.unwrap();
            }
            total
        });
        assert!(drained.await.unwrap() >= length);
    });
}
