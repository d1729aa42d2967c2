//! Contexts: kernels with a state of their own.

use http::Method;
use serde_json::{Value, json};

use super::{Interpreter, sandbox::text};
use crate::harness::run;

async fn create(sandbox: &Interpreter, body: Value) -> String {
    let context = sandbox.api.post(&sandbox.path("contexts"), &body).await.expect(201);
    context["id"].as_str().expect("an id").to_owned()
}

async fn run_in(sandbox: &Interpreter, context: &str, code: &str) -> Value {
    sandbox.code(&json!({"code": code, "context_id": context})).await.expect(200)
}

#[test]
fn each_context_has_a_state_of_its_own() {
    run(async {
        let sandbox = Interpreter::start().await;
        let (one, two) = (create(&sandbox, json!({})).await, create(&sandbox, json!({"language": "python"})).await);
        for (context, value) in [(&one, 1), (&two, 2)] {
            run_in(&sandbox, context, &format!("x = {value}")).await;
        }
        assert_eq!(text(&run_in(&sandbox, &one, "x").await), "1");
        assert_eq!(text(&run_in(&sandbox, &two, "x").await), "2");
        assert_eq!(sandbox.python("x").await["error"]["name"], "NameError");
    });
}

#[test]
fn contexts_are_listed_with_the_default_ones_first() {
    run(async {
        let sandbox = Interpreter::start().await;
        let made = sandbox.api.post(&sandbox.path("contexts"), &json!({"language": "bash", "cwd": "/tmp"})).await;
        let made = made.expect(201);
        assert_eq!((&made["language"], &made["cwd"]), (&json!("bash"), &json!("/tmp")));
        sandbox.run("bash", "true").await;
        let listed = sandbox.api.get(&sandbox.path("contexts")).await.expect(200);
        let languages: Vec<&Value> = listed["items"].as_array().unwrap().iter().map(|one| &one["language"]).collect();
        assert_eq!(languages, [&json!("python"), &json!("javascript"), &json!("bash"), &json!("bash")], "{listed:#}");
        assert_eq!((&listed["items"][2], &listed["items"][0]["cwd"]), (&made, &json!("/home/user")));
        assert_eq!(listed["next_cursor"], Value::Null);
        let id = made["id"].as_str().unwrap();
        assert_eq!(run_in(&sandbox, id, "pwd").await["stdout"], "/tmp\n");
    });
}

#[test]
fn a_restart_forgets_and_breaks_off_what_runs() {
    run(async {
        let sandbox = Interpreter::start().await;
        let id = create(&sandbox, json!({})).await;
        run_in(&sandbox, &id, "x = 1").await;
        let spec = json!({"code": "import time\nopen('begun', 'w').close()\ntime.sleep(600)", "context_id": id});
        let restart = async {
            sandbox.until_file("begun").await;
            let path = sandbox.path(&format!("contexts/{id}/restart"));
            sandbox.api.post(&path, &Value::Null).await.expect(204);
        };
        let (broken, ()) = tokio::join!(sandbox.code(&spec), restart);
        assert_eq!(broken.expect(200)["error"]["name"], "ContextRestarting");
        let answer = run_in(&sandbox, &id, "x").await;
        assert_eq!(answer["error"]["value"], "name 'x' is not defined");
        assert_eq!(answer["execution_count"], 1);
    });
}

#[test]
fn what_is_deleted_is_gone() {
    run(async {
        let sandbox = Interpreter::start().await;
        let id = create(&sandbox, json!({})).await;
        let path = sandbox.path(&format!("contexts/{id}"));
        sandbox.api.delete(&path).await.expect(204);
        let (restart, spec) = (format!("{path}/restart"), json!({"code": "1", "context_id": id}));
        sandbox.api.delete(&path).await.problem(404, "not_found");
        sandbox.api.post(&restart, &Value::Null).await.problem(404, "not_found");
        let problem = sandbox.code(&spec).await.problem(404, "not_found");
        assert!(problem["detail"].as_str().unwrap().contains("context"), "{problem:#}");
        for strange in ["..", "a%2Fb", "%00", "é"] {
            let path = sandbox.path(&format!("contexts/{strange}"));
            let answer = crate::harness::read(sandbox.api.request(Method::DELETE, &path)).await;
            assert!(matches!(answer.status.as_u16(), 404 | 405), "{strange}: {answer:?}");
        }
    });
}

#[test]
fn what_is_wrong_with_a_context_is_named() {
    run(async {
        let sandbox = Interpreter::start().await;
        let path = sandbox.path("contexts");
        for (body, field) in [
            (json!({"language": "cobol"}), "language"),
            (json!({"language": 1}), "language"),
            (json!({"cwd": ""}), "cwd"),
            (json!({"cwd": "/a\u{0}"}), "cwd"),
            (json!({"shell": "zsh"}), "shell"),
        ] {
            let problem = sandbox.api.post(&path, &body).await.problem(422, "validation_failed");
            assert_eq!(problem["errors"][0]["field"], field, "{body}: {problem:#}");
        }
        let problem =
            sandbox.api.post(&path, &json!({"cwd": "/no/such/place"})).await.problem(422, "validation_failed");
        assert_eq!(problem["errors"][0]["field"], "cwd");
    });
}
