//! Many viewers, other replicas, processes that others started, and coming back.

use std::{sync::Arc, time::Duration};

use futures_util::SinkExt;
use http::Method;
use serde_json::{Value, json};
use tokio_tungstenite::tungstenite::{Message, protocol::CloseFrame};

use super::{
    Sandbox,
    background::{follow, id_of},
    cuts::{Counter, doomed, follow_for},
    sandbox::text_of,
};
use crate::{
    harness::{Api, Options, eventually, run},
    ws::{hear, hear_all, hear_any, open, open_with_key, say},
};

const BINARY: &str = "ags.exec.v1.bin";
const TEXT: &str = "ags.exec.v1";

#[test]
fn a_resume_token_attaches_to_its_command_alone() {
    run(async {
        let sandbox = Sandbox::start().await;
        let key = format!("Bearer {}", sandbox.api.key());
        let headers = [("authorization", key), ("sec-websocket-protocol", TEXT.to_owned())];
        let mut socket = open(&sandbox.api, &sandbox.path("exec/ws"), &headers).await.unwrap();
        say(&mut socket, &json!({"type": "start", "cmd": "echo one; read line; echo \"$line\"", "stdin": true})).await;
        let started = hear(&mut socket).await.unwrap();
        let token = started["resume_token"].as_str().expect("a token").to_owned();
        let one = hear(&mut socket).await.unwrap();
        drop(socket);

        let exec = started["exec_id"].as_str().unwrap();
        let anonymous = &Api::anonymous(&sandbox.stack.url);
        let resume = |path: String, token: &str| {
            let headers = [("sec-websocket-protocol", format!("{TEXT}, resume.{token}"))];
            async move { open(anonymous, &path, &headers).await }
        };
        let path = |exec: &str| {
            format!(
                "{}?role=writer&after={}",
                sandbox.path(&format!("execs/{exec}/ws")),
                one["cursor"].as_str().unwrap()
            )
        };
        let other = id_of(&sandbox.background(json!({"cmd": "sleep 4801"})).await);
        assert_eq!(resume(path(&other), &token).await.err(), Some(404), "another command");
        assert_eq!(resume(sandbox.path("exec/ws"), &token).await.err(), Some(403), "a new command");
        let forged = format!("{}A", &token[..token.len() - 1]);
        let forged = if forged == token { format!("{}B", &token[..token.len() - 1]) } else { forged };
        assert_eq!(resume(path(exec), &forged).await.err(), Some(401));
        let mut again = resume(path(exec), &token).await.unwrap();
        say(&mut again, &json!({"type": "stdin", "data": "two\n"})).await;
        let (events, code) = hear_all(&mut again).await;
        assert_eq!((text_of(&events, "stdout").as_str(), code), ("two\n", 1000));
    });
}

#[test]
fn a_sign_of_life_tells_where_what_was_there_before_ends() {
    run(async {
        let sandbox = Sandbox::start().await;
        let exec = sandbox.background(json!({"cmd": "echo one; read line; echo two", "stdin": true})).await;
        let id = id_of(&exec);
        let output = format!("execs/{id}/output");
        eventually(async || sandbox.get(&output).await.expect(200).to_string().contains("one").then_some(())).await;
        let path = sandbox.path(&format!("execs/{id}/ws?role=writer"));
        let mut socket = open_with_key(&sandbox.api, &path, TEXT).await;
        let mut heard = Vec::new();
        for _ in 0..3 {
            heard.push(hear_any(&mut socket).await.unwrap());
        }
        let kinds: Vec<&Value> = heard.iter().map(|event| &event["type"]).collect();
        assert_eq!(kinds, ["started", "stdout", "keepalive"]);
        let path = format!("{path}&after={}", heard[1]["cursor"].as_str().unwrap());
        let mut again = open_with_key(&sandbox.api, &path, TEXT).await;
        assert_eq!(hear_any(&mut again).await.unwrap()["type"], "keepalive", "there is nothing before");
        say(&mut again, &json!({"type": "stdin", "data": "\n"})).await;
        for socket in [&mut socket, &mut again] {
            assert_eq!(text_of(&hear_all(socket).await.0, "stdout"), "two\n");
        }
    });
}

#[test]
fn a_socket_that_the_client_closes_is_closed_in_good_order() {
    run(async {
        let sandbox = Sandbox::start().await;
        let exec = sandbox.background(json!({"cmd": "sleep 4861"})).await;
        let path = sandbox.path(&format!("execs/{}/ws", id_of(&exec)));
        let mut socket = open_with_key(&sandbox.api, &path, TEXT).await;
        hear(&mut socket).await.unwrap();
        socket.send(Message::Close(Some(CloseFrame { code: 4999.into(), reason: "".into() }))).await.unwrap();
        assert_eq!(hear(&mut socket).await, Err(4999));
    });
}

#[test]
fn another_replica_passes_on_what_the_follower_sees_as_it_happens() {
    run(async {
        let sandbox = Sandbox::start().await;
        let exec =
            sandbox.background(json!({"cmd": "echo one; read line; echo \"$line\"; exit 3", "stdin": true})).await;
        let id = id_of(&exec);
        let (_app, url) = sandbox.stack.replica().await;
        let there = sandbox.api.at(&url);
        let key = format!("Bearer {}", there.key());
        let path = sandbox.path(&format!("execs/{id}/ws?role=writer"));
        let headers = [("authorization", key), ("sec-websocket-protocol", TEXT.to_owned())];
        let mut socket = open(&there, &path, &headers).await.unwrap();
        assert_eq!(hear(&mut socket).await.unwrap()["type"], "started");
        assert_eq!(hear(&mut socket).await.unwrap()["data"], "one\n");
        let ticket = there.post("/v1/tickets", &json!({"instance_id": sandbox.id, "exec_id": id})).await.expect(201);
        let ticket = ticket["ticket"].as_str().unwrap().to_owned();
        let headers = [("sec-websocket-protocol", format!("{BINARY}, ticket.{ticket}"))];
        let anonymous = Api::anonymous(&url);
        let mut second = open(&anonymous, &sandbox.path(&format!("execs/{id}/ws")), &headers).await.unwrap();
        assert_eq!(hear(&mut second).await.unwrap()["type"], "started");
        say(&mut socket, &json!({"type": "stdin", "data": "two\n"})).await;
        assert_eq!(hear(&mut socket).await.unwrap()["data"], "two\n");
        assert_eq!(hear(&mut socket).await.unwrap()["exit_code"], 3);
        // A foreign team does not get there either way.
        let foreign = sandbox.stack.team("other").await.at(&url);
        foreign.get(&sandbox.path(&format!("execs/{id}/output"))).await.problem(404, "not_found");
        Api::anonymous(&url).get(&sandbox.path(&format!("execs/{id}/output"))).await.problem(401, "unauthenticated");
    });
}

#[test]
fn whoever_is_at_the_address_of_a_replica_that_is_gone_is_not_taken_for_it() {
    run(async {
        let sandbox = Arc::new(Sandbox::start().await);
        let (runtime, url) = doomed(&sandbox).await;
        let spec = json!({"cmd": "read line; echo \"$line\"; exit 3", "stdin": true, "background": true});
        let id = id_of(&sandbox.api.at(&url).post(&sandbox.path("exec"), &spec).await.expect(202));
        let (_app, stranger) = sandbox.stack.replica().await;
        runtime.shutdown_background();
        let moved = sqlx::query("UPDATE replicas SET url = $1 FROM execs WHERE execs.id = $2 AND owner = replicas.id");
        let moved = moved.bind(stranger).bind(&id).execute(&sandbox.stack.app.pool).await.unwrap();
        assert_eq!(moved.rows_affected(), 1);
        let path = sandbox.path(&format!("execs/{id}"));
        assert_eq!(sandbox.get(&format!("execs/{id}/output")).await.expect(200)["status"], "running");
        // A ticket is good once, here as there.
        let ticket =
            sandbox.api.post("/v1/tickets", &json!({"instance_id": sandbox.id, "exec_id": id})).await.expect(201);
        let headers = [("sec-websocket-protocol", format!("{TEXT}, ticket.{}", ticket["ticket"].as_str().unwrap()))];
        open(&Api::anonymous(&sandbox.stack.url), &format!("{path}/ws"), &headers).await.unwrap();
        // What was sent to the stranger cannot be sent again: the caller is told to.
        let written = sandbox.request(Method::POST, &format!("execs/{id}/stdin")).body("hello\n").send().await.unwrap();
        if written.status() != 204 {
            assert_eq!(written.status(), 503);
            let again = async || {
                let written = sandbox.request(Method::POST, &format!("execs/{id}/stdin")).body("hello\n");
                (written.send().await.unwrap().status() == 204).then_some(())
            };
            eventually(again).await;
        }
        eventually(async || {
            let exec = sandbox.get(&format!("execs/{id}")).await.expect(200);
            (exec["status"] != "running").then_some(())
        })
        .await;
    });
}

#[test]
fn what_others_started_is_listed_and_can_be_followed() {
    run(async {
        let sandbox = Sandbox::start().await;
        let ours = sandbox.background(json!({"cmd": "sleep 4811"})).await;
        let theirs = sandbox.start_unseen("read line; echo \"got $line\"; exit 5").await;
        let listed = sandbox.get("processes").await.expect(200);
        let items = listed["items"].as_array().unwrap();
        let find = |pid: &Value| items.iter().find(|item| item["pid"] == *pid).unwrap();
        assert_eq!(find(&ours["pid"])["exec_id"], ours["id"]);
        assert!(find(&json!(theirs))["exec_id"].is_null());
        let attach = |pid: &Value| sandbox.path(&format!("processes/{pid}/attach"));
        let same = sandbox.api.post(&attach(&ours["pid"]), &json!({})).await.expect(201);
        assert_eq!(same["id"], ours["id"]);
        sandbox.api.post(&attach(&json!(4_000_000)), &json!({})).await.problem(404, "not_found");
        let exec = sandbox.api.post(&attach(&json!(theirs)), &json!({})).await.expect(201);
        let id = id_of(&exec);
        sandbox.post_bytes(&format!("execs/{id}/stdin"), "it\n").await.expect(204);
        let events = follow(&sandbox, &id, None).await;
        assert_eq!(text_of(&events, "stdout"), "got it\n");
        assert_eq!(events.last().unwrap()["exit_code"], 5);
    });
}

#[test]
fn a_pause_closes_the_stream_and_a_resumption_opens_it_again() {
    run(async {
        let sandbox = Sandbox::start().await;
        let cmd = "i=0; while ! read -t 0.01 go; do i=$((i+1)); echo $i; done; exit 3";
        let exec = sandbox.background(json!({"cmd": cmd, "stdin": true})).await;
        let id = id_of(&exec);
        let path = sandbox.path(&format!("execs/{id}"));
        let mut counter = Counter::default();
        follow_for(&sandbox.api, &path, &mut counter, 3000).await;
        let instance = format!("/v1/instances/{}", sandbox.id);
        assert_eq!(sandbox.api.post(&format!("{instance}/pause"), &json!({})).await.expect(200)["status"], "PAUSED");
        assert_eq!(sandbox.get(&format!("execs/{id}")).await.expect(200)["status"], "running");
        sandbox.api.delete(&path).await.problem(409, "invalid_state");
        assert_eq!(sandbox.api.post(&format!("{instance}/resume"), &json!({})).await.expect(200)["status"], "RUNNING");
        while counter.gaps.is_empty() {
            follow_for(&sandbox.api, &path, &mut counter, 3000).await;
        }
        assert_eq!(counter.gaps[0]["reason"], "reattached");
        sandbox.post_bytes(&format!("execs/{id}/stdin"), "go\n").await.expect(204);
        while counter.exit.is_none() {
            follow_for(&sandbox.api, &path, &mut counter, usize::MAX).await;
        }
        assert_eq!(counter.exit.unwrap()["exit_code"], 3);
    });
}

#[test]
fn limits_are_named_when_they_are_reached() {
    run(async {
        let options =
            Options::default().with("EXEC__MAX_PER_INSTANCE", "1").with("EXEC__MAX_SOCKETS_PER_INSTANCE", "1");
        let sandbox = Sandbox::with(options, json!({})).await.at_one_gateway();
        let exec = sandbox.background(json!({"cmd": "sleep 4821"})).await;
        let refused = sandbox.exec(&json!({"cmd": "true"})).await.problem(429, "quota_exceeded");
        assert_eq!(refused["limit"], json!({"name": "max_execs_per_instance", "value": 1, "used": 1}));
        let key = format!("Bearer {}", sandbox.api.key());
        let headers = [("authorization", key), ("sec-websocket-protocol", TEXT.to_owned())];
        let path = sandbox.path(&format!("execs/{}/ws", id_of(&exec)));
        let first = open(&sandbox.api, &path, &headers).await.unwrap();
        assert_eq!(open(&sandbox.api, &path, &headers).await.err(), Some(429));
        drop(first);
        eventually(async || open(&sandbox.api, &path, &headers).await.ok().map(drop)).await;
    });
}

#[test]
fn a_viewer_that_stops_reading_slows_nobody_and_can_come_back() {
    run(async {
        let sandbox = Sandbox::start().await;
        let exec = sandbox.background(json!({"cmd": "read go; seq 1 1500000; exit 3", "stdin": true})).await;
        let id = id_of(&exec);
        let path = sandbox.path(&format!("execs/{id}"));
        let request = sandbox.request(Method::GET, &format!("execs/{id}/output?follow=true"));
        let stuck = request.header("accept", "application/x-ndjson").send().await.unwrap();
        sandbox.post_bytes(&format!("execs/{id}/stdin"), "go\n").await.expect(204);
        let mut counter = Counter::default();
        let fast = follow_for(&sandbox.api, &path, &mut counter, usize::MAX);
        tokio::time::timeout(Duration::from_secs(60), fast).await.expect("held back by a viewer that does not read");
        assert_eq!((counter.last, counter.gaps.len()), (1_500_000, 0));
        // The one that was stuck reads on as if nothing had been.
        let text = stuck.text().await.unwrap();
        let mut slow = Counter::default();
        for line in text.lines() {
            slow.see(serde_json::from_str(line).unwrap());
        }
        assert_eq!((slow.last, slow.gaps.len(), slow.exit.is_some()), (1_500_000, 0, true));
    });
}
