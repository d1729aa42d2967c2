//! Clients that read no more, and sides that close the half they send on.

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

use super::web::{Web, pattern};
use crate::harness::{self, Options, eventually};

/// A client of the port's own host that sends `text` and closes its sending side.
async fn sent_all(web: &Web, text: &str) -> TcpStream {
    let mut stream = web.connect().await;
    stream.write_all(web.fill(text).as_bytes()).await.unwrap();
    stream.shutdown().await.unwrap();
    stream
}

async fn rest(mut stream: TcpStream) -> Vec<u8> {
    let mut answer = Vec::new();
    stream.read_to_end(&mut answer).await.unwrap();
    answer
}

async fn patient() -> Web {
    Web::with(Options::default().with("SERVER__HALF_CLOSED_TIMEOUT", "1h")).await
}

#[test]
fn a_client_that_has_sent_all_gets_its_answer() {
    harness::run(async {
        let web = patient().await;
        let stream = sent_all(&web, "GET /held HTTP/1.1\nHost: HOST\nAuthorization: KEY\n\n").await;
        eventually(async || (web.statistics().await["open"] == 1).then_some(())).await;
        web.seen(web.get("/release")).await;
        assert!(rest(stream).await.ends_with(b"at last"));

        let length = 8 << 20;
        let asked = format!("GET /download?n={length} HTTP/1.1\nHost: HOST\nAuthorization: KEY\n\n");
        let answer = rest(sent_all(&web, &asked).await).await;
        assert!(answer.ends_with(&pattern(length)), "{} bytes", answer.len());

        let posted = "POST / HTTP/1.1\nHost: HOST\nAuthorization: KEY\nContent-Length: 5\n\nhello";
        let answer = String::from_utf8(rest(sent_all(&web, posted).await).await).unwrap();
        assert!(answer.contains(r#""length": 5"#), "{answer}");
    });
}

#[test]
fn a_body_that_is_closed_too_early_breaks_the_request_off() {
    harness::run(async {
        let web = patient().await;
        let half = "POST / HTTP/1.1\nHost: HOST\nAuthorization: KEY\nContent-Length: 10\n\nhello";
        let answer = rest(sent_all(&web, half).await).await;
        assert!(!answer.starts_with(b"HTTP/1.1 200"), "{}", String::from_utf8_lossy(&answer));
    });
}

#[test]
fn a_server_that_closes_its_sending_side_is_heard_to_the_end() {
    harness::run(async {
        let web = Web::start().await;
        let asked = "POST /half HTTP/1.1\nHost: HOST\nAuthorization: KEY\nTransfer-Encoding: chunked\n\n3\nabc\n";
        // The rest of the body never comes.
        let answer = String::from_utf8(web.wire(asked).await.into_bytes()).unwrap();
        assert!(answer.starts_with("HTTP/1.1 200") && answer.contains("all that there is"), "{answer}");
        assert_eq!(web.get("/half").send().await.unwrap().text().await.unwrap(), "all that there is");
    });
}

#[test]
fn a_client_that_reads_no_more_is_cut_off() {
    harness::run(async {
        let web = Web::with(Options::default().with("SERVER__WRITE_TIMEOUT", "300ms")).await;
        let mut stream = web.connect().await;
        let asked = "GET /flood HTTP/1.1\nHost: HOST\nAuthorization: KEY\n\n";
        stream.write_all(web.fill(asked).as_bytes()).await.unwrap();
        stream.read_exact(&mut [0; 1024]).await.unwrap();
        let client = web.browser().http2_prior_knowledge().build().unwrap();
        let unread = client.get(web.at("/flood")).bearer_auth(web.api().key()).send().await.unwrap();
        assert_eq!(unread.version(), http::Version::HTTP_2);
        eventually(async || (web.statistics().await["dropped"] == 2).then_some(())).await;
        // On the connection with many answers the others go on.
        let other = client.get(web.at("/")).bearer_auth(web.api().key()).send().await.unwrap();
        assert_eq!(other.status(), 200);
        assert!(unread.bytes().await.is_err(), "it is cut, not ended");
    });
}
