//! Connections on which simple requests and others come in turns.

use tokio::io::{AsyncReadExt, AsyncWriteExt};

use super::web::Web;
use crate::harness;

const GET: &str = " HTTP/1.1\nHost: HOST\nAuthorization: KEY\n";

#[test]
fn answers_come_in_order_whoever_gives_them() {
    harness::run(async {
        let web = Web::start().await;
        // What is asked, and what tells its answer.
        let exchanges = [
            (format!("GET /one?a=b%2F{GET}\n"), r#""/one?a=b%2F""#),
            (format!("HEAD /two{GET}\n"), "content-length"),
            (format!("GET /download?n=5&chunked=1{GET}\n"), "transfer-encoding: chunked"),
            (format!("GET /v1/nothing{GET}\n"), r#""/v1/nothing""#),
            (format!("POST /four{GET}Content-Length: 5\n\nhello"), r#""/four""#),
            (format!("GET /five{GET}Connection: close\n\n"), r#""/five""#),
        ];
        // All at once on a connection; the last ones alone, so that another kind comes after each number of simple ones.
        for first in 0..exchanges.len() {
            let asked: String = exchanges[first..].iter().map(|(request, _)| request.as_str()).collect();
            let answers = web.wire(&asked).await;
            assert_eq!(answers.matches("HTTP/1.1 200 OK\r\n").count(), exchanges.len() - first, "{answers}");
            let mut rest = answers.as_str();
            for (_, mark) in &exchanges[first..] {
                let found = rest.find(mark).unwrap_or_else(|| panic!("{mark} is missing in its turn: {answers}"));
                rest = &rest[found + mark.len()..];
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
