//! Six languages, or an honest word about the kernel that is not there.

use serde_json::{Value, json};

use super::{Interpreter, sandbox::text};
use crate::harness::run;

#[test]
fn python_keeps_its_state_and_awaits() {
    run(async {
        let sandbox = Interpreter::start().await;
        sandbox.python("import asyncio\nasync def later():\n    await asyncio.sleep(0.01)\n    return 7").await;
        assert_eq!(text(&sandbox.run("python", "await later()").await), "7");
    });
}

#[test]
fn javascript_keeps_its_state_and_awaits() {
    run(async {
        let sandbox = Interpreter::start().await;
        let answer = sandbox.run("javascript", "const x = 5; console.log('out'); console.error('err'); x + 1").await;
        assert_eq!((text(&answer), &answer["stdout"], &answer["stderr"]), ("6", &json!("out\n"), &json!("err\n")));
        let code = "const y = await new Promise(done => setTimeout(() => done(x * 2), 10)); y";
        assert_eq!(text(&sandbox.run("javascript", code).await), "10");
        let answer = sandbox.run("javascript", "function f() { throw new TypeError('bad') }\nf()").await;
        assert_eq!((&answer["error"]["name"], &answer["error"]["value"]), (&json!("TypeError"), &json!("bad")));
        assert!(answer["error"]["traceback"].as_str().unwrap().contains("at f"), "{answer:#}");
        assert_eq!(text(&sandbox.run("javascript", "y + 1").await), "11", "the error did no harm");
        let rich = sandbox.run("javascript", "display({ _toHtml: () => '<b>' }); undefined").await;
        assert_eq!(rich["results"][0]["html"], "<b>");
    });
}

#[test]
fn bash_keeps_its_state_and_tells_exit_statuses() {
    run(async {
        let sandbox = Interpreter::start().await;
        let answer = sandbox.run("bash", "x=5; cd /tmp; echo out; echo err >&2").await;
        assert_eq!((&answer["stdout"], &answer["stderr"]), (&json!("out\n"), &json!("err\n")));
        assert_eq!(answer["error"], Value::Null);
        assert_eq!(sandbox.run("bash", "echo $x in $PWD; read line; echo end").await["stdout"], "5 in /tmp\nend\n");
        let answer = sandbox.run("bash", "echo so far\nls /no/such/place").await;
        assert_eq!((&answer["stdout"], &answer["error"]["value"]), (&json!("so far\n"), &json!("2")));
        let answer = sandbox.run("bash", "if then").await;
        assert!(answer["stderr"].as_str().unwrap().contains("syntax error"), "{answer:#}");
    });
}

/// The answer, or nothing where the sandbox says that it has no kernel.
async fn if_there_is_a_kernel(sandbox: &Interpreter, language: &str, code: &str) -> Option<Value> {
    let answer = sandbox.code(&json!({"code": code, "language": language, "timeout": "2m"})).await;
    if answer.status == 200 {
        return Some(answer.body);
    }
    let problem = answer.problem(502, "upstream_error");
    assert_eq!((&problem["errors"][0]["field"], &problem["retryable"]), (&json!("language"), &json!(false)));
    assert!(problem["detail"].as_str().unwrap().contains(language), "{problem:#}");
    assert_eq!(problem["sandbox"]["id"], sandbox.id.as_str());
    None
}

#[test]
fn typescript_runs_beside_javascript_where_types_can_be_removed() {
    run(async {
        let sandbox = Interpreter::start().await;
        sandbox.run("javascript", "const shared = 1").await;
        let code = "interface P { n: number }\nconst p: P = { n: 4 }; p.n";
        if let Some(answer) = if_there_is_a_kernel(&sandbox, "typescript", code).await {
            assert_eq!(text(&answer), "4");
            let answer = sandbox.run("typescript", "typeof shared").await;
            assert_eq!(text(&answer), "undefined", "its context is its own");
        }
    });
}

#[test]
fn java_runs_where_it_is_installed() {
    run(async {
        let sandbox = Interpreter::start().await;
        let code = "int x = 20;\nSystem.out.println(\"out\");\nx + 1";
        if let Some(answer) = if_there_is_a_kernel(&sandbox, "java", code).await {
            assert_eq!((text(&answer), &answer["stdout"]), ("21", &json!("out\n")));
            assert_eq!(text(&sandbox.run("java", "x * 2").await), "40");
            let answer = sandbox.run("java", "throw new IllegalStateException(\"bad\");").await;
            assert_eq!(answer["error"]["name"], "IllegalStateException");
            let answer = sandbox.run("java", "int y = \"text\";").await;
            assert_eq!(answer["error"]["name"], "CompileError");
        }
    });
}

#[test]
fn r_runs_where_it_is_installed() {
    run(async {
        let sandbox = Interpreter::start().await;
        if let Some(answer) = if_there_is_a_kernel(&sandbox, "r", "x <- 20\ncat('out\\n')\nx + 1").await {
            assert_eq!((text(&answer), &answer["stdout"]), ("[1] 21", &json!("out\n")));
            let answer = sandbox.run("r", "stop('bad')").await;
            assert!(answer["error"]["value"].as_str().unwrap().contains("bad"), "{answer:#}");
            assert_eq!(text(&sandbox.run("r", "x").await), "[1] 20");
        }
    });
}
