//! The data plane: routing, tokens, streams, upgrades.

use futures_util::StreamExt as _;
use serde_json::{Value, json};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;

use crate::harness::{Harness, start};

async fn with_token(h: &Harness, mode: &str) -> (String, Value) {
    let start = json!({"ToolName": "base", "AuthMode": mode});
    let started = h.call("StartSandboxInstance", start).await.unwrap();
    let id = started["Instance"]["InstanceId"].as_str().unwrap().to_owned();
    let token = h.token(&id).await;
    (id, token)
}

async fn status(request: reqwest::RequestBuilder) -> u16 {
    request.send().await.unwrap().status().as_u16()
}

fn text<'a>(token: &'a Value, name: &str) -> &'a str {
    token[name].as_str().unwrap()
}

#[tokio::test]
async fn auth_modes_guard_their_ports() {
    let h = start().await;
    for (mode, envd, other) in [("DEFAULT", 401, 401), ("TOKEN", 401, 401), ("PUBLIC", 401, 200), ("NONE", 200, 200)] {
        let (id, token) = with_token(&h, mode).await;
        assert_eq!(status(h.data("GET", &id, 49983, "/x")).await, envd, "{mode}");
        assert_eq!(status(h.data("GET", &id, 8000, "/x")).await, other, "{mode}");
        for port in [49983, 8000] {
            let sent = h.data("GET", &id, port, "/x").header("x-access-token", text(&token, "Token"));
            assert_eq!(status(sent).await, 200, "{mode} {port}");
        }
    }
}

#[tokio::test]
async fn tokens_come_in_several_ways() {
    let h = start().await;
    let (id, token) = with_token(&h, "TOKEN").await;
    let (access, traffic) = (text(&token, "Token"), text(&token, "TrafficToken"));
    assert_eq!(status(h.data("GET", &id, 8000, &format!("/x?access_token={access}"))).await, 200);
    assert_eq!(status(h.data("GET", &id, 8000, "/x").bearer_auth(access)).await, 200);
    let header = "e2b-traffic-access-token";
    assert_eq!(status(h.data("GET", &id, 8000, "/x").header(header, traffic)).await, 200);
    assert_eq!(status(h.data("GET", &id, 49983, "/x").header(header, traffic)).await, 401);
    assert_eq!(status(h.data("GET", &id, 8000, "/x").header(header, access)).await, 401);
    let refused = h.data("GET", &id, 8000, "/x").send().await.unwrap();
    let body: Value = refused.json().await.unwrap();
    assert_eq!(body["code"], 401);
}

#[tokio::test]
async fn what_is_not_there_says_so() {
    let h = start().await;
    let (id, _) = with_token(&h, "NONE").await;
    let closed = h.data("GET", &id, 9999, "/").send().await.unwrap();
    assert_eq!(closed.status(), 502);
    let body: Value = closed.json().await.unwrap();
    assert!(body["message"].as_str().unwrap().contains("port is not open"), "{body}");
    assert_eq!(status(h.data("POST", &id, 49983, "/init")).await, 404);
    let by_header = |id: &str| {
        let request = h.http.get(format!("{}/health", h.emulator.url()));
        request.header("e2b-sandbox-id", id).header("e2b-sandbox-port", "49983")
    };
    assert_eq!(status(by_header(&id)).await, 200);
    h.call("StopSandboxInstance", json!({"InstanceId": id})).await.unwrap();
    assert_eq!(status(h.data("GET", &id, 49983, "/health")).await, 404);
    let gone = by_header(&id).send().await.unwrap();
    assert_eq!(gone.status(), 502);
    let body: Value = gone.json().await.unwrap();
    assert_eq!((&body["message"], &body["code"]), (&json!("The sandbox was not found"), &json!(502)));
    assert_eq!(status(h.http.get(format!("{}/files?path=x", h.emulator.url()))).await, 400);
}

#[tokio::test]
async fn paused_instances_are_not_reached() {
    let h = start().await;
    let (id, _) = with_token(&h, "NONE").await;
    h.call("PauseSandboxInstance", json!({"InstanceId": id})).await.unwrap();
    assert_eq!(status(h.data("GET", &id, 49983, "/health")).await, 409);
    h.call("ResumeSandboxInstance", json!({"InstanceId": id})).await.unwrap();
    assert_eq!(status(h.data("GET", &id, 49983, "/health")).await, 200);
}

#[tokio::test]
async fn requests_arrive_as_they_were_sent() {
    let h = start().await;
    let (id, _) = with_token(&h, "NONE").await;
    let sent = h.data("GET", &id, 8000, "/a%20b?c=%2F").header("connection", "x-hop").header("x-hop", "1");
    let seen: Value = sent.header("x-mine", "kept").send().await.unwrap().json().await.unwrap();
    assert_eq!(seen["path"], "/a%20b?c=%2F");
    let headers = seen["headers"].to_string();
    assert!(headers.contains("x-mine") && !headers.contains("x-hop"), "{headers}");
    assert!(headers.contains(&format!("8000-{id}.ags.localhost")), "{headers}");
    let body = vec![7u8; 3 << 20];
    let echoed = h.data("POST", &id, 8000, "/echo").body(body.clone()).send().await.unwrap();
    assert_eq!(echoed.bytes().await.unwrap(), body);
}

#[tokio::test]
async fn open_streams_break_when_the_instance_stops() {
    let h = start().await;
    let (id, _) = with_token(&h, "NONE").await;
    let response = h.data("GET", &id, 8000, "/endless").send().await.unwrap();
    let mut stream = response.bytes_stream();
    assert!(stream.next().await.unwrap().is_ok());
    h.call("StopSandboxInstance", json!({"InstanceId": id})).await.unwrap();
    let broke = loop {
        match stream.next().await {
            Some(Ok(_)) => {}
            Some(Err(_)) => break true,
            None => break false,
        }
    };
    assert!(broke, "the stream must not end cleanly");
}

#[tokio::test]
async fn upgrades_become_tunnels() {
    let h = start().await;
    let (id, _) = with_token(&h, "NONE").await;
    let mut stream = TcpStream::connect(h.emulator.address()).await.unwrap();
    let request = format!(
        "GET /upgrade HTTP/1.1\r\nHost: 8000-{id}.ags.localhost\r\nConnection: Upgrade\r\nUpgrade: bytes\r\n\r\n"
    );
    stream.write_all(request.as_bytes()).await.unwrap();
    let mut head = Vec::new();
    while !head.ends_with(b"\r\n\r\n") {
        head.push(stream.read_u8().await.unwrap());
    }
    assert!(head.starts_with(b"HTTP/1.1 101"), "{}", String::from_utf8_lossy(&head));
    stream.write_all(b"ping").await.unwrap();
    let mut echoed = [0; 4];
    stream.read_exact(&mut echoed).await.unwrap();
    assert_eq!(&echoed, b"ping");
    h.call("StopSandboxInstance", json!({"InstanceId": id})).await.unwrap();
    assert!(stream.read_u8().await.is_err(), "the tunnel ends with the instance");
}

#[tokio::test]
async fn http2_is_spoken_with_prior_knowledge() {
    let h = start().await;
    let (id, _) = with_token(&h, "NONE").await;
    let http = reqwest::Client::builder().http2_prior_knowledge().no_proxy();
    let name = format!("8000-{id}.ags.localhost");
    let http = http.resolve(&name, h.emulator.address()).build().unwrap();
    let url = format!("http://{name}:{}/x", h.emulator.address().port());
    let response = http.get(url).send().await.unwrap();
    assert_eq!((response.version(), response.status()), (reqwest::Version::HTTP_2, reqwest::StatusCode::OK));
}
