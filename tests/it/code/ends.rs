//! Code that does not end by itself.

use futures_util::StreamExt;
use serde_json::{Value, json};

use super::{
    Interpreter,
    sandbox::{events, text},
};
use crate::harness::{Options, eventually, run};

const LINES: &str = "application/x-ndjson";
/// Leaves a mark when it begins and another when it is interrupted.
const LONG: &str = "import time\nkept = 1\nopen('begun', 'w').close()\ntry:\n    time.sleep(600)\nfinally:\n    open('ended', 'w').close()";

#[test]
fn a_timeout_interrupts_and_the_context_lives_on() {
    run(async {
        let sandbox = Interpreter::start().await;
        let spec = json!({"code": format!("print('so far')\n{LONG}"), "timeout": "1s"});
        let answer = sandbox.code(&spec).await.expect(200);
        assert_eq!((&answer["timed_out"], &answer["reason"]), (&json!(true), &json!("timeout")));
        assert_eq!((&answer["stdout"], &answer["error"]["name"]), (&json!("so far\n"), &json!("Timeout")));
        assert!(answer["duration_ms"].as_u64().is_some_and(|ms| (1000..3000).contains(&ms)), "{answer:#}");
        sandbox.until_file("ended").await;
        assert_eq!(text(&sandbox.python("kept").await), "1");
        let streamed = sandbox.stream(&json!({"code": "time.sleep(600)", "timeout": 1}), LINES).await;
        let events = events(&streamed.text().await.unwrap());
        let exit = events.last().unwrap();
        assert_eq!((&exit["type"], &exit["reason"]), (&json!("exit"), &json!("timeout")));
        assert!(exit["error"].as_str().unwrap().contains("1 s"), "{exit:#}");
        assert_eq!(text(&sandbox.python("kept + 1").await), "2");
    });
}

#[test]
fn every_language_heeds_an_interrupt() {
    run(async {
        let sandbox = Interpreter::start().await;
        for (language, forever, after, expected) in [
            ("python", "while True: pass", "1 + 1", "2"),
            ("javascript", "while (true) {}", "1 + 1", "2"),
            ("javascript", "await new Promise(done => setTimeout(done, 600000))", "1 + 2", "3"),
            ("java", "while (true) {}", "1 + 1", "2"),
        ] {
            let spec = json!({"code": forever, "language": language, "timeout": "5s"});
            let answer = sandbox.code(&spec).await;
            if answer.status == 502 && language == "java" {
                continue;
            }
            assert_eq!(answer.expect(200)["timed_out"], true, "{language}");
            assert_eq!(text(&sandbox.run(language, after).await), expected, "{language}");
        }
        let spec = json!({"code": "x=1; sleep 600; echo never", "language": "bash", "timeout": "2s"});
        let answer = sandbox.code(&spec).await.expect(200);
        assert_eq!((&answer["timed_out"], &answer["stdout"]), (&json!(true), &json!("")));
        assert_eq!(sandbox.run("bash", "echo $x").await["stdout"], "1\n");
    });
}

#[test]
fn whoever_hangs_up_interrupts_the_code() {
    run(async {
        let sandbox = Interpreter::start().await;
        let mut stream = sandbox.stream(&json!({"code": LONG}), LINES).await.bytes_stream();
        stream.next().await.unwrap().unwrap();
        sandbox.until_file("begun").await;
        drop(stream);
        sandbox.until_file("ended").await;
        sandbox.shell("rm begun ended").await;
        let spec = json!({"code": LONG});
        tokio::select! {
            answer = sandbox.code(&spec) => panic!("it ended: {answer:?}"),
            () = sandbox.until_file("begun") => {}
        }
        sandbox.until_file("ended").await;
        assert_eq!(text(&sandbox.python("kept").await), "1");
    });
}

#[test]
fn runs_of_one_context_wait_for_each_other_and_those_of_two_do_not() {
    run(async {
        let sandbox = Interpreter::start().await;
        let other = sandbox.api.post(&sandbox.path("contexts"), &json!({})).await.expect(201);
        let first = sandbox.stream(&json!({"code": LONG}), LINES).await;
        sandbox.until_file("begun").await;
        let beside = json!({"code": "'beside'", "context_id": other["id"]});
        assert_eq!(text(&sandbox.code(&beside).await.expect(200)), "beside");
        let waiting = sandbox.code(&json!({"code": "'waited'", "timeout": "1s"})).await.expect(200);
        assert_eq!((&waiting["timed_out"], &waiting["execution_count"]), (&json!(true), &Value::Null));
        drop(first);
        assert_eq!(text(&sandbox.python("'after'").await), "after");
    });
}

#[test]
fn a_kernel_that_ends_is_told_and_replaced() {
    run(async {
        let sandbox = Interpreter::start().await;
        sandbox.python("x = 1").await;
        let answer = sandbox.python("import os\nprint('last words', flush=True)\nos._exit(3)").await;
        assert_eq!(answer["error"]["name"], "UnexpectedEndOfExecution", "{answer:#}");
        assert_eq!((&answer["stdout"], &answer["reason"]), (&json!("last words\n"), &json!("finished")));
        assert_eq!(sandbox.python("x").await["error"]["name"], "NameError");
    });
}

#[test]
fn an_instance_that_stops_is_told() {
    run(async {
        let sandbox = Interpreter::start().await;
        let mut stream = sandbox.stream(&json!({"code": "import time\ntime.sleep(600)"}), LINES).await.bytes_stream();
        stream.next().await.unwrap().unwrap();
        sandbox.api.delete(&format!("/v1/instances/{}", sandbox.id)).await.expect(204);
        let mut rest = String::new();
        while let Some(chunk) = stream.next().await {
            rest.push_str(std::str::from_utf8(&chunk.unwrap()).unwrap());
        }
        let events = events(&rest);
        assert_eq!(events.last().unwrap()["reason"], "lost", "{events:?}");
        let problem = sandbox.code(&json!({"code": "1"})).await.problem(409, "invalid_state");
        assert_eq!(problem["sandbox"]["status"], "STOPPED");
    });
}

#[test]
fn runs_count_against_the_teams_quota() {
    run(async {
        let sandbox = Interpreter::start().await.at_one_gateway();
        let team = sandbox.api.get("/v1/me").await.expect(200)["team"]["id"].as_str().unwrap().to_owned();
        let quotas = json!({"quotas": {"max_execs": 1}});
        let admin = sandbox.stack.admin().at(&sandbox.stack.url);
        admin.patch(&format!("/v1/teams/{team}"), &quotas).await.expect(200);
        let first = sandbox.stream(&json!({"code": "import time\ntime.sleep(600)"}), LINES).await;
        let refused = sandbox.code(&json!({"code": "1", "language": "bash"})).await.problem(429, "quota_exceeded");
        assert_eq!(refused["limit"], json!({"name": "max_execs", "value": 1, "used": 1}));
        drop(first);
        eventually(async || (sandbox.code(&json!({"code": "1"})).await.status == 200).then_some(())).await;
    });
}

#[test]
fn runs_and_commands_share_the_limit_of_an_instance() {
    run(async {
        let options = Options::default().with("EXEC__MAX_PER_INSTANCE", "2");
        let sandbox = Interpreter::with(options, json!({})).await.at_one_gateway();
        let command = json!({"cmd": "sleep 4851", "background": true});
        let exec = sandbox.api.post(&sandbox.path("exec"), &command).await.expect(202);
        let first = sandbox.stream(&json!({"code": "import time\ntime.sleep(600)"}), LINES).await;
        let limit = json!({"name": "max_execs_per_instance", "value": 2, "used": 2});
        let refused = sandbox.code(&json!({"code": "1", "language": "bash"})).await.problem(429, "quota_exceeded");
        assert_eq!(refused["limit"], limit);
        let refused = sandbox.api.post(&sandbox.path("exec"), &command).await.problem(429, "quota_exceeded");
        assert_eq!(refused["limit"], limit);
        drop(first);
        eventually(async || (sandbox.code(&json!({"code": "1"})).await.status == 200).then_some(())).await;
        sandbox.api.delete(&sandbox.path(&format!("execs/{}", exec["id"].as_str().unwrap()))).await.expect(204);
    });
}
