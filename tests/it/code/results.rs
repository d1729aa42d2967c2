//! What code shows, prints and raises.

use serde_json::{Value, json};

use super::{Interpreter, sandbox::text};
use crate::harness::{Options, run};

#[test]
fn a_value_output_and_the_count_of_runs_are_answered() {
    run(async {
        let sandbox = Interpreter::start().await;
        let answer = sandbox.python("import sys\nx = 20\nprint('out')\nprint('err', file=sys.stderr)\nx + 1").await;
        assert_eq!((&answer["stdout"], &answer["stderr"]), (&json!("out\n"), &json!("err\n")));
        assert_eq!(answer["results"], json!([{"text": "21", "is_main_result": true}]));
        assert_eq!((&answer["error"], &answer["execution_count"]), (&Value::Null, &json!(1)));
        assert_eq!((&answer["reason"], &answer["timed_out"]), (&json!("finished"), &json!(false)));
        let again = sandbox.python("x * 2").await;
        assert_eq!((text(&again), &again["execution_count"]), ("40", &json!(2)));
        assert_eq!(text(&sandbox.python("'quoted é😀'").await), "quoted é😀");
        assert_eq!(sandbox.python("y = 3").await["results"], json!([]));
    });
}

#[test]
fn an_error_has_a_name_a_value_and_a_traceback() {
    run(async {
        let sandbox = Interpreter::start().await;
        let answer = sandbox.python("print('before')\ndef f():\n    return 1 / 0\nf()").await;
        assert_eq!(answer["stdout"], "before\n");
        assert_eq!(answer["error"]["name"], "ZeroDivisionError");
        assert_eq!(answer["error"]["value"], "division by zero");
        let trace = answer["error"]["traceback"].as_str().unwrap();
        assert!(trace.contains("line 3, in f") && trace.contains("return 1 / 0"), "{trace}");
        assert!(!trace.contains("kernel.py"), "the driver stays out of it: {trace}");
        assert_eq!(answer["reason"], "finished");
        let syntax = sandbox.python("x y").await;
        assert_eq!(syntax["error"]["name"], "SyntaxError");
    });
}

const PICTURE: &str = r#"
import base64
PNG = base64.b64decode("iVBORw0KGgoAAAANSUhEUgAAAAEAAAABCAYAAAAfFcSJAAAADUlEQVR42mNk+M9QDwADhgGAWjR9awAAAABJRU5ErkJggg==")
class Chart:
    def _repr_png_(self):
        return PNG
    def _repr_html_(self):
        return "<b>chart</b>"
    def _repr_mimebundle_(self):
        return {"application/json": {"points": [1, 2]}, "e2b/chart": {"type": "line"}, "x/sound": "beep"}
    def __repr__(self):
        return "Chart()"
display(Chart())
Chart()
"#;

#[test]
fn pictures_html_and_data_come_through() {
    run(async {
        let sandbox = Interpreter::start().await;
        let answer = sandbox.python(PICTURE).await;
        let results = answer["results"].as_array().unwrap();
        let main: Vec<&Value> = results.iter().map(|result| &result["is_main_result"]).collect();
        assert_eq!(main, [&json!(false), &json!(true)], "{answer:#}");
        for result in results {
            assert_eq!((&result["text"], &result["html"]), (&json!("Chart()"), &json!("<b>chart</b>")));
            assert!(result["png"].as_str().unwrap().starts_with("iVBORw0KGgo"));
            assert_eq!((&result["json"]["points"], &result["chart"]["type"]), (&json!([1, 2]), &json!("line")));
            assert_eq!(result["extra"], json!({"x/sound": "beep"}));
        }
    });
}

#[test]
fn output_and_results_have_limits_that_are_told() {
    run(async {
        let options = Options::default().with("EXEC__OUTPUT_LIMIT", "1KiB").with("EXEC__MAX_OUTPUT_LIMIT", "4KiB");
        let sandbox = Interpreter::with(options, json!({})).await;
        let answer = sandbox.python("print('é' * 600); 'small'").await;
        assert_eq!(answer["stdout"].as_str().unwrap().len(), 1024);
        assert_eq!((&answer["truncated"], text(&answer)), (&json!(true), "small"));
        let spec = json!({"code": "print('x' * 100)", "output_limit": 10});
        let answer = sandbox.code(&spec).await.expect(200);
        assert_eq!((&answer["stdout"], &answer["truncated"]), (&json!("xxxxxxxxxx"), &json!(true)));
        let answer = sandbox.python("display('x' * 3000); display('y' * 3000); display('z')").await;
        let kept: Vec<usize> =
            answer["results"].as_array().unwrap().iter().map(|one| one["text"].as_str().unwrap().len()).collect();
        assert_eq!((kept, &answer["truncated"]), (vec![3000, 1], &json!(true)));
        assert_eq!(sandbox.python("1").await["truncated"], false);
    });
}

#[test]
fn the_environment_is_the_instances_and_for_one_run_the_requests() {
    run(async {
        let sandbox = Interpreter::with(Options::default(), json!({"env": {"A": "instance", "B": "instance"}})).await;
        let code = "import os\n[os.environ.get(name) for name in ('A', 'B', 'C', 'E2B_SANDBOX')]";
        let spec = json!({"code": code, "env": {"B": "run", "C": "x y"}});
        assert_eq!(text(&sandbox.code(&spec).await.expect(200)), "['instance', 'run', 'x y', 'true']");
        assert_eq!(text(&sandbox.python(code).await), "['instance', 'instance', None, 'true']");
        let spec = json!({"code": "echo $A $B $C", "language": "bash", "env": {"C": "it's"}});
        assert_eq!(sandbox.code(&spec).await.expect(200)["stdout"], "instance instance it's\n");
        let spec = json!({"code": "process.env.A + process.env.C", "language": "javascript", "env": {"C": "c"}});
        assert_eq!(text(&sandbox.code(&spec).await.expect(200)), "instancec");
    });
}

#[test]
fn code_runs_as_the_user_in_its_home_with_the_instances_files() {
    run(async {
        let sandbox = Interpreter::start().await;
        assert_eq!(text(&sandbox.python("import os\nos.getcwd()").await), "/home/user");
        sandbox.python("open('made', 'w').write('by code')").await;
        assert_eq!(sandbox.shell("cat made; whoami").await, "by codeuser\n");
        assert_eq!(sandbox.python("!whoami").await["stdout"], "user\n");
    });
}
