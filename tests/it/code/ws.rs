//! Code over WebSocket.

use futures_util::SinkExt;
use serde_json::{Value, json};
use tokio_tungstenite::tungstenite::Message;

use super::{
    Interpreter,
    sandbox::{text, text_of},
};
use crate::{
    harness::{Options, run},
    ws::{hear, hear_all, open, open_with_key, say},
};

const PROTOCOL: &str = "ags.exec.v1";
const ORIGIN: &str = "http://app.example.com";
const LONG: &str = "import time\nkept = 1\nopen('begun', 'w').close()\ntry:\n    time.sleep(600)\nfinally:\n    open('ended', 'w').close()";

#[test]
fn the_events_are_those_of_the_streams() {
    run(async {
        let sandbox = Interpreter::start().await;
        let mut socket = open_with_key(&sandbox.api, &sandbox.path("code/ws"), PROTOCOL).await;
        let code = "print('out')\ndisplay(1)\n1 / 0";
        say(&mut socket, &json!({"type": "start", "code": code, "env": {"A": "1"}})).await;
        let (events, code) = hear_all(&mut socket).await;
        let kinds: Vec<&str> = events.iter().map(|event| event["type"].as_str().unwrap()).collect();
        assert_eq!(kinds, ["started", "stdout", "result", "error", "exit"], "{events:#?}");
        assert_eq!((text_of(&events, "stdout").as_str(), &events[2]["text"]), ("out\n", &json!("1")));
        assert_eq!(events[3]["name"], "ZeroDivisionError");
        assert_eq!((&events[4]["reason"], &events[4]["execution_count"]), (&json!("finished"), &json!(1)));
        assert_eq!(code, 1000);
    });
}

#[test]
fn an_interrupt_ends_the_code_and_says_so() {
    run(async {
        let sandbox = Interpreter::start().await;
        let mut socket = open_with_key(&sandbox.api, &sandbox.path("code/ws"), PROTOCOL).await;
        say(&mut socket, &json!({"type": "start", "code": LONG})).await;
        assert_eq!(hear(&mut socket).await.unwrap()["type"], "started");
        say(&mut socket, &json!({"type": "ping"})).await;
        assert_eq!(hear(&mut socket).await.unwrap(), json!({"type": "pong"}));
        say(&mut socket, &json!({"type": "stdin", "data": "x"})).await;
        let refusal = hear(&mut socket).await.unwrap();
        assert_eq!((&refusal["type"], &refusal["code"]), (&json!("error"), &json!("validation_failed")));
        sandbox.until_file("begun").await;
        say(&mut socket, &json!({"type": "interrupt"})).await;
        let (events, code) = hear_all(&mut socket).await;
        assert_eq!((&events[0]["type"], &events[0]["reason"]), (&json!("exit"), &json!("interrupted")));
        assert_eq!(code, 1000);
        sandbox.until_file("ended").await;
        assert_eq!(text(&sandbox.python("kept").await), "1");
    });
}

#[test]
fn whoever_closes_the_socket_interrupts_the_code() {
    run(async {
        let sandbox = Interpreter::start().await;
        for politely in [true, false] {
            let mut socket = open_with_key(&sandbox.api, &sandbox.path("code/ws"), PROTOCOL).await;
            say(&mut socket, &json!({"type": "start", "code": LONG})).await;
            sandbox.until_file("begun").await;
            if politely {
                socket.send(Message::Close(None)).await.unwrap();
            }
            drop(socket);
            sandbox.until_file("ended").await;
            sandbox.shell("rm begun ended").await;
        }
    });
}

#[test]
fn a_gateway_that_is_told_to_stop_closes_the_socket_with_a_reason() {
    run(async {
        let sandbox = Interpreter::start().await;
        let (app, url) = sandbox.stack.replica().await;
        let mut socket = open_with_key(&sandbox.api.at(&url), &sandbox.path("code/ws"), PROTOCOL).await;
        say(&mut socket, &json!({"type": "start", "code": LONG})).await;
        sandbox.until_file("begun").await;
        app.lifecycle.drain();
        let (_, code) = hear_all(&mut socket).await;
        assert_eq!(code, 1001);
        sandbox.until_file("ended").await;
        assert_eq!(text(&sandbox.python("kept").await), "1", "the context lives on");
    });
}

#[test]
fn a_ticket_opens_it_from_a_configured_page() {
    run(async {
        let options = Options::default().with("SERVER__WEBSOCKET_ORIGINS", ORIGIN);
        let sandbox = Interpreter::with(options, json!({})).await;
        let (api, path) = (&sandbox.api, sandbox.path("code/ws"));
        let ticket = api.post("/v1/tickets", &json!({"instance_id": sandbox.id})).await.expect(201);
        let protocol = format!("{PROTOCOL}, ticket.{}", ticket["ticket"].as_str().unwrap());
        let headers = [("sec-websocket-protocol", protocol), ("origin", ORIGIN.to_owned())];
        let mut socket = open(api, &path, &headers).await.unwrap();
        assert_eq!(open(api, &path, &headers).await.unwrap_err(), 401, "a ticket is for one use");
        say(&mut socket, &json!({"type": "start", "code": "1"})).await;
        assert_eq!(hear_all(&mut socket).await.1, 1000);
        assert_eq!(open(api, &path, &[]).await.unwrap_err(), 401);
    });
}

#[test]
fn what_is_wrong_is_told_and_closes_with_its_code() {
    run(async {
        let sandbox = Interpreter::start().await;
        let path = sandbox.path("code/ws");
        for (frame, field, close) in [
            (json!({"type": "interrupt"}), json!("type"), 1008),
            (json!({"type": "start"}), json!("code"), 1008),
            (json!({"type": "start", "code": "1", "colour": 1}), json!("colour"), 1008),
            (json!({"type": "start", "code": " "}), json!("code"), 1008),
            (json!({"type": "start", "code": "1", "context_id": "none"}), Value::Null, 4004),
        ] {
            let mut socket = open_with_key(&sandbox.api, &path, PROTOCOL).await;
            say(&mut socket, &frame).await;
            let (events, code) = hear_all(&mut socket).await;
            assert_eq!(events[0]["type"], "error");
            assert_eq!((&events[0]["errors"][0]["field"], code), (&field, close), "{events:?}");
        }
        sandbox.api.get(&path).await.problem(400, "invalid_request");
    });
}
