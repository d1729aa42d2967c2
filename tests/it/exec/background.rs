//! Commands that outlive the request that started them.

use http::Method;
use serde_json::{Value, json};

use super::{
    Sandbox,
    sandbox::{events, text_of},
};
use crate::harness::{Options, read, run};

const LINES: &str = "application/x-ndjson";

/// All that a command printed, followed to its end.
pub async fn follow(sandbox: &Sandbox, exec: &str, after: Option<&str>) -> Vec<Value> {
    let after = after.map(|cursor| format!("&after={cursor}")).unwrap_or_default();
    let request = sandbox.request(Method::GET, &format!("execs/{exec}/output?follow=true{after}"));
    let response = request.header("accept", LINES).send().await.unwrap();
    assert_eq!(response.status(), 200);
    events(&response.text().await.unwrap())
}

pub fn id_of(exec: &Value) -> String {
    exec["id"].as_str().expect("an id").to_owned()
}

#[test]
fn a_background_command_is_a_resource() {
    run(async {
        let sandbox = Sandbox::start().await;
        let spec = json!({"cmd": "echo one; read line; echo \"got $line\"; exit 4", "stdin": true, "tag": "mine"});
        let exec = sandbox.background(spec).await;
        assert_eq!(
            (&exec["status"], &exec["tag"], &exec["background"]),
            (&json!("running"), &json!("mine"), &json!(true))
        );
        assert!(exec["pid"].is_u64() && exec["exit_code"].is_null());
        let id = id_of(&exec);
        assert_eq!(sandbox.get(&format!("execs/{id}")).await.expect(200)["status"], "running");
        let running = sandbox.get("execs?status=running").await.expect(200);
        assert_eq!((running["items"].as_array().unwrap().len(), &running["items"][0]["id"]), (1, &exec["id"]));
        sandbox.post_bytes(&format!("execs/{id}/stdin"), "a line\n").await.expect(204);
        let events = follow(&sandbox, &id, None).await;
        assert_eq!(text_of(&events, "stdout"), "one\ngot a line\n");
        assert_eq!(events.last().unwrap()["exit_code"], 4);
        let ended = sandbox.get(&format!("execs/{id}")).await.expect(200);
        assert_eq!((&ended["status"], &ended["exit_code"]), (&json!("exited"), &json!(4)));
        sandbox.post_bytes(&format!("execs/{id}/stdin"), "x").await.problem(409, "invalid_state");
        sandbox.api.delete(&sandbox.path(&format!("execs/{id}"))).await.expect(204);
        sandbox.get(&format!("execs/{}", id.replace("exec0", "exec1"))).await.problem(404, "not_found");
    });
}

#[test]
fn output_is_read_on_from_any_cursor() {
    run(async {
        let sandbox = Sandbox::start().await;
        let exec = sandbox.background(json!({"cmd": "for i in 1 2 3; do echo $i; sleep 0.05; done"})).await;
        let id = id_of(&exec);
        let all = follow(&sandbox, &id, None).await;
        for (index, event) in all.iter().enumerate() {
            let rest = follow(&sandbox, &id, event["cursor"].as_str()).await;
            let (told, expected) = (text_of(&rest, "stdout"), text_of(&all[index + 1..], "stdout"));
            assert_eq!(told, expected, "after {event}");
            assert_eq!(rest.last().map(|event| &event["type"]), all[index + 1..].last().map(|event| &event["type"]));
        }
        let document = sandbox.get(&format!("execs/{id}/output")).await.expect(200);
        assert_eq!(
            (&document["status"], text_of(document["events"].as_array().unwrap(), "stdout").as_str()),
            (&json!("exited"), "1\n2\n3\n")
        );
        assert_eq!(document["cursor"], all.last().unwrap()["cursor"]);
        let sse = sandbox.request(Method::GET, &format!("execs/{id}/output"));
        let sse = sse.header("accept", "text/event-stream").header("last-event-id", all[1]["cursor"].as_str().unwrap());
        let text = sse.send().await.unwrap().text().await.unwrap();
        assert!(!text.contains("event: started") && text.contains("event: exit"), "{text}");
        // A client that comes again still has the address of its first time.
        let first = format!("execs/{id}/output?after={}", all[0]["cursor"].as_str().unwrap());
        let again = sandbox.request(Method::GET, &first).header("accept", "text/event-stream");
        let end = all.last().unwrap()["cursor"].as_str().unwrap();
        let text = again.header("last-event-id", end).send().await.unwrap().text().await.unwrap();
        assert!(!text.contains("event: stdout"), "{text}");
        for query in ["after=nonsense", "follow=true", "follow=maybe", "before=1.2"] {
            sandbox.get(&format!("execs/{id}/output?{query}")).await.problem(422, "validation_failed");
        }
    });
}

#[test]
fn what_fell_out_of_the_window_is_said() {
    run(async {
        let options = Options::default().with("EXEC__MEMORY_WINDOW", "64KiB").with("EXEC__STORED_WINDOW", "64KiB");
        let sandbox = Sandbox::with(options, json!({})).await;
        let exec =
            sandbox.background(json!({"cmd": "head -c 1000000 /dev/zero | tr '\\0' x; echo end; sleep 0.2"})).await;
        let id = id_of(&exec);
        crate::harness::eventually(async || {
            let exec = sandbox.get(&format!("execs/{id}")).await.expect(200);
            (exec["status"] == "exited").then_some(())
        })
        .await;
        let events = follow(&sandbox, &id, None).await;
        let missing: u64 = events.iter().filter_map(|event| event["bytes"].as_u64()).sum();
        let kept = text_of(&events, "stdout");
        assert!(kept.ends_with("xend\n"));
        assert!(kept.len() < 300_000, "{}", kept.len());
        assert_eq!(missing + kept.len() as u64, 1_000_004);
        sandbox.get(&format!("execs/{id}/output?after=1.1")).await.problem(410, "output_expired");
        let foreign = follow(&sandbox, &id, Some("9.5")).await;
        assert_eq!((&foreign[0]["type"], &foreign[0]["reason"]), (&json!("gap"), &json!("unknown_cursor")));
    });
}

#[test]
fn signals_and_the_end_reach_the_process() {
    run(async {
        let sandbox = Sandbox::start().await;
        let trap = "trap 'echo int; exit 7' INT; echo ready; while :; do sleep 0.05; done";
        let exec = sandbox.background(json!({"cmd": trap})).await;
        let id = id_of(&exec);
        let ready = crate::harness::eventually(async || {
            let document = sandbox.get(&format!("execs/{id}/output")).await.expect(200);
            document.to_string().contains("ready").then_some(document)
        });
        ready.await;
        let signal = |name: &str| json!({"signal": name});
        let path = sandbox.path(&format!("execs/{id}/signal"));
        let problem = sandbox.api.post(&path, &signal("SIGNOPE")).await.problem(422, "validation_failed");
        assert_eq!(problem["errors"][0]["field"], "signal");
        sandbox.api.post(&path, &signal("SIGINT")).await.expect(204);
        let exit = follow(&sandbox, &id, None).await.pop().unwrap();
        assert_eq!((&exit["exit_code"], &exit["reason"]), (&json!(7), &json!("exited")));
        sandbox.api.post(&path, &signal("SIGINT")).await.problem(409, "invalid_state");

        let exec = sandbox.background(json!({"cmd": "sleep 4731 & sleep 4732"})).await;
        let id = id_of(&exec);
        sandbox.until_runs("sleep 4731", true).await;
        sandbox.api.delete(&sandbox.path(&format!("execs/{id}"))).await.expect(204);
        assert!(!sandbox.runs("sleep 473").await, "its children are gone too");
        let killed = sandbox.get(&format!("execs/{id}")).await.expect(200);
        assert_eq!((&killed["reason"], &killed["signal"]), (&json!("killed"), &json!("SIGKILL")));

        let exec = sandbox.background(json!({"cmd": ["sleep", "4733"]})).await;
        let id = id_of(&exec);
        sandbox.api.post(&sandbox.path(&format!("execs/{id}/signal")), &signal("TERM")).await.expect(204);
        let exit = follow(&sandbox, &id, None).await.pop().unwrap();
        assert_eq!((&exit["signal"], &exit["reason"]), (&json!("SIGTERM"), &json!("signalled")));
    });
}

#[test]
fn input_is_written_and_closed() {
    run(async {
        let sandbox = Sandbox::start().await;
        let exec = sandbox.background(json!({"cmd": "cat | sha256sum", "stdin": true})).await;
        let id = id_of(&exec);
        let body = vec![b'z'; 3 << 20];
        sandbox.post_bytes(&format!("execs/{id}/stdin"), body).await.expect(204);
        sandbox.post_bytes(&format!("execs/{id}/close-stdin"), "").await.expect(204);
        let events = follow(&sandbox, &id, None).await;
        let expected = sandbox.run("head -c 3145728 /dev/zero | tr '\\0' z | sha256sum").await;
        assert_eq!(text_of(&events, "stdout"), expected["stdout"].as_str().unwrap());
        let deaf = sandbox.background(json!({"cmd": "sleep 4741"})).await;
        let problem =
            sandbox.post_bytes(&format!("execs/{}/stdin", id_of(&deaf)), "x").await.problem(409, "invalid_state");
        assert!(problem["detail"].as_str().unwrap().contains("stdin"), "{problem:#}");
    });
}

#[test]
fn a_terminal_takes_input_and_size() {
    run(async {
        let sandbox = Sandbox::start().await;
        let exec = sandbox.background(json!({"pty": {"cols": 80, "rows": 24}})).await;
        let id = id_of(&exec);
        sandbox
            .api
            .post(&sandbox.path(&format!("execs/{id}/resize")), &json!({"cols": 132, "rows": 43}))
            .await
            .expect(204);
        sandbox.post_bytes(&format!("execs/{id}/stdin"), "stty size; echo $TERM; exit\n").await.expect(204);
        let text = text_of(&follow(&sandbox, &id, None).await, "pty");
        assert!(text.contains("43 132") && text.contains("xterm-256color"), "{text:?}");
        let plain = sandbox.background(json!({"cmd": "sleep 4751"})).await;
        let path = sandbox.path(&format!("execs/{}/resize", id_of(&plain)));
        sandbox.api.post(&path, &json!({"cols": 1, "rows": 1})).await.problem(409, "invalid_state");
    });
}

#[test]
fn a_team_runs_no_more_commands_than_it_may() {
    run(async {
        let sandbox = Sandbox::start().await;
        let admin = sandbox.stack.admin();
        let teams = admin.get("/v1/teams").await.expect(200);
        let dev = teams["items"].as_array().unwrap().iter().find(|team| team["name"] == "dev").unwrap()["id"].clone();
        let quota = json!({"quotas": {"max_execs": 2}});
        admin.patch(&format!("/v1/teams/{}", dev.as_str().unwrap()), &quota).await.expect(200);
        let first = sandbox.background(json!({"cmd": "sleep 4761"})).await;
        sandbox.background(json!({"cmd": "sleep 4762"})).await;
        // Another gateway may believe for a second what the quota was.
        let refused = crate::harness::eventually(async || {
            let answer = sandbox.exec(&json!({"cmd": "true"})).await;
            (answer.status != 200).then_some(answer)
        });
        let problem = refused.await.problem(429, "quota_exceeded");
        assert_eq!(problem["limit"], json!({"name": "max_execs", "value": 2, "used": 2}));
        sandbox.api.delete(&sandbox.path(&format!("execs/{}", id_of(&first)))).await.expect(204);
        crate::harness::eventually(async || {
            let answer = sandbox.exec(&json!({"cmd": "true"})).await;
            (answer.status == 200).then_some(())
        })
        .await;
    });
}

#[test]
fn the_end_of_the_instance_is_the_end_of_its_commands() {
    run(async {
        let sandbox = Sandbox::start().await;
        let exec = sandbox.background(json!({"cmd": "sleep 4771"})).await;
        let id = id_of(&exec);
        let following = follow(&sandbox, &id, None);
        let instance = format!("/v1/instances/{}", sandbox.id);
        let stopping = sandbox.api.delete(&instance);
        let (events, stopped) = tokio::join!(following, stopping);
        stopped.expect(204);
        assert_eq!(
            (&events.last().unwrap()["type"], &events.last().unwrap()["reason"]),
            (&json!("exit"), &json!("lost"))
        );
        assert_eq!(sandbox.get(&format!("execs/{id}")).await.expect(200)["status"], "lost");
    });
}

#[test]
fn another_replica_knows_the_command_and_can_act_on_it() {
    run(async {
        let sandbox = Sandbox::start().await;
        let exec = sandbox.background(json!({"cmd": "read line; echo \"$line\"; sleep 4781", "stdin": true})).await;
        let id = id_of(&exec);
        let (_app, url) = sandbox.stack.replica().await;
        let there = sandbox.api.at(&url);
        let path = sandbox.path(&format!("execs/{id}"));
        assert_eq!(there.get(&path).await.expect(200)["pid"], exec["pid"]);
        assert_eq!(there.get(&format!("{path}/output")).await.expect(200)["status"], "running");
        read(there.request(Method::POST, &format!("{path}/stdin")).body("hello\n")).await.expect(204);
        sandbox.until_runs("sleep 4781", true).await;
        there.delete(&path).await.expect(204);
        let events = follow(&sandbox, &id, None).await;
        assert_eq!(
            (text_of(&events, "stdout").as_str(), &events.last().unwrap()["signal"]),
            ("hello\n", &json!("SIGKILL"))
        );
    });
}

#[test]
fn a_command_that_ends_while_nobody_follows_it_is_lost_and_says_so() {
    run(async {
        let sandbox = Sandbox::start().await;
        let (app, url) = sandbox.stack.replica().await;
        let there = sandbox.api.at(&url);
        let spec = json!({"cmd": "echo before; sleep 4791", "background": true});
        let exec = there.post(&sandbox.path("exec"), &spec).await.expect(202);
        let id = id_of(&exec);
        sandbox.until_runs("sleep 4791", true).await;
        // Nobody can look for it until it is gone.
        sandbox.stack.fault(json!({"match": {"path": "/process.Process/Connect"}, "kind": "refuse"}));
        app.lifecycle.drain();
        sandbox.run(&format!("kill -9 -{}", exec["pid"])).await;
        sandbox.until_runs("sleep 4791", false).await;
        sandbox.stack.no_faults();
        let path = format!("execs/{id}");
        crate::harness::eventually(async || (sandbox.get(&path).await.expect(200)["status"] == "lost").then_some(()))
            .await;
        let events = follow(&sandbox, &id, None).await;
        let kinds: Vec<&Value> = events.iter().map(|event| &event["type"]).collect();
        assert_eq!(kinds, [&json!("started"), &json!("stdout"), &json!("gap"), &json!("exit")]);
        assert_eq!((&events[2]["reason"], &events[3]["reason"]), (&json!("owner_changed"), &json!("lost")));
    });
}
