//! Connections on which simple requests and others come in turns.

use tokio::io::{AsyncReadExt, AsyncWriteExt};

use super::web::Web;
use crate::harness;

const GET: &str = " HTTP/1.1\nHost: HOST\nAuthorization: KEY\n";

#[test]
fn answers_come_in_order_whoever_gives_them() {
    harness::run(async {
        let web = Web::start().await;
        let requests = [
            format!("GET /one?a=b%2F{GET}\n"),
            format!("HEAD /two{GET}\n"),
            format!("GET /download?n=5&chunked=1{GET}\n"),
            format!("GET /v1/nothing{GET}\n"),
            format!("POST /four{GET}Content-Length: 5\n\nhello"),
            format!("GET /five{GET}Connection: close\n\n"),
        ];
        // All at once, and one connection for each number of simple ones before another kind comes.
        for first in 0..requests.len() {
            let answers = web.wire(&requests[first..].concat()).await;
            let heads = answers.matches("HTTP/1.1 200 OK\r\n").count();
            assert_eq!(heads, requests.len() - first, "{answers}");
            let mut rest = answers.as_str();
            for (at, marks) in [
                r#""/one?a=b%2F""#,
                "content-length",
                "transfer-encoding: chunked",
                r#""/v1/nothing""#,
                r#""/four""#,
                r#""/five""#,
            ]
            .iter()
            .enumerate()
            .skip(first)
            {
                let found = rest.find(marks).unwrap_or_else(|| panic!("{at} is not in {answers}"));
                rest = &rest[found + marks.len()..];
            }
        }
    });
}

#[test]
fn a_head_in_pieces_is_waited_for() {
    harness::run(async {
        let web = Web::start().await;
        let mut stream = web.connect().await;
        let asked = web.fill(&format!("GET /pieces{GET}Connection: close\n\n"));
        let (first, second) = asked.split_at(9);
        stream.write_all(first.as_bytes()).await.unwrap();
        // A request of somebody else passes meanwhile.
        web.statistics().await;
        stream.write_all(second.as_bytes()).await.unwrap();
        let mut answer = String::new();
        stream.read_to_string(&mut answer).await.unwrap();
        assert!(answer.starts_with("HTTP/1.1 200 OK") && answer.contains("/pieces"), "{answer}");
    });
}
