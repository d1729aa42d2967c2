//! Commands that are waited for.

use serde_json::{Value, json};

use super::Sandbox;
use crate::harness::{Options, run};

#[test]
fn a_command_answers_its_output_and_exit_code() {
    run(async {
        let sandbox = Sandbox::start().await;
        let result = sandbox.run("echo out; echo err >&2; exit 3").await;
        assert_eq!((&result["stdout"], &result["stderr"]), (&json!("out\n"), &json!("err\n")));
        assert_eq!((&result["exit_code"], &result["signal"]), (&json!(3), &Value::Null));
        assert_eq!((&result["reason"], &result["timed_out"]), (&json!("exited"), &json!(false)));
        assert_eq!((&result["truncated"], &result["error"]), (&json!(false), &Value::Null));
        assert!(result["pid"].as_u64().is_some_and(|pid| pid > 1), "{result:#}");
        let killed = sandbox.run("kill -USR1 $$").await;
        assert_eq!((&killed["exit_code"], &killed["signal"]), (&Value::Null, &json!("SIGUSR1")));
        assert_eq!(killed["reason"], "signalled");
    });
}

#[test]
fn a_list_of_arguments_runs_as_it_is() {
    run(async {
        let sandbox = Sandbox::start().await;
        let result = sandbox.exec(&json!({"cmd": ["printf", "%s|", "a b", "$HOME", "*"]})).await.expect(200);
        assert_eq!(result["stdout"], "a b|$HOME|*|");
        let unknown = sandbox.exec(&json!({"cmd": ["no-such-program"]})).await.expect(200);
        assert_eq!(unknown["exit_code"], 127);
    });
}

#[test]
fn user_directory_and_environment_are_what_was_asked_for() {
    run(async {
        let sandbox = Sandbox::with(Options::default(), json!({"env": {"A": "instance", "B": "instance"}})).await;
        let spec = json!({"cmd": "echo $PWD $A $B $C", "cwd": "/tmp", "env": {"B": "request", "C": "x y"}});
        assert_eq!(sandbox.exec(&spec).await.expect(200)["stdout"], "/tmp instance request x y\n");
        let spec = json!({"cmd": "whoami; echo $HOME; pwd", "user": "user"});
        assert_eq!(sandbox.exec(&spec).await.expect(200)["stdout"], "user\n/home/user\n/home/user\n");
        assert_eq!(sandbox.run("whoami").await["stdout"], "root\n");
        let row = sandbox.get("execs").await.expect(200);
        assert!(!row.to_string().contains("x y"), "the environment is not stored: {row:#}");
    });
}

#[test]
fn a_timeout_kills_the_process_with_its_children_and_says_so() {
    run(async {
        let sandbox = Sandbox::start().await;
        let spec = json!({"cmd": "echo begun; sleep 4711 & sleep 4712; echo never", "timeout": "1s"});
        let result = sandbox.exec(&spec).await.expect(200);
        assert_eq!((&result["timed_out"], &result["reason"]), (&json!(true), &json!("timeout")));
        assert_eq!((&result["exit_code"], &result["signal"]), (&Value::Null, &json!("SIGKILL")));
        assert_eq!(result["stdout"], "begun\n");
        assert!(result["duration_ms"].as_u64().is_some_and(|ms| (1000..3000).contains(&ms)), "{result:#}");
        assert!(!sandbox.runs("sleep 471").await, "its children are gone too");
    });
}

#[test]
fn a_process_that_left_its_group_holds_nobody_up() {
    run(async {
        let sandbox = Sandbox::start().await;
        let spec = json!({"cmd": "setsid sleep 4713 & sleep 0.2; sleep 4714", "timeout": 1});
        let result = sandbox.exec(&spec).await.expect(200);
        assert_eq!(result["reason"], "timeout");
        assert!(result["duration_ms"].as_u64().is_some_and(|ms| ms < 4000), "{result:#}");
    });
}

#[test]
fn output_that_is_no_text_is_told_in_base64_and_too_much_is_cut() {
    run(async {
        let sandbox = Sandbox::start().await;
        let result = sandbox.run(r"printf '\xff\xfe'; printf 'é' >&2").await;
        assert_eq!((&result["stdout"], &result["stdout_encoding"]), (&json!("//4="), &json!("base64")));
        assert_eq!((&result["stderr"], &result["stderr_encoding"]), (&json!("é"), &Value::Null));
        let spec = json!({"cmd": "printf 'éééééééé'; echo whole >&2", "output_limit": 5});
        let cut = sandbox.exec(&spec).await.expect(200);
        assert_eq!((&cut["stdout"], &cut["stderr"], &cut["truncated"]), (&json!("éé"), &json!("whole"), &json!(true)));
        let much = sandbox.run("head -c 3000000 /dev/zero | tr '\\0' x").await;
        assert_eq!((much["stdout"].as_str().unwrap().len(), &much["truncated"]), (1 << 20, &json!(true)));
        assert_eq!(much["exit_code"], 0);
    });
}

#[test]
fn input_is_empty_unless_asked_for() {
    run(async {
        let sandbox = Sandbox::start().await;
        assert_eq!(sandbox.run("cat; echo done").await["stdout"], "done\n");
    });
}

#[test]
fn what_is_wrong_with_a_request_is_named() {
    run(async {
        let sandbox = Sandbox::start().await;
        let cases = [
            (json!({}), "cmd"),
            (json!({"cmd": 1}), "cmd"),
            (json!({"cmd": ""}), "cmd"),
            (json!({"cmd": []}), "cmd"),
            (json!({"cmd": "a\u{0}b"}), "cmd"),
            (json!({"cmd": ["a", "b\u{0}"]}), "cmd[1]"),
            (json!({"cmd": "true", "user": "a:b"}), "user"),
            (json!({"cmd": "true", "user": "nobody-of-that-name"}), "user"),
            (json!({"cmd": "true", "cwd": "/no/such/place"}), "cwd"),
            (json!({"cmd": "true", "cwd": "/a\u{0}"}), "cwd"),
            (json!({"cmd": "true", "env": {"A": "\u{0}"}}), "env.A"),
            (json!({"cmd": "true", "env": {"A": 1}}), "env.A"),
            (json!({"cmd": "true", "env": {"A=B": ""}}), "env"),
            (json!({"cmd": "true", "timeout": 0}), "timeout"),
            (json!({"cmd": "true", "timeout": "25h"}), "timeout"),
            (json!({"cmd": "true", "timeout": "soon"}), "timeout"),
            (json!({"cmd": "true", "pty": {"cols": 0, "rows": 1}}), "pty.cols"),
            (json!({"cmd": "true", "pty": {"cols": 80}}), "pty.rows"),
            (json!({"cmd": "true", "output_limit": 1u64 << 40}), "output_limit"),
            (json!({"cmd": "true", "tag": ""}), "tag"),
            (json!({"pty": {"cols": 80, "rows": 24}, "durable": true}), "durable"),
            (json!({"cmd": "true", "shell": "zsh"}), "shell"),
        ];
        for (body, field) in cases {
            let problem = sandbox.exec(&body).await.problem(422, "validation_failed");
            assert_eq!(problem["errors"][0]["field"], field, "{body}: {problem:#}");
        }
    });
}

#[test]
fn a_command_needs_a_running_instance_of_ones_own_team() {
    run(async {
        let sandbox = Sandbox::start().await;
        let other = sandbox.stack.team("other").await;
        let (path, spec) = (sandbox.path("exec"), json!({"cmd": "true"}));
        other.post(&path, &spec).await.problem(404, "not_found");
        other.get(&sandbox.path("execs")).await.problem(404, "not_found");
        sandbox.api.delete(&format!("/v1/instances/{}", sandbox.id)).await.expect(204);
        let problem = sandbox.api.post(&path, &spec).await.problem(409, "invalid_state");
        assert_eq!((&problem["sandbox"]["id"], &problem["retryable"]), (&json!(sandbox.id), &json!(false)));
        assert_eq!(problem["sandbox"]["status"], "STOPPED");
    });
}
